# SPDX-License-Identifier: Apache-2.0
"""Certificate revocation lists of the kind AMD issues, read and checked.

Serves the verifier. Reading says nothing about trust: ``list_problem`` checks who
signed. A list with critical extensions is refused, because such a list may be
partial. Must never be taken for complete beyond its next update.

Sources: RFC 5280, section 5; AMD 57230, "VCEK Certificate and KDS Interface
Specification".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509

from troth.errors import FormatError
from troth.record import record
from troth.signing import certificates

if TYPE_CHECKING:
    from datetime import datetime

    from troth.signing.certificates import Certificate


@record
class RevocationList:
    """One certificate revocation list; nothing about it is verified.

    ``next_update``: None where it names none; ``serials``: those it revokes;
    ``critical``: OIDs of critical extensions, none of which is handled.
    """

    der: bytes
    tbs: bytes
    signature: bytes
    signed_with_pss: bool
    issuer: bytes
    issuer_cn: str
    this_update: datetime
    next_update: datetime | None
    serials: frozenset[int]
    critical: tuple[str, ...]

    def __repr__(self) -> str:
        return f"RevocationList({self.issuer_cn!r}, {self.this_update})"


def load(der: bytes, *, where: str = "") -> RevocationList:
    """The list that ``der`` is.

    Raises ``FormatError``: ``cert-size``, ``cert-format``.
    """
    if len(der) > certificates.MAX_FILE_BYTES:
        raise FormatError(
            "cert-size", f"more than {certificates.MAX_FILE_BYTES} bytes", where=where
        )
    try:
        with certificates.zero_serial_allowed():
            return _list(der)
    except certificates.UNREADABLE as error:
        raise FormatError(
            "cert-format",
            f"no revocation list that can be read: {certificates.said(error)}",
            where=where,
        ) from None


def _list(der: bytes) -> RevocationList:
    read = x509.load_der_x509_crl(der)
    critical = [item.oid.dotted_string for item in read.extensions if item.critical]
    serials = set()
    for entry in read:
        serials.add(entry.serial_number)
        critical += [item.oid.dotted_string for item in entry.extensions if item.critical]
    return RevocationList(
        der=bytes(der),
        tbs=read.tbs_certlist_bytes,
        signature=read.signature,
        signed_with_pss=certificates.is_pss(read),
        issuer=read.issuer.public_bytes(),
        issuer_cn=certificates.common_name(read.issuer),
        this_update=read.last_update_utc,
        next_update=read.next_update_utc,
        serials=frozenset(serials),
        critical=tuple(critical),
    )


def list_problem(revoked: RevocationList, issuer: Certificate) -> str:
    """Why ``revoked`` is no list that ``issuer`` signed, as a sentence; empty where it is."""
    if revoked.issuer != issuer.subject:
        return f"the issuer is {revoked.issuer_cn!r}, not {issuer.subject_cn!r}"
    if not issuer.may_sign_lists:
        return f"{issuer.subject_cn!r} may not sign revocation lists"
    if revoked.critical:
        return f"the list has critical extensions that are not known: {revoked.critical[0]}"
    return certificates.signature_problem(
        issuer,
        signed_with_pss=revoked.signed_with_pss,
        signature=revoked.signature,
        tbs=revoked.tbs,
    )
