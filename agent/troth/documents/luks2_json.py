# SPDX-License-Identifier: Apache-2.0
"""The JSON metadata of a LUKS2 header: strict reading, and printing for a header we write.

Serves the guest's worker and the host. Reads what the format allows; what is acceptable
is judged in ``troth.volumes.luks2_profile`` and must not be judged here. Keys that are not
known are listed, never passed over in silence.

Source: LUKS2 On-Disk Format Specification 1.1, section 3.
"""

from __future__ import annotations

import binascii

from troth.documents import strict
from troth.documents.luks2_metadata import (
    Digest,
    Integrity,
    Kdf,
    Keyslot,
    Metadata,
    Segment,
    Token,
)
from troth.errors import FormatError

LIMIT_BYTES = 4 << 20
"""The largest JSON area; a header of 16 KiB has 12 KiB."""

_DYNAMIC = "dynamic"
_ARGON2 = ("argon2i", "argon2id")
_MAX_NUMBER = 2**64 - 1
_MAX_INDEX = 31
_MAX_COUNT = 2**32 - 1


def parse(data: bytes, *, where: str = "") -> Metadata:
    """The metadata in ``data``, the JSON text of one copy.

    Raises ``FormatError``: ``luks2-json-duplicate`` where a key occurs twice in one
    object, ``luks2-json`` where it is not JSON of this form.
    """
    try:
        tree = strict.parse(data, limit_bytes=LIMIT_BYTES)
        # What cannot be printed, such as half a surrogate pair, cannot be told in a refusal.
        strict.canonical(tree)
        return _Walk().run(tree)
    except (UnicodeEncodeError, RecursionError) as error:
        raise FormatError(
            "luks2-json", f"not JSON that can be printed: {error}", where=where
        ) from None
    except FormatError as error:
        twice = error.code == "json-duplicate"
        raise FormatError(
            "luks2-json-duplicate" if twice else "luks2-json", error.message, where=where
        ) from None


def print_(metadata: Metadata) -> bytes:
    """The JSON text of ``metadata``, without spaces, as ``parse`` reads it.

    Raises ``FormatError`` ``luks2-json`` for what was read in part only: tokens,
    unknown keys, foreign kinds.
    """
    if (
        metadata.tokens
        or metadata.unknown
        or any(
            (slot.kind, slot.area_kind) != ("luks2", "raw")
            or slot.kdf.kind not in ("pbkdf2", *_ARGON2)
            for slot in metadata.keyslots
        )
        or any(segment.kind != "crypt" for segment in metadata.segments)
        or any(digest.kind != "pbkdf2" for digest in metadata.digests)
    ):
        raise FormatError("luks2-json", "these metadata were not read whole, so cannot be printed")
    config: dict[str, object] = {
        "json_size": str(metadata.json_bytes),
        "keyslots_size": str(metadata.keyslots_bytes),
    }
    if metadata.flags:
        config["flags"] = list(metadata.flags)
    if metadata.requirements:
        config["requirements"] = {"mandatory": list(metadata.requirements)}
    tree = {
        "keyslots": {slot.name: _keyslot_tree(slot) for slot in metadata.keyslots},
        "tokens": {},
        "segments": {item.name: _segment_tree(item) for item in metadata.segments},
        "digests": {item.name: _digest_tree(item) for item in metadata.digests},
        "config": config,
    }
    return strict.canonical(tree)


