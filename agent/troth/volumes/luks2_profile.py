# SPDX-License-Identifier: Apache-2.0
"""The strict profile: whether a LUKS2 header is exactly what was expected.

Serves the guest, which stops at the first refusal, and ``troth volume check``, which
shows every check. A header is bytes of the host: its checksum needs no key, so all that
it says is judged here, before any key derivation runs, on one copy of its bytes. What a
refusal protects from is told in ``troth.volumes.luks2_reasons``. Must never repair, and
never take one header copy for lack of the other.

Source: LUKS2 On-Disk Format Specification 1.1; CVE-2025-59054 and CVE-2025-58356 for
what happens without.
"""

from __future__ import annotations

from troth.abi import luks2
from troth.documents import luks2_json
from troth.documents.volume_profile import is_uuid
from troth.errors import FormatError
from troth.record import record
from troth.volumes import luks2_rules
from troth.volumes.luks2_rules import Check

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

    from troth.abi.luks2 import Copy, Header
    from troth.documents.luks2_metadata import Digest, Keyslot, Segment
    from troth.documents.volume_profile import VolumeProfile


@record
class Accepted:
    """A header that passed every check, for ``troth.volumes.luks2_open``."""

    header: Header
    keyslot: Keyslot
    segment: Segment
    digest: Digest
    profile: VolumeProfile


if TYPE_CHECKING:
    from typing import TypeAlias

    Checks: TypeAlias = Generator[Check, None, "Accepted | None"]


def require(area: bytes, profile: VolumeProfile, *, memory_bytes: int) -> Accepted:
    """The header in ``area``, or ``FormatError`` with the code of the first refusal."""
    steps = checks(area, profile, memory_bytes=memory_bytes)
    while True:
        try:
            check = next(steps)
        except StopIteration as end:
            accepted: Accepted = end.value  # not None, because every check passed
            return accepted
        if not check.passed:
            raise FormatError(check.code, f"expected {check.expected}; seen: {check.observed}")


def checks(area: bytes, profile: VolumeProfile, *, memory_bytes: int) -> Checks:
    """Every check of the header in ``area``, in order; returns ``Accepted`` if all passed.

    ``area``: the first ``AREA_BYTES`` of the volume, read once; ``memory_bytes``: of this
    machine, half of which a key derivation may take. Ends early where nothing is left
    to look at.
    """
    steps = _steps(area, profile, memory_bytes)
    passed = True
    while True:
        try:
            check = next(steps)
        except StopIteration as end:
            return end.value if passed else None
        passed = passed and check.passed
        yield check


def _steps(area: bytes, profile: VolumeProfile, memory_bytes: int) -> Checks:
    """All checks; what it returns is worth something only where all passed."""
    places = luks2.pair(area)
    yield _whole("luks2-primary", places[0], "the primary header")
    yield _whole("luks2-secondary", places[1], "the secondary header")
    copy = luks2.selected(places)
    if copy is None:
        return None
    yield from _header(places, copy, profile)
    try:
        metadata = luks2_json.parse(copy.metadata)
    except FormatError as error:
        yield Check(error.code, False, "JSON of LUKS2, each key once", error.message)
        return None
    yield Check("luks2-json", True, "JSON of LUKS2, each key once", f"{len(copy.metadata)} bytes")
    yield from luks2_rules.config(metadata, copy.header)
    yield from luks2_rules.ciphers(metadata)
    yield from luks2_rules.segments(metadata, copy.header, profile)
    yield from luks2_rules.keyslots(metadata, copy.header, profile, memory_bytes)
    yield from luks2_rules.digests(metadata, profile)
    if not (metadata.keyslots and metadata.segments and metadata.digests):
        return None
    return Accepted(
        header=copy.header,
        keyslot=metadata.keyslots[0],
        segment=metadata.segments[0],
        digest=metadata.digests[0],
        profile=profile,
    )


def _header(places: luks2.Pair, copy: Copy, profile: VolumeProfile) -> Generator[Check]:
    first, second = places[0].copy, places[1].copy
    if first is not None and second is not None:
        differing = [
            name
            for name in ("size_bytes", "seqid", "uuid", "label", "subsystem")
            if getattr(first.header, name) != getattr(second.header, name)
        ]
        if first.metadata != second.metadata:
            differing.append("JSON")
        yield Check(
            "luks2-copies",
            not differing,
            "both copies of the header say the same",
            "they differ in " + ", ".join(differing) if differing else "equal",
        )
    header = copy.header
    yield Check(
        "luks2-header-size",
        header.size_bytes == luks2_rules.HEADER_BYTES,
        f"a header of {luks2_rules.HEADER_BYTES} bytes",
        f"{header.size_bytes} bytes",
    )
    yield Check(
        "luks2-uuid",
        header.uuid == profile.uuid if profile.uuid else is_uuid(header.uuid),
        f"UUID {profile.uuid}" if profile.uuid else "a UUID in lower case",
        header.uuid or "none",
    )


def _whole(code: str, place: luks2.Place, noun: str) -> Check:
    error = place.error
    seen = "whole, checksum right" if error is None else f"{error.code}: {error.message}"
    return Check(code, error is None, f"{noun} whole, at {place.offset_bytes}", seen)
