# SPDX-License-Identifier: Apache-2.0
"""The simulated configfs-tsm tree, asked as the kernel's FUSE asks, by path and descriptor."""

import errno
import os
import stat
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz import front_messages as fuzzed
from troth.simulated.front import fuse, messages, tsm_tree
from troth.simulated.front.driver import Ask, Outcome

BASE = "tsm/report"
REPORT = b"\7" * 1184
TABLE = b"\1" * 16 + struct.pack("<II", 48, 5) + bytes(24) + b"certs"


def answer(*, status=0, report=REPORT, table=TABLE, size=None):
    """What the driver hands up: the message's payload in 4000 bytes, and 16 KiB."""
    said = len(report) if size is None else size
    payload = struct.pack("<II24x", status, said) + report
    return Outcome(0, 0, payload.ljust(4000, b"\0"), table.ljust(0x4000, b"\0"))


class Kernel:
    """The other side of /dev/fuse; ``outcomes``: what the driver says, in turn."""

    def __init__(self, *outcomes, floor=0):
        self.tree = fuse.FileSystem(tsm_tree.Reports(floor))
        self.outcomes = list(outcomes)
        self.asked = []

    def call(self, opcode, body=b"", *, node=1):
        head = struct.pack("<IIQQIIIHH", 40 + len(body), opcode, 3, node, 0, 0, 0, 0, 0)
        found = self.tree.answer(messages.parse(head + body))
        if not isinstance(found, bytes):
            return self._work(found)
        size, number, unique = struct.unpack_from("<IiQ", found)
        assert (size, unique) == (len(found), 3)
        if number:
            raise OSError(-number, errno.errorcode[-number])
        return found[16:]

    def _work(self, work):
        outcome = None
        while True:
            try:
                self.asked.append(work.send(outcome))
            except StopIteration as end:
                return end.value
            outcome = self.outcomes.pop(0)

    def lookup(self, path):
        """(inode, mode, size)."""
        node, found = 1, None
        for name in path.split("/"):
            found = self.call(1, name.encode() + b"\0", node=node)
            (node,) = struct.unpack_from("<Q", found)
        assert len(found) == 128
        number, size = struct.unpack_from("<QQ", found, 40)
        assert number == node
        return node, struct.unpack_from("<I", found, 40 + 60)[0], size

    def make(self, name, where=BASE):
        self.call(9, struct.pack("<II", 0o755, 0) + name.encode() + b"\0", node=self.node(where))

    def remove(self, name, where=BASE):
        self.call(11, name.encode() + b"\0", node=self.node(where))

    def node(self, path):
        return self.lookup(path)[0] if path else 1

    def open(self, path, flags=os.O_RDONLY):
        node = self.node(path)
        handle, does, _ = struct.unpack(
            "<QII", self.call(14, struct.pack("<II", flags, 0), node=node)
        )
        assert does == 1, "the page cache would keep old blobs"
        return node, handle

    def read_at(self, file, offset, size):
        node, handle = file
        return self.call(15, struct.pack("<QQIIQII", handle, offset, size, 0, 0, 0, 0), node=node)

    def write_at(self, file, offset, data):
        node, handle = file
        head = struct.pack("<QQIIQII", handle, offset, len(data), 0, 0, 0, 0)
        return struct.unpack("<II", self.call(16, head + data, node=node))[0]

    def close(self, file):
        node, handle = file
        self.call(25, struct.pack("<QIIQ", handle, 0, 0, 0), node=node)
        self.call(18, struct.pack("<QIIQ", handle, 0, 0, 0), node=node)

    def read(self, path, *, step=100000):
        file = self.open(path)
        found = b""
        try:
            while part := self.read_at(file, len(found), step):
                found += part
        finally:
            self.close(file)
        return found

    def write(self, path, data):
        file = self.open(path, os.O_WRONLY)
        try:
            assert self.write_at(file, 0, data) == len(data)
        finally:
            self.close(file)

    def list(self, path):
        names, offset = [], 0
        while True:
            body = struct.pack("<QQIIQII", 0, offset, 120, 0, 0, 0, 0)
            found = self.call(28, body, node=self.node(path))
            if not found:
                return names
            while found:
                _, offset, length, kind = struct.unpack_from("<QQII", found)
                names.append((found[24 : 24 + length].decode(), kind))
                found = found[(24 + length + 7) // 8 * 8 :]


def refused(function, *arguments, **keywords):
    with pytest.raises(OSError) as caught:
        function(*arguments, **keywords)
    return errno.errorcode[caught.value.errno]


@pytest.fixture
def kernel():
    made = Kernel(answer(), answer(report=b"\6" * 1184))
    made.make("a")
    return made


def ready(kernel, data=b"n" * 64):
    kernel.write(f"{BASE}/a/inblob", data)


def test_it_speaks_the_oldest_protocol_that_has_all():
    kernel = Kernel()
    found = kernel.call(26, struct.pack("<IIII", 7, 41, 0x20000, 0xFFFFFFFF))
    assert len(found) == 64
    assert struct.unpack_from("<IIII", found) == (7, 31, 0x20000, 0)


def test_names_and_modes(kernel):
    assert kernel.list("tsm") == [(".", 4), ("..", 4), ("report", 4)]
    assert kernel.list(BASE) == [(".", 4), ("..", 4), ("a", 4)]
    names = [name for name, kind in kernel.list(f"{BASE}/a") if kind == 8]
    modes = {name: kernel.lookup(f"{BASE}/a/{name}")[1] for name in names}
    # Seen in the kernel's own tree on 6.12.
    assert modes == {
        "auxblob": 0o100444, "generation": 0o100444, "inblob": 0o100200, "outblob": 0o100444,
        "privlevel": 0o100200, "privlevel_floor": 0o100444, "provider": 0o100444,
    }  # fmt: skip
    assert kernel.lookup(f"{BASE}/a")[1] == stat.S_IFDIR | 0o755
    assert refused(kernel.lookup, f"{BASE}/a/rtmr") == "ENOENT"
    assert refused(kernel.lookup, f"{BASE}/b") == "ENOENT"
    assert refused(kernel.lookup, "other") == "ENOENT"


def test_directories_are_made_in_one_place_only(kernel):
    assert refused(kernel.make, "a") == "EEXIST"
    for where in ("", "tsm", f"{BASE}/a"):
        assert refused(kernel.make, "b", where) == "EPERM"
        assert refused(kernel.remove, "report", where) == "EPERM"
    assert refused(kernel.remove, "b") == "ENOENT"
    kernel.make("b")
    kernel.remove("a")
    assert [name for name, _ in kernel.list(BASE)] == [".", "..", "b"]


def test_memory_is_bounded(kernel):
    for number in range(tsm_tree.MAX_DIRECTORIES - 1):
        kernel.make(f"n{number}")
    assert refused(kernel.make, "one too many") == "ENOMEM"


def test_a_report(kernel):
    ready(kernel)
    assert kernel.read(f"{BASE}/a/outblob") == REPORT
    assert kernel.read(f"{BASE}/a/auxblob") == TABLE
    assert kernel.asked == [Ask(5, 1, b"n" * 64 + bytes(32), 4000, 4)]
    # Made once, until something is written.
    assert kernel.read(f"{BASE}/a/outblob", step=7) == REPORT
    kernel.write(f"{BASE}/a/privlevel", b"2\n")
    assert kernel.read(f"{BASE}/a/outblob") == b"\6" * 1184
    assert kernel.asked[1].payload == b"n" * 64 + struct.pack("<I28x", 2)
    assert len(kernel.asked) == 2


def test_the_generation_counts_what_was_taken(kernel):
    def generation():
        return kernel.read(f"{BASE}/a/generation")

    assert generation() == b"0\n"
    ready(kernel)
    assert generation() == b"1\n"
    for text in (
        b"7",
        b"-1",
        b"",
        b"x",
        b"4\n",
        b"0x",
        b"09",
        b"1_0",
        b"1 ",
        b" 1",
        b"1\n\n",
        b"++1",
        b"0xg",
        b"4294967295",
        b"\0",
        b"\n",
    ):
        assert refused(kernel.write, f"{BASE}/a/privlevel", text) == "EINVAL"
    for text in (
        b"4294967296",
        b"0x1" + b"0" * 16,
        b"0" + b"7" * 23,
        b"9" * 5000,
        b"9" * 20 + b"x",
    ):
        assert refused(kernel.write, f"{BASE}/a/privlevel", text) == "ERANGE"
    assert generation() == b"1\n"
    for text in (b"0", b"3\n", b"0x2", b"+1", b"03", b"1\x002", b"0" * 2000 + b"1"):
        kernel.write(f"{BASE}/a/privlevel", text)
    assert generation() == b"8\n"
    kernel.read(f"{BASE}/a/outblob")
    assert generation() == b"8\n"


def test_binary_values_count_at_the_close(kernel):
    file = kernel.open(f"{BASE}/a/inblob", os.O_WRONLY)
    kernel.write_at(file, 0, b"x" * 32)
    assert kernel.read(f"{BASE}/a/generation") == b"0\n"
    kernel.write_at(file, 32, b"y" * 32)
    kernel.close(file)
    assert kernel.read(f"{BASE}/a/generation") == b"1\n"
    kernel.read(f"{BASE}/a/outblob")
    assert kernel.asked[0].payload[:64] == b"x" * 32 + b"y" * 32


def test_too_much_is_an_empty_value_at_the_close(kernel):
    ready(kernel)
    assert refused(kernel.write, f"{BASE}/a/inblob", b"x" * 65) == "EFBIG"
    assert kernel.read(f"{BASE}/a/generation") == b"2\n"
    assert refused(kernel.read, f"{BASE}/a/outblob") == "EINVAL"


def test_a_close_without_a_write_is_none(kernel):
    kernel.close(kernel.open(f"{BASE}/a/inblob", os.O_WRONLY))
    assert kernel.read(f"{BASE}/a/generation") == b"0\n"


@pytest.mark.parametrize("size", [0, 1, 63])
def test_less_than_64_bytes(kernel, size):
    if size:
        ready(kernel, b"x" * size)
    assert refused(kernel.read, f"{BASE}/a/outblob") == "EINVAL"
    assert refused(kernel.read, f"{BASE}/a/auxblob") == "EINVAL"
    assert kernel.asked == []


def test_ways_that_an_attribute_does_not_have(kernel):
    for name in ("inblob", "privlevel"):
        assert refused(kernel.open, f"{BASE}/a/{name}", os.O_RDONLY) == "EACCES"
        assert refused(kernel.open, f"{BASE}/a/{name}", os.O_RDWR) == "EACCES"
    for name in ("outblob", "auxblob", "generation", "provider", "privlevel_floor"):
        assert refused(kernel.open, f"{BASE}/a/{name}", os.O_WRONLY) == "EACCES"
    assert refused(kernel.open, f"{BASE}/a") == "EISDIR"


def test_a_level_below_the_guests_own():
    kernel = Kernel(answer(), floor=2)
    kernel.make("a")
    assert kernel.read(f"{BASE}/a/privlevel_floor") == b"2\n"
    assert refused(kernel.write, f"{BASE}/a/privlevel", b"1") == "EINVAL"
    kernel.write(f"{BASE}/a/privlevel", b"2")


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (answer(status=0x16), "EINVAL"),
        (answer(status=0x27), "EINVAL"),
        (answer(status=1), "ENXIO"),
        (answer(size=3969), "ENOMEM"),
        (Outcome(errno.EIO, 1 << 32, pages=9), "EIO"),
        (Outcome(errno.ENOTTY, 0xFFFFFFFF), "ENOTTY"),
        (Outcome(errno.ETIMEDOUT, 2 << 32), "ETIMEDOUT"),
        (Outcome(errno.EBADMSG, 0), "EBADMSG"),
    ],
)
def test_failures(outcome, expected):
    kernel = Kernel(outcome, answer())
    kernel.make("a")
    ready(kernel)
    assert refused(kernel.read, f"{BASE}/a/outblob") == expected
    # A failure is no answer: the next read asks again.
    assert kernel.read(f"{BASE}/a/outblob") == REPORT


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (b"", b""),
        (b"\1" * 16 + struct.pack("<II", 0xFFFFFFFF, 0xFFFFFFFF), None),
        (b"\1" * 16 + struct.pack("<II", 0x4000, 1), None),
        ((b"\1" * 16 + bytes(8)) * 683, b""),
    ],
)
def test_certificate_tables_of_a_hostile_host(table, expected):
    kernel = Kernel(answer(table=table[:0x4000]))
    kernel.make("a")
    ready(kernel)
    found = kernel.read(f"{BASE}/a/auxblob")
    assert found == (table.ljust(0x4000, b"\0") if expected is None else expected)


