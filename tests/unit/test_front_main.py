# SPDX-License-Identifier: Apache-2.0
"""The front's loop between a kernel played here and the real simulated processor."""

import contextlib
import errno
import os
import select
import socket
import struct
import threading
import time
from pathlib import Path

import pytest

from made_aead import AesGcm
from made_platform import platform
from troth.abi import secrets_page
from troth.errors import FormatError
from troth.linux import ports
from troth.simulated import wire
from troth.simulated.front import cuse, driver, fuse, main, messages, tsm_tree
from troth.simulated.front.driver import Driver
from troth.simulated.front.line import Line
from troth.simulated.host import Host
from troth.simulated.launch import Launch
from troth.simulated.server import Server
from troth.simulated.wire import Frame, Head

ASK = struct.Struct("<QIIQII")


class Guest:
    """A front over two devices, which are sockets: one message, one read, as in the kernel."""

    def __init__(self, folder):
        self.said = []
        self.host = Host(Launch(measurement=bytes(48)), platform())
        self._server = Server(self.host, front_socket=folder / "front")
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._server.serve, args=(self._stop.is_set,))]
        self._threads[0].start()
        self._port = socket.socket(socket.AF_UNIX)
        self._port.connect(str(folder / "front"))
        self._port.setblocking(False)
        line = Line(os.dup(self._port.fileno()))
        self._port.close()
        self.driver = Driver(secrets_page.parse(main._secrets(line)), AesGcm)
        self.device, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.tree, tree = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._far = (there, tree)
        names = fuse.FileSystem(tsm_tree.Reports(0))
        self.front = main.Front(
            self.driver,
            line,
            {there.fileno(): cuse.answer, tree.fileno(): names.answer},
            say=self.said.append,
        )
        self._unique = 0
        for end in (self.device, self.tree):
            end.settimeout(10)
        self._failed = []
        self._threads.append(threading.Thread(target=self._run))
        self._threads[1].start()

    def _run(self):
        try:
            while not self._stop.is_set():
                self.front.step()
        except BaseException as error:
            self._failed.append(error)
            raise

    def close(self):
        self._stop.set()
        with contextlib.suppress(OSError):
            self.send(self.device, 14, bytes(8))
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        self._server.close()
        for end in (self.device, self.tree, *self._far):
            end.close()
        if self.front._line is not None:
            os.close(self.front._line.fd)
        assert not self._failed

    def send(self, end, opcode, body, *, node=1):
        self._unique += 1
        head = struct.pack("<IIQQIIIHH", 40 + len(body), opcode, self._unique, node, 0, 0, 0, 0, 0)
        end.send(head + body)
        return self._unique

    def heard(self, end):
        """(number of the request, errno, body) of the next reply."""
        data = end.recv(1 << 20)
        size, number, unique = struct.unpack_from("<IiQ", data)
        assert size == len(data)
        return unique, -number, data[16:]

    def ask(self, nonce=b"n"):
        """A report's last step, where all memory has been brought; the number of the request."""
        argument = struct.pack("<B7xQQQ", 1, 0x1000, 0x2000, 0)
        request = struct.pack("<64sII24x", nonce, 0, 0)
        data = argument + request
        head = ASK.pack(0, 1, 0xC0205300, 0x500, len(data), 8 + 4000)
        return self.send(self.device, 39, head + data)

    def report(self, nonce=b"n"):
        """(errno, exitinfo2, report) of an ioctl."""
        number = self.ask(nonce)
        return self.outcome(number)

    def outcome(self, number):
        unique, failed, body = self.heard(self.device)
        assert (unique, failed) == (number, 0)
        result, _, _, _, errors = struct.unpack_from("<iIIIQ", body)
        return -result, errors, body[24 + 32 :][:1184]

    def fault(self, kind, *, count=1, value=None):
        self.host.set_fault(kind, count=count, value=value)


@pytest.fixture
def guest(tmp_path, monkeypatch):
    monkeypatch.setattr(driver, "RETRY_S", 0.05)
    made = Guest(tmp_path)
    yield made
    made.close()


