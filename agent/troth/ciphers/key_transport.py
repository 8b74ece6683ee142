# SPDX-License-Identifier: Apache-2.0
"""Encryption to an RSA key: RSA-OAEP-256 with AES-256-GCM.

Serves the broker for guests that offer one, and tests; troth's own guests use
``key_agreement``. Must never fall back to the older padding.

Source: RFC 7518, section 4.3: OAEP with SHA-256, and SHA-256 in its MGF1.
"""

from __future__ import annotations

import os

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from troth.ciphers import jwe_content
from troth.documents import jwe, jwk
from troth.errors import FormatError
from troth.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.documents.jwe import Jwe
    from troth.documents.jwk import RsaPublicKey


class TransportKey:
    """A private key of 2048 bits, new unless ``private`` is given."""

    def __init__(self, *, private: rsa.RSAPrivateKey | None = None) -> None:
        if private is None:
            private = rsa.generate_private_key(65537, 2048)
        self._private = private
        numbers = private.public_key().public_numbers()
        self.public = jwk.RsaPublicKey(_bytes(numbers.n), _bytes(numbers.e))

    def open(self, sealed: Jwe) -> bytes:
        """The plain text of ``sealed``. ``FormatError``: ``jwe-algorithm``, ``jwe-open``."""
        if sealed.algorithm != jwk.RSA_OAEP:
            raise FormatError("jwe-algorithm", f"{sealed.algorithm} was not offered")
        try:
            content_key = self._private.decrypt(sealed.encrypted_key, _oaep())
        except ValueError:
            raise jwe_content.cannot_open() from None
        return jwe_content.open_(sealed, content_key)


def seal(public: RsaPublicKey, plaintext: bytes) -> Jwe:
    """``plaintext`` encrypted to ``public``. ``FormatError``: ``jwk-form``."""
    n, e = int.from_bytes(public.n, "big"), int.from_bytes(public.e, "big")
    try:
        key = rsa.RSAPublicNumbers(e, n).public_key()
    except ValueError:
        raise FormatError("jwk-form", "an RSA key that is none") from None
    content_key = os.urandom(jwe.CONTENT_KEY_BYTES)
    wrapped = key.encrypt(content_key, _oaep())
    protected = jwe.protect(jwk.RSA_OAEP)
    sealed = jwe_content.seal(protected, jwk.RSA_OAEP, content_key, plaintext)
    return replace(sealed, encrypted_key=wrapped)


def _oaep() -> padding.OAEP:
    return padding.OAEP(padding.MGF1(SHA256()), SHA256(), None)


def _bytes(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")
