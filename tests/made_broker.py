# SPDX-License-Identifier: Apache-2.0
"""A broker on this machine, and guests that ask it: written after the key broker protocol.

The guests' half shares no code with the broker but the ciphers: requests are put
together here, by hand, and answers are taken apart as another client would.
"""

import asyncio
import base64
import hashlib
import json
import socket
import ssl
import threading
import time
from contextlib import contextmanager
from functools import cache

from cryptography.hazmat.primitives.serialization import load_pem_private_key

import made_appraisal
import made_evidence
import made_pki
import made_report
from made_appraisal import with_line
from made_foreign import serde
from troth.ciphers.key_agreement import AgreementKey
from troth.documents import dsse, jwe, reference_document
from troth.keybroker import appraisal, classes, identity, resources, store
from troth.keybroker.appraisal import ACCEPTED, Appraiser, Verdict
from troth.keybroker.audit import AuditLog
from troth.keybroker.issuer import Issuer
from troth.keybroker.routes import Broker
from troth.keybroker.server import Server
from troth.keybroker.sessions import Sessions
from troth.keybroker.volume_state import Volume
from troth.record import replace
from troth.signing import keys, reference
from troth.signing.es256 import TokenKey

AT = made_evidence.AT
UUID = "0f0e0d0c-0b0a-0908-0706-050403020100"
PATH = "default/disk-key/data"
PROFILE = "headerless/hmac/4096"
KEY = bytes(range(32))
LIMIT_S = 20


def signer(number=1):
    return keys.load_private(made_evidence.signer(number)[0])


def values(*, simulated=True, **changes):
    """Reference values of an image for simulated guests, or for real ones."""
    made = made_evidence.VALUES
    launch = made.launch[0]
    if simulated:
        launch = replace(
            launch, kind="simulated", platform="simulated", file="vmlinuz", memory_bytes=0
        )
        made = replace(made, snp="simulated", flags=replace(made.flags, simulated=True))
    return replace(made, launch=(launch,), **changes)


def with_digest(of, digest):
    return replace(of, launch=(replace(of.launch[0], digest=digest),), revoked=())


def document(of, number=1):
    data = dsse.print_(reference.sign(of, [signer(number)]))
    return reference_document.read(data, where="signed.json")


def policy_text(*, simulated=True):
    made = made_evidence.simulated_pki() if simulated else made_appraisal.pki()
    text = made_appraisal.policy_text(made)
    for line in (
        "[launch] measurements = []",
        "[launch] report_ids = []",
        '[launch] host_data = "unused"',
        'platform = "simulated"' if simulated else 'platform = "real"',
    ):
        text = with_line(text, line)
    return text


def certificates(folder, *, simulated=True, without=()):
    """A directory as ``troth certs fetch`` leaves one."""
    made = made_evidence.simulated_pki() if simulated else made_appraisal.pki()
    folder.mkdir(exist_ok=True)
    files = {"ark": made.ark, "ca": made.ca, "vek": made.vek, "list": made.revoked()}
    for name, data in files.items():
        if name not in without:
            (folder / f"{name}.der").write_bytes(data)
    return folder


def kept(folder, *, simulated=True, volume=None, passphrase=None, at=AT):
    """A database with one class and one volume."""
    found = store.create(folder, "simulated" if simulated else "real", passphrase=passphrase)
    made = document(values(simulated=simulated))
    classes.add(found, made, [signer().public], pending=False, at=at)
    resources.add_volume(
        found, PATH, uuid=UUID, profile=PROFILE, key=KEY, images=["demo"],
        volume=volume or Volume(), at=at,
    )  # fmt: skip
    return found


def appraiser(found, tmp_path, *, simulated=True):
    policy = appraisal.strict_policy(policy_text(simulated=simulated).encode(), where="p")
    return Appraiser(found, policy, certificates(tmp_path / "certs", simulated=simulated))


class Believes:
    """Judges nothing: evidence is {"report_id": hex} and names its class."""

    def appraise(self, tee, request, *, at):
        said = json.loads(request.evidence)
        report_id = bytes.fromhex(said.get("report_id", "00" * 32))
        return Verdict(
            said.get("code", ACCEPTED), "a test", said.get("image", "demo"), said.get("svn", 3),
            report_id, bytes(48),
        )  # fmt: skip


