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
from troth.volumes.header_area import AREA_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from troth.abi.luks2 import Copy, Header
    from troth.documents.luks2_metadata import Digest, Kdf, Keyslot, Metadata, Segment
    from troth.documents.volume_profile import VolumeProfile

HEADER_BYTES = 16 << 10
KEYSLOT_ENCRYPTION = "aes-xts-plain64"
STRIPES = 4000
SALT_BYTES = 32
DIGEST_BYTES = 32
MIN_ITERATIONS = 1000

_HASH = "sha256"
_MAX_KEYSLOTS_BYTES = 128 << 20
_ONLY = ("0",)
_NULL_WORDS = ("null",)
_WEAK_WORDS = ("ecb", "capi:")


@record
class Check:
    """One thing that was looked at; ``code`` is that of the refusal where it did not pass."""

    code: str
    passed: bool
    expected: str
    observed: str


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


def area_size(key_bytes: int) -> int:
    """Bytes of a key-slot's area for a volume key of ``key_bytes``, in whole 4096."""
    return -(-key_bytes * STRIPES // 4096) * 4096


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
    yield from _config(metadata, copy.header)
    yield from _ciphers(metadata)
    yield from _segments(metadata, copy.header, profile)
    yield from _keyslots(metadata, copy.header, profile, memory_bytes)
    yield from _digests(metadata, profile)
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
            f"they differ in {_list(differing)}" if differing else "equal",
        )
    header = copy.header
    yield Check(
        "luks2-header-size",
        header.size_bytes == HEADER_BYTES,
        f"a header of {HEADER_BYTES} bytes",
        f"{header.size_bytes} bytes",
    )
    yield Check(
        "luks2-uuid",
        header.uuid == profile.uuid if profile.uuid else is_uuid(header.uuid),
        f"UUID {profile.uuid}" if profile.uuid else "a UUID in lower case",
        header.uuid or "none",
    )


def _config(metadata: Metadata, header: Header) -> Generator[Check]:
    yield _none("luks2-json-unknown", metadata.unknown, "no keys but those of LUKS2")
    size_bytes = metadata.keyslots_bytes
    yield Check(
        "luks2-config",
        metadata.json_bytes == header.size_bytes - luks2.BINARY_BYTES
        and 0 < size_bytes <= _MAX_KEYSLOTS_BYTES
        and size_bytes % 4096 == 0,
        f"json_size {header.size_bytes - luks2.BINARY_BYTES},"
        f" keyslots_size in 4096 to {_MAX_KEYSLOTS_BYTES}",
        f"json_size {metadata.json_bytes}, keyslots_size {size_bytes}",
    )
    yield _none("luks2-flags", metadata.flags, "no flags")
    yield _none("luks2-requirements", metadata.requirements, "no requirements")
    tokens = [f"{token.name} {token.kind}" for token in metadata.tokens]
    yield _none("luks2-tokens", tokens, "no tokens")


def _ciphers(metadata: Metadata) -> Generator[Check]:
    # Before the allow-list and apart from it: a profile that allows more allows none of these.
    yield _no_word("luks2-cipher-null", _NULL_WORDS, metadata)
    yield _no_word("luks2-cipher-weak", _WEAK_WORDS, metadata)


