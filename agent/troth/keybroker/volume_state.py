# SPDX-License-Identifier: Apache-2.0
"""Whether a guest gets a volume's key, and what its commit changes: values in, values out.

Serves ``keybroker.release``, which keeps what comes out in one transaction. A
volume is new, then being formatted by one guest, then in use with a generation
that only ever goes up by one. A guest is its REPORT_ID: one launch, whatever it
says of itself. Must never read a clock or a database; must never give one guest
a key twice, but to the same key of its own within moments, where the answer may
have been lost (source: SECURITY S6, S9, S10).
"""

from __future__ import annotations

from troth.record import record, replace

NEW, FORMATTING, IN_USE = "new", "formatting", "in-use"
STATES = (NEW, FORMATTING, IN_USE)

REPEAT_S = 60
"""How long the same guest with the same key is answered again."""
LEASE_S = 60
FORMAT_S = 900
"""How long one guest has to format before another may begin anew."""

RELEASED = "released"
REPEATED = "released-again"
FINISHED = "boot-finished"
ALREADY = "released-already"
LEASED = "volume-leased"
BEING_FORMATTED = "volume-formatting"

COMMITTED = "committed"
COMMITTED_ALREADY = "committed-already"
NOT_HOLDER = "commit-not-holder"
WRONG_GENERATION = "commit-generation"


@record
class Volume:
    """What is kept of a volume beside its key. Times are seconds since 1970.

    ``generation``, ``record``: of the last committed record (SHA-256 in hex, "" at
    generation 0); ``committer``: whose commit that was; ``holder``: the guest that
    got the key last; ``until``: the end of its lease, or in ``FORMATTING`` of the
    time it has to format; ``lease_s``, ``format_s``: how long these are;
    ``taken_over``: how often another guest got the key after a lease ended, each
    a boot anew or a clone.
    """

    state: str = NEW
    generation: int = 0
    record: str = ""
    committer: bytes = b""
    holder: bytes = b""
    until: int = 0
    lease_s: int = LEASE_S
    format_s: int = FORMAT_S
    taken_over: int = 0


@record
class Guest:
    """Who asks: its launch, and the SHA-256 of the key that the answer is encrypted to.

    ``finished``: whether it said that its boot is over.
    """

    report_id: bytes
    key_sha256: bytes
    finished: bool = False


@record
class Release:
    """An earlier release to one guest: to which key, when."""

    key_sha256: bytes
    at: int


@record
class Decision:
    """``code``: one of the constants above; ``volume``: what is to be kept, the same where nothing
    changed; ``over``: the guest that had the volume before, where another took it over.
    """  # noqa: D205 - the fields are the summary

    code: str
    volume: Volume
    over: bytes = b""

    @property
    def good(self) -> bool:
        """Whether what was asked for is done."""
        return self.code in (RELEASED, REPEATED, COMMITTED, COMMITTED_ALREADY)


def once(guest: Guest, earlier: Release | None, now: int) -> str:
    """``RELEASED``, ``REPEATED``, or why a guest gets nothing, by what it got ``earlier``.

    This much holds for every resource, and all of it for those that are no volume.
    """
    if guest.finished:
        return FINISHED
    if earlier is None:
        return RELEASED
    # A clock that was set back makes no release younger than it is.
    same = earlier.key_sha256 == guest.key_sha256 and 0 <= now - earlier.at <= REPEAT_S
    return REPEATED if same else ALREADY


def held_s(volume: Volume, now: int) -> int:
    """For how many seconds no other guest gets the key; 0: the next one does.

    Never longer than a lease from now: the end may be of a clock that was years ahead, and
    whoever is refused leaves the nearer end behind.
    """
    lasts = volume.format_s if volume.state == FORMATTING else volume.lease_s
    return max(0, min(volume.until - now, lasts)) if volume.holder else 0


def release(volume: Volume, guest: Guest, earlier: Release | None, now: int) -> Decision:
    """Whether ``guest`` gets the key; ``earlier``: its own release of this volume, if any."""
    code = once(guest, earlier, now)
    if code not in (RELEASED, REPEATED):
        return Decision(code, volume)
    if code == REPEATED:
        # The answer must be the one that was lost: not after it was acted upon, nor taken over.
        still = volume.holder == guest.report_id and volume.committer != guest.report_id
        return Decision(REPEATED if still else ALREADY, volume)
    other = bool(volume.holder) and volume.holder != guest.report_id
    left_s = held_s(volume, now)
    if other and left_s:
        code = BEING_FORMATTED if volume.state == FORMATTING else LEASED
        return Decision(code, replace(volume, until=now + left_s))
    state = IN_USE if volume.state == IN_USE else FORMATTING
    lasts = volume.lease_s if state == IN_USE else volume.format_s
    changed = replace(
        volume,
        state=state,
        holder=guest.report_id,
        until=now + lasts,
        taken_over=volume.taken_over + other,
    )
    return Decision(RELEASED, changed, volume.holder if other else b"")


def commit(volume: Volume, guest: Guest, generation: int, digest: str, now: int) -> Decision:
    """What a commit of record ``digest`` (SHA-256 in hex) with ``generation`` changes.

    A lease that ran out is held on to until another guest takes it.
    """
    if guest.finished:
        return Decision(FINISHED, volume)
    if volume.state == NEW or volume.holder != guest.report_id:
        return Decision(NOT_HOLDER, volume)
    told = (generation, digest) == (volume.generation, volume.record)
    if volume.state == IN_USE and told and volume.committer == guest.report_id:
        return Decision(COMMITTED_ALREADY, volume)
    if generation != volume.generation + 1:
        return Decision(WRONG_GENERATION, volume)
    changed = replace(
        volume,
        state=IN_USE,
        generation=generation,
        record=digest,
        committer=guest.report_id,
        until=now + volume.lease_s,
    )
    return Decision(COMMITTED, changed)