class Clock:
    """Stands still until it is told."""

    def __init__(self, at=AT):
        self.at = at

    def __call__(self):
        return float(self.at)


class Running:
    """A broker that serves on loopback."""

    def __init__(self, folder, found, port, broker, server):
        self.folder = folder
        self.store = found
        self.port = port
        self.broker = broker
        self.server = server

    def audit(self):
        return [json.loads(line) for line in (self.folder / "audit.jsonl").read_text().splitlines()]

    def client(self, **words):
        return Client(self.port, **words)


def broker_of(found, judge=None, *, clock=None, trust_domain="", random=None):
    clock = clock or Clock()
    issuer = None
    if trust_domain:
        issuer = Issuer(found, identity.authority(found.folder, trust_domain), trust_domain)
    sessions = Sessions(random=random) if random else Sessions()
    return Broker(
        found, judge or Believes(), sessions, token_key=TokenKey(),
        audit=AuditLog(found.folder), issuer=issuer, wall=clock, steady=clock,
    )  # fmt: skip


@contextmanager
def running(found, judge=None, *, bounds=None, rate=None, answer=None, **words):
    broker = broker_of(found, judge, **words)
    identity.tls_certificate(found.folder, ["127.0.0.1"], found.kind)
    domain = words.get("trust_domain")
    issuer = identity.authority(found.folder, domain) if domain else None
    server = Server(
        answer or broker.answer, identity.context(found.folder, issuer), knows=broker.knows,
        bounds=bounds, rate=rate,
    )  # fmt: skip
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    problems = []

    def serve():
        try:
            asyncio.run(server.run(listener))
        except BaseException as error:  # noqa: BLE001 - told by the thread that waits
            problems.append(error)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    deadline = time.monotonic() + LIMIT_S
    while server._loop is None and thread.is_alive():
        assert time.monotonic() < deadline
        time.sleep(0.001)
    try:
        yield Running(found.folder, found, port, broker, server)
    finally:
        server.stop()
        thread.join(LIMIT_S)
    assert not problems
    assert not thread.is_alive()


