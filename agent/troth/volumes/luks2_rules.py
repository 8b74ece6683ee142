# SPDX-License-Identifier: Apache-2.0
"""What each part of a LUKS2 header's metadata has to be, one check a rule.

Serves ``troth.volumes.luks2_profile``, which says in which order. A rule looks at
everything of its kind that is there, also where there is one too many. What each protects
from is told in ``troth.volumes.luks2_reasons``. Must never take a bound from the header.
"""

from __future__ import annotations

from troth.abi import luks2
from troth.record import record
from troth.volumes.header_area import AREA_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from troth.abi.luks2 import Header
    from troth.documents.luks2_metadata import Kdf, Keyslot, Metadata, Segment
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


def area_size(key_bytes: int) -> int:
    """Bytes of a key-slot's area for a volume key of ``key_bytes``, in whole 4096."""
    return -(-key_bytes * STRIPES // 4096) * 4096


def config(metadata: Metadata, header: Header) -> Generator[Check]:
    """Sizes, and whatever else a header says of the volume as a whole."""
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


def ciphers(metadata: Metadata) -> Generator[Check]:
    """No cipher that is refused by its name, wherever one is named."""
    # Before the allow-list and apart from it: a profile that allows more allows none of these.
    yield _no_word("luks2-cipher-null", _NULL_WORDS, metadata)
    yield _no_word("luks2-cipher-weak", _WEAK_WORDS, metadata)


def segments(metadata: Metadata, header: Header, profile: VolumeProfile) -> Generator[Check]:
    """Where and how the data are."""
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


def keyslots(
    metadata: Metadata, header: Header, profile: VolumeProfile, memory_bytes: int
) -> Generator[Check]:
    """The one key-slot: its material, and what its key costs."""
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
        f"{profile.keyslot_cipher} with {profile.keyslot_key_bytes} bytes",
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


def digests(metadata: Metadata, profile: VolumeProfile) -> Generator[Check]:
    """What the volume key is recognised by."""
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
