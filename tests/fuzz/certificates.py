# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: certificates and revocation lists, in DER and in PEM, and what AMD's say."""

import base64

import made_pki
from troth.abi import vek_extensions
from troth.errors import FormatError
from troth.signing import certificate_files, certificates

_PKI = made_pki.Pki("Genoa")
SEEDS = [_PKI.vek, _PKI.ca, _PKI.revoked(7), made_pki.pem(_PKI.vek)]
_PARENT = certificates.load(_PKI.ca)
# Signatures differ from run to run, what they cover does not: seeds of other runs are genuine.
_SIGNED = certificates.load(_PKI.vek).tbs


def fuzz(data: bytes) -> None:
    body = base64.encodebytes(data)
    for candidate in (
        data,
        b"-----BEGIN CERTIFICATE-----\n" + body + b"-----END CERTIFICATE-----\n",
        b"-----BEGIN X509 CRL-----\n" + body + b"-----END X509 CRL-----\n",
    ):
        try:
            found = certificate_files.load_any(candidate)
        except FormatError:
            continue
        for certificate in found.certificates:
            if certificates.issued_by(certificate, _PARENT) and certificate.tbs != _SIGNED:
                raise AssertionError("a changed certificate counts as issued")
            try:
                vek_extensions.parse(certificate.extensions)
            except FormatError:
                continue
