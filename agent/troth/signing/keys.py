# SPDX-License-Identifier: Apache-2.0
"""Keys from files, signatures made and verified: ECDSA P-384 with SHA-384, and Ed25519.

Serves those who vouch for an image (ID blocks, reference values) and those who
check that. The only module that imports ``cryptography``. Signatures are
deterministic, so that signed files can be made again byte for byte. Must never
put a byte of a private key into a message, and never guess: one key a file, of
the two kinds, not encrypted.

Sources: RFC 7468 (PEM), RFC 5915 (SEC1 private keys), RFC 5958 (PKCS#8), RFC
5280 section 4.1 (SPKI), RFC 6979 (deterministic ECDSA), RFC 8032 (Ed25519),
FIPS 186-4 appendix D.1.2.4 (P-384).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils

from troth.errors import FormatError, HostError, UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import (
        PrivateKeyTypes,
        PublicKeyTypes,
    )

P384 = "ecdsa-p384-sha384"
ED25519 = "ed25519"

MAX_KEY_BYTES = 64 << 10
"""More than any file with one key and its comments; more is refused unread."""

MAX_SIGNATURE_BYTES = 4096
P384_ORDER = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffff"
    "c7634d81f4372ddf581a0db248b0a77aecec196accc52973",
    16,
)
"""The order of the group: r and s of a signature lie between 1 and this less one."""

_MAX_BLOCKS = 8
_BLOCK = re.compile(
    rb"^-----BEGIN ([A-Z0-9 ]{1,64})-----[ \t\r]*\n(.*?)^-----END ([A-Z0-9 ]{1,64})-----[ \t\r]*$",
    re.MULTILINE | re.DOTALL,
)
_PRIVATE = (b"EC PRIVATE KEY", b"PRIVATE KEY")
_PUBLIC = (b"PUBLIC KEY",)
_HINT = "troth reads SEC1 and PKCS#8 private keys and SPKI public keys, as PEM or DER"


class PublicKey:
    """A public key; two are equal where their SPKI is.

    ``algorithm``: ``P384`` or ``ED25519``; ``spki``: its DER
    SubjectPublicKeyInfo; ``key_id``: SHA-256 of that, lower-case hex.
    """

    __slots__ = ("_key", "algorithm", "key_id", "spki")

    def __init__(self, key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey) -> None:
        self._key = key
        self.algorithm = P384 if isinstance(key, ec.EllipticCurvePublicKey) else ED25519
        self.spki = key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.key_id = hashlib.sha256(self.spki).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and self.spki == other.spki

    def __hash__(self) -> int:
        return hash(self.spki)

    def __repr__(self) -> str:
        return f"PublicKey({self.algorithm}, {self.key_id})"

    @property
    def coordinates(self) -> tuple[int, int]:
        """The point (x, y) of a P-384 key. Raises ``FormatError`` ``key-algorithm`` for another."""
        if not isinstance(self._key, ec.EllipticCurvePublicKey):
            raise FormatError("key-algorithm", "an Ed25519 key, where only P-384 serves")
        numbers = self._key.public_numbers()
        return numbers.x, numbers.y

    def verify(self, signature: bytes, data: bytes) -> bool:
        """Whether ``signature`` is this key's over ``data``; odd bytes are a no.

        P-384: DER of (r, s) over SHA-384 of ``data``, high and low s alike;
        Ed25519: the 64 bytes.
        """
        try:
            if isinstance(self._key, ec.EllipticCurvePublicKey):
                signature_numbers(signature)
                self._key.verify(signature, data, ec.ECDSA(hashes.SHA384()))
            else:
                self._key.verify(signature, data)
        except (InvalidSignature, FormatError):
            return False
        return True


class PrivateKey:
    """A private key; ``public`` is its other half. Its ``repr`` names the public half only."""

    __slots__ = ("_key", "public")

    def __init__(self, key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> None:
        self._key = key
        self.public = PublicKey(key.public_key())

    def __repr__(self) -> str:
        return f"PrivateKey(of {self.public!r})"

    def sign(self, data: bytes) -> bytes:
        """The signature over ``data``, in the form that ``PublicKey.verify`` takes.

        The same key and data give the same bytes (RFC 6979). Raises
        ``HostError`` ``key-deterministic`` where the library cannot do that.
        """
        if isinstance(self._key, ed25519.Ed25519PrivateKey):
            return self._key.sign(data)
        try:
            way = ec.ECDSA(hashes.SHA384(), deterministic_signing=True)
        except UnsupportedAlgorithm:
            raise HostError(
                "key-deterministic",
                "this build of cryptography has no deterministic ECDSA signatures",
                hint="pip install cryptography brings a build that has them",
            ) from None
        return self._key.sign(data, way)


def read_file(path: str) -> bytes:
    """The bytes of a file with a key or a signature, read once.

    Raises ``UsageError`` ``key-file`` where it cannot be read, ``FormatError``
    ``key-format`` where it is larger than any key.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_KEY_BYTES + 1)
    except OSError as error:
        raise UsageError("key-file", f"cannot be read: {error.strerror}", where=path) from None
    if len(data) > MAX_KEY_BYTES:
        raise FormatError("key-format", f"more than {MAX_KEY_BYTES} bytes: no key", where=path)
    return data