def _segments(metadata: Metadata, header: Header, profile: VolumeProfile) -> Generator[Check]:
    segments = metadata.segments
    names = tuple(item.name for item in segments)
    yield Check("luks2-segments", names == _ONLY, "one segment, 0", _list(names))
    kinds = [item.kind for item in segments]
    if kinds:
        yield Check("luks2-segment-kind", set(kinds) == {"crypt"}, "kind crypt", _list(kinds))
    crypts = [item for item in segments if item.kind == "crypt"]
    if not crypts:
        return
    yield _each("luks2-segment-cipher", profile.encryption, [item.encryption for item in crypts])
    wanted = profile.integrity_kind
    integrities = [_integrity_text(item) for item in crypts]
    yield _each("luks2-segment-integrity", wanted or "none", integrities)
    sectors = [str(item.sector_bytes) for item in crypts]
    yield _each("luks2-segment-sector", str(profile.sector_bytes), sectors)
    first_bytes = 2 * header.size_bytes + metadata.keyslots_bytes
    yield Check(
        "luks2-segment-offset",
        all(
            item.offset_bytes in profile.data_offsets and item.offset_bytes >= first_bytes
            for item in crypts
        ),
        f"data at {' or '.join(map(str, profile.data_offsets))}, behind the key-slots",
        f"{_list([str(item.offset_bytes) for item in crypts])}, key-slots end at {first_bytes}",
    )
    sizes = [str(item.size_bytes or "dynamic") for item in crypts]
    yield _each("luks2-segment-size", str(profile.data_bytes or "dynamic"), sizes)
    yield _each("luks2-segment-tweak", "0", [str(item.iv_tweak) for item in crypts])
    flags = [flag for item in crypts for flag in item.flags]
    yield _none("luks2-segment-flags", flags, "no flags of a segment")


