# SPDX-License-Identifier: Apache-2.0
"""Public keys as JSON: what a guest asks a broker to encrypt to, and ephemeral keys.

Serves ``kbs`` and ``jwe``, on both sides. Only numbers of the right size are
read here; whether a point is on its curve is judged by ``ciphers``. Unknown
fields are refused: a broker that dropped them would compute another REPORT_DATA
than the guest did. Must never hold a private part.

Source: RFC 7517, RFC 7518 section 6; the choices are those of Trustee's KBS.
"""

from __future__ import annotations

from troth.documents import base64_text, strict
from troth.errors import FormatError
from troth.record import record

TYPE_CHECKING = False

P256 = "P-256"
P521 = "P-521"
COORDINATE_BYTES = {P256: 32, P521: 66}

ECDH = "ECDH-ES+A256KW"
RSA_OAEP = "RSA-OAEP-256"

RSA_BITS = (2048, 4096)
"""Smallest and largest modulus that is taken."""


@record
class EcPublicKey:
    """A point for ``ECDH``: ``curve`` is ``P256`` or ``P521``; ``x`` and ``y`` of full size."""

    curve: str
    x: bytes
    y: bytes


@record
class RsaPublicKey:
    """A key for ``RSA_OAEP``: ``n`` and ``e``, big-endian, without leading zeros."""

    n: bytes
    e: bytes


if TYPE_CHECKING:
    PublicKey = EcPublicKey | RsaPublicKey


def algorithm(key: PublicKey) -> str:
    """How something is encrypted to ``key``."""
    return ECDH if isinstance(key, EcPublicKey) else RSA_OAEP


def tree(key: PublicKey) -> dict[str, object]:
    """The JSON object of ``key``, its fields in the order of the key broker protocol's peers."""
    if isinstance(key, EcPublicKey):
        return {"kty": "EC", "crv": key.curve, "alg": ECDH, **_coordinates(key)}
    n, e = base64_text.url(key.n), base64_text.url(key.e)
    return {"kty": "RSA", "alg": RSA_OAEP, "n": n, "e": e}


def ephemeral_tree(key: EcPublicKey) -> dict[str, object]:
    """The object ``epk`` of ``key``: sorted, as peers that print it anew do."""
    return {"crv": key.curve, "kty": "EC", **_coordinates(key)}


def parse(own: strict.Reader, *, where: str = "") -> PublicKey:
    """The key that a guest offers. ``FormatError``: ``jwk-form``, ``json-*``."""
    if own.text("kty", allowed=("EC", "RSA")) == "EC":
        own.text("alg", allowed=(ECDH,))
        return _point(own, where)
    own.text("alg", allowed=(RSA_OAEP,))
    key = RsaPublicKey(_number(own, "n", where), _number(own, "e", where))
    own.close()
    bits = int.from_bytes(key.n, "big").bit_length()
    if not RSA_BITS[0] <= bits <= RSA_BITS[1] or not key.n[-1] & 1:
        raise _wrong(f"an RSA modulus of {bits} bits", where)
    # Fermat's primes and their like; larger exponents only cost the one who encrypts.
    if len(key.e) > 4 or not key.e[-1] & 1 or key.e == b"\1":
        raise _wrong("an RSA exponent that is not used", where)
    return key


def parse_ephemeral(own: strict.Reader, *, where: str = "") -> EcPublicKey:
    """The object ``epk``. ``FormatError``: ``jwk-form``, ``json-*``."""
    own.text("kty", allowed=("EC",))
    return _point(own, where)


def _point(own: strict.Reader, where: str) -> EcPublicKey:
    curve = own.text("crv", allowed=tuple(COORDINATE_BYTES))
    size = COORDINATE_BYTES[curve]
    values = []
    for name in ("x", "y"):
        value = base64_text.from_url(own.text(name))
        if value is None or len(value) != size:
            raise _wrong(f"{name} is not {size} bytes of base64url", where)
        values.append(value)
    own.close()
    return EcPublicKey(curve, *values)


def _number(own: strict.Reader, name: str, where: str) -> bytes:
    value = base64_text.from_url(own.text(name))
    if not value or not value[0]:
        raise _wrong(f"{name} is no number in base64url", where)
    return value


def _coordinates(key: EcPublicKey) -> dict[str, object]:
    return {"x": base64_text.url(key.x), "y": base64_text.url(key.y)}


def _wrong(message: str, where: str) -> FormatError:
    return FormatError("jwk-form", message, where=where)
