# SPDX-License-Identifier: Apache-2.0
"""The key of a channel, as files have it, and the digest that evidence binds.

Serves the relying party, who holds the certificate or the public key that a
service showed, and compares it with what the guest bound. Must never take a
private key: nobody who checks has one.

Sources: RFC 5280 section 4.1 (SubjectPublicKeyInfo), RFC 7468 (PEM).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from troth.errors import FormatError
from troth.signing import certificates

MAX_BYTES = 64 << 10

_BLOCK = re.compile(
    rb"-----BEGIN (CERTIFICATE|PUBLIC KEY)-----\r?\n([A-Za-z0-9+/=\s]+)-----END \1-----"
)


def spki_sha256(data: bytes, *, where: str = "") -> bytes:
    """SHA-256 of the SPKI (DER) of the key in ``data``, 32 bytes.

    ``data``: a certificate or a public key, DER or PEM. Of several PEM blocks the
    first counts, as in the chain that a server shows. Raises ``FormatError``
    ``channel-key`` for anything else, private keys included.
    """
    if len(data) > MAX_BYTES:
        raise _refused(f"more than {MAX_BYTES} bytes", where)
    der = data
    if b"-----BEGIN " in data:
        found = _BLOCK.search(data)
        if found is None:
            raise _refused("a PEM file without certificate and public key", where)
        try:
            der = base64.b64decode(b"".join(found[2].split()), validate=True)
        except binascii.Error:
            raise _refused("a PEM block that is not base64", where) from None
    return hashlib.sha256(_spki(der, where)).digest()


def _spki(der: bytes, where: str) -> bytes:
    try:
        key = serialization.load_der_public_key(der)
        return key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    except (ValueError, UnsupportedAlgorithm):
        pass
    try:
        return certificates.load(der, where=where).spki
    except FormatError as error:
        raise _refused(f"no certificate and no public key: {error.message}", where) from None


def _refused(message: str, where: str) -> FormatError:
    return FormatError(
        "channel-key",
        message,
        where=where,
        hint="give the service's certificate or public key, PEM or DER, or the SHA-256 in hex",
    )
