# SPDX-License-Identifier: Apache-2.0
"""A new volume as it was laid out, and what shall be in it, put onto a device or into a file.

Serves ``troth volume format`` on the host, for volumes with a header and without. What
makes the disk a volume, its header or record, is written last, after a flush, so that a
volume whose making was cut off is none. Must never write over anything that is not
blank unless told to, nor onto a device in use.
"""

from __future__ import annotations

import os
import stat
import tempfile
from typing import TYPE_CHECKING

from troth.ciphers import xts
from troth.errors import FormatError, HostError, UsageError
from troth.record import record
from troth.volumes import mkfs

if TYPE_CHECKING:
    from collections.abc import Callable

    Progress = Callable[[int, int], None]

PROBE_BYTES = 1 << 20
"""What has to be zeros at the beginning of a blank device or file."""

_CHUNK_BYTES = 1 << 20
_SUPERBLOCK_BYTES = 4096


@record
class LaidOut:
    """A volume before it is on a disk.

    ``head``: (bytes of data that there are room for) -> what stands from 0 on, before
    ``data_offset_bytes``; ``key``: of AES-XTS, for data in sectors of ``sector_bytes``,
    and b"" where they have tags, which are the kernel's to write; ``file_system``: kernel
    name and UUID of the empty one that a volume without other content gets, or "" twice.
    """

    head: Callable[[int], bytes]
    data_offset_bytes: int
    key: bytes
    sector_bytes: int
    file_system: str = ""
    file_system_uuid: str = ""

    def __repr__(self) -> str:
        return f"LaidOut(data from {self.data_offset_bytes})"


@record
class Made:
    """``size_bytes``: of the device or file; ``head``: what was written to its beginning."""

    size_bytes: int
    head: bytes


def write(
    path: str,
    laid_out: LaidOut,
    *,
    size_bytes: int = 0,
    content: str = "",
    overwrite: bool = False,
    progress: Progress = lambda _done, _all: None,
) -> Made:
    """Make ``path`` the volume ``laid_out``.

    ``size_bytes``: of a new file; without it ``path`` must be there, or ``content``
    says how much is needed. ``content``: a file whose bytes become the data, padded with
    zeros to a whole sector. Raises ``UsageError``: ``volume-target``, ``volume-size``,
    ``volume-occupied``, ``volume-content``, and ``HostError`` ``volume-io``, ``volume-mkfs``.
    """
    source, content_bytes = _source(path, content, laid_out)
    try:
        fd, made = _target(path, size_bytes, laid_out.data_offset_bytes + content_bytes)
        whole = False
        try:
            size_bytes = _measure(fd, path, laid_out, content_bytes)
            room_bytes = size_bytes - laid_out.data_offset_bytes
            room_bytes -= room_bytes % laid_out.sector_bytes
            if not made:
                _clear(fd, path, laid_out, size_bytes, overwrite=overwrite)
            if source < 0 and laid_out.file_system:
                source = _empty(laid_out, room_bytes)
            if source >= 0:
                _encrypt(fd, source, laid_out, progress)
            os.fsync(fd)
            head = laid_out.head(room_bytes)
            _write(fd, head, 0)
            os.fsync(fd)
            whole = True
        finally:
            os.close(fd)
            if made and not whole:
                os.unlink(path)
    except OSError as error:
        raise HostError(
            "volume-io", f"cannot be written: {error.strerror or error}", where=path
        ) from None
    finally:
        if source >= 0:
            os.close(source)
    return Made(size_bytes, head)


def _empty(laid_out: LaidOut, room_bytes: int) -> int:
    """A descriptor of an empty file system as large as the data, which no name is left of."""
    with tempfile.NamedTemporaryFile(prefix="troth-volume-") as file:
        file.truncate(room_bytes)
        try:
            mkfs.make(file.name, laid_out.file_system, uuid=laid_out.file_system_uuid)
        except FormatError as error:
            raise HostError(
                error.code, error.message, hint=f"{mkfs.PROGRAM} is of the package e2fsprogs"
            ) from None
        return os.open(file.name, os.O_RDONLY | os.O_CLOEXEC)


