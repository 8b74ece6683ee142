# SPDX-License-Identifier: Apache-2.0
"""Where the bytes of an IGVM file come from: memory, or a file that may exceed it.

Serves the reader. A source answers exactly or raises: a short read must never
pass as a short page.
"""

from __future__ import annotations

import os

from troth.errors import FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Source(Protocol):
        """Bytes with a size; ``read`` gives exactly ``size_bytes`` of them."""

        size_bytes: int
        where: str

        def read(self, offset: int, size_bytes: int) -> bytes:
            """Raises ``FormatError`` ``igvm-truncated`` where the bytes end too early."""


def _short(offset: int, size_bytes: int, where: str) -> FormatError:
    return FormatError(
        "igvm-truncated", f"{size_bytes} bytes at {offset:#x} leave the file", where=where
    )


class BytesSource:
    """``data`` in memory; ``where`` names it in errors."""

    def __init__(self, data: bytes, *, where: str = "") -> None:
        self._data = data
        self.size_bytes = len(data)
        self.where = where

    def read(self, offset: int, size_bytes: int) -> bytes:
        """See ``Source``."""
        if not 0 <= offset <= offset + size_bytes <= self.size_bytes:
            raise _short(offset, size_bytes, self.where)
        return self._data[offset : offset + size_bytes]


def opener(path: str, flags: int) -> int:
    """For ``open``: a pipe is opened, to be refused, without waiting for who writes into it."""
    return os.open(path, flags | os.O_NONBLOCK)


class FileSource:
    """The open file ``descriptor``, which stays its owner's; ``where`` names it in errors.

    Raises ``FormatError`` ``igvm-size`` for a pipe, or whatever else has no end to look at.
    """

    def __init__(self, descriptor: int, *, where: str = "") -> None:
        self._descriptor = descriptor
        try:
            # A block device has no size in stat; its end has.
            self.size_bytes = os.lseek(descriptor, 0, os.SEEK_END)
        except OSError:
            raise FormatError(
                "igvm-size",
                "it has no size, as a pipe has none: an IGVM file is read at many places",
                where=where,
                hint="write it to a file first",
            ) from None
        self.where = where

    def read(self, offset: int, size_bytes: int) -> bytes:
        """See ``Source``; ``OSError`` where the machine cannot read."""
        if not 0 <= offset <= offset + size_bytes <= self.size_bytes:
            raise _short(offset, size_bytes, self.where)
        data = os.pread(self._descriptor, size_bytes, offset)
        if len(data) == size_bytes:
            return data
        parts = [data]
        missing = size_bytes - len(data)
        while data and missing:
            data = os.pread(self._descriptor, missing, offset + size_bytes - missing)
            parts.append(data)
            missing -= len(data)
        if missing:
            raise _short(offset, size_bytes, self.where)
        return b"".join(parts)
