# SPDX-License-Identifier: Apache-2.0
"""Device-mapper messages (include/uapi/linux/dm-ioctl.h, interface major 4).

``struct dm_ioctl`` is 312 bytes, then target specifications of 40 bytes each
followed by their parameter text. Imported by PID 1.
"""

from __future__ import annotations

from struct import Struct

from troth.errors import FormatError
from troth.record import record

HEADER_BYTES = 312
_HEADER = Struct("<3I I I I i I I I Q 128s 129s 7x")
_SPEC = Struct("<QQiI16s")

DEV_CREATE, DEV_REMOVE, DEV_SUSPEND, TABLE_LOAD, TABLE_STATUS = 3, 4, 6, 9, 12
READONLY, STATUS_TABLE, BUFFER_FULL = 0x1, 0x10, 0x100
NAME_BYTES, UUID_BYTES = 127, 128
SECTOR_BYTES = 512


def ioctl_number(command: int) -> int:
    """_IOWR(0xfd, command, struct dm_ioctl)."""
    return 0xC138FD00 | command


@record
class Target:
    """One line of a table: ``start`` and ``length`` in 512-byte sectors, ``kind``, ``text``."""

    start: int
    length: int
    kind: str
    text: str


def request(
    name: str, *, uuid: str = "", flags: int = 0, targets: tuple[Target, ...] = (), room: int = 0
) -> bytearray:
    """A message about map ``name``, mutable because the kernel answers in place.

    ``room``: total size wanted for the answer in bytes, at least the message's own.
    """
    if not name or len(name) > NAME_BYTES or "/" in name or not name.isascii():
        raise FormatError("dm-name", f"{name!r} cannot name a map")
    if len(uuid) > UUID_BYTES or not uuid.isascii():
        raise FormatError("dm-uuid", f"{uuid!r} cannot be the uuid of a map")
    body = bytearray()
    for target in targets:
        text = target.text.encode() + b"\0"
        padded = -(-(_SPEC.size + len(text)) // 8) * 8
        # On load `next` counts from this specification to the following one.
        body += _SPEC.pack(target.start, target.length, 0, padded, target.kind.encode())
        body += text.ljust(padded - _SPEC.size, b"\0")
    size = max(room, HEADER_BYTES + len(body))
    header = _HEADER.pack(
        4, 0, 0, size, HEADER_BYTES, len(targets), 0, flags, 0, 0, 0, name.encode(), uuid.encode()
    )
    return bytearray(header + body).ljust(size, b"\0")


@record
class Answer:
    """What the kernel wrote back: ``flags``, device ``minor``, and status lines."""

    flags: int
    minor: int
    targets: tuple[Target, ...]


def answer(data: bytes | bytearray) -> Answer:
    """The kernel's answer in ``data``; ``FormatError`` ``dm-answer`` where it is not one."""
    if len(data) < HEADER_BYTES:
        raise FormatError("dm-answer", f"an answer of {len(data)} bytes has no header")
    fields = _HEADER.unpack_from(data)
    start, count, flags, device = fields[4], fields[5], fields[7], fields[10]
    # The kernel's huge encoding of a device number.
    minor = (device & 0xFF) | ((device >> 12) & 0xFFF00)
    targets: list[Target] = []
    offset = start
    if not flags & BUFFER_FULL:
        # A counted loop: each turn needs a specification inside the buffer.
        for _ in range(min(count, len(data) // _SPEC.size)):
            if offset < HEADER_BYTES or offset + _SPEC.size > len(data):
                break
            begin, length, _status, following, kind = _SPEC.unpack_from(data, offset)
            end = data.find(b"\0", offset + _SPEC.size)
            end = len(data) if end < 0 else end
            text = bytes(data[offset + _SPEC.size : end]).decode("ascii", "replace")
            targets.append(
                Target(begin, length, kind.rstrip(b"\0").decode("ascii", "replace"), text)
            )
            # On status `next` counts from the first specification.
            offset = start + following
    return Answer(flags=flags, minor=minor, targets=tuple(targets))
