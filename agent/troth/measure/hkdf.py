# SPDX-License-Identifier: Apache-2.0
"""HMAC-SHA256 (RFC 2104) and HKDF-SHA256 (RFC 5869), on the interpreter's own SHA-256.

Serves whatever derives keys, in a guest and on the host, without libcrypto. Keys and
results are plain ``bytes``: who has to wipe them copies them into what can be wiped.
"""

from __future__ import annotations

from troth.abi.hashes import sha256

DIGEST_BYTES = 32
_BLOCK_BYTES = 64
_INNER = bytes(byte ^ 0x36 for byte in range(256))
_OUTER = bytes(byte ^ 0x5C for byte in range(256))


def hmac(key: bytes, data: bytes) -> bytes:
    """HMAC-SHA256 of ``data``, 32 bytes."""
    block = (sha256(key).digest() if len(key) > _BLOCK_BYTES else key).ljust(_BLOCK_BYTES, b"\0")
    inner = sha256(block.translate(_INNER) + data).digest()
    return sha256(block.translate(_OUTER) + inner).digest()


def derive(key: bytes, *, info: bytes, length_bytes: int, salt: bytes = b"") -> bytes:
    """``length_bytes`` (1 to 8160) of key material from ``key`` for the purpose ``info``."""
    if not 1 <= length_bytes <= 255 * DIGEST_BYTES:
        raise ValueError(f"HKDF-SHA256 cannot give {length_bytes} bytes")
    secret = hmac(salt, key)  # an empty salt and one of 32 zeros are the same key of HMAC
    block = made = b""
    for counter in range(1, -(-length_bytes // DIGEST_BYTES) + 1):
        block = hmac(secret, block + info + bytes((counter,)))
        made += block
    return made[:length_bytes]
