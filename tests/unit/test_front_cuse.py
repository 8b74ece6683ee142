# SPDX-License-Identifier: Apache-2.0
"""/dev/sev-guest by CUSE, against a kernel played here: it copies what it is told to copy."""

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz import front_messages as fuzzed
from troth.errors import FormatError
from troth.simulated.front import cuse, messages
from troth.simulated.front.driver import Ask, Outcome

REPORT, KEY, EXTENDED = 0xC0205300, 0xC0205301, 0xC0205302
ARGUMENT, REQUEST, RESPONSE, CERTIFICATES = 0x1000, 0x2000, 0x3000, 0x10000
NO_CALL = 0xFFFFFFFF
MARK = b"\xee"


def message(opcode, body, *, unique=7, node=0):
    head = struct.pack("<IIQQIIIHH", 40 + len(body), opcode, unique, node, 0, 0, 0, 0, 0)
    return messages.parse(head + body)


def parts(reply, *, unique=7):
    """errno and body of a reply."""
    size, number, found = struct.unpack_from("<IiQ", reply)
    assert (size, found) == (len(reply), unique)
    return -number, reply[16:]


class Kernel:
    """fs/fuse/ioctl.c in unrestricted mode, and the caller's memory."""

    def __init__(self, argument, request, *, certificates_bytes=0):
        self.memory = {
            ARGUMENT: bytearray(argument),
            REQUEST: bytearray(request),
            RESPONSE: bytearray(MARK * 4000),
            CERTIFICATES: bytearray(MARK * max(certificates_bytes, 1)),
        }
        self.asked = []
        self.steps = 0

    def _place(self, address, size):
        for base, memory in self.memory.items():
            if base <= address and address + size <= base + len(memory):
                return memory, address - base
        raise OSError(errno.EFAULT, "outside")

    def ioctl(self, command, outcome=None, *, argument=ARGUMENT):
        """The result; ``outcome`` is what the driver says to the one request that may come."""
        wanted, out = [], []
        while True:
            self.steps += 1
            assert self.steps < 8
            data = b""
            for address, size in wanted:
                memory, at = self._place(address, size)
                data += memory[at : at + size]
            out_bytes = sum(size for _, size in out)
            body = struct.pack("<QIIQII", 0, 1, command, argument, len(data), out_bytes) + data
            found = cuse.answer(message(messages.IOCTL, body))
            if not isinstance(found, bytes):
                body = self._work(found, outcome)
            else:
                number, body = parts(found)
                assert number == 0
            result, flags, in_count, out_count = struct.unpack_from("<iIII", body)
            vectors = [struct.unpack_from("<QQ", body, 16 + 16 * at) for at in range(in_count)]
            if flags != 4:
                self._copy_out(body[16:], out)
                return result
            out = [
                struct.unpack_from("<QQ", body, 16 + 16 * (in_count + at))
                for at in range(out_count)
            ]
            assert len(body) == 16 + 16 * (in_count + out_count)
            wanted = vectors
            for address, size in out:
                self._place(address, size)

    def _work(self, work, outcome):
        ask = next(work)
        self.asked.append(ask)
        with pytest.raises(StopIteration) as ended:
            work.send(outcome)
        return ended.value.value

    def _copy_out(self, data, out):
        for address, size in out:
            memory, at = self._place(address, size)
            part, data = data[:size], data[size:]
            memory[at : at + len(part)] = part
        assert not data, "the kernel takes more than there is room for as EIO"

    @property
    def errors(self):
        return int.from_bytes(self.memory[ARGUMENT][24:32], "little")


def argument(*, version=1, request=REQUEST, response=RESPONSE, errors=0):
    return struct.pack("<B7xQQQ", version, request, response, errors)


def extended(*, address=CERTIFICATES, size=0x4000, data=b"d" * 96):
    return data + struct.pack("<QI4x", address, size)


def test_the_node_is_named():
    first = message(4096, struct.pack("<IIII", 7, 41, 0, 1))
    number, body = parts(cuse.initialise(first))
    assert number == 0
    major, minor, _, flags, _, max_write, dev_major, dev_minor = struct.unpack_from("<8I", body)
    assert (major, minor, flags, dev_major, dev_minor) == (7, 31, 1, 0, 0)
    assert max_write + 4096 <= messages.READ_BYTES
    assert body[72:] == b"DEVNAME=sev-guest\0"


@pytest.mark.parametrize(
    ("opcode", "body"),
    [
        (4096, struct.pack("<IIII", 7, 30, 0, 1)),
        (4096, struct.pack("<IIII", 6, 99, 0, 1)),
        (26, struct.pack("<IIII", 7, 41, 0, 1)),
        (4096, b""),
    ],
)
def test_another_first_message(opcode, body):
    with pytest.raises(FormatError) as caught:
        cuse.initialise(message(opcode, body))
    assert caught.value.code == "sim-message"


def test_a_report():
    kernel = Kernel(argument(errors=0x1234), b"r" * 96)
    assert kernel.ioctl(REPORT, Outcome(0, 0, b"a" * 4000)) == 0
    assert kernel.asked == [Ask(5, 1, b"r" * 96, 4000, None)]
    assert kernel.memory[RESPONSE] == b"a" * 4000
    # The driver writes its errors only where there are some.
    assert kernel.errors == 0x1234
    assert kernel.steps == 3


def test_a_derived_key():
    kernel = Kernel(argument(version=2), b"k" * 32)
    assert kernel.ioctl(KEY, Outcome(0, 0, b"a" * 64)) == 0
    assert kernel.asked == [Ask(3, 2, b"k" * 32, 64, None)]
    assert kernel.memory[RESPONSE] == b"a" * 64 + MARK * (4000 - 64)


