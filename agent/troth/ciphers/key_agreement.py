# SPDX-License-Identifier: Apache-2.0
"""Encryption to a key on an elliptic curve: ECDH-ES+A256KW with AES-256-GCM.

Serves a guest, whose ``AgreementKey`` lives for one boot, and ``seal`` the
broker. Must never be used twice for one ephemeral key, nor take an algorithm or
a curve that the owner of the key did not offer.

Source: RFC 7518, sections 4.6 and 4.6.2, with empty apu and apv; RFC 3394.
"""

from __future__ import annotations

import os
import struct

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from troth.ciphers import jwe_content
from troth.documents import jwe, jwk
from troth.errors import FormatError
from troth.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.documents.jwe import Jwe
    from troth.documents.jwk import EcPublicKey

_CURVES: dict[str, type[ec.SECP256R1 | ec.SECP521R1]] = {
    jwk.P256: ec.SECP256R1,
    jwk.P521: ec.SECP521R1,
}
_KEK_BYTES = 32
# AlgorithmID, empty PartyUInfo and PartyVInfo, SuppPubInfo: the KEK's size in bits.
_OTHER_INFO = struct.pack(">I", len(jwk.ECDH)) + jwk.ECDH.encode() + struct.pack(">III", 0, 0, 256)


class AgreementKey:
    """A private key of one boot; a new one of ``curve`` unless ``private`` is given."""

    def __init__(
        self, curve: str = jwk.P256, *, private: ec.EllipticCurvePrivateKey | None = None
    ) -> None:
        if private is None:
            private = ec.generate_private_key(_CURVES[curve]())
        self._private = private
        self.public = public_of(private.public_key())

    def open(self, sealed: Jwe) -> bytes:
        """The plain text of ``sealed``.

        Raises ``FormatError``: ``jwe-algorithm`` where algorithm or curve are
        not those of this key, ``jwk-curve``, ``jwe-open``.
        """
        ephemeral = sealed.ephemeral
        if ephemeral is None or sealed.algorithm != jwk.ECDH:
            raise FormatError("jwe-algorithm", f"{sealed.algorithm} was not offered")
        if ephemeral.curve != self.public.curve:
            raise FormatError("jwe-algorithm", f"the curve {ephemeral.curve} was not offered")
        secret = self._private.exchange(ec.ECDH(), point(ephemeral))
        try:
            content_key = aes_key_unwrap(_kek(secret), sealed.encrypted_key)
        except InvalidUnwrap:
            raise jwe_content.cannot_open() from None
        return jwe_content.open_(sealed, content_key)

    def private_key(self) -> ec.EllipticCurvePrivateKey:
        """The key itself, for a certificate request and a handshake with it."""
        return self._private


def seal(public: EcPublicKey, plaintext: bytes) -> Jwe:
    """``plaintext`` encrypted to ``public``. ``FormatError``: ``jwk-curve``."""
    receiver = point(public)
    once = ec.generate_private_key(_CURVES[public.curve]())
    ephemeral = public_of(once.public_key())
    content_key = os.urandom(jwe.CONTENT_KEY_BYTES)
    wrapped = aes_key_wrap(_kek(once.exchange(ec.ECDH(), receiver)), content_key)
    protected = jwe.protect(jwk.ECDH, ephemeral)
    sealed = jwe_content.seal(protected, jwk.ECDH, content_key, plaintext)
    return replace(sealed, ephemeral=ephemeral, encrypted_key=wrapped)


def point(public: EcPublicKey) -> ec.EllipticCurvePublicKey:
    """``public`` as the library's key. ``FormatError``: ``jwk-curve`` off the curve."""
    x, y = int.from_bytes(public.x, "big"), int.from_bytes(public.y, "big")
    try:
        return ec.EllipticCurvePublicNumbers(x, y, _CURVES[public.curve]()).public_key()
    except ValueError:
        raise FormatError("jwk-curve", f"a point is not on {public.curve}") from None


def public_of(key: ec.EllipticCurvePublicKey) -> EcPublicKey:
    """The library's ``key``, of one of the two curves, as a value."""
    numbers = key.public_numbers()
    for name, curve in _CURVES.items():
        if isinstance(key.curve, curve):
            size = jwk.COORDINATE_BYTES[name]
            return jwk.EcPublicKey(
                name, numbers.x.to_bytes(size, "big"), numbers.y.to_bytes(size, "big")
            )
    raise FormatError("jwk-curve", f"the curve {key.curve.name} is not taken")


def _kek(secret: bytes) -> bytes:
    return ConcatKDFHash(SHA256(), _KEK_BYTES, _OTHER_INFO).derive(secret)
