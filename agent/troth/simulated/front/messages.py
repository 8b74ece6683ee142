# SPDX-License-Identifier: Apache-2.0
"""Messages of /dev/fuse and /dev/cuse: the heads that every request and reply has.

Serves ``cuse`` and ``fuse``. One read from the kernel is one request, one write
is one reply. The kernel is believed, its callers' bytes inside are not.

Source: Linux, include/uapi/linux/fuse.h, protocol 7.31; little-endian.
"""

from __future__ import annotations

import struct

from troth.errors import FormatError
from troth.record import record

MAJOR, MINOR = 7, 31
READ_BYTES = 256 << 10
"""A read smaller than the largest request fails."""
MAX_WRITE_BYTES = 64 << 10

LOOKUP = 1
FORGET = 2
GETATTR = 3
SETATTR = 4
SYMLINK = 6
MKNOD = 8
MKDIR = 9
UNLINK = 10
RMDIR = 11
RENAME = 12
OPEN = 14
READ = 15
WRITE = 16
STATFS = 17
RELEASE = 18
FLUSH = 25
INIT = 26
OPENDIR = 27
READDIR = 28
RELEASEDIR = 29
CREATE = 35
INTERRUPT = 36
DESTROY = 38
IOCTL = 39
BATCH_FORGET = 42
RENAME2 = 45
CUSE_INIT = 4096

WITHOUT_REPLY = (FORGET, BATCH_FORGET, INTERRUPT)
"""The kernel takes no answer to these."""

_IN = struct.Struct("<IIQQIIIHH")
_OUT = struct.Struct("<IiQ")


@record
class Message:
    """One request: ``opcode``, the number ``unique`` its reply needs, ``node`` and ``body``."""

    opcode: int
    unique: int
    node: int
    body: bytes


def parse(data: bytes) -> Message:
    """The request in ``data``, which is one whole read. ``FormatError`` ``sim-message``."""
    if len(data) < _IN.size:
        raise FormatError("sim-message", f"a message of {len(data)} bytes")
    size_bytes, opcode, unique, node, _uid, _gid, _pid, _ext, _ = _IN.unpack_from(data)
    if size_bytes != len(data):
        raise FormatError("sim-message", f"{len(data)} bytes of a message of {size_bytes}")
    return Message(opcode, unique, node, data[_IN.size :])


def fields(layout: struct.Struct, message: Message) -> tuple[int, ...]:
    """The numbers at the start of the body. ``FormatError`` ``sim-message``."""
    if len(message.body) < layout.size:
        raise FormatError("sim-message", f"opcode {message.opcode}: {len(message.body)} bytes")
    return layout.unpack_from(message.body)


def reply(unique: int, body: bytes = b"") -> bytes:
    """A reply of success."""
    return _OUT.pack(_OUT.size + len(body), 0, unique) + body


def failure(unique: int, number: int) -> bytes:
    """A reply of errno ``number``."""
    return _OUT.pack(_OUT.size, -number, unique)
