# SPDX-License-Identifier: Apache-2.0
"""X.509 certificates of the kind AMD issues, read and checked.

Serves the verifier, which builds chains from them. Reading says nothing about
trust: ``issue_problem`` checks one link, and only a pinned digest makes a root.
Only one signature algorithm exists here, RSASSA-PSS with SHA-384, MGF1 with
SHA-384 and a salt of 48 bytes, under RSA keys of 4096 bits; must never learn
another from the certificate that uses it. The web's own path validation does
not serve: serial numbers here are 0, and extensions are AMD's.

Sources: RFC 5280; RFC 4055 (PSS); AMD 57230, "Versioned Chip Endorsement Key
(VCEK) Certificate and KDS Interface Specification".
"""

from __future__ import annotations

import hashlib
import threading
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import NameOID, SignatureAlgorithmOID

from troth.errors import FormatError
from troth.record import record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

RSA_4096 = "rsa-4096"
P384 = "ec-p384"

MAX_FILE_BYTES = 1 << 20
"""More than any bundle or list; more is refused unread."""

SIMULATED = "2.25.232939156098789833683138068389111997011"
"""The private extension of every certificate of a simulated platform, critical."""

_MAX_NAME = 64
_SALT_BYTES = 48
_PSS = padding.PSS(padding.MGF1(hashes.SHA384()), salt_length=_SALT_BYTES)
UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What the library raises about bytes that are no certificate or list."""


@record
class Certificate:
    """One certificate; nothing about it is verified.

    ``der``: its bytes; ``tbs``: those under the signature; ``subject``,
    ``issuer``: DER of the names; ``subject_cn``, ``issuer_cn``: their one common
    name, empty where there is not exactly one; ``key``: ``RSA_4096``, ``P384`` or
    another name; ``spki``: DER of the public key; ``signed_with_pss``: whether the
    signature's algorithm is the one that is allowed; ``path_length``: None where
    unlimited; ``extensions``: dotted OID to raw value of those that X.509 itself
    does not define; ``critical``: OIDs of critical ones that nobody here handles.
    """

    der: bytes
    tbs: bytes
    signature: bytes
    signed_with_pss: bool
    serial: int
    subject: bytes
    issuer: bytes
    subject_cn: str
    issuer_cn: str
    not_before: datetime
    not_after: datetime
    key: str
    spki: bytes
    is_ca: bool
    path_length: int | None
    may_sign_certificates: bool
    may_sign_lists: bool
    extensions: Mapping[str, bytes]
    critical: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Lower-case hex of the SHA-256 of ``der``: what a root is pinned by."""
        return hashlib.sha256(self.der).hexdigest()

    @property
    def self_issued(self) -> bool:
        """Whether subject and issuer are one name."""
        return self.subject == self.issuer

    @property
    def simulated(self) -> bool:
        """Whether it says to belong to a simulated platform."""
        return SIMULATED in self.extensions

    def valid_at(self, at: datetime) -> bool:
        """Whether the aware time ``at`` is within its validity, both ends included."""
        return self.not_before <= at <= self.not_after

    def __repr__(self) -> str:
        return f"Certificate({self.subject_cn!r}, sha256 {self.sha256})"


_SEQUENCE = b"\x30"
"""What DER of every certificate begins with."""


def load(der: bytes, *, where: str = "") -> Certificate:
    """The certificate that ``der`` is, to the last byte.

    Raises ``FormatError``: ``cert-size``, ``cert-format``; ``cert-key`` for a
    public key that cannot be read.
    """
    if len(der) > MAX_FILE_BYTES:
        raise FormatError("cert-size", f"more than {MAX_FILE_BYTES} bytes", where=where)
    if der[:1] != _SEQUENCE:
        raise FormatError("cert-format", "neither a certificate in DER nor one in PEM", where=where)
    try:
        with zero_serial_allowed():
            return _certificate(der, where)
    except UNREADABLE as error:
        raise FormatError(
            "cert-format", f"no certificate that can be read: {said(error)}", where=where
        ) from None


def _certificate(der: bytes, where: str) -> Certificate:
    read = x509.load_der_x509_certificate(der)
    kind, spki = _key(read, where)
    extensions, critical = _extensions(read.extensions)
    constraints = _constraints(read.extensions)
    usage = _usage(read.extensions)
    return Certificate(
        der=bytes(der),
        tbs=read.tbs_certificate_bytes,
        signature=read.signature,
        signed_with_pss=is_pss(read),
        serial=read.serial_number,
        subject=read.subject.public_bytes(),
        issuer=read.issuer.public_bytes(),
        subject_cn=common_name(read.subject),
        issuer_cn=common_name(read.issuer),
        not_before=read.not_valid_before_utc,
        not_after=read.not_valid_after_utc,
        key=kind,
        spki=spki,
        is_ca=constraints is not None and constraints.ca,
        path_length=constraints.path_length if constraints is not None else None,
        may_sign_certificates=usage is not None and usage.key_cert_sign,
        may_sign_lists=usage is not None and usage.crl_sign,
        extensions=extensions,
        critical=critical,
    )


