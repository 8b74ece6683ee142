# SPDX-License-Identifier: Apache-2.0
"""HKDF with SHA-256: one key into many that tell nothing of each other.

Serves the documents and volumes of key release. Must never be given a password.
Source: RFC 5869.
"""

from __future__ import annotations

from troth.abi.keyed_digest import digest

DIGEST_BYTES = 32


def hkdf_sha256(key: bytes, info: bytes, *, size_bytes: int, salt: bytes = b"") -> bytes:
    """``size_bytes`` (at most 8160) derived from ``key`` for the use ``info``."""
    prk = digest(salt or bytes(DIGEST_BYTES), key)
    found = block = b""
    counter = 0
    while len(found) < size_bytes:
        counter += 1
        block = digest(prk, block + info + bytes([counter]))
        found += block
    return found[:size_bytes]
