# SPDX-License-Identifier: Apache-2.0
"""Argon2id and Argon2i, version 1.3, without secret and associated data (RFC 9106).

Serves key-slots of volumes that others made. Only where the installed ``cryptography``
has them: Argon2id came with 44.0, Argon2i later. Sets no bounds: memory and time are the
caller's to judge, and to bound from outside.
"""

from __future__ import annotations

from troth.errors import FormatError, HostError

_CLASSES = {"argon2id": "Argon2id", "argon2i": "Argon2i"}


def derive(
    kind: str,
    passphrase: bytes,
    salt: bytes,
    *,
    time: int,
    memory_kib: int,
    lanes: int,
    length_bytes: int,
) -> bytes:
    """``length_bytes`` of key; ``kind``: "argon2id" or "argon2i".

    Raises ``HostError`` ``argon2-missing`` where ``cryptography`` or its OpenSSL lacks it,
    ``FormatError`` ``argon2-parameters`` for values that Argon2 does not have,
    ``MemoryError`` where memory is short.
    """
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        from cryptography.hazmat.primitives.kdf import argon2
    except ImportError:
        raise _missing(kind) from None
    made = getattr(argon2, _CLASSES.get(kind, ""), None)
    if made is None:
        raise _missing(kind)
    try:
        kdf = made(
            salt=salt, length=length_bytes, iterations=time, lanes=lanes, memory_cost=memory_kib
        )
    except UnsupportedAlgorithm:
        raise _missing(kind) from None
    except ValueError as error:
        raise FormatError("argon2-parameters", f"no {kind} can be computed: {error}") from None
    key: bytes = kdf.derive(passphrase)
    return key


def _missing(kind: str) -> HostError:
    return HostError(
        "argon2-missing",
        f"the installed cryptography has no {kind}",
        hint="Argon2id needs cryptography 44 and OpenSSL 3.2; or use a key-slot with PBKDF2",
    )