def issued_by(child: Certificate, parent: Certificate) -> bool:
    """Whether ``parent`` may issue certificates and issued ``child``."""
    return not issue_problem(child, parent)


def issue_problem(child: Certificate, parent: Certificate) -> str:
    """Why ``child`` is no certificate that ``parent`` issued, as a sentence; empty where it is.

    Names, basic constraints, key usage, path length, critical extensions, kind
    of key, algorithm and signature are checked; times and revocation are not.
    """
    if child.issuer != parent.subject:
        return f"the issuer is {child.issuer_cn!r}, not {parent.subject_cn!r}"
    if not parent.is_ca or not parent.may_sign_certificates:
        return f"{parent.subject_cn!r} may not issue certificates"
    if child.critical:
        return f"a critical extension is not known: {child.critical[0]}"
    if child.is_ca and not child.self_issued and parent.path_length == 0:
        return f"{parent.subject_cn!r} may not issue certificates of other issuers"
    return signature_problem(
        parent,
        signed_with_pss=child.signed_with_pss,
        signature=child.signature,
        tbs=child.tbs,
    )


def signature_problem(
    signer: Certificate, *, signed_with_pss: bool, signature: bytes, tbs: bytes
) -> str:
    """Why ``signature`` over ``tbs`` is not by ``signer``, as a sentence; empty where it is."""
    if not signed_with_pss:
        return "not signed by RSASSA-PSS with SHA-384, MGF1-SHA-384 and a salt of 48 bytes"
    if signer.key != RSA_4096:
        return f"{signer.subject_cn!r} has a key {signer.key}, not {RSA_4096}"
    key = serialization.load_der_public_key(signer.spki)
    if not isinstance(key, rsa.RSAPublicKey):
        return f"{signer.subject_cn!r} has no RSA key"
    try:
        key.verify(signature, tbs, _PSS, hashes.SHA384())
    except InvalidSignature:
        return f"the signature is not that of {signer.subject_cn!r}"
    return ""


_WARNINGS = threading.Lock()


@contextmanager
def zero_serial_allowed() -> Iterator[None]:
    """Silences the two warnings that reading brings about, and no others.

    One is about a serial number of 0, which AMD gives to every VCEK; the other
    about countries of more than two letters, which only hostile names have, and
    which would write to the terminal in words that they choose. The filters of
    ``warnings`` belong to the whole process, hence the lock.
    """
    with _WARNINGS, warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Parsed a serial number", category=CryptographyDeprecationWarning
        )
        warnings.filterwarnings("ignore", "Attribute's length must be", category=UserWarning)
        yield


def is_pss(signed: x509.Certificate | x509.CertificateRevocationList) -> bool:
    """Whether the signature's algorithm and all its parameters are the allowed ones."""
    if signed.signature_algorithm_oid != SignatureAlgorithmOID.RSASSA_PSS:
        return False
    used = signed.signature_hash_algorithm
    return isinstance(used, hashes.SHA384) and signed.signature_algorithm_parameters == _PSS


def _key(read: x509.Certificate, where: str) -> tuple[str, bytes]:
    """Kind and SPKI of the certificate's key."""
    try:
        key = read.public_key()
        spki = key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    except (ValueError, UnsupportedAlgorithm) as error:
        raise FormatError(
            "cert-key", f"a public key that cannot be read: {said(error)}", where=where
        ) from None
    if isinstance(key, rsa.RSAPublicKey):
        return f"rsa-{key.key_size}", spki
    if isinstance(key, ec.EllipticCurvePublicKey):
        return P384 if isinstance(key.curve, ec.SECP384R1) else f"ec-{key.curve.name}", spki
    return type(key).__name__, spki


def _extensions(found: x509.Extensions) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """Raw values of the extensions nobody but AMD defines, and the critical ones not handled."""
    raw: dict[str, bytes] = {}
    critical = []
    for item in found:
        oid = item.oid.dotted_string
        if isinstance(item.value, x509.UnrecognizedExtension):
            raw[oid] = item.value.value
        handled = isinstance(item.value, x509.BasicConstraints | x509.KeyUsage) or oid == SIMULATED
        if item.critical and not handled:
            critical.append(oid)
    return raw, tuple(critical)


def _constraints(found: x509.Extensions) -> x509.BasicConstraints | None:
    try:
        return found.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return None


def _usage(found: x509.Extensions) -> x509.KeyUsage | None:
    try:
        return found.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return None


def common_name(name: x509.Name) -> str:
    """The one common name in ``name``; empty where it has none, several, or one unfit to print."""
    found = [str(item.value) for item in name.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if len(found) != 1 or len(found[0]) > _MAX_NAME or not found[0].isprintable():
        return ""
    return found[0]


def said(error: BaseException) -> str:
    """What the library says, on one printable line."""
    text = str(error).partition("\n")[0]
    return text if text.isprintable() and len(text) < 200 else type(error).__name__
