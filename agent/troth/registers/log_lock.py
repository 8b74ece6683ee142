# SPDX-License-Identifier: Apache-2.0
"""The lock under which the agent adds to the event log, and makes evidence of it.

Serves ``registers.runtime`` and ``attest.evidence``. The log itself is there for
everybody to read, and whoever may read a file may lock it, for ever; so the lock
is a file of its own, which only its owner may open. Each lock has a descriptor of
its own, so that it keeps out other threads too. Must never wait without end.

Source: flock(2); docs/formats.md, "Event log"; SECURITY S28.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time

from troth.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

FILE_NAME = "event-log.lock"
TIMEOUT_S = 5.0
_POLL_S = 0.02


class LogLock:
    """Held in a ``with`` block; ``path``: the lock's own file, made where it is not there."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1

    def __enter__(self) -> Self:
        """Raises ``HostError`` ``log-busy``; ``OSError`` where there can be no such file."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self._path, flags, 0o600)
        try:
            self._wait()
        except BaseException:
            os.close(self._fd)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def _wait(self) -> None:
        deadline_s = time.monotonic() + TIMEOUT_S
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno != errno.EWOULDBLOCK:
                    raise
            else:
                return
            if time.monotonic() > deadline_s:
                raise HostError(
                    "log-busy", "another process keeps the log locked", where=self._path
                )
            time.sleep(_POLL_S)
