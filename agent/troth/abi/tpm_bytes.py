# SPDX-License-Identifier: Apache-2.0
"""Bytes of a TPM's structures, read from the front: big endian, every size before its bytes.

Serves ``tpm_attest``. Must never step outside the bytes, nor take a size that
the structure does not allow.

Source: TCG, Trusted Platform Module 2.0 Library, part 1, annex on marshalling;
part 2, 6.3 (TPM_ALG_ID), 10.4 (TPM2B types).
"""

from __future__ import annotations

from struct import pack

from troth.abi import tpm_wire
from troth.errors import FormatError

MAX_BYTES = 4096
"""Of each structure; the largest possible is below 1200."""

_HASH_NAMES = {number: name for name, number in tpm_wire.ALGORITHMS.items()}


class TpmBytes:
    """Bytes read from the front, every step within them."""

    def __init__(self, data: bytes, where: str) -> None:
        self._data = data
        self._at = 0
        self._where = where
        if len(data) > MAX_BYTES:
            raise self.wrong(f"{len(data)} bytes, at most {MAX_BYTES}")

    def take(self, size_bytes: int) -> bytes:
        """The next ``size_bytes``."""
        found = self._data[self._at : self._at + size_bytes]
        if len(found) != size_bytes:
            raise self.wrong(f"it is cut off at byte {len(self._data)}")
        self._at += size_bytes
        return bytes(found)

    def number(self, size_bytes: int) -> int:
        """The next ``size_bytes`` as a number."""
        return int.from_bytes(self.take(size_bytes), "big")

    def sized(self, what: str, most_bytes: int, *, least: int = 0) -> bytes:
        """What follows a size (u16) within the bounds; ``what`` it is, for people."""
        size_bytes = self.number(2)
        if not least <= size_bytes <= most_bytes:
            raise self.wrong(f"{what} cannot have {size_bytes} bytes")
        return self.take(size_bytes)

    def hash_name(self) -> str:
        """The name of the hash algorithm whose number comes next."""
        number = self.number(2)
        if number not in _HASH_NAMES:
            raise self.wrong(f"hash algorithm 0x{number:04x} is unknown")
        return _HASH_NAMES[number]

    def end(self) -> None:
        """Refuse bytes that nobody read."""
        if self._at != len(self._data):
            raise self.wrong(f"{len(self._data) - self._at} bytes follow its end")

    def wrong(self, message: str, *, code: str = "tpm-structure") -> FormatError:
        """The error that says ``message`` of these bytes."""
        return FormatError(code, f"a structure of a TPM: {message}", where=self._where)


def sized(value: bytes) -> bytes:
    """``value`` behind its size."""
    return pack(">H", len(value)) + value
