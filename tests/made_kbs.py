# SPDX-License-Identifier: Apache-2.0
"""A key broker on the loopback that plays by the rules, but for what a test bends.

It is a model, not ``troth.keybroker``: it looks at REPORT_DATA and at nothing
else of the evidence. ``bend`` maps a path, or the first part of one, to a
function of (model, request) that answers in its place, or returns None to let
the model go on.
"""

import contextlib

from cryptography import x509

import made_report
import made_tls
from made_tls import Listener, answer
from troth.abi import snp_report
from troth.ciphers import key_agreement, sealing
from troth.documents import (
    broker_calls,
    jwe,
    kbs,
    kbs_error,
    kbs_evidence,
    volume_key,
)

VOLUME = "6f1c0d1e-9f3a-4a39-8d3e-0242ac120002"
PROFILE = "headerless/hmac/4096"
KEY = bytes(range(48))
ID = "spiffe://example.org/vm/demo"


def no(name="PolicyDeny", detail="not you", status="401 Unauthorized"):
    return answer(kbs_error.print_(kbs_error.BrokerError(name, detail)), status)


def evidence(report_data):
    """What a guest's platform would give."""
    raw = made_report.report(report_data=report_data)
    return raw, (("vcek", b"0\1"),)


class Model:
    """Its state: sessions, what was asked (paths), commits, finished boots."""

    def __init__(self, *, bend=None, released=None, issuer=1):
        self.bend = bend or {}
        self.released = released or volume_key.VolumeKey(VOLUME, PROFILE, KEY)
        self.sessions = {}
        self.asked = []
        self.bodies = []
        self.commits = []
        self.finished = 0
        self.issuer = issuer
        self.nonces = 0
        self.reports = []
        self.identities = {}

    def handle(self, connection):
        while True:
            request = made_tls.read_request(connection)
            if request is None:
                return
            self.asked.append(request.path)
            self.bodies.append(request.body)
            connection.sendall(self.answer(request, connection))

    def answer(self, request, connection):
        for path, other in self.bend.items():
            if request.path.startswith(path):
                said = other(self, request)
                if said is not None:
                    return said
        return self.rules(request, connection)

    def rules(self, request, connection=None):
        cookie = request.headers.get("cookie", "")
        session = cookie.removeprefix(f"{kbs.COOKIE}=")
        if request.path == kbs.AUTH_PATH:
            assert kbs.parse_auth(request.body).tee == "snp"
            self.nonces += 1
            made = f"{self.nonces:032x}"
            self.sessions[made] = None
            challenge = kbs.Challenge(f"nonce{self.nonces}=")
            more = f"Set-Cookie: {kbs.COOKIE}={made}; Expires=Fri, 01 Jan 2027 00:00:00 GMT\r\n"
            return answer(kbs.print_challenge(challenge), more=more)
        if request.path == kbs.ATTEST_PATH:
            asked = kbs.parse_attest(request.body)
            found = kbs_evidence.parse(asked.evidence)
            self.reports.append(found)
            if snp_report.parse(found.report).report_data != kbs.report_data(asked):
                return no("AttestationError", "REPORT_DATA")
            self.sessions[session] = asked.tee_pubkey
            more = f"Set-Cookie: {kbs.COOKIE}={session}\r\n"
            return answer(kbs.print_token("a.b.c"), more=more)
        if request.path in (broker_calls.KEY_PATH, broker_calls.SPIFFE_COMMIT_PATH):
            return self._to_identity(request, connection)
        key = self.sessions.get(session)
        if key is None:
            return no("TokenNotFound", "no session")
        if request.path.startswith(kbs.RESOURCE_PATH):
            return answer(jwe.print_(sealing.seal(key, volume_key.print_(self.released))))
        if request.path.startswith(broker_calls.COMMIT_PATH):
            self.commits.append(broker_calls.parse_commit(request.body, named=False))
            return answer()
        if request.path == broker_calls.BOOT_FINISHED_PATH:
            broker_calls.parse_nothing(request.body)
            self.finished += 1
            return answer()
        if request.path == broker_calls.ISSUE_PATH:
            csr = x509.load_der_x509_csr(broker_calls.parse_issue(request.body))
            assert csr.is_signature_valid
            return answer(broker_calls.print_svid(self.svid(csr.public_key())))
        return no("InvalidRequestPath", "unknown", "404 Not Found")

    def svid(self, public, *, uris=(ID,)):
        leaf = made_tls.certificate(
            public, made_tls.key(self.issuer), subject="svid", uris=uris, days=36500
        )
        return leaf, made_tls.authority(self.issuer)

    def _to_identity(self, request, connection):
        own = connection.getpeercert(binary_form=True)
        if not own:
            return no("AdminAuthAccess", "no certificate")
        self.identities[own] = x509.load_der_x509_certificate(own)
        if request.path == broker_calls.SPIFFE_COMMIT_PATH:
            self.commits.append(broker_calls.parse_commit(request.body, named=True))
            return answer()
        assert broker_calls.parse_key_request(request.body) == VOLUME
        key = key_agreement.public_of(self.identities[own].public_key())
        return answer(jwe.print_(sealing.seal(key, volume_key.print_(self.released))))


@contextlib.contextmanager
def serving(model, *, clients=None, most=8):
    """The policy's broker, while ``model`` serves; ``clients``: DER of who certifies clients."""
    context = made_tls.server_context(clients=clients, optional=True)
    with Listener(model.handle, context=context, most=most) as there:
        pins = (made_tls.pin(made_tls.key(2)),)
        yield made_tls.Broker(addresses=(there.address,), spki=pins, trust_domain="example.org")
