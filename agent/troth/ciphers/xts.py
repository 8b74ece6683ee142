# SPDX-License-Identifier: Apache-2.0
"""AES-XTS over sectors, numbered as dm-crypt's plain64 does.

Serves the opening of key-slots in a guest, and the writing of volumes on the host. The
IV of a sector counts units of 512 bytes even where sectors are larger, little-endian,
because LUKS2 does not set ``iv_large_sectors``. Authenticates nothing.

Source: IEEE 1619-2007; Linux, ``drivers/md/dm-crypt.c``, "plain64".
"""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import XTS

from troth.errors import FormatError

KEY_BYTES = (32, 64)
_UNIT_BYTES = 512


def encrypt(key: bytes, data: bytes, *, sector_bytes: int = 512, first_iv: int = 0) -> bytes:
    """``data`` encrypted; ``key``: both halves, 32 or 64 bytes.

    ``first_iv``: the first sector's number in units of 512 bytes. Raises
    ``FormatError``: ``xts-key`` where the key has another size or equal halves,
    ``xts-data`` where ``data`` is not whole sectors.
    """
    return _run(key, data, sector_bytes, first_iv, decrypts=False)


def decrypt(key: bytes, data: bytes, *, sector_bytes: int = 512, first_iv: int = 0) -> bytes:
    """The opposite of ``encrypt``; raises the same."""
    return _run(key, data, sector_bytes, first_iv, decrypts=True)


def _run(key: bytes, data: bytes, sector_bytes: int, first_iv: int, *, decrypts: bool) -> bytes:
    half = len(key) // 2
    if len(key) not in KEY_BYTES or key[:half] == key[half:]:
        raise FormatError("xts-key", "an XTS key has two different halves of 16 or 32 bytes")
    if sector_bytes % _UNIT_BYTES or sector_bytes <= 0 or len(data) % sector_bytes:
        raise FormatError("xts-data", f"{len(data)} bytes are not whole sectors of {sector_bytes}")
    algorithm = AES(key)
    out = bytearray(len(data))
    for offset in range(0, len(data), sector_bytes):
        iv = first_iv + offset // _UNIT_BYTES
        cipher = Cipher(algorithm, XTS(iv.to_bytes(16, "little")))
        context = cipher.decryptor() if decrypts else cipher.encryptor()
        out[offset : offset + sector_bytes] = context.update(data[offset : offset + sector_bytes])
    return bytes(out)
