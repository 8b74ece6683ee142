# SPDX-License-Identifier: Apache-2.0
"""A file that says what a volume has to be, in TOML or JSON.

Serves ``troth volume check`` on the host. In a guest the policy says it, so this is
never packed. Fields and their defaults are ``troth.documents.volume_profile``'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.documents import strict, toml_source
from troth.documents.volume_profile import INTEGRITIES, KDFS, VolumeProfile
from troth.errors import FormatError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEMA = "troth-volume-profile-v1"
LIMIT_BYTES = 64 << 10

FIELDS = {
    "integrity": "integrity",
    "sector_size": "sector_bytes",
    "uuid": "uuid",
    "data_offsets": "data_offsets",
    "data_size": "data_bytes",
    "cipher": "cipher",
    "key_size": "key_bytes",
    "keyslot_cipher": "keyslot_cipher",
    "keyslot_key_size": "keyslot_key_bytes",
    "kdfs": "kdfs",
    "max_pbkdf2_iterations": "max_pbkdf2_iterations",
    "max_digest_iterations": "max_digest_iterations",
    "max_argon2_memory_kib": "max_argon2_memory_kib",
    "max_argon2_time": "max_argon2_time",
    "max_argon2_cpus": "max_argon2_cpus",
}
"""Key of the file -> field of ``VolumeProfile``; all may be left out."""


def parse(data: bytes, *, where: str = "") -> VolumeProfile:
    """The profile in ``data``: JSON where it begins with a brace, else TOML.

    Raises ``UsageError`` ``volume-profile-file`` for whatever is wrong with it.
    """
    try:
        return _profile(strict.Reader(_tree(data, where)))
    except FormatError as error:
        raise UsageError(
            "volume-profile-file", error.message, where=where, hint=error.hint
        ) from None


def _tree(data: bytes, where: str) -> object:
    if data.lstrip()[:1] == b"{":
        return strict.parse(data, limit_bytes=LIMIT_BYTES, where=where)

    def refuse(_kind: str, message: str, place: str, hint: str) -> UsageError:
        return UsageError("volume-profile-file", message, where=place, hint=hint)

    return toml_source.read_source(data[: LIMIT_BYTES + 1], where, refuse=refuse).tree


def _profile(reader: strict.Reader) -> VolumeProfile:
    reader.text("schema", allowed=(SCHEMA,))
    readers: dict[str, Callable[[str], object]] = {
        "integrity": lambda key: reader.text(key, allowed=INTEGRITIES),
        "uuid": reader.text,
        "data_offsets": lambda key: _integers(reader, key),
        "cipher": reader.text,
        "keyslot_cipher": reader.text,
        "kdfs": lambda key: _words(reader, key),
    }
    values = {
        field: readers.get(key, reader.integer)(key)
        for key, field in FIELDS.items()
        if reader.has(key)
    }
    reader.close()
    return VolumeProfile(**values)  # type: ignore[arg-type]  # each has its reader


def _integers(reader: strict.Reader, key: str) -> tuple[int, ...]:
    found = reader.raw(key)
    if not isinstance(found, list) or not all(type(item) is int for item in found):
        raise FormatError("volume-profile", f"{key} is no list of numbers")
    return tuple(found)


def _words(reader: strict.Reader, key: str) -> tuple[str, ...]:
    found = reader.texts(key)
    if not set(found) <= set(KDFS):
        raise FormatError("volume-profile", f"{key} are one or more of {', '.join(KDFS)}")
    return found
