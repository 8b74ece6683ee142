# SPDX-License-Identifier: Apache-2.0
"""The anti-forensic splitter of LUKS: a key in many stripes, all of which it needs.

Serves opening and writing of key-slots. Pure; SHA-256 only, which is all that the strict
profile accepts. No protection by itself: stripes are stored encrypted.

Source: cryptsetup, ``lib/luks1/af.c``; C. Fruhwirth, "New Methods in Hard Disk
Encryption", 2005, section 5.2.
"""

from __future__ import annotations

from troth.abi.hashes import sha256
from troth.errors import FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_DIGEST_BYTES = 32


def split(key: bytes, *, stripes: int, random: Callable[[int], bytes]) -> bytes:
    """``stripes`` blocks of the key's size; ``random``: n -> n random bytes."""
    head = random(len(key) * (stripes - 1))
    folded = _fold(head, len(key), stripes - 1)
    return head + _xor(folded, key)


def merge(blocks: bytes, *, key_bytes: int, stripes: int) -> bytes:
    """The key in ``blocks``; ``FormatError`` ``af-size`` where they are not so many."""
    if key_bytes < 1 or stripes < 1 or len(blocks) != key_bytes * stripes:
        raise FormatError(
            "af-size", f"{len(blocks)} bytes are not {stripes} stripes of {key_bytes} bytes"
        )
    folded = _fold(blocks, key_bytes, stripes - 1)
    return _xor(folded, blocks[-key_bytes:])


def _fold(blocks: bytes, key_bytes: int, count: int) -> bytes:
    # 4000 turns of it are most of what opening a key-slot of PBKDF2's least cost takes, so the
    # turn has no calls of its own.
    pieces = tuple(
        (number.to_bytes(4, "big"), start, start + _DIGEST_BYTES)
        for number, start in enumerate(range(0, key_bytes, _DIGEST_BYTES))
    )
    folded = 0
    for at in range(0, count * key_bytes, key_bytes):
        mixed = folded ^ int.from_bytes(blocks[at : at + key_bytes], "little")
        block = mixed.to_bytes(key_bytes, "little")
        made = [sha256(number + block[start:end]).digest() for number, start, end in pieces]
        folded = int.from_bytes(b"".join(made)[:key_bytes], "little")
    return folded.to_bytes(key_bytes, "little")


def _xor(one: bytes, other: bytes) -> bytes:
    mixed = int.from_bytes(one, "little") ^ int.from_bytes(other, "little")
    return mixed.to_bytes(len(one), "little")
