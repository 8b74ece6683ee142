# SPDX-License-Identifier: Apache-2.0
"""Certificates and revocation lists in AMD's form, for simulated platforms only.

Serves ``simulated.pki``. There is no way to leave out the mark: every subject
names itself SIMULATED in its organisation, and every certificate carries the
critical extension that ``signing.certificates`` knows and no other verifier
does. Common names are AMD's, because chains are found by them; nothing else
here takes AMD's name. Must never issue under a root that anybody trusts.

Sources: RFC 5280; RFC 4055 (PSS); AMD 57230, "VCEK Certificate and KDS
Interface Specification" (names, serial number 0, extensions).
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID

from troth.abi import der
from troth.errors import FormatError
from troth.record import record
from troth.signing.certificates import SIMULATED

if TYPE_CHECKING:
    from datetime import datetime

ORGANISATION = "SIMULATED by troth: protects nothing"
UNIT = "SIMULATED"

_UTF8_STRING = 0x0C
_MARK = der.encode(_UTF8_STRING, UNIT.encode())
_PSS = padding.PSS(padding.MGF1(hashes.SHA384()), salt_length=48)
_RSA_BITS = 4096
_EXPONENT = 65537
_PEM = serialization.Encoding.PEM
_DER = serialization.Encoding.DER
_PKCS8 = serialization.PrivateFormat.PKCS8
#: Version 3, then the serial number 1: how every certificate begins that is to have 0 instead.
_SERIAL_ONE = b"\xa0\x03\x02\x01\x02\x02\x01\x01"
_SERIAL_ZERO = _SERIAL_ONE[:-1] + b"\x00"


@record
class Subject:
    """What a certificate is for: ``common_name``, its ``issuer``'s, its validity (aware times)."""

    common_name: str
    issuer: str
    not_before: datetime
    not_after: datetime


class IssuerKey:
    """An RSA-4096 key that signs certificates and lists by RSASSA-PSS with SHA-384."""

    __slots__ = ("_key",)

    def __init__(self, key: rsa.RSAPrivateKey) -> None:
        if key.key_size != _RSA_BITS:
            raise FormatError("key-algorithm", f"an RSA key of {key.key_size} bits, not 4096")
        self._key = key

    @classmethod
    def generate(cls) -> IssuerKey:
        """A new key. Takes seconds."""
        return cls(rsa.generate_private_key(public_exponent=_EXPONENT, key_size=_RSA_BITS))

    def authority(
        self, subject: Subject, key: IssuerKey, *, serial: int, path_length: int | None
    ) -> bytes:
        """DER of the certificate of an authority, whose key is ``key``, signed by this one.

        ``path_length``: None for a root, which may also sign revocation lists.
        """
        usage = x509.KeyUsage(
            digital_signature=False,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=path_length is None,
            encipher_only=False,
            decipher_only=False,
        )
        builder = _builder(subject, key._key.public_key(), serial)
        builder = builder.add_extension(
            x509.BasicConstraints(ca=True, path_length=path_length), critical=True
        ).add_extension(usage, critical=True)
        return self._sign(builder).public_bytes(_DER)

    def report_key(
        self, subject: Subject, spki: bytes, extensions: tuple[tuple[str, bytes], ...]
    ) -> bytes:
        """DER of the certificate of a VCEK or VLEK, with the serial number 0.

        ``spki``: of a P-384 key; ``extensions``: pairs of dotted OID and raw value.
        """
        key = serialization.load_der_public_key(spki)
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise FormatError("key-algorithm", "not an elliptic-curve key")
        builder = _builder(subject, key, 1)
        for oid, raw in extensions:
            builder = builder.add_extension(
                x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), raw), critical=False
            )
        return self._with_serial_zero(self._sign(builder))

    def empty_list(self, issuer: str, *, this_update: datetime, next_update: datetime) -> bytes:
        """DER of a revocation list that revokes nothing."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(_name(issuer))
            .last_update(this_update)
            .next_update(next_update)
        )
        signed = builder.sign(self._key, hashes.SHA384(), rsa_padding=_PSS)
        return signed.public_bytes(_DER)

    def _sign(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        return builder.sign(self._key, hashes.SHA384(), rsa_padding=_PSS)

    def _with_serial_zero(self, made: x509.Certificate) -> bytes:
        # The library refuses to build what AMD's specification asks for, so the number is put
        # in afterwards, where it has the same length, and the whole is signed again.
        was, whole = made.tbs_certificate_bytes, made.public_bytes(_DER)
        tbs = was.replace(_SERIAL_ONE, _SERIAL_ZERO, 1)
        signature = self._key.sign(tbs, _PSS, hashes.SHA384())
        before, _, after = whole.partition(was)
        return before + tbs + after[: -len(signature)] + signature


def new_report_key() -> bytes:
    """PEM (PKCS#8) of a new P-384 key; ``signing.keys.load_private`` reads it."""
    key = ec.generate_private_key(ec.SECP384R1())
    return key.private_bytes(_PEM, _PKCS8, serialization.NoEncryption())


def certificate_pem(der_bytes: bytes) -> bytes:
    """``der_bytes``, a certificate, as PEM (RFC 7468)."""
    body = base64.b64encode(der_bytes)
    lines = [body[at : at + 64] for at in range(0, len(body), 64)]
    return b"\n".join((b"-----BEGIN CERTIFICATE-----", *lines, b"-----END CERTIFICATE-----", b""))


def _builder(
    subject: Subject, key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey, serial: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject.common_name))
        .issuer_name(_name(subject.issuer))
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(subject.not_before)
        .not_valid_after(subject.not_after)
        .add_extension(
            x509.UnrecognizedExtension(x509.ObjectIdentifier(SIMULATED), _MARK), critical=True
        )
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, UNIT),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANISATION),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )
