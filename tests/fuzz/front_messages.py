# SPDX-License-Identifier: Apache-2.0
"""Messages to the simulated guest's front: a kernel is believed, yet nothing may end the front."""

import struct

from troth.errors import FormatError
from troth.simulated.front import cuse, fuse, messages, tsm_tree
from troth.simulated.front.driver import Outcome

_OPCODES = (1, 3, 4, 9, 11, 14, 15, 16, 17, 18, 25, 26, 27, 28, 29, 36, 38, 39, 42)


def fuzz(data):
    """Several requests to both devices: the first byte of each chooses its kind, then its size."""
    tree = fuse.FileSystem(tsm_tree.Reports(0))
    while len(data) > 2:
        opcode, size, node = _OPCODES[data[0] % len(_OPCODES)], data[1], data[2] % 40
        body, data = data[3 : 3 + size], data[3 + size :]
        head = struct.pack("<IIQQIIIHH", 40 + len(body), opcode, 9, node, 0, 0, 0, 0, 0)
        for answer in (cuse.answer, tree.answer):
            _one(answer, messages.parse(head + body))


def _one(answer, message):
    try:
        found = answer(message)
    except FormatError:
        return
    if found is None:
        assert message.opcode in messages.WITHOUT_REPLY
        return
    if isinstance(found, bytes):
        size, number, unique = struct.unpack_from("<IiQ", found)
        assert (size, unique) == (len(found), 9)
        assert number <= 0
        return
    try:
        next(found)
        found.send(Outcome(0, 0, bytes(4000), bytes(0x4000)))
    except (StopIteration, OSError, FormatError):
        return
    raise AssertionError("a request asks twice")


SEEDS = [
    b"\x03\x0d\x03" + bytes(8) + b"name\0" + b"\x00\x05\x03name\0",
    b"\x03\x0d\x03" + bytes(8) + b"name\0" + b"\x05\x08\x13\x01" + bytes(7),
    b"\x11\x20\x00" + bytes(32),
]
