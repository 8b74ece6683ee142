# SPDX-License-Identifier: Apache-2.0
"""A program started for one run: its own group, ends with us at the latest.

Serves ``machine.swtpm`` and ``machine.runner``. Must never signal anything
but the group it made.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from typing import IO

_TERM_GRACE_S = 2.0


def start(
    words: tuple[str, ...], /, *, stdout: IO[bytes] | int, stderr: IO[bytes] | int
) -> subprocess.Popen[bytes]:
    """Start ``words`` in a process group of its own, with nothing to read.

    In its own group it does not get the terminal's Ctrl-C, so that it is ended
    once and in order. Where util-linux' ``setpriv`` is there, the kernel kills
    the program when this process dies without having ended it.
    Raises ``FileNotFoundError`` where the program is not installed.
    """
    if shutil.which(words[0]) is None:
        raise FileNotFoundError(words[0])
    if setpriv := shutil.which("setpriv"):
        words = (setpriv, "--pdeathsig", "KILL", "--", *words)
    return subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, process_group=0
    )


def end(running: subprocess.Popen[bytes], *, at_once: bool = False) -> None:
    """End the group of ``running``: SIGTERM, two seconds later SIGKILL; reaped at return."""
    if running.poll() is None:
        os.killpg(running.pid, signal.SIGKILL if at_once else signal.SIGTERM)
        try:
            running.wait(timeout=_TERM_GRACE_S)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()


def last_line(data: bytes) -> str:
    """The last line in ``data`` that holds anything, as printable text."""
    lines = [line for line in data.decode(errors="replace").splitlines() if line.strip()]
    return "".join(c for c in lines[-1] if c.isprintable()) if lines else ""
