# SPDX-License-Identifier: Apache-2.0
"""Lines for the operator: the kernel log, and the console itself for the last one.

The console belongs to the host: nothing secret is ever passed here.
"""

from __future__ import annotations

import fcntl
import os
import time

#: syslog facility daemon (3), severity notice (5): /dev/kmsg takes facility * 8 + severity.
_NOTICE = b"<29>"
_TIOCOUTQ = 0x5411  # bytes not yet sent (ioctl_tty(2))
LINE_BYTES = 900  # printk cuts records near 1 KiB (LOG_LINE_MAX, kernel/printk/printk.c)


def clean(text: str) -> bytes:
    """``text`` as one bounded line of printable ASCII; everything else becomes ``?``."""
    safe = "".join(char if " " <= char <= "~" else "?" for char in text)
    return safe[:LINE_BYTES].encode()


class Kmsg:
    """An open /dev/kmsg. Each write is one record."""

    def __init__(self) -> None:
        self._fd = os.open("/dev/kmsg", os.O_WRONLY | os.O_CLOEXEC)

    def say(self, text: str) -> None:
        """Log ``text``; a full or absent log is not a reason to stop booting."""
        try:
            # Without the newline the kernel keeps the record open for a continuation and
            # prints it only with the next one (kernel/printk/printk.c, LOG_NEWLINE).
            os.write(self._fd, _NOTICE + clean(text) + b"\n")
        except OSError:
            return


def last_line(text: str, *, timeout_s: float = 2.0) -> None:
    """Write ``text`` to /dev/console and wait until it has left, ``timeout_s`` at most.

    Bounded because the host may stop reading: tcdrain(3) would wait for it.
    """
    end = time.monotonic() + timeout_s
    fd = os.open("/dev/console", os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        left = b"\r\n" + clean(text) + b"\r\n"
        while time.monotonic() < end:
            try:
                left = left[os.write(fd, left) :]
            except BlockingIOError:
                time.sleep(0.005)
            waiting = bytearray(4)
            fcntl.ioctl(fd, _TIOCOUTQ, waiting, True)
            if not left and not any(waiting):
                # The queue is empty; the last characters are in the port's own buffer.
                time.sleep(0.02)
                return
            time.sleep(0.005)
    finally:
        os.close(fd)
