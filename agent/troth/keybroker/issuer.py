# SPDX-License-Identifier: Apache-2.0
"""Identities of attested guests in SPIFFE's form: minutes of life, and each one written down.

Serves ``keybroker.routes``. A certificate counts only where the database says that
it was issued, to this key, for this launch: whoever stole the issuer's key has
nothing by that alone. Must never name anything but the class that was attested.

Source: SPIFFE, "X.509-SVID", "SPIFFE-ID".
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from troth.documents import jwk, strict
from troth.documents.jwk import EcPublicKey
from troth.errors import FormatError, UsageError
from troth.keybroker.release import Attested
from troth.signing import service_certificates as certificates

if TYPE_CHECKING:
    from troth.documents.jwk import PublicKey
    from troth.keybroker.store import Store
    from troth.signing.service_certificates import Authority

LIFE_S = 600
#: Clocks of guests are their hosts'.
_BEFORE_S = 300
_MAX_DOMAIN = 255
_DOMAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-._")
_META = "trust-domain"


class Issuer:
    """Issues under ``authority`` for ``trust_domain``."""

    def __init__(self, store: Store, authority: Authority, trust_domain: str) -> None:
        self._store = store
        self._authority = authority
        self._domain = trust_domain

    def issue(self, guest: Attested, csr: bytes, *, at: int) -> tuple[bytes, ...]:
        """The guest's certificate and the issuer's, DER. Raises ``FormatError`` ``csr-*``."""
        key = certificates.request_key(csr)
        start = datetime.fromtimestamp(at, UTC)
        serial, der = self._authority.issue(
            key,
            self._name(guest.image),
            not_before=start - timedelta(seconds=_BEFORE_S),
            not_after=start + timedelta(seconds=LIFE_S),
        )
        with self._store.transaction() as rows:
            rows.execute("DELETE FROM svids WHERE expires < ?", (at,))
            rows.execute(
                "INSERT INTO svids VALUES (?, ?, ?, ?, ?, ?)",
                (
                    serial,
                    hashlib.sha256(key.spki).digest(),
                    guest.report_id,
                    guest.image,
                    guest.svn,
                    at + LIFE_S,
                ),
            )
        return der, self._authority.der

    def holder(self, certificate: bytes, *, at: int) -> tuple[Attested, EcPublicKey]:
        """The guest that ``certificate`` (DER) was issued to, and its key.

        TLS has proved that the key is its peer's. Raises ``FormatError``
        ``broker-svid``; ``cert-format``, ``csr-key``.
        """
        found = certificates.svid(certificate)
        with self._store.reading() as rows:
            row = rows.execute(
                "SELECT spki_sha256, report_id, image, svn, expires FROM svids WHERE serial = ?",
                (found.serial,),
            ).fetchone()
        digest = hashlib.sha256(found.key.spki).digest()
        if row is None or bytes(row[0]) != digest or at >= row[4]:
            raise FormatError("broker-svid", "no such certificate was issued, or not lately")
        if found.spiffe_id != self._name(row[2]):
            raise FormatError("broker-svid", "the certificate names another guest")
        key = EcPublicKey(found.key.curve, found.key.x, found.key.y)
        return Attested(row[2], row[3], bytes(row[1]), key_sha256(key)), key

    def _name(self, image: str) -> str:
        return f"spiffe://{self._domain}/vm/{image}"


def key_sha256(key: PublicKey) -> bytes:
    """What a guest's key is known by: SHA-256 of its canonical JWK."""
    return hashlib.sha256(strict.canonical(jwk.tree(key))).digest()


def settled_domain(store: Store, wanted: str | None) -> str:
    """The trust domain of the database: ``wanted``, or the one it was given before; "" for none.

    Raises ``UsageError`` ``broker-trust-domain`` for an odd one, or another than before.
    """
    before = (store.meta(_META) or b"").decode()
    if wanted is None or (before and wanted == before):
        return before
    if before:
        raise UsageError(
            "broker-trust-domain",
            f"the trust domain of this database is {before}",
            hint="another domain needs another broker",
        )
    if not 1 <= len(wanted) <= _MAX_DOMAIN or not _DOMAIN.issuperset(wanted):
        raise UsageError(
            "broker-trust-domain", "a trust domain is lower-case letters, digits, - . and _"
        )
    store.put_meta(_META, wanted.encode())
    return wanted
