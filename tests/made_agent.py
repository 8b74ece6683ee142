# SPDX-License-Identifier: Apache-2.0
"""An agent on this machine, with a provider made to order, and callers for its sockets."""

import json
import os
import socket
import threading
import time
from contextlib import contextmanager

from made_policy import policy
from made_reports import report_of
from troth.attest.agent import Agent, Settings
from troth.attest.pacing import Pacer
from troth.attest.provider import Answer
from troth.documents import event_log
from troth.documents.policy import Attest
from troth.measure import register
from troth.measure.boot_events import boot_events
from troth.record import replace

LIMIT_S = 20


class FakeProvider:
    """Answers after ``takes_s``, or raises ``error``; remembers what it was asked."""

    name = "sev-guest"

    def __init__(self, takes_s=0.0, error=None):
        self.takes_s = takes_s
        self.error = error
        self.asked = []
        self.at_once = 0
        self.most_at_once = 0
        self.gate = threading.Event()
        self.gate.set()

    def report(self, report_data, *, vmpl, key_selection):
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.asked.append((report_data, vmpl, key_selection))
        assert self.gate.wait(LIMIT_S)
        time.sleep(self.takes_s)
        self.at_once -= 1
        if self.error is not None:
            raise self.error
        return Answer(report_of(report_data, vmpl=vmpl or 0), b"", b"", self.name)


class Caller:
    """One connection of a client."""

    def __init__(self, path, timeout_s=LIMIT_S):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(timeout_s)
        self.sock.connect(str(path))
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def send(self, method, path, body=None, *, fields=()):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", "Host: troth", *fields]
        if body is not None:
            lines.append(f"Content-Length: {len(data)}")
            if not any(field.lower().startswith("content-type") for field in fields):
                lines.append("Content-Type: application/json")
        self.sock.sendall(
            "\r\n".join((*lines, "", "")).encode() + (data if body is not None else b"")
        )
        return self

    def raw(self, data):
        self.sock.sendall(data)
        return self

    def receive(self):
        """(status, fields, body bytes) of the next answer."""
        while b"\r\n\r\n" not in self.buffer:
            self._more()
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        fields = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
        }
        size = int(fields["content-length"])
        while len(self.buffer) < size:
            self._more()
        body, self.buffer = self.buffer[:size], self.buffer[size:]
        return int(first.split(" ")[1]), fields, body

    def _more(self):
        data = self.sock.recv(65536)
        if not data:
            raise ConnectionError("the agent closed the connection")
        self.buffer += data

    def is_closed(self):
        """Whether the agent closes within the caller's time."""
        return self.sock.recv(65536) == b""

    def ask(self, *args, **kwargs):
        """(status, the answer's JSON)."""
        status, _fields, body = self.send(*args, **kwargs).receive()
        return status, json.loads(body)


def ask(path, *args, **kwargs):
    with Caller(path) as caller:
        return caller.ask(*args, **kwargs)


def make_log(tmp_path, *, tpm_kind="", tpm_clock=None):
    """A log as PID 1 leaves it, and its words about it."""
    state = tmp_path / "state"
    state.mkdir()
    events = boot_events(
        policy(), policy_bytes=b"{}", cmdline=b"quiet", workload=None, tpm_absent=False
    )
    log = tmp_path / "event-log.jsonl"
    log.write_bytes(b"".join(event_log.line(event) for event in events))
    words = {
        "schema": "troth-boot-v1", "handover": "/sbin/init", "tpm_kind": tpm_kind,
        "events": len(events), "software_register": register.replay(events).hex(), "stages": [],
        "tpm_clock": tpm_clock,
    }  # fmt: skip
    (state / "boot.json").write_text(json.dumps(words))
    return log, len(events)


class Running:
    """A started agent: its sockets, its provider, and itself."""

    def __init__(self, directory, agent, provider):
        self.attest = directory / "attest.sock"
        self.control = directory / "control.sock"
        self.agent = agent
        self.provider = provider
        self.error = None


def settings_of(
    tmp_path,
    provider,
    *,
    attest=None,
    snp="required",
    interval_s=0.0,
    quoter_of=lambda _policy: None,
    vtpm_kind="host",
    by_policy=False,
):
    attest = attest or Attest(group=os.getegid())
    return Settings(
        policy=replace(policy(snp=snp), attest=attest, vtpm_kind=vtpm_kind),
        policy_sha256="ab" * 32,
        directory=str(tmp_path / "run"),
        state=str(tmp_path / "state"),
        log=str(tmp_path / "event-log.jsonl"),
        choose=None if by_policy else lambda: provider,
        pacer=Pacer(str(tmp_path / "turn"), interval_s=interval_s),
        interval_s=interval_s,
        quoter_of=quoter_of,
    )


@contextmanager
def running(tmp_path, *, provider=None, environ=None, **words):
    provider = provider or FakeProvider()
    settings = settings_of(tmp_path, provider, **words)
    directory = tmp_path / "run"
    agent = Agent(settings, environ or {})
    found = Running(directory, agent, provider)

    def serve():
        try:
            agent.run()
        except Exception as error:  # noqa: BLE001 - told by the thread that waits
            found.error = error

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    deadline = time.monotonic() + LIMIT_S
    while len(agent.server._listeners) < 2 and thread.is_alive():
        assert time.monotonic() < deadline
        time.sleep(0.002)
    try:
        yield found
    finally:
        if thread.is_alive():
            agent.signal(15)
        thread.join(LIMIT_S)
    assert found.error is None
    assert not thread.is_alive()
    assert not found.attest.exists()
