# SPDX-License-Identifier: Apache-2.0
"""What the broker answers: the calls of the key broker protocol, and troth's own.

Serves ``keybroker.server``: one request in, one answer out; sockets are not known
here. Before its evidence was good a guest hears one public sentence for every
failure, and the audit log has the rest; afterwards it hears the code. Must never
let a key go before the decision about it is on the disk (SECURITY S6, S39, S41).

Source: Trustee, kbs/docs/kbs_attestation_protocol.md; its status codes are those
of its code: 404 where no such call is, 401 for every other no.
"""

from __future__ import annotations

import hmac
import sys
import time
from email.utils import formatdate
from typing import TYPE_CHECKING

from troth.attest.http import Response
from troth.ciphers import sealing
from troth.documents import broker_calls, jwe, kbs, kbs_error, resource_path
from troth.errors import FormatError, TrothError
from troth.keybroker import release, tokens
from troth.keybroker.audit import Decided
from troth.keybroker.issuer import key_sha256
from troth.keybroker.rate import counted_as
from troth.keybroker.release import Attested, Outcome
from troth.keybroker.sessions import LIFE_S
from troth.record import record

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from troth.attest.http import Request
    from troth.documents.jwk import PublicKey
    from troth.documents.kbs import AttestRequest
    from troth.keybroker.appraisal import Verdict
    from troth.keybroker.audit import AuditLog
    from troth.keybroker.issuer import Issuer
    from troth.keybroker.sessions import Session, Sessions
    from troth.keybroker.store import Store
    from troth.signing.es256 import TokenKey

    class Appraises(Protocol):
        """What judges evidence: ``keybroker.appraisal.Appraiser``."""

        def appraise(self, tee: str, request: AttestRequest, *, at: int) -> Verdict: ...


ATTESTATION = "AttestationError"
DENIED = "PolicyDeny"
NO_TOKEN = "TokenNotFound"  # noqa: S105 - the name of an error
NO_CALL = "InvalidRequestPath"
MALFORMED = "SerdeError"
INTERNAL = "InternalError"
BUSY = "TooManyRequests"

NOT_ACCEPTED = "the evidence was not accepted; the broker's audit log says why"
NO_SESSION = "no session: POST /kbs/v0/auth begins one"
_FINISHED = "boot-finished"
_BEARER = "Bearer "


@record
class Peer:
    """Who is at the other end: ``address``; ``certificate``: DER, none where none was shown."""

    address: str
    certificate: bytes | None = None


@record
class _Known:
    """A guest whose evidence was good, and the key that answers go to."""

    guest: Attested
    key: PublicKey
    session: Session | None


