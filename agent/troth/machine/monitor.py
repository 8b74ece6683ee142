# SPDX-License-Identifier: Apache-2.0
"""QEMU's own word on how a guest ended (QMP, the SHUTDOWN event).

Serves ``machine.runner``: console text can be forged by the guest, this
cannot. Only listens, apart from the greeting the protocol asks for; must never
control the guest.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_MAX_PENDING_BYTES = 1 << 20
#: QEMU has ended when this is waited for: only a process it left behind could take longer.
_DRAIN_S = 2.0


class Monitor:
    """A connection to QEMU's monitor socket, made when it can be made."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pending = b""
        self.connection: socket.socket | None = None
        #: "guest-shutdown", "guest-reset", "guest-panic", "host-signal", ...; empty: not heard
        self.reason = ""

    def connect(self) -> bool:
        """Try once; whether this call made the connection."""
        if self.connection is not None:
            return False
        candidate = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            candidate.connect(str(self._path))
            candidate.sendall(b'{"execute":"qmp_capabilities"}\n')
        except OSError:
            candidate.close()
            return False
        candidate.setblocking(False)
        self.connection = candidate
        return True

    def read(self) -> bool:
        """Take in what has come; False when the connection has ended."""
        if self.connection is None:
            return False
        try:
            data = self.connection.recv(65536)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._pending += data
        *lines, self._pending = self._pending.split(b"\n")
        for line in lines:
            self._message(line)
        return bool(data) and len(self._pending) <= _MAX_PENDING_BYTES

    def drain(self) -> None:
        """Read to the end of what QEMU said, once it has ended; two seconds at most.

        Its last event, the one that says why, is sent just before it ends: it is
        in the socket then, and not yet read.
        """
        until_s = time.monotonic() + _DRAIN_S
        while self.connection is not None and self.read():
            left_s = until_s - time.monotonic()
            if left_s <= 0 or not select.select([self.connection], [], [], left_s)[0]:
                return

    def _message(self, line: bytes) -> None:
        with contextlib.suppress(ValueError, RecursionError):
            match json.loads(line):
                case {"event": "SHUTDOWN", "data": {"reason": str(reason)}}:
                    self.reason = self.reason or reason

    def close(self) -> None:
        """Close the connection."""
        if self.connection is not None:
            self.connection.close()