def load_private(data: bytes, *, where: str = "") -> PrivateKey:
    """The private key in ``data``: SEC1 or PKCS#8, PEM or DER.

    Raises ``FormatError``: ``key-format``, ``key-several``, ``key-encrypted``,
    ``key-curve``, ``key-algorithm``; ``key-kind`` for a public key.
    """
    key = load(data, where=where)
    if isinstance(key, PublicKey):
        raise FormatError(
            "key-kind", "a public key, where the private one is needed to sign", where=where
        )
    return key


def load_public(data: bytes, *, where: str = "") -> PublicKey:
    """The public key in ``data``: SPKI, PEM or DER.

    Raises as ``load_private`` does; ``key-kind`` for a private key, which has
    no place where only the public one is needed.
    """
    key = load(data, where=where)
    if isinstance(key, PrivateKey):
        raise FormatError(
            "key-kind",
            "a private key, where only the public one is needed",
            where=where,
            hint="openssl pkey -pubout makes it; keep the private key away from here",
        )
    return key


def load(data: bytes, *, where: str = "") -> PrivateKey | PublicKey:
    """The one key in ``data``, private or public. Raises as ``load_private`` does."""
    if len(data) > MAX_KEY_BYTES:
        raise FormatError("key-format", f"more than {MAX_KEY_BYTES} bytes: no key", where=where)
    if b"-----BEGIN " not in data:
        return _from_der(data, where=where, private=None)
    label, content = _one_block(data, where=where)
    return _from_der(content, where=where, private=label in _PRIVATE)


def public_half(key: PrivateKey | PublicKey) -> PublicKey:
    """``key`` itself, or the public half of it."""
    return key.public if isinstance(key, PrivateKey) else key


def p384_public(x: int, y: int, *, where: str = "") -> PublicKey:
    """The P-384 key at the point (``x``, ``y``). Raises ``FormatError`` ``key-point``."""
    try:
        return PublicKey(ec.EllipticCurvePublicNumbers(x, y, ec.SECP384R1()).public_key())
    except ValueError:
        raise FormatError("key-point", "the point is not on the curve P-384", where=where) from None


def signature_numbers(der: bytes, *, where: str = "") -> tuple[int, int]:
    """The (r, s) of the DER signature ``der`` by a P-384 key, as they are: a high s stays high.

    Raises ``FormatError`` ``signature-format`` where the bytes are no DER of
    two integers, or one is not within 1 to the order less one.
    """
    if len(der) > MAX_SIGNATURE_BYTES:
        raise FormatError("signature-format", f"{len(der)} bytes: no signature", where=where)
    try:
        r, s = utils.decode_dss_signature(der)
    except ValueError:
        raise FormatError(
            "signature-format",
            "no ECDSA signature in DER",
            where=where,
            hint="openssl dgst -sha384 -sign writes one",
        ) from None
    return _in_range(r, s, where=where)


def signature_der(r: int, s: int, *, where: str = "") -> bytes:
    """The DER form of (``r``, ``s``). Raises ``FormatError`` ``signature-format``."""
    return utils.encode_dss_signature(*_in_range(r, s, where=where))


