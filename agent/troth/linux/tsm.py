# SPDX-License-Identifier: Apache-2.0
"""configfs-tsm: report directories that are made, written, read and removed.

Serves the provider in ``attest``, which knows what to write in which order and
judges what it reads. A directory belongs to whoever made it, yet any root
process can write into it: must never be taken for private.

Source: Linux, Documentation/ABI/testing/configfs-tsm (from 6.7 on).
"""

from __future__ import annotations

import os

REPORTS = "/sys/kernel/config/tsm/report"
_CHUNK_BYTES = 65536


class ReportDirectory:
    """One report directory."""

    def __init__(self, path: str) -> None:
        self.path = path

    def has(self, name: str) -> bool:
        """Whether there is an attribute ``name``."""
        return os.path.lexists(f"{self.path}/{name}")

    def write(self, name: str, value: bytes) -> None:
        """Write ``value`` in one call.

        ``OSError`` with the kernel's errno. The kernel judges binary values when
        the file is closed and then tells nobody: only the generation shows it.
        """
        fd = os.open(f"{self.path}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value)
        finally:
            os.close(fd)

    def read(self, name: str, *, limit_bytes: int) -> bytes:
        """All of attribute ``name``, or its first ``limit_bytes`` + 1 bytes where it has more.

        ``OSError`` with the kernel's errno; reading a blob makes the report.
        """
        found = b""
        fd = os.open(f"{self.path}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            while len(found) <= limit_bytes:
                part = os.read(fd, min(_CHUNK_BYTES, limit_bytes + 1 - len(found)))
                if not part:
                    break
                found += part
        finally:
            os.close(fd)
        return found

    def remove(self) -> None:
        """Remove the directory; its attributes go with it."""
        os.rmdir(self.path)


class Reports:
    """The directory below which reports are made; ``root`` is given in a simulated guest."""

    def __init__(self, root: str = REPORTS) -> None:
        self.root = root

    def make(self, name: str) -> ReportDirectory:
        """A new report directory.

        ``OSError``: ENOENT without the module, ENXIO without a provider, EEXIST.
        """
        path = f"{self.root}/{name}"
        os.mkdir(path, 0o700)
        return ReportDirectory(path)
