# SPDX-License-Identifier: Apache-2.0
"""HKDF with SHA-256: one key into many that tell nothing of each other.

Serves the documents and volumes of key release. Must never be given a password.
Source: RFC 5869.
"""

from __future__ import annotations

import hmac

DIGEST_BYTES = 32


def hkdf_sha256(key: bytes, info: bytes, *, size_bytes: int, salt: bytes = b"") -> bytes:
    """``size_bytes`` (at most 8160) derived from ``key`` for the use ``info``."""
    prk = hmac.digest(salt or bytes(DIGEST_BYTES), key, "sha256")
    found = block = b""
    counter = 0
    while len(found) < size_bytes:
        counter += 1
        block = hmac.digest(prk, block + info + bytes([counter]), "sha256")
        found += block
    return found[:size_bytes]