class _Walk:
    """One reading of a tree; gathers the paths of unknown keys on its way."""

    def __init__(self) -> None:
        self._unknown: list[str] = []

    def run(self, tree: object) -> Metadata:
        top = strict.Reader(tree)
        self._known(top, "", "keyslots", "tokens", "segments", "digests", "config")
        config = top.reader("config")
        self._known(config, "config", "json_size", "keyslots_size", "flags", "requirements")
        requirements: tuple[str, ...] = ()
        if config.has("requirements"):
            wanted = config.reader("requirements")
            self._known(wanted, "config.requirements", "mandatory")
            requirements = wanted.texts("mandatory") if wanted.has("mandatory") else ()
        return Metadata(
            keyslots=tuple(self._keyslot(*item) for item in _numbered(top, "keyslots")),
            segments=tuple(self._segment(*item) for item in _numbered(top, "segments")),
            digests=tuple(self._digest(*item) for item in _numbered(top, "digests")),
            tokens=tuple(
                Token(name, reader.text("type"), reader.texts("keyslots"))
                for name, reader in _numbered(top, "tokens")
            ),
            json_bytes=_number(config, "json_size"),
            keyslots_bytes=_number(config, "keyslots_size"),
            flags=config.texts("flags") if config.has("flags") else (),
            requirements=requirements,
            unknown=tuple(self._unknown),
        )

    def _known(self, reader: strict.Reader, path: str, *names: str) -> None:
        found = reader.keys()
        self._unknown += [f"{path}.{key}" if path else key for key in found if key not in names]

    def _keyslot(self, name: str, reader: strict.Reader) -> Keyslot:
        path = f"keyslots.{name}"
        kind = reader.text("type")
        key_bytes = reader.integer("key_size", minimum=1, maximum=_MAX_COUNT)
        priority = reader.integer("priority", maximum=2) if reader.has("priority") else -1
        if kind != "luks2":
            return Keyslot(name, kind, key_bytes, priority)
        self._known(reader, path, "type", "key_size", "priority", "af", "area", "kdf")
        af = reader.reader("af")
        self._known(af, f"{path}.af", "type", "stripes", "hash")
        area = reader.reader("area")
        raw = area.text("type") == "raw"
        if raw:
            known = ("type", "offset", "size", "encryption", "key_size")
            self._known(area, f"{path}.area", *known)
        return Keyslot(
            name,
            kind,
            key_bytes,
            priority,
            af_kind=af.text("type"),
            af_stripes=af.integer("stripes", minimum=1, maximum=_MAX_COUNT),
            af_hash=af.text("hash"),
            area_kind=area.text("type"),
            area_offset_bytes=_number(area, "offset") if raw else 0,
            area_size_bytes=_number(area, "size") if raw else 0,
            area_encryption=area.text("encryption") if raw else "",
            area_key_bytes=(area.integer("key_size", minimum=1, maximum=_MAX_COUNT) if raw else 0),
            kdf=self._kdf(f"{path}.kdf", reader.reader("kdf")),
        )

    def _kdf(self, path: str, reader: strict.Reader) -> Kdf:
        kind = reader.text("type")
        if kind == "pbkdf2":
            self._known(reader, path, "type", "salt", "hash", "iterations")
            return Kdf(
                kind,
                _binary(reader, "salt"),
                hash=reader.text("hash"),
                iterations=reader.integer("iterations", minimum=1, maximum=_MAX_COUNT),
            )
        if kind in _ARGON2:
            self._known(reader, path, "type", "salt", "time", "memory", "cpus")
            return Kdf(
                kind,
                _binary(reader, "salt"),
                time=reader.integer("time", minimum=1, maximum=_MAX_COUNT),
                memory_kib=reader.integer("memory", minimum=1, maximum=_MAX_COUNT),
                cpus=reader.integer("cpus", minimum=1, maximum=_MAX_COUNT),
            )
        return Kdf(kind)

    def _segment(self, name: str, reader: strict.Reader) -> Segment:
        path = f"segments.{name}"
        kind = reader.text("type")
        offset_bytes = _number(reader, "offset")
        dynamic = reader.text("size") == _DYNAMIC
        size_bytes = 0 if dynamic else _number(reader, "size", minimum=1)
        if kind != "crypt":
            return Segment(name, kind, offset_bytes, size_bytes)
        known = ("type", "offset", "size", "iv_tweak", "encryption", "sector_size")
        self._known(reader, path, *known, "integrity", "flags")
        return Segment(
            name,
            kind,
            offset_bytes,
            size_bytes,
            iv_tweak=_number(reader, "iv_tweak"),
            encryption=reader.text("encryption"),
            sector_bytes=reader.integer("sector_size", minimum=1, maximum=_MAX_COUNT),
            integrity=self._integrity(f"{path}.integrity", reader),
            flags=reader.texts("flags") if reader.has("flags") else (),
        )

    def _integrity(self, path: str, segment: strict.Reader) -> Integrity | None:
        if not segment.has("integrity"):
            return None
        reader = segment.reader("integrity")
        self._known(reader, path, "type", "journal_encryption", "journal_integrity", "key_size")
        return Integrity(
            reader.text("type"),
            reader.text("journal_encryption"),
            reader.text("journal_integrity"),
            reader.integer("key_size", minimum=1, maximum=_MAX_COUNT)
            if reader.has("key_size")
            else 0,
        )

    def _digest(self, name: str, reader: strict.Reader) -> Digest:
        kind = reader.text("type")
        links = reader.texts("keyslots"), reader.texts("segments")
        if kind != "pbkdf2":
            return Digest(name, kind, *links)
        known = ("type", "keyslots", "segments", "hash", "iterations", "salt", "digest")
        self._known(reader, f"digests.{name}", *known)
        return Digest(
            name,
            kind,
            *links,
            hash=reader.text("hash"),
            iterations=reader.integer("iterations", minimum=1, maximum=_MAX_COUNT),
            salt=_binary(reader, "salt"),
            digest=_binary(reader, "digest"),
        )


