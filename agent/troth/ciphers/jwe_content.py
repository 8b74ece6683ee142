# SPDX-License-Identifier: Apache-2.0
"""The content of a JWE: AES-256-GCM over text whose header is part of what is proved.

Serves ``key_agreement`` and ``key_transport``. A content key is used once. Must
never print a header anew: what is proved are the letters that came.

Source: RFC 7516, section 5; RFC 7518, section 5.3.
"""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from troth.documents import jwe
from troth.errors import FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.documents.jwe import Jwe


def seal(protected: str, algorithm: str, content_key: bytes, plaintext: bytes) -> Jwe:
    """``plaintext`` under ``content_key``, 32 bytes; the encrypted key and epk are left empty."""
    iv = os.urandom(jwe.IV_BYTES)
    sealed = AESGCM(content_key).encrypt(iv, plaintext, protected.encode("ascii"))
    return jwe.Jwe(
        protected, algorithm, None, b"", iv, sealed[: -jwe.TAG_BYTES], sealed[-jwe.TAG_BYTES :]
    )


def open_(sealed: Jwe, content_key: bytes) -> bytes:
    """The plain text. ``FormatError``: ``jwe-open``."""
    if len(content_key) != jwe.CONTENT_KEY_BYTES:
        raise cannot_open()
    try:
        return AESGCM(content_key).decrypt(
            sealed.iv, sealed.ciphertext + sealed.tag, sealed.protected.encode("ascii")
        )
    except InvalidTag:
        raise cannot_open() from None


def cannot_open() -> FormatError:
    """``jwe-open``: one error for every step, so that no answer tells which one failed."""
    return FormatError("jwe-open", "what came was not encrypted to this key, or was changed")
