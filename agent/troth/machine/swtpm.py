# SPDX-License-Identifier: Apache-2.0
"""A software TPM beside the guest: started, proved ready, ended in order.

Serves ``machine.runner``. Speaks swtpm's control channel (swtpm_ioctls(3),
big endian, over a unix socket). Must never end a process it did not start,
and never leave one behind.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import time
from typing import TYPE_CHECKING

from troth.errors import HostError, MachineError
from troth.machine import process

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = "swtpm"
_CMD_GET_CAPABILITY = 1
_CMD_SHUTDOWN = 3
_CMD_SET_DATAFD = 16
_READY_TIMEOUT_S = 10.0
_REPLY_TIMEOUT_S = 2.0
#: TPM2_Shutdown(TPM_SU_CLEAR): tag no-sessions, 12 bytes, command 0x145 (TPM 2.0 part 3, 9.4).
_TPM2_SHUTDOWN_CLEAR = struct.pack(">HIIH", 0x8001, 12, 0x145, 0)


def command(state: Path, control_socket: Path) -> tuple[str, ...]:
    """The words that start swtpm with its state in ``state``."""
    words = (PROGRAM, "socket", "--tpm2", "--tpmstate", f"dir={state}")
    return (*words, "--ctrl", f"type=unixio,path={control_socket}", "--flags", "startup-clear")


class Swtpm:
    """A running swtpm; ``close`` ends it whatever happened before."""

    def __init__(self, state: Path, control_socket: Path) -> None:
        """Start it and wait until it answers.

        Raises ``HostError`` ``swtpm-missing``, ``MachineError`` ``swtpm-failed``.
        """
        for path in (state, control_socket):
            if "," in str(path):
                raise HostError(
                    "swtpm-path", "swtpm takes no path with a comma", where=str(path),
                    hint="set TMPDIR, or give --tpm-state, without one",
                )  # fmt: skip
        self._socket = control_socket
        self._log = control_socket.with_suffix(".log")
        with self._log.open("wb") as log:
            try:
                self._process = process.start(
                    command(state, control_socket), stdout=log, stderr=subprocess.STDOUT
                )
            except FileNotFoundError:
                raise HostError(
                    "swtpm-missing",
                    "a vTPM needs swtpm, which is not installed",
                    hint="sudo apt-get install swtpm, or run with --no-tpm",
                ) from None
        try:
            self._wait_ready()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The process id, for tests that take the TPM away."""
        return self._process.pid

    def _wait_ready(self) -> None:
        deadline_s = time.monotonic() + _READY_TIMEOUT_S
        while time.monotonic() < deadline_s:
            if self._process.poll() is not None:
                break
            with contextlib.suppress(OSError), self._connect() as control:
                if self._ask(control, _CMD_GET_CAPABILITY, reply_bytes=8):
                    return
            time.sleep(0.02)
        said = process.last_line(self._log.read_bytes())
        raise MachineError("swtpm-failed", f"swtpm did not start: {said or 'it said nothing'}")

    def _connect(self) -> socket.socket:
        control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            control.settimeout(_REPLY_TIMEOUT_S)
            control.connect(str(self._socket))
        except OSError:
            control.close()
            raise
        return control

    @staticmethod
    def _ask(
        control: socket.socket, number: int, *, reply_bytes: int, descriptor: int | None = None
    ) -> bytes:
        request = struct.pack(">I", number)
        if descriptor is None:
            control.sendall(request)
        else:
            socket.send_fds(control, [request], [descriptor])
        return control.recv(reply_bytes)

    def close(self) -> None:
        """End it.

        QEMU ends swtpm itself when it ends in order. Where it was killed, the
        TPM is first told to shut down: objects under dictionary-attack
        protection count a power cut as a failed try, and with a kept state
        three killed guests would lock it.
        """
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=0.1)
        if self._process.poll() is None:
            with contextlib.suppress(OSError), self._connect() as control:
                self._shut_down(control)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=1.0)
        process.end(self._process)

    def _shut_down(self, control: socket.socket) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.settimeout(_REPLY_TIMEOUT_S)
            if self._ask(
                control, _CMD_SET_DATAFD, reply_bytes=4, descriptor=theirs.fileno()
            ) == bytes(4):
                ours.sendall(_TPM2_SHUTDOWN_CLEAR)
                ours.recv(64)
        self._ask(control, _CMD_SHUTDOWN, reply_bytes=4)
