# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: what guests show the key broker of themselves: requests, certificates, tokens."""

import warnings
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from troth.errors import FormatError
from troth.keybroker import tokens
from troth.signing import service_certificates as certificates
from troth.signing.es256 import TokenKey
from troth.signing.service_certificates import Authority

warnings.simplefilter("ignore")  # odd serial numbers are no finding

_KEY = ec.derive_private_key(7, ec.SECP256R1())
_REQUEST = (
    x509.CertificateSigningRequestBuilder()
    .subject_name(x509.Name([]))
    .sign(_KEY, hashes.SHA256())
    .public_bytes(serialization.Encoding.DER)
)
_NOW = datetime(2026, 6, 1, tzinfo=UTC)
_SPAN = {"not_before": _NOW, "not_after": _NOW + timedelta(days=1)}
_CERTIFICATE = Authority.make(certificates.new_authority_key(), "spiffe://a", **_SPAN).issue(
    certificates.request_key(_REQUEST), "spiffe://a/vm/demo", **_SPAN
)[1]
_TOKEN_KEY = TokenKey()

SEEDS = [_REQUEST, _CERTIFICATE, b"eyJhbGciOiJFUzI1NiJ9.e30.AAAA"]


def fuzz(data: bytes) -> None:
    for read in (certificates.request_key, certificates.svid, _token):
        try:
            read(data)
        except FormatError:
            continue


def _token(data: bytes) -> None:
    tokens.parse(data.decode("latin-1"), _TOKEN_KEY, at=0)
    raise AssertionError("a token that nobody signed was taken")
