# SPDX-License-Identifier: Apache-2.0
"""Kernel uevents: the signal that a device came, never what to believe about it.

Only the wake-up is used; what a device is gets read from sysfs afterwards.
"""

from __future__ import annotations

import _socket
import select

_NETLINK_KOBJECT_UEVENT = 15
_KERNEL_GROUP = 1


class Uevents:
    """A listening socket. Open it before the first look at sysfs, or an arrival is lost."""

    def __init__(self) -> None:
        self._socket = _socket.socket(
            _socket.AF_NETLINK, _socket.SOCK_DGRAM, _NETLINK_KOBJECT_UEVENT
        )
        self._socket.bind((0, _KERNEL_GROUP))
        self._socket.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._socket.fileno(), select.POLLIN)

    def wait(self, timeout_s: float) -> bool:
        """Whether anything happened within ``timeout_s``; drains what came."""
        if not self._poll.poll(max(0, int(timeout_s * 1000))):
            return False
        try:
            while self._socket.recv(65536):
                pass
        except BlockingIOError:
            pass
        except OSError:
            # ENOBUFS: the queue overflowed. Something happened, which is all that is asked.
            return True
        return True

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
