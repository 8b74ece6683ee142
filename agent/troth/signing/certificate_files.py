# SPDX-License-Identifier: Apache-2.0
"""Files with certificates and revocation lists: one in DER, or any number in PEM.

Serves the verifier and the fetcher. What a file holds is told by its content,
never by its name. Must never pass over a damaged block: the certificate that is
missing then would be missed later, with a worse sentence.

Source: RFC 7468.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING

from troth.errors import FormatError
from troth.record import record
from troth.signing import certificates, revocation_lists

if TYPE_CHECKING:
    from collections.abc import Iterator

    from troth.signing.certificates import Certificate
    from troth.signing.revocation_lists import RevocationList

MAX_BLOCKS = 64
"""Certificates and lists in one PEM file."""

_CERTIFICATE, _LIST = b"CERTIFICATE", b"X509 CRL"
_BEGIN = b"-----BEGIN "
_BLOCK = re.compile(
    rb"^-----BEGIN ([A-Z0-9 ]{1,64})-----[ \t\r]*\n([^-]*)"
    rb"^-----END ([A-Z0-9 ]{1,64})-----[ \t\r]*$",
    re.MULTILINE,
)


@record
class Found:
    """What one file holds, in its order."""

    certificates: tuple[Certificate, ...]
    lists: tuple[RevocationList, ...]


def load_any(data: bytes, *, where: str = "") -> Found:
    """All certificates and lists in ``data``: one in DER, or PEM blocks with any text around.

    Raises ``FormatError``: ``cert-size``, ``cert-pem``, ``cert-format`` (neither
    of the two, or damaged), ``cert-key``.
    """
    if len(data) > certificates.MAX_FILE_BYTES:
        raise FormatError(
            "cert-size", f"more than {certificates.MAX_FILE_BYTES} bytes", where=where
        )
    if _BEGIN not in data:
        return _one(data, where)
    found: list[Certificate] = []
    lists: list[RevocationList] = []
    for label, der in _blocks(data, where):
        if label == _CERTIFICATE:
            found.append(certificates.load(der, where=where))
        else:
            lists.append(revocation_lists.load(der, where=where))
    return Found(tuple(found), tuple(lists))


def load_many(data: bytes, *, where: str = "") -> tuple[Certificate, ...]:
    """The certificates in ``data``, at least one. Raises as ``load_any`` does."""
    found = load_any(data, where=where)
    if not found.certificates:
        raise FormatError("cert-format", "holds no certificate", where=where)
    return found.certificates


def _one(data: bytes, where: str) -> Found:
    try:
        return Found((certificates.load(data, where=where),), ())
    except FormatError as error:
        if error.code == "cert-key":
            raise
        as_certificate = error
    try:
        return Found((), (revocation_lists.load(data, where=where),))
    except FormatError:
        raise as_certificate from None


def _blocks(data: bytes, where: str) -> Iterator[tuple[bytes, bytes]]:
    """Label and content of each PEM block of ``data``, all of which must be of the two kinds."""
    begun = data.count(_BEGIN)
    # The bound comes first: looking for the end of each of many blocks is no linear work.
    if begun > MAX_BLOCKS:
        raise FormatError("cert-pem", f"{begun} PEM blocks in one file", where=where)
    found = list(_BLOCK.finditer(data))
    if len(found) != begun or any(block[1] != block[3] for block in found):
        raise FormatError("cert-pem", "a PEM block is damaged or cut off", where=where)
    for block in found:
        if block[1] not in (_CERTIFICATE, _LIST):
            raise FormatError("cert-pem", f"holds a block {block[1].decode()}", where=where)
        try:
            yield block[1], base64.b64decode(b"".join(block[2].split()), validate=True)
        except binascii.Error:
            raise FormatError("cert-pem", "the base64 is damaged", where=where) from None