def test_one_open_file_keeps_its_blob(kernel):
    ready(kernel)
    file = kernel.open(f"{BASE}/a/outblob")
    assert kernel.read_at(file, 0, 4) == REPORT[:4]
    ready(kernel)
    assert kernel.read_at(file, 4, 9999) == REPORT[4:]
    assert kernel.read(f"{BASE}/a/outblob") == b"\6" * 1184


def test_a_removed_directory(kernel):
    file = kernel.open(f"{BASE}/a/outblob")
    written = kernel.open(f"{BASE}/a/inblob", os.O_WRONLY)
    kernel.write_at(written, 0, b"x" * 64)
    kernel.remove("a")
    assert refused(kernel.read_at, file, 0, 10) == "ENOENT"
    assert refused(kernel.write_at, written, 0, b"x") == "ENOENT"
    # configfs tells nobody that a value was lost at the close.
    kernel.close(written)
    # The name is free, and another directory.
    kernel.make("a")
    assert kernel.read(f"{BASE}/a/generation") == b"0\n"
    assert refused(kernel.read_at, file, 0, 10) == "ENOENT"


def test_a_truncation_is_taken_for_nothing(kernel):
    node = kernel.node(f"{BASE}/a/inblob")
    assert len(kernel.call(4, bytes(88), node=node)) == 104
    assert kernel.read(f"{BASE}/a/generation") == b"0\n"