def _in_range(r: int, s: int, *, where: str) -> tuple[int, int]:
    if not (0 < r < P384_ORDER and 0 < s < P384_ORDER):
        raise FormatError(
            "signature-format", "r or s is no number of a P-384 signature", where=where
        )
    return r, s


def _one_block(data: bytes, *, where: str) -> tuple[bytes, bytes]:
    """Label and decoded content of the one key in the PEM file ``data``."""
    begun = data.count(b"-----BEGIN ")
    # The bound comes first: looking for the end of each of many blocks is no linear work.
    if begun > _MAX_BLOCKS:
        raise FormatError("key-several", f"{begun} PEM blocks, where one key must be", where=where)
    blocks = list(_BLOCK.finditer(data))
    if begun != len(blocks) or any(b[1] != b[3] for b in blocks):
        raise FormatError("key-format", "a PEM block is damaged or cut off", where=where)
    # openssl ecparam -genkey writes the curve before the key, which names it again.
    found = [block for block in blocks if block[1] != b"EC PARAMETERS"]
    if len(found) != 1:
        code = "key-several" if found else "key-format"
        said = f"{len(found)} PEM blocks, where one key must be" if found else "holds no key"
        raise FormatError(code, said, where=where, hint="put each key into a file of its own")
    label, content = found[0][1], found[0][2]
    if label == b"ENCRYPTED PRIVATE KEY" or b"Proc-Type:" in content:
        raise _encrypted(where)
    if label not in _PRIVATE + _PUBLIC:
        code = "key-kind" if label == b"CERTIFICATE" else "key-format"
        if label in (b"RSA PRIVATE KEY", b"DSA PRIVATE KEY", b"RSA PUBLIC KEY"):
            code = "key-algorithm"
        raise FormatError(code, f"holds a block {label.decode()}", where=where, hint=_HINT)
    try:
        return label, base64.b64decode(b"".join(content.split()), validate=True)
    except binascii.Error:
        raise FormatError("key-format", "the base64 of the key is damaged", where=where) from None


def _from_der(data: bytes, *, where: str, private: bool | None) -> PrivateKey | PublicKey:
    """The key in DER ``data``, which a PEM label called ``private`` or not, or nobody did."""
    key: PrivateKeyTypes | PublicKeyTypes | None = None
    try:
        if private is not False:
            key = _private_or_none(data)
        if key is None and private is not True:
            key = _public_or_none(data)
    except TypeError:  # the library's way of asking for a password
        raise _encrypted(where) from None
    except UnsupportedAlgorithm:
        raise FormatError(
            "key-algorithm", "a key of a kind that troth does not use", where=where, hint=_HINT
        ) from None
    if key is None:
        raise FormatError(
            "key-format", "neither a PEM nor a DER key that is whole", where=where, hint=_HINT
        )
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return PrivateKey(key)
    if isinstance(key, ed25519.Ed25519PublicKey):
        return PublicKey(key)
    if not isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey):
        raise FormatError(
            "key-algorithm", "neither an elliptic-curve nor an Ed25519 key", where=where
        )
    if not isinstance(key.curve, ec.SECP384R1):
        raise FormatError(
            "key-curve",
            f"a key on the curve {key.curve.name}, where P-384 is needed",
            where=where,
            hint="openssl ecparam -name secp384r1 -genkey -noout makes one",
        )
    return PrivateKey(key) if isinstance(key, ec.EllipticCurvePrivateKey) else PublicKey(key)


def _private_or_none(data: bytes) -> PrivateKeyTypes | None:
    try:
        return serialization.load_der_private_key(data, password=None)
    except ValueError:
        return None


def _public_or_none(data: bytes) -> PublicKeyTypes | None:
    try:
        return serialization.load_der_public_key(data)
    except ValueError:
        return None


def _encrypted(where: str) -> FormatError:
    return FormatError(
        "key-encrypted",
        "the private key is encrypted; troth asks for no passwords",
        where=where,
        hint="openssl pkey -in KEY decrypts it: give it as /dev/stdin, or sign with --detached",
    )
