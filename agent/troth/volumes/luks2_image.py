# SPDX-License-Identifier: Apache-2.0
"""A new LUKS2 volume, and what shall be in it, put onto a device or into a file.

Serves ``troth volume format`` on the host. The header is written last, after a flush, so
that a volume whose making was cut off is none. Must never write over anything that is not
blank unless told to, nor onto a device in use.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from troth.ciphers import xts
from troth.errors import HostError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from troth.volumes.luks2_write import Written

    Progress = Callable[[int, int], None]

PROBE_BYTES = 1 << 20
"""What has to be zeros at the beginning of a blank device or file."""

_CHUNK_BYTES = 1 << 20
_SUPERBLOCK_BYTES = 4096


def write(
    path: str,
    written: Written,
    *,
    size_bytes: int = 0,
    content: str = "",
    overwrite: bool = False,
    progress: Progress = lambda _done, _all: None,
) -> int:
    """Make ``path`` the volume of ``written``, and return its size in bytes.

    ``size_bytes``: of a new file; without it ``path`` must be there, or ``content``
    says how much is needed. ``content``: a file whose bytes become the data, padded with
    zeros to a whole sector. Raises ``UsageError``: ``volume-target``, ``volume-size``,
    ``volume-occupied``, ``volume-content``, and ``HostError`` ``volume-io``.
    """
    source, content_bytes = _source(path, content, written)
    try:
        fd, made = _target(path, size_bytes, written.data_offset_bytes + content_bytes)
        whole = False
        try:
            size_bytes = _measure(fd, path, written, content_bytes)
            if not made:
                _clear(fd, path, written, size_bytes, overwrite=overwrite)
            if source >= 0:
                _encrypt(fd, source, written, progress)
            os.fsync(fd)
            _write(fd, written.head, 0)
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
    return size_bytes


def _source(path: str, content: str, written: Written) -> tuple[int, int]:
    """A descriptor of the content, -1 for none, and its size in whole sectors."""
    if not content:
        return -1, 0
    if written.table.integrity is not None:
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
    sector_bytes = written.table.sector_bytes
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


def _measure(fd: int, path: str, written: Written, content_bytes: int) -> int:
    size_bytes = os.lseek(fd, 0, os.SEEK_END)
    needed_bytes = written.data_offset_bytes + max(content_bytes, written.table.sector_bytes)
    if size_bytes < needed_bytes:
        raise UsageError(
            "volume-size",
            f"{size_bytes} bytes, the volume needs {needed_bytes}",
            where=path,
            hint="--data-offset 1M leaves more room for data",
        )
    return size_bytes


def _clear(fd: int, path: str, written: Written, size_bytes: int, *, overwrite: bool) -> None:
    """Zeros up to the data, and over a superblock of dm-integrity there."""
    if not overwrite and any(os.pread(fd, PROBE_BYTES, 0)):
        raise UsageError(
            "volume-occupied",
            "its first MiB is not blank, and what it holds would be lost",
            where=path,
            hint="--overwrite, if nobody needs it",
        )
    # All of it: an older header may have kept key-slots anywhere.
    end_bytes = min(written.data_offset_bytes + _SUPERBLOCK_BYTES, size_bytes)
    zeros = bytes(_CHUNK_BYTES)
    for offset in range(0, end_bytes, _CHUNK_BYTES):
        _write(fd, zeros[: end_bytes - offset], offset)


def _encrypt(fd: int, source: int, written: Written, progress: Progress) -> None:
    content_bytes = os.fstat(source).st_size
    sector_bytes, key = written.table.sector_bytes, bytes(written.volume_key)
    for offset in range(0, content_bytes, _CHUNK_BYTES):
        wanted = min(_CHUNK_BYTES, content_bytes - offset)
        chunk = os.pread(source, wanted, offset)
        if len(chunk) != wanted:
            raise UsageError("volume-content", "the content changed while it was read")
        chunk = chunk.ljust(-(-len(chunk) // sector_bytes) * sector_bytes, b"\0")
        stored = xts.encrypt(key, chunk, sector_bytes=sector_bytes, first_iv=offset // 512)
        _write(fd, stored, written.data_offset_bytes + offset)
        progress(offset + wanted, content_bytes)


def _write(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count
