# SPDX-License-Identifier: Apache-2.0
"""An event log replayed, and held against the boots that reference values predict.

Serves ``verify.evidence``. Every digest that is believed was recomputed from its
content. Records that cannot be recomputed count for the sums, and what they say
is never looked at: a rule that read it would be the guest's own. Must never
accept a boot event twice, out of its order, or behind the end of the boot.

Source: DESIGN section 5, the PCR table; SECURITY S26, S29; docs/formats.md,
"Event log".
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from troth.documents import event_log, event_log_json
from troth.documents.event_log import (
    CAP,
    CAP_CONTENT,
    CAPPED_PCRS,
    CMDLINE,
    ENTER_INITRD,
    INSTANCE,
    LEAVE_INITRD,
    PCR_OF,
    PHASE,
    POLICY,
    REFUSED,
    TPM_ABSENT,
    VERITY,
    WORKLOAD,
)
from troth.documents.reference_values import REFUSED as REFUSED_INSTANCE
from troth.documents.reference_values import REQUIRED as REQUIRED_INSTANCE
from troth.measure import pcr, register
from troth.record import record, replace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from troth.documents.event_log import Event
    from troth.documents.event_log_json import Record
    from troth.documents.reference_values import Case, ReferenceValues

#: Events of a launch, not of an image: no reference value predicts them, only their place.
KEY_EVENTS = ("key-release", *event_log_json.KEYED)
KEY_PCR = 15
BOOT_KINDS = (POLICY, CMDLINE, VERITY, PHASE, INSTANCE, *KEY_EVENTS, WORKLOAD, CAP, REFUSED,
              TPM_ABSENT)  # fmt: skip
BOOT_PCRS = tuple(sorted(set(PCR_OF.values()) | set(CAPPED_PCRS)))

_SHOWN = 120


@record
class Expected:
    """One event of a good boot; ``digest``: SHA-256 of its content; ``shown``: for people."""

    kind: str
    pcr: int
    digest: bytes
    shown: str
    volume: str = ""


@record
class Difference:
    """The first event that no accepted boot has there: its ``position`` in the log, its ``kind``
    and ``volume`` ("" where it is of none), and what was expected and found.
    """  # noqa: D205 - the fields are the summary

    position: int
    kind: str
    volume: str
    expected: str
    observed: str

    @property
    def place(self) -> str:
        """Where, in words."""
        of = f" of volume {self.volume}" if self.volume else ""
        return f"record {self.position}, {self.kind}{of}"


@record
class Replay:
    """A log replayed. ``pcrs``: (bank, PCR) to value, in the banks that every record has;
    ``software``: the software register.
    """  # noqa: D205 - the fields are the summary

    records: tuple[Record, ...]
    pcrs: Mapping[tuple[str, int], bytes]
    software: bytes

    @property
    def banks(self) -> tuple[str, ...]:
        """The banks that can be replayed, in order."""
        return tuple(dict.fromkeys(bank for bank, _index in self.pcrs))


@record
class Boot:
    """How a log compares: with ``case``, None where none fits; ``difference`` None where it does.

    ``runtime``: records that came after the boot; ``unverified``: how many records
    nobody can read.
    """

    case: Case | None
    difference: Difference | None
    runtime: int
    unverified: int


def replay(data: bytes, *, where: str = "event log") -> Replay:
    """The log ``data`` replayed. Raises ``FormatError`` as ``event_log_json.read``."""
    records = event_log_json.read(data, where=where)
    events = tuple(item.event for item in records)
    return Replay(records, pcr.replay(events), register.replay(events))


def software_at(replayed: Replay, count: int) -> bytes:
    """The software register after the first ``count`` records."""
    return register.replay(item.event for item in replayed.records[:count])


def expected_boot(values: ReferenceValues, case: Case) -> tuple[Expected, ...]:
    """The events of ``case`` in order, up to the caps."""
    listed = [_of(TPM_ABSENT, b"tpm-absent")] if case.tpm == "absent" else []
    listed.append(
        Expected(
            POLICY, PCR_OF[POLICY], bytes.fromhex(values.policy_sha256),
            f"a policy with SHA-256 {values.policy_sha256}",
        )
    )  # fmt: skip
    listed.append(_of(CMDLINE, case.cmdline.encode()))
    for name, root_hash in values.root_hashes:
        event = _of(VERITY, event_log.verity_content(name, root_hash))
        listed.append(replace(event, volume=name))
    listed.append(_of(PHASE, ENTER_INITRD))
    if values.workload:
        listed.append(_of(WORKLOAD, bytes.fromhex(values.workload)))
    listed.append(_of(PHASE, LEAVE_INITRD))
    listed += [replace(_of(CAP, CAP_CONTENT), pcr=index) for index in CAPPED_PCRS]
    return tuple(listed)


def _text(content: bytes) -> str:
    text = content.decode("ascii") if event_log.is_text(content) else content.hex()
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _of(kind: str, content: bytes) -> Expected:
    return Expected(kind, PCR_OF.get(kind, 0), sha256(content).digest(), _text(content))


_ENTER = _of(PHASE, ENTER_INITRD)
#: Which digest it is, only the launch knows.
_ANY_INSTANCE = Expected(INSTANCE, PCR_OF[INSTANCE], b"", "the digest of the configuration")


def compare(replayed: Replay, values: ReferenceValues, cases: Sequence[Case]) -> Boot:
    """The log against each of ``cases``; where none fits, against the one that agrees longest."""
    unverified = sum(bool(item.unverified) for item in replayed.records)
    best: tuple[int, Boot] | None = None
    for case in cases:
        place, difference = _walk(
            replayed.records, expected_boot(values, case), instance=values.instance
        )
        fits = difference is None
        runtime = len(replayed.records) - place if fits else 0
        boot = Boot(case if fits else None, difference, runtime, unverified)
        if fits:
            return boot
        if best is None or place > best[0]:
            best = (place, boot)
    if best is None:
        nothing = Difference(0, POLICY, "", "a boot that reference values predict", "none is left")
        return Boot(None, nothing, 0, unverified)
    return best[1]


def _walk(
    records: Sequence[Record], expected: Sequence[Expected], *, instance: str
) -> tuple[int, Difference | None]:
    """(how many records agree, the first that does not); ``instance``: as reference values say."""
    own = keys = at = 0
    takes, needs = instance != REFUSED_INSTANCE, instance == REQUIRED_INSTANCE
    for place, item in enumerate(records):
        if at == len(expected):
            late = _late(records, place)
            return (place, None) if late is None else (late.position, late)
        event, entered = item.event, at > 0 and expected[at - 1] == _ENTER
        first = entered and not own and not keys
        if first and takes and _is_instance(item):
            own += 1
        elif first and needs:
            return place, _difference(place, item, _ANY_INSTANCE)
        elif entered and event.kind in KEY_EVENTS and event.pcr == KEY_PCR:
            keys += 1
        elif _is(item, expected[at]):
            at += 1
        else:
            return place, _difference(place, item, expected[at])
    if at == len(expected):
        return len(records), None
    wanted = expected[at]
    if needs and not own and at > 0 and expected[at - 1] == _ENTER:
        wanted = _ANY_INSTANCE
    return len(records), Difference(
        len(records),
        wanted.kind,
        wanted.volume,
        f"{wanted.kind} {wanted.shown}",
        "the log ends before it",
    )


def _is_instance(item: Record) -> bool:
    """A digest in its register; which, only the launch knows."""
    event = item.event
    placed = (event.kind, event.pcr) == (INSTANCE, PCR_OF[INSTANCE])
    return placed and not item.unverified and len(event.content) == 32


def _is(item: Record, wanted: Expected) -> bool:
    event = item.event
    same = (event.kind, event.pcr) == (wanted.kind, wanted.pcr)
    return same and not item.unverified and sha256(event.content).digest() == wanted.digest


def _late(records: Sequence[Record], start: int) -> Difference | None:
    """The first record from ``start`` on that belongs to a boot, which is over."""
    for place in range(start, len(records)):
        event = records[place].event
        if event.kind in BOOT_KINDS or event.pcr in BOOT_PCRS:
            return Difference(
                place, event.kind, _volume(records[place]), "nothing more of the boot",
                f"{event.kind} in PCR {event.pcr}",
            )  # fmt: skip
    return None


def _difference(place: int, item: Record, wanted: Expected) -> Difference:
    event = item.event
    said = f"unverified: {item.unverified}" if item.unverified else _text(event.content)
    if event.kind == POLICY and not item.unverified:
        said = f"a policy with SHA-256 {sha256(event.content).hexdigest()}"
    same_kind = event.kind == wanted.kind
    return Difference(
        place,
        event.kind,
        _volume(item) or (wanted.volume if same_kind else ""),
        f"{wanted.kind} in PCR {wanted.pcr}: {wanted.shown}",
        f"{event.kind} in PCR {event.pcr}: {said}",
    )


def _volume(item: Record) -> str:
    """The volume that a ``verity`` record speaks of."""
    if item.event.kind != VERITY or item.unverified:
        return ""
    parts = item.event.content.split(b":")
    return parts[1].decode("ascii", "replace") if len(parts) > 1 else ""


def predicted_pcrs(case: Case) -> dict[tuple[str, int], bytes]:
    """What reference values say the registers hold at the handover of ``case``."""
    return {(bank, index): bytes.fromhex(value) for bank, index, value in case.handover.pcrs}


def boot_pcrs(replayed: Replay, boot: Boot) -> dict[tuple[str, int], bytes]:
    """The PCRs after the predictable part of the boot: of an image, not of a launch."""
    return pcr.replay(_predictable(replayed, boot))


def boot_software(replayed: Replay, boot: Boot) -> bytes:
    """The software register after the predictable part of the boot."""
    return register.replay(_predictable(replayed, boot))


def _predictable(replayed: Replay, boot: Boot) -> tuple[Event, ...]:
    """Instance and key events are left out, and so is what came after the boot."""
    count = len(replayed.records) - boot.runtime
    return tuple(
        item.event
        for item in replayed.records[:count]
        if item.event.kind not in (INSTANCE, *KEY_EVENTS)
    )