def _numbered(top: strict.Reader, key: str) -> list[tuple[str, strict.Reader]]:
    """The objects of a map whose keys are "0" to "31"."""
    reader = top.reader(key)
    names, found = reader.keys(), []
    for name in names:
        if _decimal(name, _MAX_INDEX) is None:
            raise FormatError("luks2-json", f"$.{key} has the key {name!r}, which is no number")
        found.append((name, reader.reader(name)))
    return found


def _number(reader: strict.Reader, key: str, *, minimum: int = 0) -> int:
    """A number of 64 bits, which the format writes as text."""
    value = _decimal(reader.text(key), _MAX_NUMBER)
    if value is None or value < minimum:
        raise FormatError("luks2-json", f"{key} is {reader.text(key)!r}, which is no such number")
    return value


def _decimal(text: str, maximum: int) -> int | None:
    # Not int() alone: it takes signs, blanks, leading zeros and other scripts' digits.
    if not 0 < len(text) <= 20 or not set(text) <= set("0123456789"):
        return None
    value = int(text)
    return value if value <= maximum and str(value) == text else None


def _binary(reader: strict.Reader, key: str) -> bytes:
    try:
        return binascii.a2b_base64(reader.text(key), strict_mode=True)
    except ValueError as error:  # binascii.Error is one, and so is text that is not ASCII
        raise FormatError("luks2-json", f"{key} is not base64: {error}") from None


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode()


def _keyslot_tree(slot: Keyslot) -> dict[str, object]:
    kdf: dict[str, object] = {"type": slot.kdf.kind, "salt": _base64(slot.kdf.salt)}
    if slot.kdf.kind == "pbkdf2":
        kdf |= {"hash": slot.kdf.hash, "iterations": slot.kdf.iterations}
    else:
        kdf |= {"time": slot.kdf.time, "memory": slot.kdf.memory_kib, "cpus": slot.kdf.cpus}
    tree: dict[str, object] = {
        "type": slot.kind,
        "key_size": slot.key_bytes,
        "af": {"type": slot.af_kind, "stripes": slot.af_stripes, "hash": slot.af_hash},
        "area": {
            "type": slot.area_kind,
            "offset": str(slot.area_offset_bytes),
            "size": str(slot.area_size_bytes),
            "encryption": slot.area_encryption,
            "key_size": slot.area_key_bytes,
        },
        "kdf": kdf,
    }
    if slot.priority >= 0:
        tree["priority"] = slot.priority
    return tree


def _segment_tree(segment: Segment) -> dict[str, object]:
    tree: dict[str, object] = {
        "type": segment.kind,
        "offset": str(segment.offset_bytes),
        "size": str(segment.size_bytes) if segment.size_bytes else _DYNAMIC,
        "iv_tweak": str(segment.iv_tweak),
        "encryption": segment.encryption,
        "sector_size": segment.sector_bytes,
    }
    if segment.integrity is not None:
        integrity: dict[str, object] = {
            "type": segment.integrity.kind,
            "journal_encryption": segment.integrity.journal_encryption,
            "journal_integrity": segment.integrity.journal_integrity,
        }
        if segment.integrity.key_bytes:
            integrity["key_size"] = segment.integrity.key_bytes
        tree["integrity"] = integrity
    if segment.flags:
        tree["flags"] = list(segment.flags)
    return tree


def _digest_tree(digest: Digest) -> dict[str, object]:
    return {
        "type": digest.kind,
        "keyslots": list(digest.keyslots),
        "segments": list(digest.segments),
        "hash": digest.hash,
        "iterations": digest.iterations,
        "salt": _base64(digest.salt),
        "digest": _base64(digest.digest),
    }
