# SPDX-License-Identifier: Apache-2.0
"""PBKDF2 with HMAC (RFC 8018).

Serves key-slots and digests of LUKS2. Not ``hashlib``'s, because that would bring the
system's libcrypto into an image beside the one that ``cryptography`` has in it. Sets no
bounds: whoever takes a count of iterations from outside does.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.hashes import SHA256, SHA512
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from troth.errors import FormatError

_HASHES = {"sha256": SHA256, "sha512": SHA512}


def derive(
    passphrase: bytes, salt: bytes, *, hash_name: str, iterations: int, length_bytes: int
) -> bytes:
    """``length_bytes`` of key; ``FormatError`` ``pbkdf2-hash`` for other hashes than SHA-2's."""
    if hash_name not in _HASHES:
        raise FormatError("pbkdf2-hash", f"{hash_name!r} is none of {', '.join(_HASHES)}")
    kdf = PBKDF2HMAC(
        algorithm=_HASHES[hash_name](), length=length_bytes, salt=salt, iterations=iterations
    )
    return kdf.derive(passphrase)
