# SPDX-License-Identifier: Apache-2.0
"""Which file system an image holds, told from its first 4 KiB.

Serves PID 1, which finds disks by LABEL and UUID and learns the type to mount,
and the builder, which refuses images that the guest could not mount. The
superblock is the host's unless read through dm-verity: it must never be used
for more than finding before that. Imports nothing beyond ``struct``.

Source: Linux, ``fs/erofs/erofs_fs.h``, ``fs/squashfs/squashfs_fs.h``,
``fs/ext4/ext4.h``.
"""

from __future__ import annotations

import struct

from troth.errors import FormatError
from troth.record import record

HEAD_BYTES = 4096
"""How much of the image ``identify`` wants."""

_AT = 1024  # of the erofs and ext superblocks

_EROFS_MAGIC = b"\xe2\xe1\xf5\xe0"
# magic, checksum, compat, blkszbits, .., blocks, .., uuid, name, incompat, .., extra devices
_EROFS = struct.Struct("<4sIIB23xI8x16s16sI2xH")
_EROFS_48BIT = 0x80

_SQUASHFS_MAGIC = b"hsqs"
# magic, .., block size, .., block log, .., major, minor, .., bytes used
_SQUASHFS = struct.Struct("<4s8xI6xH4xHH8xQ")

_EXT_MAGIC = b"\x53\xef"
# .., blocks, .., log block size, .., magic, .., compat, incompat, ro_compat, uuid, name
_EXT = struct.Struct("<4xI16xI28x2s34xIII16s16s")
_EXT_BLOCKS_HIGH = struct.Struct("<I")
_EXT_BLOCKS_HIGH_AT = 0x150
_EXT_RECOVER = 0x4
_EXT_JOURNAL_DEVICE = 0x8
_EXT_64BIT = 0x80


@record
class FileSystem:
    """What a superblock says.

    ``type``: the kernel's name, "erofs", "squashfs", or "ext4" for all of
    ext2 to ext4, which one driver mounts; ``uuid``: lower case text, empty
    where the format has none; ``label``: unprintable characters shown as
    ``?``; ``size_bytes``: of the image, not padded; ``needs_recovery``: an
    ext journal waits to be replayed.
    """

    type: str
    uuid: str
    label: str
    block_bytes: int
    size_bytes: int
    needs_recovery: bool = False


def identify(data: bytes, *, where: str = "") -> FileSystem:
    """The file system that begins with ``data``, its first 4 KiB.

    Raises ``FormatError``: ``filesystem-unknown`` where none of the three is
    there, ``filesystem-superblock`` where one is there and makes no sense,
    ``filesystem-feature`` where part of it would lie elsewhere.
    """
    data = data[:HEAD_BYTES]
    if data[:4] == _SQUASHFS_MAGIC and len(data) >= _SQUASHFS.size:
        return _squashfs(data, where)
    if data[_AT : _AT + 4] == _EROFS_MAGIC and len(data) >= _AT + _EROFS.size:
        return _erofs(data, where)
    high_end = _AT + _EXT_BLOCKS_HIGH_AT + _EXT_BLOCKS_HIGH.size
    if data[_AT + 56 : _AT + 58] == _EXT_MAGIC and len(data) >= high_end:
        return _ext(data, where)
    raise FormatError("filesystem-unknown", "this is neither erofs, squashfs nor ext4", where=where)


def check_mountable(found: FileSystem, *, where: str = "") -> None:
    """Refuse what cannot be mounted read-only from a verity device with 4096-byte blocks.

    Raises ``FormatError``: ``filesystem-block-size``, ``filesystem-recovery``.
    """
    # squashfs reads through blocks of the device's size, whatever its own are.
    if found.type != "squashfs" and found.block_bytes != 4096:
        command = "mkfs.ext4 -b 4096" if found.type == "ext4" else "mkfs.erofs -b 4096"
        raise FormatError(
            "filesystem-block-size",
            f"{found.type} with blocks of {found.block_bytes} bytes cannot be mounted from"
            " a verity device, whose blocks have 4096",
            where=where,
            hint=f"make it with `{command}`",
        )
    if found.needs_recovery:
        raise FormatError(
            "filesystem-recovery",
            "the ext4 journal has not been replayed, and a read-only image never will be",
            where=where,
            hint="unmount the image cleanly, or run `e2fsck -f` on it",
        )


def _squashfs(data: bytes, where: str) -> FileSystem:
    _, block_bytes, block_log, major, minor, used_bytes = _SQUASHFS.unpack_from(data)
    if (major, minor) != (4, 0):
        raise _nonsense(f"squashfs version {major}.{minor} is not 4.0", where)
    if not 12 <= block_log <= 20 or block_bytes != 1 << block_log:
        raise _nonsense(f"squashfs blocks of {block_bytes} bytes, logarithm {block_log}", where)
    if not 96 <= used_bytes < 1 << 63:
        raise _nonsense(f"a squashfs of {used_bytes} bytes", where)
    return FileSystem("squashfs", "", "", block_bytes, used_bytes)


def _erofs(data: bytes, where: str) -> FileSystem:
    _, _, _, bits, blocks, uuid, label, incompat, devices = _EROFS.unpack_from(data, _AT)
    if not 9 <= bits <= 16 or blocks == 0:
        raise _nonsense(f"an erofs of {blocks} blocks, size logarithm {bits}", where)
    if devices or incompat & _EROFS_48BIT:
        raise FormatError(
            "filesystem-feature",
            "the erofs image uses further devices or 48-bit addresses",
            where=where,
            hint="make it with mkfs.erofs and without --blobdev",
        )
    return FileSystem("erofs", _uuid(uuid), _text(label), 1 << bits, blocks << bits)


def _ext(data: bytes, where: str) -> FileSystem:
    blocks, log, _, _, incompat, _, uuid, label = _EXT.unpack_from(data, _AT)
    if incompat & _EXT_JOURNAL_DEVICE:
        raise FormatError(
            "filesystem-feature", "this is an external journal, not a file system", where=where
        )
    if incompat & _EXT_64BIT:
        (high,) = _EXT_BLOCKS_HIGH.unpack_from(data, _AT + _EXT_BLOCKS_HIGH_AT)
        blocks |= high << 32
    if log > 6 or not 0 < blocks < 1 << 47:
        raise _nonsense(f"an ext4 of {blocks} blocks, size logarithm {log}", where)
    block_bytes = 1024 << log
    return FileSystem(
        "ext4",
        _uuid(uuid),
        _text(label),
        block_bytes,
        blocks * block_bytes,
        needs_recovery=bool(incompat & _EXT_RECOVER),
    )


def _nonsense(what: str, where: str) -> FormatError:
    return FormatError("filesystem-superblock", f"{what}: the superblock is damaged", where=where)


def _uuid(data: bytes) -> str:
    digits = data.hex()
    parts = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
    return "-".join(parts)


def _text(data: bytes) -> str:
    text = data.partition(b"\0")[0].decode("utf-8", "replace")
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else "?" for letter in text)
