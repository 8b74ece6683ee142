# SPDX-License-Identifier: Apache-2.0
"""Lines for the operator: the kernel log, and the console itself for the last one.

The console belongs to the host: nothing secret is ever passed here.
"""

from __future__ import annotations

import fcntl
import os

#: syslog facility daemon (3), severity notice (5): /dev/kmsg takes facility * 8 + severity.
_NOTICE = b"<29>"
#: With argument 1 it is tcdrain(3), without loading termios (tty_ioctl(4)).
_TCSBRK = 0x5409
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


def last_line(text: str) -> None:
    """Write ``text`` to /dev/console and wait until it has left the machine."""
    fd = os.open("/dev/console", os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        os.write(fd, b"\r\n" + clean(text) + b"\r\n")
        fcntl.ioctl(fd, _TCSBRK, 1)
    finally:
        os.close(fd)