def test_reports_by_both_ways(guest):
    for turn in range(3):
        failed, errors, report = guest.report(bytes([turn]))
        assert (failed, errors) == (0, 0)
        assert report[0x50:0x90] == bytes([turn]).ljust(64, b"\0")
    tree = guest.tree
    node = 3
    guest.send(tree, 9, struct.pack("<II", 0o755, 0) + b"a\0", node=node)
    _, failed, entry = guest.heard(tree)
    (item,) = struct.unpack_from("<Q", entry)
    handles = {}
    for name, flags, at in (("inblob", 1, 3), ("outblob", 0, 4)):
        guest.send(tree, 14, struct.pack("<II", flags, 0), node=item + at)
        handles[name] = struct.unpack_from("<Q", guest.heard(tree)[2])[0]
    body = struct.pack("<QQIIQII", handles["inblob"], 0, 64, 0, 0, 0, 0) + b"t" * 64
    guest.send(tree, 16, body, node=item + 3)
    assert guest.heard(tree)[1] == 0
    guest.send(tree, 25, struct.pack("<QIIQ", handles["inblob"], 0, 0, 0), node=item + 3)
    assert guest.heard(tree)[1] == 0
    guest.send(
        tree, 15, struct.pack("<QQIIQII", handles["outblob"], 0, 9999, 0, 0, 0, 0), node=item + 4
    )
    _, failed, report = guest.heard(tree)
    assert (failed, len(report), report[0x50:0x90]) == (0, 1184, b"t" * 64)
    assert guest.driver.count == 8


def test_requests_wait_for_each_other(guest):
    numbers = [guest.ask(bytes([turn])) for turn in range(8)]
    for turn, number in enumerate(numbers):
        failed, _, report = guest.outcome(number)
        assert (failed, report[0x50]) == (0, turn)
    assert guest.driver.count == 16


def test_busy_is_waited_for(guest):
    guest.fault("vmm-busy", count=3)
    assert guest.report()[:2] == (0, 0)
    assert guest.host.counters["vmm-errors"] == 3
    assert guest.driver.count == 2


def test_what_needs_no_driver_is_answered_meanwhile(guest):
    guest.fault("delayed", value=500)
    number = guest.ask()
    begun = time.monotonic()
    opened = guest.send(guest.device, 14, bytes(8))
    assert guest.heard(guest.device)[:2] == (opened, 0)
    looked = guest.send(guest.tree, 3, bytes(16))
    assert guest.heard(guest.tree)[:2] == (looked, 0)
    assert time.monotonic() - begun < 0.4
    assert guest.outcome(number)[0] == 0


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"kind": "firmware-error", "value": 0x16}, (errno.EIO, 0x16)),
        ({"kind": "vmm-error", "value": 0x80000000}, (errno.EIO, 0x80000000 << 32)),
        ({"kind": "altered-answer"}, (errno.EBADMSG, 0)),
        ({"kind": "altered-answer", "value": 0x20}, (errno.EBADMSG, 0)),
        ({"kind": "death"}, (errno.EIO, 0xFFFFFFFF)),
    ],
    ids=str,
)
def test_doubt_is_the_end_of_the_key(guest, fault, expected):
    assert guest.report()[0] == 0
    guest.fault(**fault)
    waiting = [guest.ask(), guest.ask()]
    assert guest.outcome(waiting[0])[:2] == expected
    assert guest.outcome(waiting[1])[:2] == (errno.ENOTTY, 0xFFFFFFFF)
    assert guest.report()[:2] == (errno.ENOTTY, 0xFFFFFFFF)
    # The devices go on to say so.
    guest.send(guest.tree, 3, bytes(16))
    assert guest.heard(guest.tree)[1] == 0
    assert bool(guest.said) == (fault["kind"] == "death")


def test_a_stale_answer_is_the_end_of_the_key(guest):
    assert guest.report()[0] == 0
    guest.fault("stale-answer")
    assert guest.report()[:2] == (errno.EBADMSG, 0)
    assert guest.driver.wiped


def test_a_host_that_never_answers(guest, monkeypatch):
    monkeypatch.setattr(main, "GIVE_UP_S", -0.7)
    guest.fault("dropped")
    numbers = [guest.ask(), guest.ask()]
    assert guest.outcome(numbers[0])[:2] == (errno.ETIMEDOUT, 0xFFFFFFFF)
    assert guest.outcome(numbers[1])[:2] == (errno.ENOTTY, 0xFFFFFFFF)
    assert any("does not answer" in line for line in guest.said)


def test_a_host_that_goes_between_two_requests(guest):
    for connection in (guest._server._front,):
        connection.end()
    end = time.monotonic() + 10
    while not guest.driver.wiped and time.monotonic() < end:
        time.sleep(0.01)
    assert guest.report()[:2] == (errno.ENOTTY, 0xFFFFFFFF)


