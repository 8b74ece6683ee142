# SPDX-License-Identifier: Apache-2.0
"""One read of the part of a volume that is judged: no byte is ever asked for twice.

Serves the guest's worker and ``troth volume check``. The host may give other bytes on
a second read, so everything after this works on what this returned. Must never write.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Reader = Callable[[int, int], bytes]

AREA_BYTES = 1 << 20
"""Both headers and the key-slot's material; data begin here at the earliest."""


def read(reader: Reader, *, size_bytes: int = AREA_BYTES) -> bytes:
    """The first ``size_bytes``, or all where there are fewer.

    ``reader``: (offset, size) -> bytes, empty at the end; ``OSError`` is its own. It is
    called for the rest where it gave less than was asked for.
    """
    area = bytearray()
    while len(area) < size_bytes:
        part = reader(len(area), size_bytes - len(area))
        if not part:
            break
        area += part[: size_bytes - len(area)]
    return bytes(area)


def read_file(path: str) -> bytes:
    """The area of the file or device at ``path``, opened for reading only. ``OSError``."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return read(lambda offset, size: os.pread(fd, size, offset))
    finally:
        os.close(fd)
