# SPDX-License-Identifier: Apache-2.0
"""The inodes of an erofs image: names, owners, modes, devices, attributes; no contents.

Serves the builder, which says of a ready image what a guest will see in it:
the tools of the distribution extract no attributes and tell no hard links.
Every offset in the image is somebody's word; all are checked, and nothing is
read without a bound.

Source: Linux, ``fs/erofs/erofs_fs.h``, ``fs/erofs/inode.c``, ``fs/erofs/dir.c``,
``fs/erofs/xattr.c``.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Protocol

from troth.errors import FormatError
from troth.record import record

if TYPE_CHECKING:
    from collections.abc import Iterator

    class File(Protocol):
        """What is needed of an open image."""

        def seek(self, offset: int, /) -> int:
            """Go to ``offset``."""

        def read(self, count: int, /) -> bytes:
            """Up to ``count`` bytes."""


MAX_ENTRIES = 4_000_000
_MAX_DIRECTORY_BYTES = 256 << 20
_MAX_DEPTH = 256
_MAGIC = b"\xe2\xe1\xf5\xe0"
_AT = 1024
# magic, .., block bits, .., root, .., meta block, attribute block, .., directory block bits
_SUPERBLOCK = struct.Struct("<4s8xBxH24xII42xB")
_SLOT_BYTES = 32
# format, attribute slots, mode, .., size, .., union, .., uid, gid, ..
_COMPACT = struct.Struct("<HHH2xI4xI4xHH4x")
# format, attribute slots, mode, .., size, union, .., uid, gid, ..
_EXTENDED = struct.Struct("<HHH2xQI4xII32x")
_PLAIN, _INLINE = 0, 2
_DIRENT = struct.Struct("<QHBx")
# .., count of shared attributes, ..
_ATTRIBUTES = struct.Struct("<4xB7x")
_ATTRIBUTE = struct.Struct("<BBH")
_PREFIXES = {
    1: "user.",
    2: "system.posix_acl_access",
    3: "system.posix_acl_default",
    4: "trusted.",
    5: "lustre.",
    6: "security.",
}
_TYPE_MASK, _DIRECTORY, _DEVICES = 0o170000, 0o040000, (0o020000, 0o060000)


@record
class Inode:
    """One inode: ``number`` (its place, the same for all names of one file), ``mode`` with type
    bits, ``device`` (major, minor) of a node, ``attributes`` sorted by name.
    """  # noqa: D205 - the fields are the summary

    number: int
    mode: int
    uid: int
    gid: int
    size_bytes: int
    device: tuple[int, int]
    attributes: tuple[tuple[str, bytes], ...]


def walk(file: File, *, where: str = "") -> Iterator[tuple[bytes, Inode]]:
    """(path, inode) of everything in the image ``file``; the root's path is empty.

    Raises ``FormatError``: ``erofs-superblock``, ``erofs-inode``,
    ``erofs-directory``, ``erofs-attribute``.
    """
    image = _Image(file, where)
    todo = [(b"", image.root)]
    seen: set[int] = set()
    count = 0
    while todo:
        path, number = todo.pop()
        count += 1
        if count > MAX_ENTRIES:
            raise image.wrong("directory", f"more than {MAX_ENTRIES} entries")
        inode, at = image.inode(number)
        yield path, inode
        if inode.mode & _TYPE_MASK != _DIRECTORY:
            continue
        if number in seen or path.count(b"/") >= _MAX_DEPTH:
            raise image.wrong("directory", "a directory that is inside itself, or too deep")
        seen.add(number)
        for name, below in image.names(inode, at):
            todo.append((path + b"/" + name if path else name, below))


class _Image:
    """Reads of one image, each of its size or an error."""

    def __init__(self, file: File, where: str) -> None:
        self._file = file
        self._where = where
        data = self._read(_AT, _SUPERBLOCK.size, "superblock")
        magic, bits, self.root, meta, shared, directory_bits = _SUPERBLOCK.unpack(data)
        if magic != _MAGIC or not 9 <= bits <= 16 or directory_bits:
            raise self.wrong("superblock", "this is no erofs that can be looked into")
        self._block_bytes = 1 << bits
        self._meta = meta << bits
        self._shared = shared << bits

    def wrong(self, part: str, message: str) -> FormatError:
        match part:
            case "superblock":
                return FormatError("erofs-superblock", message, where=self._where)
            case "inode":
                return FormatError("erofs-inode", message, where=self._where)
            case "directory":
                return FormatError("erofs-directory", message, where=self._where)
        return FormatError("erofs-attribute", message, where=self._where)

    def _read(self, offset: int, count: int, part: str) -> bytes:
        if offset >= 1 << 62:
            raise self.wrong(part, "lies outside the image")
        self._file.seek(offset)
        data = self._file.read(count)
        if len(data) != count:
            raise self.wrong(part, "the image ends inside it")
        return data

    def inode(self, number: int) -> tuple[Inode, tuple[int, int, int]]:
        """The inode, and where its content is: (layout, block, offset of what is inline)."""
        offset = self._meta + number * _SLOT_BYTES
        (form,) = struct.unpack("<H", self._read(offset, 2, "inode"))
        if form & 1:
            size = _EXTENDED.size
            fields = _EXTENDED.unpack(self._read(offset, size, "inode"))
        else:
            size = _COMPACT.size
            fields = _COMPACT.unpack(self._read(offset, size, "inode"))
        _, slots, mode, size_bytes, union, uid, gid = fields
        attribute_bytes = _ATTRIBUTES.size + 4 * (slots - 1) if slots else 0
        device = (0, 0)
        if mode & _TYPE_MASK in _DEVICES:
            # new_encode_dev of include/linux/kdev_t.h
            device = (union >> 8 & 0xFFF, union & 0xFF | union >> 12 & 0xFFF00)
        inode = Inode(
            number=number,
            mode=mode,
            uid=uid,
            gid=gid,
            size_bytes=size_bytes,
            device=device,
            attributes=self._attributes(offset + size, attribute_bytes),
        )
        return inode, (form >> 1 & 7, union, offset + size + attribute_bytes)

    def _attributes(self, offset: int, count: int) -> tuple[tuple[str, bytes], ...]:
        if not count:
            return ()
        data = self._read(offset, count, "attribute")
        (shared,) = _ATTRIBUTES.unpack_from(data)
        at = _ATTRIBUTES.size + 4 * shared
        if at > count:
            raise self.wrong("attribute", "more shared attributes than there is room for")
        found = {}
        for index in struct.unpack_from(f"<{shared}I", data, _ATTRIBUTES.size):
            place = self._shared + 4 * index
            head = self._read(place, _ATTRIBUTE.size, "attribute")
            length, _, value_bytes = _ATTRIBUTE.unpack(head)
            text = self._read(place, _ATTRIBUTE.size + length + value_bytes, "attribute")
            name, value, _ = self._attribute(text, 0)
            found[name] = value
        while at + _ATTRIBUTE.size <= count:
            name, value, at = self._attribute(data, at)
            found[name] = value
        return tuple(sorted(found.items()))

    def _attribute(self, data: bytes, at: int) -> tuple[str, bytes, int]:
        length, index, value_bytes = _ATTRIBUTE.unpack_from(data, at)
        start = at + _ATTRIBUTE.size
        end = start + length + value_bytes
        if index not in _PREFIXES or end > len(data):
            raise self.wrong("attribute", "an attribute with an unknown prefix, or cut short")
        name = data[start : start + length].decode("utf-8", "surrogateescape")
        return _PREFIXES[index] + name, data[start + length : end], (end + 3) & ~3

    def names(self, inode: Inode, at: tuple[int, int, int]) -> Iterator[tuple[bytes, int]]:
        """(name, inode number) of a directory, but for itself and the one above."""
        layout, block, inline = at
        if layout not in (_PLAIN, _INLINE) or inode.size_bytes > _MAX_DIRECTORY_BYTES:
            raise self.wrong("directory", "a directory of a layout or size that no mkfs makes")
        left = inode.size_bytes
        offset = block * self._block_bytes
        while left > 0:
            count = min(left, self._block_bytes)
            left -= count
            in_inode = layout == _INLINE and not left
            data = self._read(inline if in_inode else offset, count, "directory")
            offset += count
            yield from self._block(data)

    def _block(self, data: bytes) -> Iterator[tuple[bytes, int]]:
        if len(data) < _DIRENT.size:
            raise self.wrong("directory", "a block without an entry")
        _, first, _ = _DIRENT.unpack_from(data)
        if first % _DIRENT.size or not _DIRENT.size <= first <= len(data):
            raise self.wrong("directory", "names begin inside the entries")
        listed = [_DIRENT.unpack_from(data, at) for at in range(0, first, _DIRENT.size)]
        ends = [start for _, start, _ in listed[1:]] + [len(data)]
        for (number, start, _), end in zip(listed, ends, strict=True):
            if not first <= start < end <= len(data):
                raise self.wrong("directory", "names out of order")
            name = data[start:end].split(b"\0")[0]
            if not name or b"/" in name:
                raise self.wrong("directory", "a name that no file can have")
            if name not in (b".", b".."):
                yield name, number
