# SPDX-License-Identifier: Apache-2.0
"""The guest's half of the protocol, by hand: what a front and a kernel driver would do.

Written from the sheet by offsets, apart from the modules under test. Pages are
sealed with a cipher of its own, frames are packed here.
"""

import socket
import struct

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAGIC = 0x31505354
HEAD = struct.Struct("<IIQQQ")
REPORT, KEY, TSC = 5, 3, 17


def sealed(key, sequence, kind, payload, *, vmpck=0, version=1, **change):
    """A message page; ``change``: offset in the header as "at_0x31" -> byte, before sealing."""
    header = bytearray(96)
    struct.pack_into("<Q", header, 0x20, sequence)
    struct.pack_into("<BBHBBH", header, 0x30, 1, 1, 96, kind, version, len(payload))
    header[0x3C] = vmpck
    for name, value in change.items():
        header[int(name.removeprefix("at_"), 16)] = value
    iv = struct.pack("<QI", sequence, 0)
    both = AESGCM(key).encrypt(iv, payload, bytes(header[0x30:]))
    header[:16] = both[-16:]
    return (bytes(header) + both[:-16]).ljust(4096, b"\0")


def opened(key, page, *, sequence, kind, vmpck=0, version=1):
    """The payload of an answer that must be exactly the one awaited."""
    assert len(page) == 4096
    assert page[16:32] == bytes(16)
    number, gap = struct.unpack_from("<Q8s", page, 0x20)
    assert (number, gap) == (sequence, bytes(8))
    algorithm, header_version, header_bytes = struct.unpack_from("<BBH", page, 0x30)
    assert (algorithm, header_version, header_bytes) == (1, 1, 96)
    found_kind, found_version, size = struct.unpack_from("<BBH", page, 0x34)
    assert (found_kind, found_version) == (kind, version)
    assert page[0x3C] == vmpck
    assert not any(page[0x3D:0x60])
    assert not any(page[96 + size :])
    iv = struct.pack("<QI", sequence, 0)
    return AESGCM(key).decrypt(iv, page[96 : 96 + size] + page[:16], page[0x30:0x60])


def report_request(data=bytes(64), *, vmpl=0, key_selection=0, reserved=bytes(24)):
    return struct.pack("<64sII24s", data, vmpl, key_selection, reserved)


def key_request(*, root=0, reserved=0, fields=0, vmpl=0, svn=0, tcb=0, vector=None):
    head = struct.pack("<IIQIIQ", root, reserved, fields, vmpl, svn, tcb)
    return head if vector is None else head + struct.pack("<Q", vector)


class Refused(Exception):  # noqa: N818 - an answer, not a failure
    """The host answered with an error; ``firmware``, ``vmm``, ``needed`` pages."""

    def __init__(self, exit_info, needed):
        super().__init__(f"exitinfo2 {exit_info:#x}")
        self.firmware, self.vmm = exit_info & 0xFFFFFFFF, exit_info >> 32
        self.needed = needed


class Ended(Exception):  # noqa: N818 - likewise
    """The connection ended where an answer was awaited."""


class Front:
    """A connection to the simulated platform."""

    def __init__(self, path, *, timeout_s=10):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout_s)
        self.socket.connect(str(path))
        self.sequence = 0

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def exactly(self, size_bytes):
        data = b""
        while len(data) < size_bytes:
            try:
                more = self.socket.recv(size_bytes - len(data))
            except ConnectionError:
                more = b""
            if not more:
                raise Ended
            data += more
        return data

    def ask(self, kind, body=b"", *, value_a=0):
        """(value_a, value_b, body) of the answer."""
        self.sequence += 1
        try:
            self.socket.sendall(HEAD.pack(MAGIC, kind, self.sequence, value_a, 0) + body)
        except ConnectionError:
            raise Ended from None
        head = HEAD.unpack(self.exactly(32))
        assert head[:3] == (MAGIC, kind | 0x80, self.sequence)
        pages = 1 + (value_a if kind == 3 else 0)
        return head[3], head[4], self.exactly(4096 * pages)

    def secrets(self):
        value_a, value_b, page = self.ask(1)
        assert (value_a, value_b) == (0, 0)
        return page

    def request(self, page, *, pages=None):
        """(response page, certificate table); raises ``Refused``."""
        exit_info, needed, body = self.ask(*((2, page) if pages is None else (3, page)),
                                           value_a=pages or 0)  # fmt: skip
        if exit_info:
            assert not any(body)
            raise Refused(exit_info, needed)
        assert needed == 0
        return body[:4096], body[4096:]


class Driver:
    """The kernel driver's part: takes VMPCK ``number`` from the page and counts."""

    def __init__(self, front, *, number=0, secrets=None):
        self.front, self.number = front, number
        self.secrets_page = secrets if secrets is not None else front.secrets()
        self.key = self.secrets_page[0x20 + 32 * number :][:32]
        self.count = 0

    def exchange(self, kind, payload, *, pages=None, version=1):
        """(payload of the answer, table)."""
        page = sealed(self.key, self.count + 1, kind, payload, vmpck=self.number, version=version)
        answer, table = self.front.request(page, pages=pages)
        found = opened(
            self.key,
            answer,
            sequence=self.count + 2,
            kind=kind + 1,
            vmpck=self.number,
            version=version,
        )
        self.count += 2
        return found, table

    def report(self, data=bytes(64), *, pages=None, **fields):
        """(status, report, table)."""
        payload, table = self.exchange(REPORT, report_request(data, **fields), pages=pages)
        status, size = struct.unpack_from("<II", payload)
        assert len(payload) == 1216
        return status, payload[32 : 32 + size], table

    def derived_key(self, *, version=1, **fields):
        payload, _ = self.exchange(KEY, key_request(**fields), version=version)
        assert len(payload) == 64
        return struct.unpack_from("<I", payload)[0], payload[32:]