def test_unknown_requests(kernel):
    assert refused(kernel.call, 44, bytes(16)) == "ENOSYS"
    for opcode, said in ((6, "EPERM"), (8, "EACCES"), (10, "EPERM"), (12, "EPERM"),
                         (35, "EACCES"), (45, "EPERM")):  # fmt: skip
        assert refused(kernel.call, opcode, bytes(16)) == said
    kernel.make("n" * 255)
    assert refused(kernel.make, "n" * 256) == "ENAMETOOLONG"
    assert refused(kernel.remove, "n" * 256) == "ENAMETOOLONG"
    assert refused(kernel.call, 3, bytes(16), node=4711) == "ENOENT"
    assert refused(kernel.call, 15, bytes(40), node=1) == "EBADF"
    assert len(kernel.call(17)) == 80


def test_what_mount_is_told():
    options = fuse.mount_options(7).split(",")
    assert {"fd=7", "rootmode=40755", "user_id=0", "group_id=0", "default_permissions"} < set(
        options
    )


@given(st.binary(max_size=400))
@settings(max_examples=200)
def test_arbitrary_requests(data):
    fuzzed.fuzz(data)


@given(
    st.lists(st.tuples(st.sampled_from(["in", "level", "read", "foreign"]), st.binary(max_size=66)))
)
@settings(max_examples=100)
def test_a_blob_is_never_of_another_request(steps):
    """The processor here answers with what it was asked; whoever writes, reads never lag behind."""
    kernel = Kernel()
    kernel.make("a")
    now = {"in": b"", "level": 0}

    class Processor(list):
        def pop(self, _at):
            asked = kernel.asked[-1].payload
            return answer(report=asked[:68].ljust(1184, b"\0"))

    kernel.outcomes = Processor()
    for name, data in steps:
        if name == "level":
            level = len(data) % 4
            kernel.write(f"{BASE}/a/privlevel", str(level).encode())
            now["level"] = level
        elif name == "read":
            if len(now["in"]) == 64:
                found = kernel.read(f"{BASE}/a/outblob")
                assert found[:68] == now["in"] + now["level"].to_bytes(4, "little")
            else:
                assert refused(kernel.read, f"{BASE}/a/outblob") == "EINVAL"
        elif len(data) > 64:
            assert refused(kernel.write, f"{BASE}/a/inblob", data) == "EFBIG"
            now["in"] = b""
        elif data:
            kept = data.ljust(64, b"z") if name == "foreign" else data
            kernel.write(f"{BASE}/a/inblob", kept)
            now["in"] = kept