def _source(path: str, content: str, laid_out: LaidOut) -> tuple[int, int]:
    """A descriptor of the content, -1 for none, and its size in whole sectors."""
    if not content:
        return -1, 0
    if not laid_out.key:
        raise UsageError(
            "volume-content",
            "content goes into a volume without integrity only: tags are the kernel's to write",
            hint="--integrity none, for content that verity protects; or fill it in a guest",
        )
    try:
        fd = os.open(content, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(
            "volume-content", f"cannot be read: {error.strerror}", where=content
        ) from None
    sector_bytes = laid_out.sector_bytes
    found = os.fstat(fd)
    same = os.path.exists(path) and os.path.samefile(path, content)
    if not stat.S_ISREG(found.st_mode) or not found.st_size or same:
        os.close(fd)
        raise UsageError(
            "volume-content", "the content is a file of its own that holds something", where=content
        )
    return fd, -(-found.st_size // sector_bytes) * sector_bytes


def _target(path: str, size_bytes: int, needed_bytes: int) -> tuple[int, bool]:
    """A descriptor of the device or file, and whether the file is new."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return _new_file(path, size_bytes, needed_bytes), True
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise UsageError("volume-target", "neither a file nor a block device", where=path)
    if size_bytes:
        raise UsageError("volume-size", "it is there, so it has its size", where=path)
    # On a block device O_EXCL refuses one that is mounted or mapped: open(2).
    exclusive = os.O_EXCL if stat.S_ISBLK(mode) else 0
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | exclusive), False
    except OSError as error:
        raise UsageError(
            "volume-target", f"cannot be opened: {error.strerror}", where=path
        ) from None


def _new_file(path: str, size_bytes: int, needed_bytes: int) -> int:
    size_bytes = size_bytes or needed_bytes
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UsageError("volume-target", f"cannot be made: {error.strerror}", where=path) from None
    try:
        os.truncate(fd, size_bytes)
    except OSError:
        os.close(fd)
        os.unlink(path)
        raise
    return fd


def _measure(fd: int, path: str, laid_out: LaidOut, content_bytes: int) -> int:
    size_bytes = os.lseek(fd, 0, os.SEEK_END)
    least_bytes = mkfs.LEAST_BYTES if laid_out.file_system else laid_out.sector_bytes
    needed_bytes = laid_out.data_offset_bytes + (content_bytes or least_bytes)
    if size_bytes < needed_bytes:
        raise UsageError(
            "volume-size",
            f"{size_bytes} bytes, the volume needs {needed_bytes}",
            where=path,
            hint="--size says how large a new file becomes",
        )
    return size_bytes


def _clear(fd: int, path: str, laid_out: LaidOut, size_bytes: int, *, overwrite: bool) -> None:
    """Zeros up to the data, and over a superblock of dm-integrity there."""
    if not overwrite and any(os.pread(fd, PROBE_BYTES, 0)):
        raise UsageError(
            "volume-occupied",
            "its first MiB is not blank, and what it holds would be lost",
            where=path,
            hint="--overwrite, if nobody needs it",
        )
    # All of it: an older header may have kept key-slots anywhere.
    end_bytes = min(laid_out.data_offset_bytes + _SUPERBLOCK_BYTES, size_bytes)
    zeros = bytes(_CHUNK_BYTES)
    for offset in range(0, end_bytes, _CHUNK_BYTES):
        _write(fd, zeros[: end_bytes - offset], offset)


def _encrypt(fd: int, source: int, laid_out: LaidOut, progress: Progress) -> None:
    content_bytes = os.fstat(source).st_size
    sector_bytes, key = laid_out.sector_bytes, laid_out.key
    for offset in range(0, content_bytes, _CHUNK_BYTES):
        wanted = min(_CHUNK_BYTES, content_bytes - offset)
        chunk = os.pread(source, wanted, offset)
        if len(chunk) != wanted:
            raise UsageError("volume-content", "the content changed while it was read")
        chunk = chunk.ljust(-(-len(chunk) // sector_bytes) * sector_bytes, b"\0")
        stored = xts.encrypt(key, chunk, sector_bytes=sector_bytes, first_iv=offset // 512)
        _write(fd, stored, laid_out.data_offset_bytes + offset)
        progress(offset + wanted, content_bytes)


def _write(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count