class Broker:
    """All calls. ``wall``: seconds since 1970; ``steady``: seconds that only go forward."""

    def __init__(
        self,
        store: Store,
        appraiser: Appraises,
        sessions: Sessions,
        *,
        token_key: TokenKey,
        audit: AuditLog,
        issuer: Issuer | None = None,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._appraiser = appraiser
        self._sessions = sessions
        self._token_key = token_key
        self._audit = audit
        self._issuer = issuer
        self._wall = wall
        self._steady = steady

    def answer(self, request: Request, peer: Peer) -> Response:
        """The answer to ``request``; every failure is one."""
        try:
            return self._call(request, peer)
        except TrothError as error:
            # The operator's to mend: disk, database, keys. No guest has done this.
            sys.stderr.write(f"troth keybroker: [{error.code}] {error}\n")
            return refusal(500, INTERNAL, "the broker cannot answer now")

    def knows(self, request: Request, peer: Peer) -> bool:
        """Whether it is of somebody who has begun: in a session, or with our certificate."""
        name = _session_name(request)
        return peer.certificate is not None or self._sessions.is_known(name, now=self._steady())

    def _call(self, request: Request, peer: Peer) -> Response:
        path = request.path
        if request.method == "GET" and path.startswith(kbs.RESOURCE_PATH):
            return self._resource(request, peer, path.removeprefix(kbs.RESOURCE_PATH))
        if request.method == "GET" and path == "/healthz":
            return Response(200, b"{}")
        if request.method == "POST":
            if path.startswith(broker_calls.COMMIT_PATH):
                return self._commit(request, peer, path.removeprefix(broker_calls.COMMIT_PATH))
            calls = {
                kbs.AUTH_PATH: self._auth,
                kbs.ATTEST_PATH: self._attest,
                broker_calls.BOOT_FINISHED_PATH: self._finish,
            }
            if self._issuer is not None:
                calls |= {
                    broker_calls.ISSUE_PATH: self._issue,
                    broker_calls.KEY_PATH: self._volume_key,
                    broker_calls.SPIFFE_COMMIT_PATH: self._volume_commit,
                }
            if path in calls:
                return calls[path](request, peer)
        return refusal(404, NO_CALL, "no such call")

    def _auth(self, request: Request, peer: Peer) -> Response:
        try:
            asked = kbs.parse_auth(request.body)
        except FormatError as error:
            return refusal(401, ATTESTATION, error.message)
        session = self._sessions.begin(counted_as(peer.address), asked.tee, now=self._steady())
        if session is None:
            return busy(503, "too many sessions")
        body = kbs.print_challenge(kbs.Challenge(session.nonce))
        return Response(200, body, fields=(self._cookie(session),))

    def _attest(self, request: Request, peer: Peer) -> Response:
        session = self._session(request)
        if session is None:
            return refusal(401, ATTESTATION, NO_SESSION)
        if session.guest is not None:
            return self._token(session, session.token)
        try:
            asked = kbs.parse_attest(request.body)
            # A key that nothing can be encrypted to would lose what is released to it.
            sealing.seal(asked.tee_pubkey, b"")
        except FormatError as error:
            # Who has begun goes before strangers, once: not with one bad body after the other.
            self._sessions.end(session)
            return refusal(401, ATTESTATION, error.message)
        known = hmac.compare_digest(asked.nonce, session.nonce)
        if not self._sessions.use_nonce(session) or not known:
            self._sessions.end(session)
            return refusal(401, ATTESTATION, NOT_ACCEPTED)
        at = self._at()
        verdict = self._appraiser.appraise(session.tee, asked, at=at)
        code = verdict.code
        if verdict.good and self._is_finished(verdict.report_id):
            code = _FINISHED
        entry = Decided(
            "attest",
            code,
            peer.address,
            verdict.detail,
            report_id=verdict.report_id,
            measurement=verdict.measurement,
            image=verdict.image,
            svn=verdict.svn,
        )
        if verdict.good or verdict.signed:
            self._audit.write(entry, at=at)
        else:
            self._audit.write_stranger(entry, at=at, now=self._steady())
        if not verdict.good or code == _FINISHED:
            self._sessions.end(session)
            return refusal(401, ATTESTATION, NOT_ACCEPTED)
        key = asked.tee_pubkey
        guest = Attested(verdict.image, verdict.svn, verdict.report_id, key_sha256(key))
        claims = tokens.Claims(
            guest.image, guest.svn, guest.report_id, verdict.measurement, asked.nonce, key
        )
        token = tokens.print_(claims, self._token_key, at=at)
        self._sessions.attested(session, guest, key, token, now=self._steady())
        return self._token(session, token)

    def _resource(self, request: Request, peer: Peer, name: str) -> Response:
        known = self._known(request)
        if isinstance(known, Response):
            return known
        try:
            path = str(resource_path.parse(name))
        except FormatError:
            return refusal(404, NO_CALL, "a resource is named repository/type/tag")
        outcome = release.release(
            self._store, known.guest, path, at=self._at(), told=self._told("release", known, peer)
        )
        return _sealed(outcome, known.key)

    def _commit(self, request: Request, peer: Peer, name: str) -> Response:
        known = self._known(request)
        if isinstance(known, Response):
            return known
        try:
            path = str(resource_path.parse(name))
            asked = broker_calls.parse_commit(request.body, named=False)
        except FormatError as error:
            return refusal(401, MALFORMED, error.message)
        outcome = release.commit(
            self._store,
            known.guest,
            path,
            generation=asked.generation,
            digest=asked.digest,
            at=self._at(),
            told=self._told("commit", known, peer),
        )
        return _done(outcome)

    def _finish(self, request: Request, peer: Peer) -> Response:
        known = self._known(request)
        if isinstance(known, Response):
            return known
        try:
            broker_calls.parse_nothing(request.body)
        except FormatError as error:
            return refusal(401, MALFORMED, error.message)
        guest, at = known.guest, self._at()
        release.finish(self._store, guest.report_id, at=at)
        self._audit.write(_entry("boot-finished", "finished", known, peer), at=at)
        if known.session is not None:
            self._sessions.end(known.session)
        return Response(200, broker_calls.NOTHING)

    def _issue(self, request: Request, peer: Peer) -> Response:
        known = self._known(request)
        if isinstance(known, Response) or self._issuer is None:
            return known if isinstance(known, Response) else refusal(404, NO_CALL, "no such call")
        at = self._at()
        with self._store.reading() as rows:
            barred = release.barred(rows, known.guest)
        if barred:
            self._audit.write(_entry("issue", barred, known, peer), at=at)
            return refusal(401, DENIED, barred)
        try:
            chain = self._issuer.issue(known.guest, broker_calls.parse_issue(request.body), at=at)
        except FormatError as error:
            return refusal(401, MALFORMED, error.message)
        self._audit.write(_entry("issue", "issued", known, peer), at=at)
        return Response(200, broker_calls.print_svid(chain))

    def _volume_key(self, request: Request, peer: Peer) -> Response:
        known = self._holder(peer)
        if isinstance(known, Response):
            return known
        try:
            uuid = broker_calls.parse_key_request(request.body)
        except FormatError as error:
            return refusal(401, MALFORMED, error.message)
        outcome = release.release_volume(
            self._store, known.guest, uuid, at=self._at(), told=self._told("release", known, peer)
        )
        return _sealed(outcome, known.key)

    def _volume_commit(self, request: Request, peer: Peer) -> Response:
        known = self._holder(peer)
        if isinstance(known, Response):
            return known
        try:
            asked = broker_calls.parse_commit(request.body, named=True)
        except FormatError as error:
            return refusal(401, MALFORMED, error.message)
        outcome = release.commit_volume(
            self._store,
            known.guest,
            asked.volume,
            generation=asked.generation,
            digest=asked.digest,
            at=self._at(),
            told=self._told("commit", known, peer),
        )
        return _done(outcome)

    def _known(self, request: Request) -> _Known | Response:
        """Whose cookie or token it is. A session that lives wins over a token."""
        session = self._session(request)
        if session is not None and session.guest is not None and session.tee_pubkey is not None:
            return _Known(session.guest, session.tee_pubkey, session)
        given = request.fields.get("authorization", "")
        if not given.startswith(_BEARER):
            return refusal(401, NO_TOKEN, NO_SESSION)
        try:
            claims = tokens.parse(given.removeprefix(_BEARER), self._token_key, at=self._at())
        except FormatError as error:
            return refusal(401, "TokenVerifierError", error.message)
        guest = Attested(claims.image, claims.svn, claims.report_id, key_sha256(claims.tee_pubkey))
        return _Known(guest, claims.tee_pubkey, None)

    def _holder(self, peer: Peer) -> _Known | Response:
        """Whose certificate was shown in the handshake."""
        if peer.certificate is None or self._issuer is None:
            return refusal(401, NO_TOKEN, "no certificate was shown: POST /spiffe/v1/issue first")
        try:
            guest, key = self._issuer.holder(peer.certificate, at=self._at())
        except FormatError as error:
            return refusal(401, "TokenVerifierError", error.message)
        return _Known(guest, key, None)

    def _session(self, request: Request) -> Session | None:
        return self._sessions.find(_session_name(request), now=self._steady())

    def _token(self, session: Session, token: str) -> Response:
        return Response(200, kbs.print_token(token), fields=(self._cookie(session),))

    def _cookie(self, session: Session) -> tuple[str, str]:
        expires = formatdate(self._wall() + LIFE_S, usegmt=True)
        return "Set-Cookie", f"{kbs.COOKIE}={session.name}; Expires={expires}"

    def _told(self, event: str, known: _Known, peer: Peer) -> Callable[[Outcome], None]:
        """Writes a decision down before it is final."""

        def told(outcome: Outcome) -> None:
            entry = _entry(event, outcome.code, known, peer, outcome)
            self._audit.write(entry, at=self._at(), sync=outcome.good)

        return told

    def _is_finished(self, report_id: bytes) -> bool:
        with self._store.reading() as rows:
            return release.is_finished(rows, report_id)

    def _at(self) -> int:
        return int(self._wall())


def refusal(status: int, name: str, detail: str) -> Response:
    """A no in the form of the protocol."""
    return Response(status, kbs_error.print_(kbs_error.BrokerError(name, detail)))


def busy(status: int, detail: str) -> Response:
    """Not now: 429 or 503. The connection ends, so that another may begin."""
    body = kbs_error.print_(kbs_error.BrokerError(BUSY, detail))
    return Response(status, body, fields=(("Retry-After", "1"),), close=True)


def _session_name(request: Request) -> str:
    """The value of the session's cookie, "" without one."""
    for part in request.fields.get("cookie", "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == kbs.COOKIE and kbs.is_session(value):
            return value
    return ""


def _sealed(outcome: Outcome, key: PublicKey) -> Response:
    if not outcome.good:
        return _denied(outcome)
    return Response(200, jwe.print_(sealing.seal(key, outcome.payload)))


def _done(outcome: Outcome) -> Response:
    return Response(200, broker_calls.NOTHING) if outcome.good else _denied(outcome)


def _denied(outcome: Outcome) -> Response:
    # What is there and not this guest's looks like what is not there.
    code = release.NOT_GRANTED if outcome.code == release.MISSING else outcome.code
    return refusal(401, DENIED, code)


def _entry(
    event: str, decided: str, known: _Known, peer: Peer, outcome: Outcome | None = None
) -> Decided:
    guest, outcome = known.guest, outcome or Outcome(decided, "")
    return Decided(
        event,
        decided,
        peer.address,
        "another guest had it before: a boot anew, or a clone" if outcome.over else "",
        report_id=guest.report_id,
        image=guest.image,
        svn=guest.svn,
        resource=outcome.path,
        state=outcome.state,
        generation=outcome.generation,
        over=outcome.over,
    )
