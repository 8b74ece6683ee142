# SPDX-License-Identifier: Apache-2.0
"""AES-CBC with ESSIV over sectors, as older LUKS volumes have their key-slots.

Serves ``troth volume check`` on the host alone: no profile of a guest names it, since
whoever can write the disk can turn chosen bits of it. Authenticates nothing.

Source: Linux, Documentation/admin-guide/device-mapper/dm-crypt.rst, "essiv"; C. Fruhwirth,
New Methods in Hard Disk Encryption, 2005.
"""

from __future__ import annotations

from hashlib import sha256

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC, ECB

from troth.errors import FormatError

KEY_BYTES = (16, 24, 32)
_SECTOR_BYTES = 512
_BLOCK_BYTES = 16


def decrypt(key: bytes, data: bytes) -> bytes:
    """``data``, whole sectors of 512 bytes that count from 0, under ``key``.

    Raises ``FormatError``: ``essiv-key`` for a key of another size, ``essiv-data``.
    """
    if len(key) not in KEY_BYTES:
        raise FormatError("essiv-key", f"an AES key has 16, 24 or 32 bytes, not {len(key)}")
    if len(data) % _SECTOR_BYTES:
        raise FormatError("essiv-data", f"{len(data)} bytes are not whole sectors")
    # The salt of the sector numbers is the key's own hash.
    salted = Cipher(AES(sha256(key).digest()), ECB()).encryptor()  # noqa: S305 - ESSIV is that
    out = bytearray()
    for number in range(len(data) // _SECTOR_BYTES):
        iv = salted.update(number.to_bytes(_BLOCK_BYTES, "little"))
        context = Cipher(AES(key), CBC(iv)).decryptor()
        out += context.update(data[number * _SECTOR_BYTES :][:_SECTOR_BYTES])
    return bytes(out)