def test_an_odd_message_is_refused_and_forgotten(guest):
    number = guest.send(guest.device, 39, b"short")
    assert guest.heard(guest.device)[:2] == (number, errno.EIO)
    number = guest.send(guest.tree, 15, b"short")
    assert guest.heard(guest.tree)[:2] == (number, errno.EIO)
    assert guest.report()[0] == 0


# The line alone


@pytest.fixture
def line():
    here, there = socket.socketpair()
    here.setblocking(False)
    yield Line(here.fileno()), there
    here.close()
    there.close()


REQUEST = Frame(Head(wire.GUEST_REQUEST, 5), b"q" * 4096)
ANSWER = wire.encode(Frame(Head(0x82, 5, 7), b"a" * 4096))


def test_an_answer_in_pieces(line):
    mine, host = line
    mine.send(REQUEST)
    assert host.recv(9999) == wire.encode(REQUEST)
    for at in range(0, len(ANSWER), 31):
        host.send(ANSWER[at : at + 31])
        found = mine.ready(select.POLLIN)
        assert (found is None) == (at + 31 < len(ANSWER))
    assert (found.head.value_a, found.body) == (7, b"a" * 4096)


def test_not_a_byte_beyond_the_answer(line):
    mine, host = line
    mine.send(REQUEST)
    host.send(ANSWER + b"more")
    assert mine.ready(select.POLLIN).body == b"a" * 4096
    with pytest.raises(FormatError):
        mine.ready(select.POLLIN)


@pytest.mark.parametrize(
    "head",
    [
        wire.encode(Frame(Head(0x82, 6), b"")),
        wire.encode(Frame(Head(0x83, 5), b"")),
        b"X" + ANSWER[1:32],
    ],
)
def test_a_wrong_head_is_judged_before_its_body(line, head):
    mine, host = line
    mine.send(REQUEST)
    host.send(head)
    with pytest.raises(FormatError):
        mine.ready(select.POLLIN)


def test_a_line_that_takes_little(line):
    mine, host = line
    size = host.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(mine.fd, bytes(size))
    mine.send(REQUEST)
    assert mine.events & select.POLLOUT
    found = b""
    host.settimeout(10)
    while not found.endswith(wire.encode(REQUEST)):
        found = (found + host.recv(1 << 16))[-8192:]
        mine.ready(select.POLLOUT)
    assert not mine.events & select.POLLOUT


def test_one_frame_at_a_time(line):
    mine, _ = line
    mine.send(REQUEST)
    with pytest.raises(RuntimeError):
        mine.send(REQUEST)


# Ports


def test_ports_are_found_by_name(tmp_path):
    assert ports.find("troth.sim-snp", base=str(tmp_path / "none")) is None
    for port, name in (("vport0p1", "other"), ("vport1p2", "troth.sim-snp"), ("vport2p1", None)):
        (tmp_path / port).mkdir()
        if name is not None:
            (tmp_path / port / "name").write_text(name + "\n")
    assert ports.find("troth.sim-snp", base=str(tmp_path)) == "/dev/vport1p2"
    assert ports.find("troth.sim", base=str(tmp_path)) is None


def test_whether_a_port_may_still_come(tmp_path):
    assert not ports.possible(base=str(tmp_path / "none"))
    (tmp_path / "virtio0").mkdir()
    (tmp_path / "virtio0/device").write_text("0x0002\n")
    assert not ports.possible(base=str(tmp_path))
    (tmp_path / "virtio1").mkdir()
    (tmp_path / "virtio1/device").write_text("0x0003\n")
    assert ports.possible(base=str(tmp_path))


def test_no_port_is_said_at_once(monkeypatch):
    monkeypatch.setattr(ports, "find", lambda name: None)
    monkeypatch.setattr(ports, "possible", lambda: False)
    with pytest.raises(OSError, match=r"no port troth\.sim-snp"):
        main._port()


def test_a_start_that_fails_says_why(monkeypatch):
    monkeypatch.setattr(ports, "find", lambda name: None)
    monkeypatch.setattr(ports, "possible", lambda: False)
    heard, says = os.pipe()
    with pytest.raises(SystemExit):
        main.main(says)
    os.close(says)
    assert b"no port" in os.read(heard, 1000)
    os.close(heard)


def test_the_word_that_pid1_waits_for():
    """PID 1 shares no code with the front, so the word is written twice."""
    source = Path(main.__file__).parents[2] / "boot/tee_simulated.py"
    assert f"_READY = {main.READY!r}".replace("'", '"') in source.read_text()
    assert "troth.simulated.front import main; main.main(int(sys.argv[1]))" in source.read_text()
    assert messages.MINOR == 31
