# SPDX-License-Identifier: Apache-2.0
"""A program of PID 1's own, with few rights, told and heard by two pipes.

Serves the stages that need what PID 1 must not carry: the network, and keys.
A refused boot ends these programs before anything else (``State.workers``).
Must never leave a second PID 1 behind: what fails after the fork ends there.
"""

from __future__ import annotations

import os
import sys

from troth.linux import rights, signals
from troth.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from troth.boot.state import State

_NULL = "/dev/null"


@record
class Process:
    """``pid``; ``tells``: its standard input; ``said``: its standard output."""

    pid: int
    tells: int
    said: int

    def end(self, state: State) -> None:
        """Kill it, whatever it does, and wait: its memory is given back before this returns."""
        os.kill(self.pid, signals.KILL)
        os.waitpid(self.pid, 0)
        state.workers.remove(self.pid)


def start(
    state: State, program: str, *words: str, capabilities: tuple[int, ...], quiet: bool = False
) -> Process:
    """Run ``program``, Python text, with ``words`` as its arguments and ``capabilities`` alone.

    ``quiet``: what it complains of reaches nobody, for a program that holds secrets.
    """
    line = (sys.executable, "-ISB", "-c", program, *words)
    hears, tells = os.pipe()
    said, says = os.pipe()
    pid = os.fork()
    if not pid:
        _become(line, hears, says, capabilities=capabilities, quiet=quiet)
    state.workers.append(pid)
    os.close(hears)
    os.close(says)
    return Process(pid, tells, said)


def _become(
    line: tuple[str, ...], hears: int, says: int, *, capabilities: tuple[int, ...], quiet: bool
) -> NoReturn:
    try:
        os.setsid()
        os.dup2(hears, 0)
        os.dup2(says, 1)
        if quiet:
            os.dup2(os.open(_NULL, os.O_WRONLY | os.O_CLOEXEC), 2)
        rights.bound_capabilities(*capabilities)
        rights.no_new_privileges()
        signals.restore_defaults()
        os.execve(line[0], line, {})
    finally:
        os._exit(1)
