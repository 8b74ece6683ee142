# SPDX-License-Identifier: Apache-2.0
"""Stage network from PID 1's side, and the conversation with a server, without a network."""

import os
import socket
import threading
import time
from types import SimpleNamespace

import pytest

import hostile_net as net
from troth.boot import fail, network, network_lease
from troth.documents.policy import Network
from troth.errors import Refusal
from troth.linux import link

# --- PID 1 and its process -------------------------------------------------------------------


class State:
    def __init__(self, timeout_s=5):
        rules = Network("dhcp", "", "", (), ipv6=False, timeout_s=timeout_s)
        self.policy = SimpleNamespace(network=rules)
        self.network = None
        self.workers = []
        self.said = []

    def say(self, text):
        self.said.append(text)


def run(monkeypatch, program, *, grace_s=5.0, timeout_s=5):
    state = State(timeout_s)
    monkeypatch.setattr(network, "_PROGRAM", program)
    monkeypatch.setattr(network, "_GRACE_S", grace_s)
    try:
        network.run(state)
    except Refusal:
        end_all(state)
        raise
    return state


def end_all(state):
    """As a refused boot ends its workers; there PID 1 ends with them, here nothing may be left."""
    fail._end_workers(state)
    for pid in state.workers:
        os.waitpid(pid, 0)


UP = "import os; os.write(1, b'up eth0 192.0.2.10/24\\n'); os.read(0, 9); "


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_up_and_down(monkeypatch):
    state = run(monkeypatch, UP + "os.write(1, b'down\\n'); os.read(2, 1)")
    assert state.said == ["troth: network eth0 192.0.2.10/24"]
    (pid,) = state.workers
    assert not gone(pid)
    state.network.close()
    assert gone(pid)
    assert state.workers == []
    state.network.close()


@pytest.mark.parametrize(
    ("program", "code", "sentence"),
    [
        ("print('refused network-missing no device')", "network-missing", "no device"),
        ("print('refused network-ambiguous 2')", "network-ambiguous", "2"),
        ("print('refused network-dhcp nobody answered')", "network-dhcp", "nobody answered"),
        ("print('refused network-config no')", "network-config", "no"),
        ("print('refused verity-map mine')", "network-worker", None),
        ("print('refused')", "network-worker", None),
        ("print('hello')", "network-worker", None),
        ("print()", "network-worker", None),
        ("print('x' * 600)", "network-worker", None),
        ("pass", "network-worker", None),
        ("raise SystemExit(3)", "network-worker", None),
    ],
)
def test_refused(monkeypatch, program, code, sentence):
    with pytest.raises(Refusal) as caught:
        run(monkeypatch, program)
    assert caught.value.code == code
    assert sentence in (None, caught.value.message)


def test_one_that_says_nothing_in_time(monkeypatch):
    begun_s = time.monotonic()
    with pytest.raises(Refusal) as caught:
        run(monkeypatch, "import os; os.read(0, 1)", grace_s=0.05, timeout_s=0)
    assert caught.value.code == "network-timeout"
    assert time.monotonic() - begun_s < 4


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("os.write(1, b'refused network-down 1 addresses are left\\n')", "network-down"),
        ("pass", "network-worker"),
        ("os.write(1, b'up\\n')", "network-worker"),
        ("os.write(1, b'hm\\n' * 300)", "network-worker"),
        ("os.read(2, 1) if os.dup2(os.pipe()[0], 2) else 0", "network-down"),
    ],
)
def test_not_down(monkeypatch, end, code):
    monkeypatch.setattr(network, "_DOWN_S", 0.2)
    state = run(monkeypatch, UP + end)
    with pytest.raises(Refusal) as caught:
        state.network.close()
    assert caught.value.code == code
    assert state.workers
    end_all(state)


def test_a_process_that_has_ended_is_no_error_of_the_end(monkeypatch):
    state = State()
    state.workers = [2**22 - 3]
    fail._end_workers(state)


def test_it_starts_with_the_rights_for_a_network_alone(monkeypatch):
    program = (
        "words = dict(line.split(':\\t') for line in open('/proc/self/status')); "
        "print('up', words['CapBnd'].strip(), words['NoNewPrivs'].strip(), flush=True); input()"
    )
    state = run(monkeypatch, program)
    end_all(state)
    bounding, no_more = state.said[0].split()[2:]
    assert no_more == "1"
    if os.geteuid() == 0:
        assert int(bounding, 16) == 1 << 12 | 1 << 13


# --- the conversation ------------------------------------------------------------------------

LINK = link.Link("eth0", 2, bytes.fromhex("525400123456"), 1500)


class Wire:
    """The guest's end of a socket pair, which takes an address and has no use for it."""

    def __init__(self, ours):
        self._ours = ours
        self.fileno, self.recv = ours.fileno, ours.recv

    def sendto(self, packet, _address):
        # As the device would: the destination, ourselves, IPv4.
        self._ours.send(b"\xff" * 6 + LINK.hardware + b"\x08\x00" + packet)


