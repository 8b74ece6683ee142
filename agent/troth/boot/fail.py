# SPDX-License-Identifier: Apache-2.0
"""The end of a refused boot: say it, measure it, switch off.

Everything here must work with half a system: no mounts, no log, no TPM. It is
imported before the first stage so that it needs nothing from disk when called.
"""

from __future__ import annotations

import _thread
import time

from troth.documents import event_log
from troth.errors import TrothError
from troth.linux import kmsg, power

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from troth.boot.state import State

#: How long drivers may take to shut down before the machine is stopped past them.
_SHUTDOWN_S = 8.0
_once = _thread.allocate_lock()


class Deadline:
    """A thread that refuses the boot when it has taken too long.

    A thread because a hostile disk can hold PID 1 inside a read that no signal
    interrupts; foreign calls and reads release the interpreter's lock, so this
    thread runs even then.
    """

    def __init__(self, state: State) -> None:
        self._done = _thread.allocate_lock()
        self._done.acquire()
        self._state = state
        _thread.start_new_thread(self._watch, ())

    def _watch(self) -> None:
        left_ns = self._state.deadline_ns - time.monotonic_ns()
        if self._done.acquire(timeout=max(0, left_ns) / 1e9):
            return
        limit_s = self._state.policy.fail.deadline_s
        refuse(self._state, "deadline", f"the boot took longer than {limit_s} seconds")

    def cancel(self) -> None:
        """The boot is over in time."""
        self._done.release()


def refuse(state: State, code: str, sentence: str) -> NoReturn:
    """End this boot. The last console line is ``troth: refused <code>: <sentence>``."""
    if not _once.acquire(blocking=False):
        # Another thread is already ending the machine.
        while True:
            time.sleep(1)
    state.say(f"troth: stage {state.stage} failed {code}")
    lost = _measure(state, code)
    if lost:
        state.say(f"troth: the refusal could not be measured: {lost}")
    try:
        kmsg.last_line(f"troth: refused {code}: {sentence}")
    except OSError:
        # No console to speak to; the log line above and the power-off remain.
        state.say(f"troth: refused {code}: {sentence}")
    end((getattr(state, "policy", None) and state.policy.fail.action) or "poweroff")


def _measure(state: State, code: str) -> str:
    """Extend ``refused`` and the caps; the reason where that was not possible."""
    try:
        if state.log is None:
            # Before stage tee: the refusal alone is then the log of this boot.
            from troth.boot import vtpm

            vtpm.open_log(state)
        state.events.measure(event_log.REFUSED, f"refused:{code}".encode())
        seal(state)
    except (TrothError, OSError) as error:
        return str(error)
    return ""


def seal(state: State) -> None:
    """``leave-initrd`` and the caps, in every bank, read back (SECURITY S25)."""
    state.events.measure(event_log.PHASE, event_log.LEAVE_INITRD)
    for pcr in event_log.CAPPED_PCRS:
        state.events.measure(event_log.CAP, event_log.CAP_CONTENT, pcr_index=pcr)
    state.events.confirm()


def end(action: str) -> NoReturn:
    """Power off, reboot or halt, past drivers that hang. Never returns."""
    if action != "halt":
        _thread.start_new_thread(_force_later, ())
    try:
        power.end(action)
    except OSError as error:
        raise SystemExit(f"troth: cannot {action}: {error}") from error
    # The kernel keeps PID 1 running while devices shut down.
    while True:
        time.sleep(1)


def _force_later() -> None:
    time.sleep(_SHUTDOWN_S)
    power.force()
