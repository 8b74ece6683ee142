# SPDX-License-Identifier: Apache-2.0
"""The agent amid a thousand connections that do all they should not, for a few seconds."""

import gc
import os
import random
import socket
import threading
import time

from made_agent import LIMIT_S, ask, running
from troth.attest import connection
from troth.attest import server as server_module

REPORT = b"POST /v1/report HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
WHOLE = REPORT + b'Content-Length: 44\r\n\r\n{"nonce":"00112233445566778899aabbccddeeff"}'
GARBAGE = (b"\0" * 64, b"GET", b"\r\n" * 40, b"\x16\x03\x01\x02\0\x01\0", b"PRI * HTTP/2.0\r\n\r\n")
LONGEST_S = 5


class Bad:
    """One connection that is no good; ``go_on`` is called now and then."""

    def __init__(self, path, number):
        self.chance = random.Random(number)
        self.kind = KINDS[number % len(KINDS)]
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(str(path))
        self.sock.setblocking(False)
        self.rest = WHOLE
        self.go_on()

    def go_on(self):
        try:
            self.kind(self)
        except OSError:
            # The agent has had enough of it.
            self.sock.close()
            self.kind = Bad.silent

    def silent(self):
        pass

    def slow(self):
        self.sock.send(self.rest[:1])
        self.rest = self.rest[1:] or WHOLE

    def half_open(self):
        self.sock.send(WHOLE[: self.chance.randrange(len(WHOLE))])
        self.sock.shutdown(socket.SHUT_WR)
        self.kind = Bad.silent

    def vanishing(self):
        self.sock.send(WHOLE)
        self.sock.close()
        self.kind = Bad.silent

    def garbage(self):
        self.sock.send(self.chance.choice(GARBAGE))

    def greedy(self):
        self.sock.send(b"GET /v1/openapi.json HTTP/1.1\r\nHost: a\r\n\r\n" * 8)

    def chunked(self):
        self.sock.send(REPORT + b"Transfer-Encoding: chunked\r\n\r\nffffffff\r\n")

    def large(self):
        self.sock.send(REPORT + b"Content-Length: 65536\r\n\r\n" + bytes(4096))


KINDS = (Bad.silent, Bad.slow, Bad.half_open, Bad.vanishing, Bad.garbage, Bad.greedy,
         Bad.chunked, Bad.large)  # fmt: skip


def test_good_callers_are_served_amid_a_thousand_bad_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(connection, "REQUEST_S", 0.5)
    monkeypatch.setattr(connection, "IDLE_S", 0.5)
    monkeypatch.setattr(connection, "WRITE_S", 0.5)
    monkeypatch.setattr(connection, "LEAVE_S", 0.5)
    monkeypatch.setattr(server_module, "_TICK_S", 0.1)
    with running(tmp_path) as found:
        ask(found.attest, "GET", "/healthz")
        nobody_left(found)
        gc.collect()  # what earlier tests left
        before = held()
        bad = [Bad(found.attest, number) for number in range(1000)]
        ended, waits, failures = threading.Event(), [], []

        def misbehave():
            while not ended.is_set():
                for one in bad:
                    one.go_on()
                time.sleep(0.05)

        def behave(number):
            try:
                for turn in range(10):
                    begun = time.monotonic()
                    body = {"nonce": f"{number:016x}{turn:016x}"}
                    status, answer = ask(found.attest, "POST", "/v1/report", body)
                    waits.append(time.monotonic() - begun)
                    assert status == 200
                    assert answer["binding"]["nonce"] == body["nonce"]
            except Exception as error:  # noqa: BLE001 - told by the test's own thread
                failures.append(error)

        threads = [threading.Thread(target=behave, args=(n,)) for n in range(20)]
        threads.append(threading.Thread(target=misbehave))
        for thread in threads:
            thread.start()
        for thread in threads[:-1]:
            thread.join(LIMIT_S)
        ended.set()
        threads[-1].join(LIMIT_S)
        assert failures == []
        assert len(waits) == 200
        assert max(waits) < LONGEST_S
        # Those who neither send nor read are gone without having hung up.
        nobody_left(found)
        for one in bad:
            one.sock.close()
        assert found.agent._reports.slots.busy == 0
        assert not found.agent.server._of_user
        assert ask(found.attest, "GET", "/healthz")[0] == 200
        nobody_left(found)
        assert all(now <= then for now, then in zip(held(), before, strict=True))


def nobody_left(found):
    deadline = time.monotonic() + LIMIT_S
    while found.agent.server.count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def held():
    """Open descriptors and threads of this process."""
    return len(os.listdir("/proc/self/fd")), threading.active_count()