@pytest.mark.parametrize(("number", "errors"), [(5, 0x16), (5, 2 << 32), (25, NO_CALL), (74, 0)])
def test_errors_reach_the_caller_and_nothing_else(number, errors):
    kernel = Kernel(argument(), b"r" * 96)
    assert kernel.ioctl(REPORT, Outcome(number, errors)) == -number
    assert kernel.errors == errors
    assert kernel.memory[RESPONSE] == MARK * 4000


def test_an_extended_report():
    kernel = Kernel(argument(), extended(size=0x2000), certificates_bytes=0x2000)
    assert kernel.ioctl(EXTENDED, Outcome(0, 0, b"a" * 4000, b"c" * 0x2000)) == 0
    assert kernel.asked == [Ask(5, 1, b"d" * 96, 4000, 2)]
    assert kernel.memory[RESPONSE] == b"a" * 4000
    assert kernel.memory[CERTIFICATES] == b"c" * 0x2000
    assert kernel.memory[REQUEST] == extended(size=0x2000)
    assert kernel.steps == 4


def test_too_few_pages_say_how_many():
    kernel = Kernel(argument(), extended(size=0x1000), certificates_bytes=0x1000)
    assert kernel.ioctl(EXTENDED, Outcome(errno.EIO, 1 << 32, pages=3)) == -errno.EIO
    assert kernel.errors == 1 << 32
    assert kernel.memory[REQUEST] == extended(size=0x3000)
    assert kernel.memory[CERTIFICATES] == MARK * 0x1000


@pytest.mark.parametrize(("address", "size"), [(0, 0x1000), (CERTIFICATES, 0), (0, 0), (0, 0x999)])
def test_no_certificates_asked_for(address, size):
    kernel = Kernel(argument(), extended(address=address, size=size))
    assert kernel.ioctl(EXTENDED, Outcome(0, 0, b"a" * 4000)) == 0
    assert kernel.asked[0].pages == 0
    assert kernel.memory[REQUEST] == extended(address=address, size=size)


def test_another_error_leaves_the_size_alone():
    kernel = Kernel(argument(), extended(size=0x1000), certificates_bytes=0x1000)
    assert kernel.ioctl(EXTENDED, Outcome(errno.EIO, 0x16)) == -errno.EIO
    assert kernel.memory[REQUEST] == extended(size=0x1000)


@pytest.mark.parametrize("size", [1, 0xFFF, 0x1001, 0x4001, 0x5000, 0xFFFFF000, 0xFFFFFFFF])
def test_sizes_the_driver_refuses(size):
    kernel = Kernel(argument(), extended(size=size), certificates_bytes=0x10)
    assert kernel.ioctl(EXTENDED) == -errno.EINVAL
    assert (kernel.errors, kernel.asked) == (NO_CALL, [])


@pytest.mark.parametrize("command", [REPORT, KEY, EXTENDED, 0xC0205303])
def test_a_version_of_zero_comes_before_everything(command):
    kernel = Kernel(argument(version=0, request=0, errors=5), b"")
    assert kernel.ioctl(command) == -errno.EINVAL
    assert kernel.errors == 5


@pytest.mark.parametrize("command", [REPORT, KEY, EXTENDED])
@pytest.mark.parametrize("change", [{"request": 0}, {"response": 0}])
def test_null_pointers(command, change):
    kernel = Kernel(argument(**change), b"r" * 112)
    assert kernel.ioctl(command) == -errno.EINVAL
    assert kernel.errors == NO_CALL


@pytest.mark.parametrize("command", [0, 0x5401, 0xC0205303, 0xFFFFFFFF])
def test_unknown_numbers(command):
    kernel = Kernel(argument(), b"")
    assert kernel.ioctl(command) == -errno.ENOTTY
    assert (kernel.errors, kernel.asked) == (NO_CALL, [])


@pytest.mark.parametrize("address", [(1 << 64) - 1, (1 << 64) - 31])
def test_an_address_at_the_end_of_everything(address):
    kernel = Kernel(argument(), b"")
    assert kernel.ioctl(REPORT, argument=address) == -errno.EFAULT
    kernel = Kernel(argument(request=address), b"")
    assert kernel.ioctl(REPORT) == -errno.EFAULT


def test_a_caller_that_changes_its_mind():
    """Between two steps the size of its buffer grew: nothing is written where nothing was asked."""
    data = argument() + extended(size=0x4000)
    body = struct.pack("<QIIQII", 0, 1, EXTENDED, ARGUMENT, len(data), 8 + 4 + 4000 + 0x1000) + data
    number, found = parts(cuse.answer(message(messages.IOCTL, body)))
    assert (number, struct.unpack_from("<i", found)[0]) == (0, -errno.EINVAL)


@pytest.mark.parametrize(
    ("opcode", "expected"),
    [(14, 0), (18, 0), (25, 0), (15, errno.EINVAL), (16, errno.EINVAL), (40, errno.ENOSYS)],
)
def test_other_messages(opcode, expected):
    number, body = parts(cuse.answer(message(opcode, bytes(64))))
    assert number == expected
    assert len(body) == (16 if opcode == 14 else 0)


@pytest.mark.parametrize("opcode", [2, 36, 42])
def test_messages_without_reply(opcode):
    assert cuse.answer(message(opcode, bytes(8))) is None


@pytest.mark.parametrize("data", [b"", bytes(39), struct.pack("<I", 41) + bytes(36)])
def test_what_is_no_message(data):
    with pytest.raises(FormatError) as caught:
        messages.parse(data)
    assert caught.value.code == "sim-message"


@given(st.binary(max_size=300))
def test_arbitrary_bytes(data):
    fuzzed.fuzz(data)
