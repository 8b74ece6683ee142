# SPDX-License-Identifier: Apache-2.0
"""The kernel's TPM device: which driver, and one command at a time with a deadline.

A host can stop answering for its TPM at any moment. The device is therefore
used non-blocking: the kernel waits in a worker of its own, and poll(2) tells
whether an answer came (drivers/char/tpm/tpm-dev-common.c).
"""

from __future__ import annotations

import os
import select

_CLASS = "/sys/class/tpm"
_RESPONSE_BYTES = 4096


def present() -> tuple[str, ...]:
    """Names of the TPMs the kernel drives, sorted ("tpm0")."""
    try:
        return tuple(sorted(os.listdir(_CLASS)))
    except FileNotFoundError:
        return ()


def driver(name: str) -> str:
    """The driver behind TPM ``name``: "tpm_crb", "tpm_tis", "tpm-svsm", ..."""
    try:
        return os.path.basename(os.readlink(f"{_CLASS}/{name}/device/driver"))
    except OSError:
        return ""


class TpmDevice:
    """An open TPM node. ``TimeoutError`` and ``OSError`` mean that the TPM is lost."""

    def __init__(self, node: str, *, timeout_s: float) -> None:
        self._fd = os.open(node, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)
        self._timeout_ms = int(timeout_s * 1000)

    def transmit(self, command: bytes) -> bytes:
        """Send ``command`` and return the whole answer, at most 4096 bytes."""
        os.write(self._fd, command)
        if not self._poll.poll(self._timeout_ms):
            raise TimeoutError(f"the TPM did not answer within {self._timeout_ms} ms")
        return os.read(self._fd, _RESPONSE_BYTES)

    def close(self) -> None:
        """Close the node."""
        os.close(self._fd)
