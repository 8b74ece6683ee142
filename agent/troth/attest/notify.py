# SPDX-License-Identifier: Apache-2.0
"""Words to the service manager: ready, alive, stopping.

Serves the agent under systemd; elsewhere there is nobody to tell and nothing
happens. Must never fail an agent because its manager does not listen.

Source: sd_notify(3), sd_watchdog_enabled(3).
"""

from __future__ import annotations

import os
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

READY, STOPPING, ALIVE = "READY=1", "STOPPING=1", "WATCHDOG=1"


class Manager:
    """Whoever the environment names; ``watchdog_s`` is 0 where it expects no sign of life."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        if address.startswith("@"):
            address = "\0" + address[1:]
        self._address = address if address[:1] in ("/", "\0") else ""
        self.watchdog_s = _watchdog_s(environ) if self._address else 0.0

    def say(self, *words: str) -> None:
        """Send ``words``, one a line."""
        if not self._address:
            return
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        with socket.socket(socket.AF_UNIX, kind) as sender:
            try:
                sender.sendto("\n".join(words).encode(), self._address)
            except OSError:
                # Gone, or full: the next sign of life may get through.
                return


def _watchdog_s(environ: Mapping[str, str]) -> float:
    limit, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not limit.isdecimal() or len(limit) > 18 or pid not in ("", str(os.getpid())):
        return 0.0
    return int(limit) / 1_000_000
