# SPDX-License-Identifier: Apache-2.0
"""Certificates of a broker: its own for TLS, and those in SPIFFE's form that it issues.

Serves ``keybroker.issuer``. A guest's certificate says one thing, its SPIFFE ID,
and lives minutes. What a request asks for is not looked at, but for its key: the
issuer says who somebody is. Must never issue for a key whose owner did not sign
the request, nor another authority.

Sources: RFC 5280; RFC 2986 (PKCS #10); SPIFFE, "X.509-SVID" (one URI SAN, no CA,
digitalSignature); RFC 7518 for the curves that keys can be agreed on.
"""

from __future__ import annotations

import hashlib
import ipaddress
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from troth.errors import FormatError
from troth.record import record

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

_PEM = serialization.Encoding.PEM
_DER = serialization.Encoding.DER
_SPKI = serialization.PublicFormat.SubjectPublicKeyInfo
#: What the library says of bytes that are none.
_UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    InvalidSignature,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.UnsupportedGeneralNameType,
)
_CURVES = {"secp256r1": "P-256", "secp521r1": "P-521"}


@record
class ClientKey:
    """The public key of a guest: ``curve`` as JOSE names it, coordinates of full size."""

    curve: str
    x: bytes
    y: bytes
    spki: bytes


@record
class Svid:
    """What a certificate in SPIFFE's form says: ``serial`` in hex, the ID, whose key."""

    serial: str
    spiffe_id: str
    key: ClientKey


def new_key() -> bytes:
    """PEM (PKCS#8) of a new P-256 key."""
    return _pem(ec.generate_private_key(ec.SECP256R1()))


def new_authority_key() -> bytes:
    """PEM (PKCS#8) of a new P-384 key."""
    return _pem(ec.generate_private_key(ec.SECP384R1()))


def server_certificate(
    key_pem: bytes,
    common_name: str,
    hosts: Sequence[str],
    *,
    not_before: datetime,
    not_after: datetime,
) -> bytes:
    """PEM of a certificate that the key signs itself, for ``hosts``: names and addresses."""
    key = _private(key_pem)
    names = [_host(host) for host in hosts]
    builder = _builder(common_name, common_name, key.public_key(), not_before, not_after)
    builder = builder.add_extension(
        x509.BasicConstraints(ca=False, path_length=None), critical=True
    ).add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(_PEM)


def spki_sha256(certificate_pem: bytes, *, where: str = "") -> str:
    """What a guest pins: SHA-256, in hex, of the key in the first certificate.

    Raises ``FormatError`` ``cert-format``.
    """
    try:
        found = x509.load_pem_x509_certificate(certificate_pem)
        spki = found.public_key().public_bytes(_DER, _SPKI)
    except (ValueError, UnsupportedAlgorithm):
        raise FormatError("cert-format", "no certificate in PEM", where=where) from None
    return hashlib.sha256(spki).hexdigest()


class Authority:
    """An issuer of guests' certificates: its key and its certificate, both PEM.

    Raises ``FormatError`` ``cert-format``, ``key-format``.
    """

    __slots__ = ("_certificate", "_key", "der", "pem")

    def __init__(self, key_pem: bytes, certificate_pem: bytes) -> None:
        self._key = _private(key_pem)
        try:
            self._certificate = x509.load_pem_x509_certificate(certificate_pem)
        except ValueError:
            raise FormatError("cert-format", "no certificate in PEM") from None
        self.pem = certificate_pem
        self.der = self._certificate.public_bytes(_DER)

    @classmethod
    def make(
        cls, key_pem: bytes, spiffe_id: str, *, not_before: datetime, not_after: datetime
    ) -> Authority:
        """One whose own certificate is new; ``spiffe_id``: of its trust domain."""
        key = _private(key_pem)
        name = "troth keybroker issuer"
        builder = (
            _builder(name, name, key.public_key(), not_before, not_after)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(_uri(spiffe_id), critical=False)
            # Who checks a chain wants both names of keys (RFC 5280, 4.2.1.1 and 4.2.1.2).
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
        )
        return cls(key_pem, builder.sign(key, hashes.SHA384()).public_bytes(_PEM))

    def issue(
        self, key: ClientKey, spiffe_id: str, *, not_before: datetime, not_after: datetime
    ) -> tuple[str, bytes]:
        """(serial in hex, DER) of a certificate for ``key`` that says ``spiffe_id``."""
        public = serialization.load_der_public_key(key.spki)
        if not isinstance(public, ec.EllipticCurvePublicKey):
            raise _no_key()
        serial = x509.random_serial_number()
        builder = (
            x509.CertificateBuilder(serial_number=serial)
            .subject_name(_name("troth guest"))
            .issuer_name(self._certificate.subject)
            .public_key(public)
            .not_valid_before(not_before)
            .not_valid_after(not_after)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(_uri(spiffe_id), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )
        return f"{serial:x}", builder.sign(self._key, hashes.SHA384()).public_bytes(_DER)


def request_key(der: bytes) -> ClientKey:
    """The key of the request (PKCS #10) ``der``, whose owner has signed it.

    Raises ``FormatError`` ``csr-format``, ``csr-key`` for a key that nothing can be
    encrypted to: P-256 and P-521 serve.
    """
    try:
        found = x509.load_der_x509_csr(der)
        good = found.is_signature_valid
        public = found.public_key()
    except _UNREADABLE:
        raise FormatError("csr-format", "no request for a certificate in DER") from None
    if not good:
        raise FormatError("csr-format", "the key in the request did not sign it")
    return _client_key(public)


def svid(der: bytes) -> Svid:
    """What a client's certificate says; whether it counts is TLS's and the issuer's to judge.

    Raises ``FormatError``: ``cert-format`` where it has not exactly one URI, ``csr-key``.
    """
    try:
        found = x509.load_der_x509_certificate(der)
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        public = found.public_key()
    except _UNREADABLE:
        raise FormatError("cert-format", "no certificate in SPIFFE's form") from None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise FormatError("cert-format", f"a certificate with {len(uris)} URIs, not one")
    return Svid(f"{found.serial_number:x}", uris[0], _client_key(public))


def _client_key(public: object) -> ClientKey:
    if not isinstance(public, ec.EllipticCurvePublicKey) or public.curve.name not in _CURVES:
        raise _no_key()
    size, numbers = (public.curve.key_size + 7) // 8, public.public_numbers()
    return ClientKey(
        _CURVES[public.curve.name],
        numbers.x.to_bytes(size, "big"),
        numbers.y.to_bytes(size, "big"),
        public.public_bytes(_DER, _SPKI),
    )


def _no_key() -> FormatError:
    return FormatError("csr-key", "a guest's key is on P-256 or P-521")


def _private(pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise FormatError("key-format", "no private key in PEM") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise FormatError("key-algorithm", "no elliptic-curve key")
    return key


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _uri(spiffe_id: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(spiffe_id)])


def _builder(
    subject: str,
    issuer: str,
    key: ec.EllipticCurvePublicKey,
    not_before: datetime,
    not_after: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
