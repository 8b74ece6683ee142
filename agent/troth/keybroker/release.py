# SPDX-License-Identifier: Apache-2.0
"""Keys released, commits taken, boots ended: each one transaction.

Serves ``keybroker.routes``, for guests whose evidence was good. The rules are those
of ``keybroker.volume_state``; the state they are asked about is read and written
in the same transaction, and what is decided is told to the audit log before it is
final. So of two that ask at once one is second, and a broker that is killed after
its decision has made it. Must never release for a class that is not active now,
whatever it was when its guest was judged (SECURITY S6, S10, S21).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.documents import volume_key
from troth.keybroker import classes, resources, volume_state
from troth.keybroker.volume_state import Guest, Release
from troth.record import record, replace

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from troth.keybroker.resources import Resource
    from troth.keybroker.store import Store

MISSING = "resource-missing"
NOT_GRANTED = "resource-not-granted"
NOT_ACTIVE = "class-not-active"
NO_VOLUME = "resource-no-volume"


@record
class Attested:
    """A guest whose evidence was good: its class, its launch, and the SHA-256 of the key that
    answers are encrypted to.
    """  # noqa: D205 - the fields are the summary

    image: str
    svn: int
    report_id: bytes
    key_sha256: bytes


@record
class Outcome:
    """``code``: a constant of this module or of ``volume_state``; ``path``: of the resource;
    ``payload``: what is released, b"" where nothing is; ``state``, ``generation``: of a volume;
    ``over``: REPORT_ID of the guest that had it before.
    """  # noqa: D205 - the fields are the summary

    code: str
    path: str
    payload: bytes = b""
    state: str = ""
    generation: int = 0
    over: bytes = b""

    def __repr__(self) -> str:
        return f"Outcome({self.code}, {self.path})"

    @property
    def good(self) -> bool:
        """Whether what was asked for is done."""
        return self.code in _GOOD


_GOOD = (
    volume_state.RELEASED,
    volume_state.REPEATED,
    volume_state.COMMITTED,
    volume_state.COMMITTED_ALREADY,
)

if TYPE_CHECKING:
    Told = Callable[[Outcome], None]


def release(store: Store, guest: Attested, path: str, *, at: int, told: Told) -> Outcome:
    """What ``guest`` gets of the resource ``path`` at ``at`` (seconds since 1970).

    ``told``: is called with the outcome before it is final; where it raises, nothing
    was released.
    """
    with store.transaction() as rows:
        outcome = _released(store, rows, guest, path=path, at=at)
        told(outcome)
    return outcome


def release_volume(store: Store, guest: Attested, uuid: str, *, at: int, told: Told) -> Outcome:
    """As ``release``, of the volume with that UUID."""
    with store.reading() as rows:
        path = resources.path_of_volume(rows, uuid)
    return release(store, guest, path or f"volume {uuid}", at=at, told=told)


def commit(
    store: Store,
    guest: Attested,
    path: str,
    *,
    generation: int,
    digest: str,
    at: int,
    told: Told,
) -> Outcome:
    """Take the commit of a volume's record: its ``generation``, and its SHA-256 in hex."""
    with store.transaction() as rows:
        found = resources.find(rows, path)
        code = _refusal(rows, guest, found)
        if not code and (found is None or found.volume is None):
            code = NO_VOLUME
        outcome = Outcome(code, path)
        if not code and found is not None and found.volume is not None:
            decision = volume_state.commit(
                found.volume, _guest(rows, guest), generation, digest, at
            )
            if decision.volume != found.volume:
                resources.put(rows, path, decision.volume)
            outcome = Outcome(
                decision.code,
                path,
                state=decision.volume.state,
                generation=decision.volume.generation,
            )
        told(outcome)
    return outcome


def commit_volume(
    store: Store,
    guest: Attested,
    uuid: str,
    *,
    generation: int,
    digest: str,
    at: int,
    told: Told,
) -> Outcome:
    """As ``commit``, of the volume with that UUID."""
    with store.reading() as rows:
        path = resources.path_of_volume(rows, uuid) or f"volume {uuid}"
    return commit(store, guest, path, generation=generation, digest=digest, at=at, told=told)


def finish(store: Store, report_id: bytes, *, at: int) -> None:
    """The boot of ``report_id`` is over: it gets nothing any more."""
    with store.transaction() as rows:
        rows.execute("INSERT OR IGNORE INTO finished VALUES (?, ?)", (report_id, at))


def is_finished(rows: sqlite3.Connection, report_id: bytes) -> bool:
    """Whether the boot of ``report_id`` is over."""
    found = rows.execute("SELECT 1 FROM finished WHERE report_id = ?", (report_id,)).fetchone()
    return found is not None


def barred(rows: sqlite3.Connection, guest: Attested) -> str:
    """Why ``guest`` gets nothing any more, whatever it asks for, or ""."""
    if classes.state_of(rows, guest.image, guest.svn) != classes.ACTIVE:
        return NOT_ACTIVE
    return volume_state.FINISHED if is_finished(rows, guest.report_id) else ""


def _released(
    store: Store, rows: sqlite3.Connection, guest: Attested, *, path: str, at: int
) -> Outcome:
    found = resources.find(rows, path)
    refusal = _refusal(rows, guest, found)
    if refusal or found is None:
        return Outcome(refusal, path)
    asks, earlier = _guest(rows, guest), _earlier(rows, guest.report_id, path)
    if found.volume is None:
        code = volume_state.once(asks, earlier, at)
        outcome = Outcome(code, path)
    else:
        decision = volume_state.release(found.volume, asks, earlier, at)
        volume = decision.volume
        if volume != found.volume:
            resources.put(rows, path, volume)
        outcome = Outcome(
            decision.code,
            path,
            state=volume.state,
            generation=volume.generation,
            over=decision.over,
        )
        found = replace(found, volume=volume)
    if not outcome.good:
        return outcome
    if outcome.code == volume_state.RELEASED:
        rows.execute(
            "INSERT INTO releases VALUES (?, ?, ?, ?, ?, ?)",
            (guest.report_id, path, guest.key_sha256, at, guest.image, guest.svn),
        )
    return replace(outcome, payload=_payload(store, found))


def _refusal(rows: sqlite3.Connection, guest: Attested, found: Resource | None) -> str:
    """Why ``guest`` has nothing to do with what was ``found``, or ""."""
    if classes.state_of(rows, guest.image, guest.svn) != classes.ACTIVE:
        return NOT_ACTIVE
    if found is None:
        return MISSING
    if guest.image not in found.images:
        return NOT_GRANTED
    return ""


def _payload(store: Store, found: Resource) -> bytes:
    secret = store.unseal(found.kept, purpose=resources.purpose(found.path))
    volume = found.volume
    if volume is None:
        return secret
    state = volume_key.IN_USE if volume.state == volume_state.IN_USE else volume_key.FORMATTING
    return volume_key.print_(
        volume_key.VolumeKey(
            found.uuid, found.profile, secret, state, volume.generation, volume.record
        )
    )


def _guest(rows: sqlite3.Connection, guest: Attested) -> Guest:
    return Guest(guest.report_id, guest.key_sha256, is_finished(rows, guest.report_id))


def _earlier(rows: sqlite3.Connection, report_id: bytes, path: str) -> Release | None:
    row = rows.execute(
        "SELECT key_sha256, at FROM releases WHERE report_id = ? AND path = ?", (report_id, path)
    ).fetchone()
    return None if row is None else Release(bytes(row[0]), row[1])
