# SPDX-License-Identifier: Apache-2.0
"""Whether a certificate was issued by one of a few that are known.

Serves a guest that knows its broker by the broker's issuer, and the one that
gets an identity from it. The issuer itself must be known: certificates that the
other side sends along are not looked at, so nothing unknown is ever parsed as
an authority. Must never use the clock alone, which is the host's: whoever calls
says at which time validity is judged. Expiry and revocation cannot be enforced.

Source: RFC 5280, section 6, as ``cryptography.x509.verification`` does it;
SPIFFE X509-SVID, sections 2 and 4.
"""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.x509 import verification

from troth.errors import FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_UNREADABLE = (
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


def check_server(
    certificate: bytes, issuers: Sequence[bytes], *, server_name: str, at: int
) -> None:
    """Whether ``certificate`` is that of the server ``server_name``, a DNS name.

    All DER; ``at``: unix seconds. ``FormatError``: ``certificate-issuer``.
    """
    leaf = _read(certificate)
    if not server_name or server_name.rstrip(".") != server_name or _is_address(server_name):
        raise _refused(f"{server_name!r} is no DNS name")
    # A wildcard is a name of many servers, of which one may be another's.
    names = _names(leaf, x509.DNSName)
    if server_name not in names:
        raise _refused(f"the certificate does not carry the name {server_name}")
    verifier = _builder(issuers, at).build_server_verifier(x509.DNSName(server_name))
    try:
        verifier.verify(leaf, [])
    except verification.VerificationError as error:
        raise _refused(str(error)) from None


def check_identity(
    certificate: bytes, issuers: Sequence[bytes], *, at: int, between: Sequence[bytes] = ()
) -> str:
    """The SPIFFE ID of ``certificate``, its only URI. ``FormatError``: ``certificate-issuer``.

    ``between``: certificates that may stand between it and an issuer.
    """
    leaf = _read(certificate)
    verifier = _builder(issuers, at, depth=len(between)).build_client_verifier()
    try:
        verifier.verify(leaf, [_read(item) for item in between])
    except verification.VerificationError as error:
        raise _refused(str(error)) from None
    return identity_of(certificate)


def identity_of(certificate: bytes) -> str:
    """What ``certificate`` says to be, believed by nobody yet. Raises as ``check_identity``."""
    found = _names(_read(certificate), x509.UniformResourceIdentifier)
    if len(found) != 1 or not found[0].startswith("spiffe://"):
        raise _refused(f"the certificate has {len(found)} URIs, or none of SPIFFE")
    return found[0]


def public_key(certificate: bytes) -> bytes:
    """The SubjectPublicKeyInfo of ``certificate``, both DER."""
    try:
        key = _read(certificate).public_key()
    except _UNREADABLE as error:
        raise _refused(f"a certificate with an odd key: {error}") from None
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _builder(issuers: Sequence[bytes], at: int, *, depth: int = 0) -> verification.PolicyBuilder:
    if not issuers:
        raise _refused("no issuer is known")
    store = verification.Store([_read(item) for item in issuers])
    moment = datetime.fromtimestamp(at, UTC).replace(tzinfo=None)
    return verification.PolicyBuilder().store(store).time(moment).max_chain_depth(depth)


def _read(certificate: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(certificate)
    except ValueError as error:
        raise _refused(f"no certificate in DER: {error}") from None


def _names(
    leaf: x509.Certificate, kind: type[x509.DNSName | x509.UniformResourceIdentifier]
) -> list[str]:
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (*_UNREADABLE, x509.ExtensionNotFound):
        raise _refused("a certificate without names of today's form") from None
    return [str(item) for item in found.value.get_values_for_type(kind)]


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _refused(message: str) -> FormatError:
    return FormatError("certificate-issuer", message[:300])
