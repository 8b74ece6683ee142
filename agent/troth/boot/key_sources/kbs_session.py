# SPDX-License-Identifier: Apache-2.0
"""An attested session with one broker: challenge, evidence, then calls under its cookie.

Serves ``kbs`` and ``spiffe``, which share one a broker, since a report takes its
time. The key that answers are encrypted to is of this boot alone. Must never
show what a broker says but as short printable text, nor ask again and again:
one fresh handshake where a session has ended, then it is over.

Source: Trustee, kbs/docs/kbs_attestation_protocol.md ("RCAR"), version 0.4.0.
"""

from __future__ import annotations

from troth.boot.key_sources.https import HttpsClient
from troth.ciphers.key_agreement import AgreementKey
from troth.documents import broker_calls, jwe, kbs, kbs_error, kbs_evidence
from troth.documents.broker_calls import Commit
from troth.documents.policy_keys import TROTH
from troth.errors import ProviderError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.boot.key_sources.http_answer import HttpAnswer
    from troth.boot.key_sources.sources import Evidence, Surroundings
    from troth.documents.policy_keys import Broker
    from troth.documents.resource_path import ResourcePath

_OK, _UNAUTHORIZED, _NOT_FOUND = 200, 401, 404


class KbsSession:
    """A session with ``broker``, not begun; times as ``HttpsClient`` has them."""

    def __init__(self, broker: Broker, *, evidence: Evidence, client: HttpsClient) -> None:
        self.broker = broker
        self._evidence = evidence
        self._client = client
        self._key: AgreementKey | None = AgreementKey()
        self._cookie = ""
        self._nonces: set[str] = set()

    @property
    def identity(self) -> str:
        """Who answered last, public text."""
        return self._client.identity

    def resource(self, path: ResourcePath) -> bytes:
        """What the broker releases as ``path``, decrypted.

        Raises ``ProviderError``: as ``HttpsClient.request``, ``broker-refused``,
        ``broker-missing``, ``broker-nonce``, ``broker-session``; ``FormatError``:
        ``jwe-*``, ``jwk-*``, ``kbs-*``, ``json-*``.
        """
        answer = self._call("GET", f"{kbs.RESOURCE_PATH}{path}")
        if self._key is None:
            raise self._error("broker-session", "the session is over")
        return self._key.open(jwe.parse(answer.body, where=self.broker.name))

    def commit(self, path: ResourcePath, generation: int, digest: str) -> None:
        """Tell a broker of troth the record of ``path``. Raises as ``resource``."""
        body = broker_calls.print_commit(Commit(generation, digest))
        answer = self._call("POST", f"{broker_calls.COMMIT_PATH}{path}", body)
        broker_calls.parse_nothing(answer.body, where=self.broker.name)

    def issue(self, csr: bytes) -> tuple[bytes, ...]:
        """Certificates for the request ``csr``, all DER. Raises as ``resource``."""
        answer = self._call("POST", broker_calls.ISSUE_PATH, broker_calls.print_issue(csr))
        return broker_calls.parse_svid(answer.body, where=self.broker.name)

    def boot_finished(self) -> None:
        """Tell a broker of troth to give this boot no key any more. Raises as ``resource``."""
        if self.broker.protocol == TROTH:
            answer = self._call("POST", broker_calls.BOOT_FINISHED_PATH, broker_calls.NOTHING)
            broker_calls.parse_nothing(answer.body, where=self.broker.name)

    def close(self) -> None:
        """End it, and drop the key. Its memory is cleared by the library."""
        self._client.close()
        self._key = None
        self._cookie = ""

    def _call(self, method: str, path: str, body: bytes | None = None) -> HttpAnswer:
        if not self._cookie:
            self._attest()
        answer = self._client.request(method, path, body, session=self._cookie)
        if answer.status == _UNAUTHORIZED:
            # It may only have ended. A second no is one.
            self._cookie = ""
            self._attest()
            answer = self._client.request(method, path, body, session=self._cookie)
        self._same_session(answer)
        return self.accepted(answer, path)

    def _attest(self) -> None:
        """A new session; the same key, as the broker may have answered to it already."""
        if self._key is None:
            raise self._error("broker-session", "the session is over")
        asked = kbs.print_auth(kbs.AuthRequest(kbs.SNP))
        answer = self.accepted(self._client.request("POST", kbs.AUTH_PATH, asked), kbs.AUTH_PATH)
        challenge = kbs.parse_challenge(answer.body, where=self.broker.name)
        if challenge.nonce in self._nonces:
            raise self._error("broker-nonce", "it sent a nonce for the second time")
        self._nonces.add(challenge.nonce)
        if not answer.session:
            raise self._error("broker-session", "it gave no cookie for the session")
        cookie = answer.session
        request = kbs.AttestRequest(challenge.nonce, self._key.public, b"{}")
        report, certificates = self._evidence(kbs.report_data(request))
        evidence = kbs_evidence.print_(report, certificates)
        body = kbs.print_attest(kbs.AttestRequest(challenge.nonce, self._key.public, evidence))
        answer = self._client.request("POST", kbs.ATTEST_PATH, body, session=cookie)
        self.accepted(answer, kbs.ATTEST_PATH)
        kbs.parse_token(answer.body, where=self.broker.name)
        self._cookie = cookie
        self._same_session(answer)

    def _same_session(self, answer: HttpAnswer) -> None:
        if answer.session not in ("", self._cookie):
            raise self._error("broker-session", "it changed the cookie within the session")

    def accepted(self, answer: HttpAnswer, path: str) -> HttpAnswer:
        """``answer`` if it is a yes. ``ProviderError``: ``broker-refused``, ``broker-missing``."""
        if answer.status == _OK:
            return answer
        said = kbs_error.said(answer.body)
        if answer.status == _NOT_FOUND:
            raise self._error("broker-missing", f"it has no {path}: {said}")
        raise self._error("broker-refused", f"{path}: {answer.status}, {said}")

    def _error(self, code: str, message: str) -> ProviderError:
        return ProviderError(code, f"broker {self.broker.name}: {message}")


def session_with(broker: Broker, surroundings: Surroundings) -> KbsSession:
    """The one session with ``broker`` in this boot."""
    found = surroundings.sessions.get(broker.name)
    if found is None:
        client = HttpsClient(broker, deadline_s=surroundings.deadline_s)
        found = KbsSession(broker, evidence=surroundings.evidence, client=client)
        surroundings.sessions[broker.name] = found
    return found
