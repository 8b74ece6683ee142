# SPDX-License-Identifier: Apache-2.0
"""newc cpio: the archive form of an initramfs.

Serves the packer (writer), ``troth inspect`` and tests (reader). The format
is the kernel's Documentation/driver-api/early-userspace/buffer-format.rst: a
110-byte ASCII hex header, name and data padded to four bytes, archives
following each other with zero bytes between them.

The writer's bytes depend on nothing but its members: no time, no owner, inode
numbers in sequence. The reader must never believe a size before checking it
against what is there.
"""

from __future__ import annotations

import stat

from troth.errors import FormatError
from troth.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

MAGIC = b"070701"
TRAILER = "TRAILER!!!"
_HEADER_BYTES = 110
_NAME_LIMIT_BYTES = 4096  # PATH_MAX: the kernel skips longer names
_SIZE_LIMIT_BYTES = 0xFFFFFFFF  # eight hex digits
_HEX = frozenset(b"0123456789abcdefABCDEF")


@record
class Member:
    """One entry of an archive.

    ``path``: as written, without checks beyond those of ``parse``; ``mode``:
    type and permission bits as in ``stat``; ``data``: content of a file,
    target of a link; ``device``: (major, minor) of a node; ``owner``: (uid,
    gid); ``mtime_s``: seconds since 1970; ``archive``: which of the
    concatenated archives it came from, from 0.
    """

    path: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)
    owner: tuple[int, int] = (0, 0)
    mtime_s: int = 0
    archive: int = 0


def write(members: Iterable[Member]) -> bytes:
    """One archive of ``members`` in the given order, padded to 512 bytes.

    Owner, time and inode numbers of the members are not taken over: all is
    root's, of time 0, numbered in sequence. Raises ``FormatError`` ``cpio-name``
    for a name the kernel or the reader would not take, ``cpio-size`` for a
    file of 4 GiB or more.
    """
    parts: list[bytes] = []
    for number, member in enumerate(members, 1):
        _check_name(member.path, "")
        if len(member.data) > _SIZE_LIMIT_BYTES:
            raise FormatError("cpio-size", "a file of 4 GiB or more", where=member.path)
        links = 2 if stat.S_ISDIR(member.mode) else 1
        parts.append(_header(number, member, links=links))
        parts.append(member.data)
        parts.append(bytes(-len(member.data) % 4))
    parts.append(_header(0, Member(TRAILER, 0)))
    size_bytes = sum(map(len, parts))
    parts.append(bytes(-size_bytes % 512))
    return b"".join(parts)


def _header(number: int, member: Member, *, links: int = 1) -> bytes:
    raw = member.path.encode() + b"\0"
    size_bytes = len(member.data)
    fields = (number, member.mode, 0, 0, links, 0, size_bytes, 0, 0, *member.device, len(raw), 0)
    head = MAGIC + b"".join(b"%08X" % field for field in fields) + raw
    return head + bytes(-len(head) % 4)


def parse(data: bytes, *, where: str = "") -> tuple[Member, ...]:
    """All members of the archives in ``data``, in order, trailers left out.

    A later member of the same path is kept: the kernel lets it win. Hard
    links appear as they are written. Raises ``FormatError``: ``cpio-header``
    (no newc header where one must be, or fields that are not hex),
    ``cpio-bounds`` (an entry leaves the data), ``cpio-name`` (empty,
    absolute, with ``..``, too long, not text), ``cpio-trailer`` (the last
    archive has none), ``cpio-type`` (a mode that is no file type).
    """
    members: list[Member] = []
    offset = 0
    archive = 0
    inside = False
    while True:
        if not inside:
            offset = _skip_zeros(data, offset)
            if offset == len(data):
                break
        member, offset = _member(data, offset, archive, where)
        inside = member is not None
        if member is None:
            archive += 1
        else:
            members.append(member)
    if archive == 0:
        raise FormatError("cpio-trailer", "no archive", where=where)
    return tuple(members)


def _skip_zeros(data: bytes, offset: int) -> int:
    # The kernel's unpacker steps over zero bytes between archives one at a time, without bound.
    # Blocks grow, so that many short gaps cost as little as one long one.
    block_bytes = 64
    while offset < len(data):
        block = data[offset : offset + block_bytes]
        rest = block.lstrip(b"\0")
        offset += len(block) - len(rest)
        if rest:
            break
        block_bytes = min(block_bytes * 2, 1 << 20)
    return offset


def _member(data: bytes, offset: int, archive: int, where: str) -> tuple[Member | None, int]:
    head = data[offset : offset + _HEADER_BYTES]
    if not head:
        raise FormatError("cpio-trailer", "the archive ends without a trailer", where=where)
    if offset % 4:
        # The kernel stops here too: "broken padding".
        raise FormatError("cpio-header", f"a header at {offset}, not aligned to 4", where=where)
    if head[:6] != MAGIC:
        raise FormatError("cpio-header", f"no newc header at {offset}", where=where)
    if len(head) < _HEADER_BYTES or not _HEX.issuperset(head[6:]):
        raise FormatError("cpio-header", f"a broken newc header at {offset}", where=where)
    (_ino, mode, uid, gid, _links, mtime_s, size_bytes, _major, _minor, node_major, node_minor,
     name_bytes, _check) = (int(head[at : at + 8], 16) for at in range(6, 110, 8))  # fmt: skip
    name_at = offset + _HEADER_BYTES
    if name_bytes > len(data) - name_at:
        raise FormatError("cpio-bounds", f"the name at {name_at} leaves the data", where=where)
    if not 1 < name_bytes <= _NAME_LIMIT_BYTES:
        raise FormatError("cpio-name", f"a name of {name_bytes} bytes at {name_at}", where=where)
    path = _decode_name(data[name_at : name_at + name_bytes], where)
    data_at = name_at + name_bytes
    data_at += -data_at % 4
    if data_at > len(data) or size_bytes > len(data) - data_at:
        raise FormatError("cpio-bounds", f"{size_bytes} bytes leave the data", where=path)
    end = data_at + size_bytes
    if path == TRAILER:
        if size_bytes:
            raise FormatError("cpio-trailer", "a trailer with data", where=where)
        return None, end
    _check_name(path, where)
    if stat.S_IFMT(mode) not in _TYPES or mode > 0xFFFF:
        raise FormatError("cpio-type", f"mode {mode:o} is no file type", where=path)
    content = data[data_at:end]
    member = Member(path, mode, content, (node_major, node_minor), (uid, gid), mtime_s, archive)
    return member, min(end + -end % 4, len(data))


_TYPES = (
    stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO,
    stat.S_IFSOCK,
)  # fmt: skip


def _decode_name(raw: bytes, where: str) -> str:
    if raw[-1:] != b"\0" or b"\0" in raw[:-1]:
        raise FormatError("cpio-name", f"the name {raw[:64]!r} is not terminated", where=where)
    try:
        return raw[:-1].decode("utf-8")
    except UnicodeDecodeError:
        raise FormatError("cpio-name", f"the name {raw[:64]!r} is not UTF-8", where=where) from None


def _check_name(path: str, where: str) -> None:
    if path != "." and any(part in ("", "..") for part in path.split("/")):
        raise FormatError("cpio-name", f"the name {path[:64]!r} leaves the archive", where=where)
    try:
        size_bytes = len(path.encode())
    except UnicodeEncodeError:
        size_bytes = _NAME_LIMIT_BYTES
    if "\0" in path or path == TRAILER or size_bytes >= _NAME_LIMIT_BYTES:
        raise FormatError("cpio-name", f"the name {path[:64]!r} cannot be packed", where=where)