def obtain(monkeypatch, script, *, least_s=300, for_s=1.0):
    monkeypatch.setattr(network_lease, "_WAITS_S", (0.02, 0.05))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)
    wire = net.Net(
        script, read=lambda: theirs.recv(4096), write=lambda frame: theirs.send(frame[14:]),
        wait=theirs.fileno(),
    )  # fmt: skip
    end_ns = time.monotonic_ns() + int(for_s * 1e9)
    with ours, theirs, wire:
        client = network_lease._Client(Wire(ours), LINK, end_ns)
        return client.obtain(least_s), wire.questions


def test_a_good_server(monkeypatch):
    found, questions = obtain(monkeypatch, net.good(net.option(3, net.ip(net.SERVER))))
    assert (found.address, found.prefix, found.router) == (net.GUEST, 24, net.SERVER)
    assert questions == [net.DISCOVER, net.REQUEST]


def test_one_that_answers_only_the_third_question(monkeypatch):
    asked = []

    def script(question):
        asked.append(question[4:8])
        return net.good()(question) if len(asked) > 2 else []

    found, questions = obtain(monkeypatch, script)
    assert found.address == net.GUEST
    assert questions[-1] == net.REQUEST
    assert len(set(asked)) == len(asked) - 1


def test_good_answers_between_others(monkeypatch):
    """Noise of the wire, other clients' answers, and broken ones from a rogue server."""

    def script(question):
        (right,) = net.good()(question)
        return [
            b"\x45" * 40,
            net.reply(question, net.options(net.OFFER), xid=b"\0\0\0\0"),
            net.reply(question, net.options(net.ACK), hardware=b"\2\2\2\2\2\2"),
            net.reply(question, net.options(net.OFFER)[:-1]),
            right,
        ]

    assert obtain(monkeypatch, script)[0].address == net.GUEST


def test_the_acknowledgement_of_another_server_is_none(monkeypatch):
    def script(question):
        if net.kind_of(question) == net.DISCOVER:
            return net.good()(question)
        return net.good(server="192.0.2.66")(question) + net.good()(question)

    assert obtain(monkeypatch, script)[0].server == net.SERVER


def says_nak(question):
    if net.kind_of(question) == net.DISCOVER:
        return net.good()(question)
    no = net.option(53, b"\6") + net.option(54, net.ip(net.SERVER))
    return [net.reply(question, no + b"\xff")]


def gives_another(question):
    own = net.GUEST if net.kind_of(question) == net.DISCOVER else "192.0.2.11"
    return net.good(own=own)(question)


def changes_server(question):
    server = net.SERVER if net.kind_of(question) == net.DISCOVER else "192.0.2.66"
    return net.good(server=server)(question)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (net.silent, "nobody answered"),
        (says_nak, "takes its offer back"),
        (gives_another, "takes its offer back"),
        (changes_server, "answers what 192.0.2.1 was asked"),
        (net.good(lease_s=299), "a lease of 299 s"),
        (net.good(own="169.254.169.254"), "dhcp-address: "),
        (net.good(net.option(52, b"\1")), "dhcp-overload: "),
        (lambda question: [b"\x45" * 30], "nobody answered"),
    ],
)
def test_no_address(monkeypatch, script, words):
    begun_s = time.monotonic()
    with pytest.raises(Refusal) as caught:
        obtain(monkeypatch, script, for_s=0.2)
    assert caught.value.code == "network-dhcp"
    assert words in caught.value.message
    assert 0.19 < time.monotonic() - begun_s < 2


def test_a_server_that_says_no_at_once_is_not_asked_without_a_pause(monkeypatch):
    asked = []

    def script(question):
        asked.append(net.kind_of(question))
        return says_nak(question)

    with pytest.raises(Refusal):
        obtain(monkeypatch, script, for_s=0.3)
    assert len(asked) < 30


def test_a_flood_does_not_put_the_end_off(monkeypatch):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)
    stop = threading.Event()

    def flood():
        packet = net.datagram(bytes(300))
        while not stop.is_set():
            try:
                theirs.send(packet, socket.MSG_DONTWAIT)
            except OSError:
                stop.wait(0.001)

    thread = threading.Thread(target=flood)
    begun_s = time.monotonic()
    with ours, theirs:
        thread.start()
        wire = SimpleNamespace(fileno=ours.fileno, recv=ours.recv, sendto=lambda *_: 0)
        with pytest.raises(Refusal) as caught:
            network_lease._Client(wire, LINK, time.monotonic_ns() + 200_000_000).obtain(1)
        stop.set()
        thread.join()
    assert caught.value.code == "network-dhcp"
    assert time.monotonic() - begun_s < 2
