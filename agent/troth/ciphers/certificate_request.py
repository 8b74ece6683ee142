# SPDX-License-Identifier: Apache-2.0
"""A request for a certificate, which names nothing but a key.

Serves a guest that asks its broker for an identity: which one it gets, follows
from its evidence and is not its wish. Must never be given a key that outlives
the boot. Source: RFC 2986.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from troth.ciphers import packed_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec


def request(private: ec.EllipticCurvePrivateKey) -> bytes:
    """The PKCS #10 request for ``private``, in DER."""
    packed_library.complete()
    builder = x509.CertificateSigningRequestBuilder(x509.Name([]))
    return builder.sign(private, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def public_text(private: ec.EllipticCurvePrivateKey) -> bytes:
    """The SubjectPublicKeyInfo of ``private``, DER."""
    return private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def private_text(private: ec.EllipticCurvePrivateKey) -> bytes:
    """``private`` itself, PEM of PKCS #8 without a password, for a TLS library."""
    return private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
