# SPDX-License-Identifier: Apache-2.0
"""Whether a certificate was issued by one of a few that are known.

Serves a guest that knows its broker by the broker's issuer, and the one that
gets an identity from it. The issuer itself must be known: certificates that a
server sends along are not looked at, so nothing unknown is ever parsed as an
authority. Must never use the clock alone, which is the host's: whoever calls
says at which time validity is judged. Expiry and revocation cannot be enforced.

Source: RFC 5280, section 6, as ``cryptography.x509.verification`` does it;
SPIFFE X509-SVID, sections 2 and 4.
"""

from __future__ import annotations

import ipaddress
import warnings
from contextlib import contextmanager
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509 import verification

from troth.ciphers import packed_library
from troth.errors import FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: What the library raises about bytes that are no certificate, or not of these.
_REFUSED = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    CryptographyDeprecationWarning,
    verification.VerificationError,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


def check_server(
    certificate: bytes, issuers: Sequence[bytes], *, server_name: str, at: int
) -> None:
    """Whether ``certificate`` is that of the server ``server_name``, a DNS name.

    All DER; ``at``: unix seconds. ``FormatError``: ``certificate-issuer``.
    """
    if not server_name or server_name.endswith(".") or _is_address(server_name):
        raise _refused(f"{server_name!r} is no DNS name")
    with _reading():
        leaf = x509.load_der_x509_certificate(certificate)
        # A wildcard is a name of many servers, of which one may be another's.
        if server_name not in _names(leaf, x509.DNSName):
            raise _refused(f"the certificate does not carry the name {server_name}")
        verifier = _builder(issuers, at, depth=0).build_server_verifier(x509.DNSName(server_name))
        verifier.verify(leaf, [])


def check_identity(
    certificate: bytes, issuers: Sequence[bytes], *, at: int, between: Sequence[bytes] = ()
) -> str:
    """The SPIFFE ID of ``certificate``, its only URI. ``FormatError``: ``certificate-issuer``.

    ``between``: certificates that may stand between it and an issuer.
    """
    with _reading():
        leaf = x509.load_der_x509_certificate(certificate)
        verifier = _builder(issuers, at, depth=len(between)).build_client_verifier()
        verifier.verify(leaf, [x509.load_der_x509_certificate(item) for item in between])
    return identity_of(certificate)


def identity_of(certificate: bytes) -> str:
    """What ``certificate`` says to be, believed by nobody yet. Raises as ``check_identity``."""
    with _reading():
        leaf = x509.load_der_x509_certificate(certificate)
        found = _names(leaf, x509.UniformResourceIdentifier)
    if len(found) != 1 or not found[0].startswith("spiffe://"):
        raise _refused(f"the certificate has {len(found)} URIs, or none of SPIFFE")
    return found[0]


def public_key(certificate: bytes) -> bytes:
    """The SubjectPublicKeyInfo of ``certificate``, both DER. Raises as ``check_identity``."""
    with _reading():
        key = x509.load_der_x509_certificate(certificate).public_key()
        return key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )


@contextmanager
def _reading() -> Iterator[None]:
    """The library's errors as ours; what it only warns of is refused too."""
    packed_library.complete()
    with warnings.catch_warnings():
        warnings.simplefilter("error", CryptographyDeprecationWarning)
        try:
            yield
        except _REFUSED as error:
            raise _refused(str(error) or type(error).__name__) from None


def _builder(issuers: Sequence[bytes], at: int, *, depth: int) -> verification.PolicyBuilder:
    if not issuers:
        raise _refused("no issuer is known")
    store = verification.Store([x509.load_der_x509_certificate(item) for item in issuers])
    # The library takes times in UTC without saying so.
    moment = datetime.fromtimestamp(at, UTC).replace(tzinfo=None)
    return verification.PolicyBuilder().store(store).time(moment).max_chain_depth(depth)


def _names(
    leaf: x509.Certificate, kind: type[x509.DNSName | x509.UniformResourceIdentifier]
) -> list[str]:
    found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return [str(item) for item in found.value.get_values_for_type(kind)]


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _refused(message: str) -> FormatError:
    return FormatError("certificate-issuer", message[:300])
