# SPDX-License-Identifier: Apache-2.0
"""Secrets sealed for a disk: AES-256-GCM under a master key, which a passphrase file wraps.

Serves ``keybroker.store``. What a secret is for is its additional data, so that
no sealed secret can stand in the place of another. IVs are random: fewer than
2**32 secrets are sealed under one key. Must never see where the bytes go, and
never put one into a message.

Source: NIST SP 800-38D; RFC 7914 (scrypt).
"""

from __future__ import annotations

import hashlib
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from troth.errors import FormatError

KEY_BYTES = 32
IV_BYTES = 12
SALT_BYTES = 16

#: 32 MiB and a fraction of a second: passphrases that people make deserve no less.
_SCRYPT = {"n": 1 << 15, "r": 8, "p": 1, "maxmem": 64 << 20}


def seal(key: bytes, secret: bytes, *, purpose: str) -> bytes:
    """IV, ciphertext and tag of ``secret``, which opens for the same ``purpose`` only."""
    iv = os.urandom(IV_BYTES)
    return iv + AESGCM(key).encrypt(iv, secret, purpose.encode())


def open_(key: bytes, sealed: bytes, *, purpose: str) -> bytes:
    """The secret. ``FormatError`` ``sealed-secret`` for another key, purpose or bytes."""
    try:
        return AESGCM(key).decrypt(sealed[:IV_BYTES], sealed[IV_BYTES:], purpose.encode())
    except (InvalidTag, ValueError):
        raise FormatError(
            "sealed-secret", f"what is sealed for {purpose} does not open with this key"
        ) from None


def stretch(passphrase: bytes, salt: bytes) -> bytes:
    """The 32 bytes that wrap a master key, of the content of a passphrase file."""
    return hashlib.scrypt(passphrase, salt=salt, dklen=KEY_BYTES, **_SCRYPT)