def _keyslots(
    metadata: Metadata, header: Header, profile: VolumeProfile, memory_bytes: int
) -> Generator[Check]:
    slots = metadata.keyslots
    names = tuple(item.name for item in slots)
    yield Check("luks2-keyslots", names == _ONLY, "one key-slot, 0", _list(names))
    if slots:
        yield _each("luks2-keyslot-kind", "luks2", [item.kind for item in slots])
    slots = tuple(item for item in slots if item.kind == "luks2")
    if not slots:
        return
    priorities = [str(item.priority) for item in slots if item.priority >= 0]
    yield _none("luks2-keyslot-priority", priorities, "no priority")
    key_bytes = profile.volume_key_bytes
    yield _each("luks2-keyslot-key", str(key_bytes), [str(item.key_bytes) for item in slots])
    first_bytes = 2 * header.size_bytes
    end_bytes = min(first_bytes + metadata.keyslots_bytes, AREA_BYTES)
    yield Check(
        "luks2-keyslot-area",
        all(_area_is_right(item, key_bytes, first_bytes, end_bytes) for item in slots),
        f"{area_size(key_bytes)} raw bytes within {first_bytes} to {end_bytes}",
        _list(
            [
                f"{item.area_size_bytes} {item.area_kind} bytes at {item.area_offset_bytes}"
                for item in slots
            ]
        ),
    )
    yield _each(
        "luks2-keyslot-cipher",
        f"{KEYSLOT_ENCRYPTION} with {profile.keyslot_key_bytes} bytes",
        [f"{item.area_encryption} with {item.area_key_bytes} bytes" for item in slots],
    )
    yield _each(
        "luks2-keyslot-af",
        f"luks1 {STRIPES} {_HASH}",
        [f"{item.af_kind} {item.af_stripes} {item.af_hash}" for item in slots],
    )
    kdfs = [item.kdf for item in slots]
    yield Check(
        "luks2-kdf",
        all(
            kdf.kind in profile.kdfs and kdf.hash == (_HASH if kdf.kind == "pbkdf2" else "")
            for kdf in kdfs
        ),
        f"{' or '.join(profile.kdfs)}; pbkdf2 with {_HASH}",
        _list([f"{kdf.kind} {kdf.hash}".strip() for kdf in kdfs]),
    )
    memory_kib = min(profile.max_argon2_memory_kib, memory_bytes // 2048)
    yield Check(
        "luks2-kdf-cost",
        all(_cost_is_right(kdf, profile, memory_kib) for kdf in kdfs),
        f"{MIN_ITERATIONS} to {profile.max_pbkdf2_iterations} iterations, or at most time"
        f" {profile.max_argon2_time}, {memory_kib} KiB, {profile.max_argon2_cpus} lanes",
        _list([_cost_text(kdf) for kdf in kdfs]),
    )
    salts = [str(len(kdf.salt)) for kdf in kdfs]
    yield _each("luks2-kdf-salt", str(SALT_BYTES), salts)


def _digests(metadata: Metadata, profile: VolumeProfile) -> Generator[Check]:
    digests = metadata.digests
    names = tuple(item.name for item in digests)
    yield Check("luks2-digests", names == _ONLY, "one digest, 0", _list(names))
    if not digests:
        return
    yield _each(
        "luks2-digest-kind",
        f"pbkdf2 {_HASH}, salt of {SALT_BYTES}, digest of {DIGEST_BYTES} bytes",
        [
            f"{item.kind} {item.hash}, salt of {len(item.salt)}, digest of {len(item.digest)} bytes"
            for item in digests
        ],
    )
    high = profile.max_digest_iterations
    yield Check(
        "luks2-digest-cost",
        all(MIN_ITERATIONS <= item.iterations <= high for item in digests),
        f"{MIN_ITERATIONS} to {high} iterations",
        _list([str(item.iterations) for item in digests]),
    )
    yield _each(
        "luks2-digest-links",
        "key-slot 0, segment 0",
        [f"key-slot {_list(item.keyslots)}, segment {_list(item.segments)}" for item in digests],
    )


def _whole(code: str, place: luks2.Place, noun: str) -> Check:
    error = place.error
    seen = "whole, checksum right" if error is None else f"{error.code}: {error.message}"
    return Check(code, error is None, f"{noun} whole, at {place.offset_bytes}", seen)


def _no_word(code: str, words: tuple[str, ...], metadata: Metadata) -> Check:
    named = [(f"segment {item.name}", item.encryption) for item in metadata.segments]
    named += [(f"key-slot {item.name}", item.area_encryption) for item in metadata.keyslots]
    found = [
        f"{noun} {cipher}"
        for noun, cipher in named
        if any(word in cipher.lower() for word in words)
    ]
    return _none(code, found, f"no cipher with {' or '.join(words)} in its name")


def _area_is_right(slot: Keyslot, key_bytes: int, first_bytes: int, end_bytes: int) -> bool:
    offset_bytes, size_bytes = slot.area_offset_bytes, slot.area_size_bytes
    return (
        slot.area_kind == "raw"
        and size_bytes == area_size(key_bytes)
        and offset_bytes % 4096 == 0
        and first_bytes <= offset_bytes <= end_bytes - size_bytes
    )


def _cost_is_right(kdf: Kdf, profile: VolumeProfile, memory_kib: int) -> bool:
    if kdf.kind == "pbkdf2":
        return MIN_ITERATIONS <= kdf.iterations <= profile.max_pbkdf2_iterations
    return (
        0 < kdf.time <= profile.max_argon2_time
        and 0 < kdf.cpus <= profile.max_argon2_cpus
        # Argon2 has no less than eight KiB for each lane (RFC 9106, section 3.1).
        and 8 * kdf.cpus <= kdf.memory_kib <= memory_kib
    )


def _cost_text(kdf: Kdf) -> str:
    if kdf.kind == "pbkdf2":
        return f"{kdf.iterations} iterations"
    return f"time {kdf.time}, {kdf.memory_kib} KiB, {kdf.cpus} lanes"


def _integrity_text(segment: Segment) -> str:
    found = segment.integrity
    if found is None:
        return "none"
    words = [found.kind]
    if (found.journal_encryption, found.journal_integrity) != ("none", "none"):
        words.append(f"journal {found.journal_encryption} {found.journal_integrity}")
    if found.key_bytes:
        words.append(f"key_size {found.key_bytes}")
    return ", ".join(words)


def _each(code: str, wanted: str, found: Sequence[str]) -> Check:
    return Check(code, all(item == wanted for item in found), wanted, _list(found))


def _none(code: str, found: Sequence[str], expected: str) -> Check:
    return Check(code, not found, expected, _list(found))


def _list(found: Sequence[str]) -> str:
    return ", ".join(found) if found else "none"
