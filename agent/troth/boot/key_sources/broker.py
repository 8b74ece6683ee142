# SPDX-License-Identifier: Apache-2.0
"""Whether the other side of a connection is the broker that the policy means.

Serves ``https``, which asks before the first byte of a request. A broker is
known by its key, or by an issuer and its name under it; never by an address, a
name that DNS resolved, or an issuer of the web. Must never let a certificate's
dates decide where the key is pinned: the clock is the host's.

Source: SECURITY S22; RFC 7469 for the digest of a key.
"""

from __future__ import annotations

import binascii
import sys

from troth.abi import certificate_key, hashes, keyed_digest
from troth.documents import key_uri
from troth.errors import FormatError, ProviderError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.documents.policy_keys import Broker


def check(broker: Broker, certificate: bytes, *, now: int) -> str:
    """Who the owner of ``certificate`` (DER) is, as public text.

    ``now``: unix seconds, as the host tells them. Raises ``ProviderError``
    ``broker-identity``.
    """
    try:
        if broker.spki:
            return _by_key(broker, certificate)
        return _by_issuer(broker, certificate, now)
    except FormatError as error:
        raise ProviderError(
            "broker-identity",
            f"who answers is not broker {broker.name}: {error.message}",
            hint="compare its key or issuer with the image's policy; addresses prove nothing",
        ) from None


def issuers(broker: Broker) -> tuple[bytes, ...]:
    """The pinned issuers of ``broker``, DER."""
    return tuple(binascii.a2b_base64(text, strict_mode=True) for text in broker.ca)


def _by_key(broker: Broker, certificate: bytes) -> str:
    found = hashes.digest("sha256", certificate_key.public_key_info(certificate)).hex()
    if not any([keyed_digest.equal(found, pin) for pin in broker.spki]):  # noqa: C419 - all
        raise FormatError("certificate-issuer", f"its key has the SHA-256 {found}")
    return f"spki-sha256:{found}"


def _by_issuer(broker: Broker, certificate: bytes, now: int) -> str:
    if not broker.ca or bool(broker.server_name) == bool(broker.spiffe_id):
        raise FormatError("certificate-issuer", "the policy does not say who it is")
    # By name: it reads whole certificates, which an image with pinned keys does not carry.
    __import__(key_uri.PINNED_CA)
    issued_by = sys.modules[key_uri.PINNED_CA]
    at = max(now, broker.not_before)
    known = issuers(broker)
    if broker.server_name:
        issued_by.check_server(certificate, known, server_name=broker.server_name, at=at)
        return f"dns:{broker.server_name}"
    found: str = issued_by.check_identity(certificate, known, at=at)
    if found != broker.spiffe_id:
        raise FormatError("certificate-issuer", f"its identity is {found[:200]!r}")
    return found
