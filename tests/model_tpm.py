# SPDX-License-Identifier: Apache-2.0
"""A TPM of a few NV indices, which can be made to answer wrongly.

The other way round from the code under test: it reads commands and writes
answers. tests/unit/test_provider_azure.py asks a real TPM emulator the same.
"""

import struct

READ, WRITE, DEFINE, PUBLIC, PROPERTY = 0x14E, 0x137, 0x12A, 0x169, 0x17A
OWNER_RW = 1 << 1 | 1 << 17
WRITTEN = 1 << 29
MISSING = 0x18B


class ModelTpm:
    """``indices``: number -> [attributes, bytes]; ``on`` is called before each command."""

    def __init__(self, indices, *, buffer_bytes=512):
        self.indices = indices
        self.buffer_bytes = buffer_bytes
        self.commands = []
        self.answers = {}
        self.on = lambda code, index: None
        self.closed = 0

    def close(self):
        self.closed += 1

    def transmit(self, command):
        tag, size, code = struct.unpack_from(">HII", command)
        assert size == len(command)
        self.commands.append(code)
        index = struct.unpack_from(">I", command, 14 if tag == 0x8002 else 10)[0]
        if code == DEFINE:
            assert struct.unpack_from(">I", command, 10)[0] == 0x40000001
            auth, _, index, algorithm, attributes, policy, size = struct.unpack_from(
                ">HHIHIHH", command, 27
            )
            assert (auth, algorithm, policy) == (0, 0x000B, 0)
        self.on(code, index)
        if code in self.answers:
            answer = self.answers[code]
            if isinstance(answer, Exception):
                raise answer
            return answer
        if code == PROPERTY:
            return self._answer(struct.pack(">BIIII", 0, 6, 1, 0x12C, self.buffer_bytes))
        if code == DEFINE:
            self.indices[index] = [attributes, bytes(size)]
            return self._answer(struct.pack(">I", 0), sessions=True)
        if index not in self.indices:
            return struct.pack(">HII", 0x8001, 10, MISSING)
        attributes, data = self.indices[index]
        if code == PUBLIC:
            public = struct.pack(">IHIHH", index, 0x000B, attributes, 0, len(data))
            name = b"\0\x0b" + bytes(32)
            return self._answer(
                struct.pack(">H", len(public)) + public + struct.pack(">H", len(name)) + name
            )
        if code == READ:
            size, offset = struct.unpack_from(">HH", command, 31)
            assert size <= self.buffer_bytes
            part = struct.pack(">H", size) + data[offset : offset + size]
            return self._answer(struct.pack(">I", len(part)) + part, sessions=True)
        assert code == WRITE
        size = struct.unpack_from(">H", command, 31)[0]
        body, offset = command[33 : 33 + size], struct.unpack_from(">H", command, 33 + size)[0]
        assert offset + size <= len(data)
        changed = data[:offset] + body + data[offset + size :]
        self.indices[index] = [attributes | WRITTEN, changed]
        return self._answer(struct.pack(">I", 0), sessions=True)

    @staticmethod
    def _answer(body, *, sessions=False):
        if sessions:
            body += bytes(2) + b"\1" + bytes(2)
        return struct.pack(">HII", 0x8002 if sessions else 0x8001, 10 + len(body), 0) + body
