# SPDX-License-Identifier: Apache-2.0
"""The other end of a guest's network cable: Ethernet frames in and out, nothing of troth in it.

It answers ARP for every address, DNS with one address for every name, and DHCP as a
script says; to all else it is silent. Every frame that came is kept, for what a guest
did not send counts too.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import threading

SERVER_HARDWARE = bytes.fromhex("525400fefefe")
SERVER = "192.0.2.1"
GUEST = "192.0.2.10"
NAMED = "192.0.2.99"
ARP, IPV4, IPV6 = 0x0806, 0x0800, 0x86DD
DISCOVER, OFFER, REQUEST, ACK, NAK = 1, 2, 3, 5, 6


def ip(text):
    return socket.inet_aton(text)


def option(number, data):
    return bytes((number, len(data))) + data


def options(kind, *more, server=SERVER, mask="255.255.255.0", lease_s=86400):
    """What a good server says, and ``more`` behind it."""
    return (
        option(53, bytes((kind,))) + option(54, ip(server)) + option(1, ip(mask))
        + option(51, struct.pack(">I", lease_s)) + b"".join(more) + b"\xff"
    )  # fmt: skip


def reply(question, options_, *, own=GUEST, xid=None, hardware=None):
    """The BOOTP message that answers ``question``; ``xid``, ``hardware``: not the asked ones."""
    return (
        b"\x02\x01\x06\x00" + (xid or question[4:8]) + bytes(4)
        + bytes(4) + ip(own) + bytes(8) + (hardware or question[28:34]).ljust(16, b"\0")
        + bytes(192) + b"\x63\x82\x53\x63" + options_
    )  # fmt: skip


def kind_of(question):
    """The message type, which the client sends first."""
    assert question[236:242] == b"\x63\x82\x53\x63\x35\x01"
    return question[242]


def good(*more, **changes):
    """A script: as a server should be, with further options in each answer."""

    def script(question):
        kind = OFFER if kind_of(question) == DISCOVER else ACK
        own = changes.get("own", GUEST)
        rest = {name: value for name, value in changes.items() if name != "own"}
        return [reply(question, options(kind, *more, **rest), own=own)]

    return script


def silent(_question):
    return []


def _sum(data):
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def datagram(payload, *, source=SERVER, target="255.255.255.255", ports=(67, 68)):
    """The IPv4 packet, its UDP checksum left out as RFC 768 allows."""
    head = struct.pack(
        ">BBHHHBBH4s4s", 0x45, 0, 28 + len(payload), 0, 0, 64, 17, 0, ip(source), ip(target)
    )
    head = head[:10] + struct.pack(">H", _sum(head)) + head[12:]
    return head + struct.pack(">HHHH", *ports, 8 + len(payload), 0) + payload


def named(question, address=NAMED):
    """The answer to a DNS question for an address: ``address`` (RFC 1035, section 4.1)."""
    end = question.index(b"\0", 12) + 5
    answer = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + ip(address)
    return question[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + question[12:end] + answer


class Net:
    """``read`` and ``write``: one frame each; ``wait``: a file descriptor to wait on.

    ``named``: the address of every name; ``owns``: the addresses that are here, all if None.
    """

    def __init__(self, script, *, read, write, wait, close=lambda: None, named=NAMED, owns=None):
        self.script = script
        self.named = named
        self.owns = owns
        self.names = []
        self.frames = []
        self.questions = []
        self._read, self._write, self._wait, self._close = read, write, wait, close
        self._end, self._ends = os.pipe()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        os.write(self._ends, b"x")
        self._thread.join(10)
        os.close(self._end)
        os.close(self._ends)
        self._close()

    def of_type(self, number):
        return [frame for frame in self.frames if struct.unpack(">H", frame[12:14])[0] == number]

    def _serve(self):
        poll = select.poll()
        for fd in (self._wait, self._end):
            poll.register(fd, select.POLLIN)
        while self._end not in [fd for fd, _ in poll.poll()]:
            frame = self._read()
            self.frames.append(frame)
            for answer in self._answers(frame):
                self._send(answer)

    def _send(self, frame):
        try:
            self._write(frame.ljust(60, b"\0"))
        except OSError:
            # The guest has gone, or its cable is full: a wire does not wait either.
            return

    def _answers(self, frame):
        kind, source = struct.unpack(">H", frame[12:14])[0], frame[6:12]
        if kind == ARP and frame[20:22] == b"\0\1":
            asked, asks = frame[38:42], frame[28:32]
            if asked != asks and (self.owns is None or socket.inet_ntoa(asked) in self.owns):
                body = frame[14:20] + b"\0\2" + SERVER_HARDWARE + asked + source + asks
                yield source + SERVER_HARDWARE + frame[12:14] + body
        if kind == IPV4 and frame[23] == 17 and frame[34:38] == struct.pack(">HH", 68, 67):
            question = frame[42:]
            self.questions.append(kind_of(question))
            for message in self.script(question):
                packet = message if message[:1] == b"\x45" else datagram(message)
                yield b"\xff" * 6 + SERVER_HARDWARE + struct.pack(">H", IPV4) + packet
        if kind == IPV4 and frame[23] == 17 and frame[36:38] == struct.pack(">H", 53):
            (port,) = struct.unpack(">H", frame[34:36])
            server, guest = socket.inet_ntoa(frame[30:34]), socket.inet_ntoa(frame[26:30])
            said = named(frame[42:], self.named)
            self.names.append(frame[54 : frame.index(b"\0", 54)])
            packet = datagram(said, source=server, target=guest, ports=(53, port))
            yield source + SERVER_HARDWARE + frame[12:14] + packet


def on_sockets(script, ours, theirs, **words):
    """The net of a QEMU whose ``-netdev dgram`` speaks from ``theirs`` to ``ours``."""
    wire = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    wire.bind(str(ours))
    return Net(
        script,
        read=lambda: wire.recv(65536),
        write=lambda frame: wire.sendto(frame, socket.MSG_DONTWAIT, str(theirs)),
        wait=wire.fileno(),
        close=wire.close,
        **words,
    )


def on_tap(script, fd):
    """The net behind a TAP device without packet information."""
    return Net(
        script,
        read=lambda: os.read(fd, 65536),
        write=lambda frame: os.write(fd, frame),
        wait=fd,
    )