class Client:
    """One connection, over TLS unless ``plain``; pins nothing: the tests of TLS do."""

    def __init__(self, port, *, certificate=None, plain=False, timeout_s=LIMIT_S):
        sock = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        # Else the first request waits for the other side's late word on the handshake's end.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not plain:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            if certificate is not None:
                context.load_cert_chain(*certificate)
            try:
                sock = context.wrap_socket(sock)
            except OSError:
                sock.close()
                raise
        self.sock = sock
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def send(self, method, path, body=None, *, fields=()):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", "host: broker", "accept: */*", *fields]
        if body is not None:
            lines += [f"content-length: {len(data)}", "content-type: application/json"]
        self.sock.sendall(
            "\r\n".join((*lines, "", "")).encode() + (data if body is not None else b"")
        )

    def receive(self):
        """(status, [(name, value)...], body)."""
        while b"\r\n\r\n" not in self.buffer:
            self._more()
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        fields = [(n.lower(), v) for n, _, v in (line.partition(": ") for line in lines)]
        size = int(dict(fields)["content-length"])
        while len(self.buffer) < size:
            self._more()
        body, self.buffer = self.buffer[:size], self.buffer[size:]
        return int(first.split(" ")[1]), fields, body

    def _more(self):
        data = self.sock.recv(65536)
        if not data:
            raise ConnectionError("the broker closed the connection")
        self.buffer += data

    def ask(self, *args, **words):
        """(status, fields, the answer's JSON)."""
        self.send(*args, **words)
        status, fields, body = self.receive()
        return status, dict(fields), json.loads(body)


def b64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Guest:
    """One launch of a guest, with a key of its own."""

    def __init__(self, client, *, report_id=b"\x08" * 32, key=None, image="demo", svn=3):
        self.client = client
        self.report_id = report_id
        self.key = key or AgreementKey()
        self.image = image
        self.svn = svn
        self.cookie = ""
        self.token = ""

    @property
    def jwk(self):
        public = self.key.public
        return {
            "kty": "EC", "crv": public.curve, "alg": "ECDH-ES+A256KW",
            "x": b64url(public.x), "y": b64url(public.y),
        }  # fmt: skip

    def fields(self):
        return [f"cookie: {self.cookie}"] if self.cookie else []

    def ask(self, method, path, body=None):
        status, _fields, answer = self.client.ask(method, path, body, fields=self.fields())
        return status, answer

    def auth(self, tee="snp"):
        request = {"version": "0.4.0", "tee": tee, "extra-params": ""}
        status, fields, answer = self.client.ask("POST", "/kbs/v0/auth", request)
        assert status == 200, answer
        self.cookie = fields["set-cookie"].partition(";")[0]
        return answer["nonce"]

    def digest(self, nonce):
        material = {"additional-evidence": "", "nonce": nonce, "tee-pubkey": self.jwk}
        text = json.dumps(material, sort_keys=True, separators=(",", ":"))
        return hashlib.sha384(text.encode()).digest()

    def attest(self, nonce, evidence=None):
        """(status, answer)."""
        if evidence is None:
            evidence = {
                "report_id": self.report_id.hex(), "image": self.image, "svn": self.svn,
            }  # fmt: skip
        body = {
            "init-data": None,
            "runtime-data": {"nonce": nonce, "tee-pubkey": self.jwk},
            "tee-evidence": {"primary_evidence": evidence, "additional_evidence": ""},
        }
        status, answer = self.ask("POST", "/kbs/v0/attest", body)
        if status == 200:
            self.token = answer["token"]
        return status, answer

    def handshake(self):
        status, answer = self.attest(self.auth())
        assert status == 200, answer
        return self

    def get(self, path=PATH):
        """(status, plain text or answer)."""
        status, answer = self.ask("GET", f"/kbs/v0/resource/{path}")
        if status != 200:
            return status, answer
        return status, self.key.open(jwe.parse(json.dumps(answer).encode()))

    def commit(self, generation, digest, path=PATH):
        return self.ask(
            "POST", f"/kbs/v0/troth/commit/{path}", {"generation": generation, "record": digest}
        )

    def finish(self):
        return self.ask("POST", "/kbs/v0/troth/boot-finished", {})


@cache
def fields_of_report():
    return made_appraisal.FIELDS | {
        "measurement": bytes.fromhex(made_evidence.DIGEST), "host_data": bytes(32),
    }  # fmt: skip


def snp_evidence(report_data, *, pki=None, chain=None, **changes):
    """kbs-snp JSON of a report that ``pki`` signs."""
    pki = pki or made_evidence.simulated_pki()
    data = report_data.ljust(64, b"\0")
    raw = pki.report(**(fields_of_report() | {"report_data": data} | changes))
    return serde(raw, chain=chain)


def chain_of(pki):
    return [
        {"cert_type": kind, "data": list(der)}
        for kind, der in (("VCEK", pki.vek), ("ASK", pki.ca), ("ARK", pki.ark))
    ]


# --- a simulated platform that lives now ------------------------------------------------------


def platform_evidence(pki, digest, report_id):
    """kbs-snp evidence that the key of ``pki``, a ``simulated.pki.Pki``, signed."""
    chip = pki.chip
    fields = fields_of_report() | {
        "report_data": digest.ljust(64, b"\0"), "report_id": report_id, "chip_id": chip.chip_id,
        "cpuid_family": chip.family, "cpuid_model": chip.model, "cpuid_stepping": chip.stepping,
        **{f"{name}_tcb": chip.tcb for name in ("reported", "current", "committed", "launch")},
    }  # fmt: skip
    key = load_pem_private_key(pki.vcek.key_pem, None)
    return serde(made_pki.signed(made_report.report(**fields), key))


def platform_policy(pki):
    """A policy under which that evidence passes."""
    return f"""\
schema = "troth-verify-policy-v1"
platform = "simulated"
trusted_roots = ["{pki.root_sha256}"]
[launch]
vmpl = [0]
host_data = "unused"
[id_block]
id_keys = [{{ digest = "{"06" * 48}", min_guest_svn = 5 }}]
author_keys = [{{ digest = "{"07" * 48}", min_guest_svn = 6 }}]
family_ids = ["{"01" * 16}"]
image_ids = ["{"02" * 16}"]
[required]
tcb-reported = false
tcb-committed = false
tcb-launch = false
"""
