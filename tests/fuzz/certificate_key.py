# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: certificates of brokers and guests, and the key in them as two readers find it."""

import contextlib

from cryptography import x509

import made_tls
from troth.abi import certificate_key
from troth.ciphers import issued_by
from troth.errors import FormatError

ISSUER = made_tls.authority()
AT = made_tls.START + 1000
SEEDS = [
    ISSUER,
    made_tls.certificate(made_tls.key(2), made_tls.key(1), dns=("a.example",)),
    made_tls.certificate(made_tls.key(2), made_tls.key(1), uris=("spiffe://a/b",)),
]
PINNED = {issued_by.public_key(seed) for seed in SEEDS}
SIGNED = [x509.load_der_x509_certificate(seed).tbs_certificate_bytes for seed in SEEDS]


def was_issued(data: bytes) -> bool:
    """A signature has several spellings; what it covers has one."""
    return any(signed in data for signed in SIGNED)


def fuzz(data: bytes) -> None:
    with contextlib.suppress(FormatError):
        key = certificate_key.public_key_info(data)
        # A point has several spellings; only the one that is pinned must mean the same to both.
        if key in PINNED and issued_by.public_key(data) != key:
            raise AssertionError("two readers find two keys")
    with contextlib.suppress(FormatError):
        issued_by.check_server(data, [ISSUER], server_name="a.example", at=AT)
        if not was_issued(data):
            raise AssertionError("a certificate that nobody issued")
    with contextlib.suppress(FormatError):
        found = issued_by.check_identity(data, [ISSUER], at=AT)
        if found != "spiffe://a/b" or not was_issued(data):
            raise AssertionError("an identity that nobody issued")
    with contextlib.suppress(FormatError):
        issued_by.identity_of(data)
