# SPDX-License-Identifier: Apache-2.0
"""``spiffe:``: a key for whoever has an identity, which attestation gives.

Serves ``sources``. The guest makes a key, has it certified in an attested
session, and asks with that certificate (mutual TLS) for the key of a volume by
its UUID; the answer is encrypted to the certified key. Certificates live for minutes,
and formatting may take longer: the same key is then certified anew. Must never use a
certificate for another key than its own, nor with another identity than the URI
says.

Format: docs/formats.md, "Calls of the broker". Source: SPIFFE X509-SVID.
"""

from __future__ import annotations

import time

from troth.boot.key_sources import broker as brokers
from troth.boot.key_sources import kbs, kbs_session, sources
from troth.boot.key_sources.https import ClientIdentity, HttpsClient
from troth.ciphers import certificate_request, issued_by
from troth.ciphers.key_agreement import AgreementKey
from troth.documents import broker_calls, jwe, kbs_error
from troth.documents.broker_calls import Commit
from troth.documents.policy_keys import TROTH
from troth.errors import FormatError, ProviderError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from troth.boot.key_sources.http_answer import HttpAnswer
    from troth.boot.key_sources.kbs_session import KbsSession
    from troth.boot.key_sources.sources import Surroundings, Wanted
    from troth.documents.key_uri import KeyUri
    from troth.documents.policy_keys import Broker
    from troth.volumes.release import Release


_UNAUTHORIZED = 401
RENEW_S = 300
"""Half the life of what a broker of troth issues. No clock but this guest's own is asked."""
_WHO_ARE_YOU = ("TokenNotFound", "TokenVerifierError")
_CUT_OFF = ("broker-tls", "broker-answer")
"""What an identity that TLS no longer takes looks like from here."""


class SpiffeIdentity:
    """What this boot is called by one broker as ``uri`` says, and a connection that shows it.

    ``deadline_s``: as ``HttpsClient`` has it; ``steady``: seconds that only go forward.
    Raises ``ProviderError``: ``spiffe-certificate``, and as ``KbsSession.issue``.
    """

    def __init__(
        self,
        session: KbsSession,
        uri: KeyUri,
        *,
        deadline_s: float,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.session = session
        self._uri = uri
        self._deadline_s = deadline_s
        self._steady = steady
        self._key = AgreementKey()
        self._since_s = steady()
        self._client = self._certified()

    def ask(self, path: str, body: bytes) -> bytes:
        """The body of a yes; under a new certificate where the old one is old, or refused.

        ``ProviderError``: ``spiffe-certificate``, and as ``KbsSession.resource``.
        """
        renewed = self._steady() - self._since_s >= RENEW_S
        if renewed:
            self._renew()
        answer = self._answer(path, body, final=renewed)
        if answer is None:
            self._renew()
            answer = self._client.request("POST", path, body)
        return self.session.accepted(answer, path).body

    def _answer(self, path: str, body: bytes, *, final: bool) -> HttpAnswer | None:
        """The answer; none, unless it is ``final``, where the broker wants another certificate."""
        try:
            answer = self._client.request("POST", path, body)
        except ProviderError as error:
            if final or error.code not in _CUT_OFF:
                raise
            return None
        if final or answer.status != _UNAUTHORIZED or _name(answer) not in _WHO_ARE_YOU:
            return answer
        return None

    def _renew(self) -> None:
        self._client.close()
        self._since_s = self._steady()
        self._client = self._certified()

    def _certified(self) -> HttpsClient:
        """A connection, not begun, with a certificate of now."""
        broker, private = self.session.broker, self._key.private_key()
        chain = self.session.issue(certificate_request.request(private))
        try:
            own = certificate_request.public_text(private)
            check_svid(chain, self._uri, broker, own_key=own, now=int(time.time()))
        except FormatError as error:
            raise ProviderError(
                "spiffe-certificate",
                f"broker {broker.name} gave a certificate that is not for this guest:"
                f" {error.message}",
            ) from None
        shown = ClientIdentity(chain, certificate_request.private_text(private))
        return HttpsClient(broker, deadline_s=self._deadline_s, own=shown)

    def open(self, body: bytes) -> bytes:
        """What ``body``, a JWE, holds. ``FormatError``: ``jwe-*``, ``jwk-*``, ``json-*``."""
        return self._key.open(jwe.parse(body, where=self.session.broker.name))

    @property
    def of_broker(self) -> str:
        """Who answered last, public text."""
        return self._client.identity

    def close(self) -> None:
        """End the connection."""
        self._client.close()


class SpiffeSource:
    """The key of whatever volume is asked for, released to ``identity``."""

    def __init__(self, identity: SpiffeIdentity) -> None:
        self._identity = identity
        self._volume = ""

    def release(self, wanted: Wanted) -> Release:
        """See ``sources.KeySource``: raises as ``KbsSource.release``."""
        body = broker_calls.print_key_request(wanted.volume)
        answer = self._identity.ask(broker_calls.KEY_PATH, body)
        self._volume = wanted.volume
        plaintext = self._identity.open(answer)
        broker = self._identity.session.broker
        return kbs.read(plaintext, wanted, broker=broker, identity=self._identity.of_broker)

    def commit(self, generation: int, digest: str) -> None:
        """See ``sources.KeySource``; the volume is that of ``release``."""
        body = broker_calls.print_commit(Commit(generation, digest, self._volume))
        answer = self._identity.ask(broker_calls.SPIFFE_COMMIT_PATH, body)
        broker_calls.parse_nothing(answer)


def make(uri: KeyUri, surroundings: Surroundings) -> SpiffeSource:
    """The source for the identity that ``uri`` names; it is obtained here, once a broker.

    Raises ``ProviderError``: ``broker-unknown``, ``spiffe-certificate``, and as
    ``KbsSession.issue``.
    """
    broker = sources.broker_of(uri, surroundings.brokers)
    if broker.protocol != TROTH:
        raise ProviderError(
            "broker-unknown", f"broker {broker.name} gives no identities", hint="take kbs:"
        )
    found = surroundings.identities.get(str(uri))
    if found is None:
        session = kbs_session.session_with(broker, surroundings)
        found = SpiffeIdentity(session, uri, deadline_s=surroundings.deadline_s)
        surroundings.identities[str(uri)] = found
    return SpiffeSource(found)


def _name(answer: HttpAnswer) -> str:
    """What the broker calls its refusal."""
    try:
        return kbs_error.parse(answer.body).name
    except FormatError:
        return ""


def check_svid(
    chain: tuple[bytes, ...], uri: KeyUri, broker: Broker, *, own_key: bytes, now: int
) -> None:
    """Whether ``chain`` certifies ``own_key`` (SubjectPublicKeyInfo) as what ``uri`` says.

    Its issuer is looked at where the policy knows issuers; where it knows the
    broker's key, that the certificate came from there must do, and who is shown
    it judges for itself. ``FormatError``: ``certificate-issuer``.
    """
    leaf, *between = chain
    if issued_by.public_key(leaf) != own_key:
        raise FormatError("certificate-issuer", "it is for another key")
    if broker.ca:
        known = brokers.issuers(broker)
        # The issuer itself is mostly sent along; it is not between anything.
        others = [item for item in between if item not in known]
        at = max(now, broker.not_before)
        found = issued_by.check_identity(leaf, known, at=at, between=others)
    else:
        found = issued_by.identity_of(leaf)
    domain = f"spiffe://{uri.trust_domain}/"
    if not (found == str(uri) if uri.path else found.startswith(domain)):
        raise FormatError("certificate-issuer", f"it is for {found[:200]!r}, not {uri}")
