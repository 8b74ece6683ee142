# SPDX-License-Identifier: Apache-2.0
"""What a key distribution service answered before, and when it was last asked.

Serves ``verify.endorsing.fetch``. A chip's certificate for one TCB never changes, so it is
kept for ever under all that it depends on. Must never be trusted more than the
network: whoever reads checks again. Files appear whole or not at all.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from typing import TYPE_CHECKING

from troth.errors import HostError
from troth.signing.certificates import MAX_FILE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

INTERVAL_S = 10.0
"""Between two requests for a chip's certificate: the service's own limit."""

_STAMP = "last-request"


def write(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path``, whole or not at all, making its directories.

    Raises ``HostError`` ``kds-write``.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=".", dir=path.parent)
        with open(descriptor, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise HostError(
            "kds-write", f"cannot be written: {error.strerror}", where=str(path)
        ) from None


class Cache:
    """Answers below ``folder``; ``now`` and ``pause`` are the clock, in seconds."""

    def __init__(
        self,
        folder: Path,
        *,
        now: Callable[[], float] = time.time,
        pause: Callable[[float], None] = time.sleep,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.folder = folder
        self._now = now
        self._pause = pause
        self._tell = tell

    def get(self, name: str, *, younger_than_s: float | None = None) -> bytes | None:
        """What is kept under ``name``, or None; of any age where none is given."""
        path = self.folder / name
        try:
            with open(path, "rb") as file:
                age_s = self._now() - os.fstat(file.fileno()).st_mtime
                if younger_than_s is not None and not 0 <= age_s < younger_than_s:
                    return None
                data = file.read(MAX_FILE_BYTES + 1)
        except OSError:
            return None
        return data if len(data) <= MAX_FILE_BYTES else None

    def put(self, name: str, data: bytes) -> None:
        """Keep ``data`` under ``name``. Raises ``HostError`` ``kds-write``."""
        write(self.folder / name, data)
        stamp = self._now()
        with contextlib.suppress(OSError):
            os.utime(self.folder / name, (stamp, stamp))

    def take_turn(self) -> None:
        """Return when a request for a chip's certificate may be sent, and note that it is.

        Processes that share the cache take turns. Raises ``HostError`` ``kds-write``.
        """
        path = self.folder / _STAMP
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise HostError(
                "kds-write", f"cannot be written: {error.strerror}", where=str(path)
            ) from None
        with open(descriptor, "r+b") as file:
            # Held while waiting, so that others queue up behind.
            fcntl.flock(file, fcntl.LOCK_EX)
            since = self._now() - _time(file.read(32))
            # A stamp from the future is a clock that was set back.
            if 0 <= since < INTERVAL_S:
                wait = INTERVAL_S - since
                self._tell(f"waiting {wait:.0f} s: one such request in {INTERVAL_S:.0f} s")
                self._pause(wait)
            file.seek(0)
            file.truncate()
            file.write(f"{self._now():.3f}".encode())


def _time(text: bytes) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
