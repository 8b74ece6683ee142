# SPDX-License-Identifier: Apache-2.0
"""The end of a refused boot: say it, measure it, switch off.

Everything here must work with half a system: no mounts, no log, no TPM. It is
imported before the first stage so that it needs nothing from disk when called.
"""

from __future__ import annotations

import _thread
import os
import time

from troth.documents import event_log
from troth.linux import kmsg, power, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from troth.boot.state import State

#: From the refusal to the end of the machine at the latest: a TPM that does not answer
#: (10 s), a console that nobody reads (2 s), drivers that hang in their shutdown.
_FORCE_S = 20.0
#: What the console shows instead of a sentence that would tell the host something.
_VEIL = "the details stay in the guest"
#: Held by whoever ends the machine, and never given back.
_ending = _thread.allocate_lock()


class Deadline:
    """A thread that refuses the boot when it has taken too long.

    A thread because a hostile disk can hold PID 1 inside a read that no signal
    interrupts; foreign calls and reads release the interpreter's lock, so this
    thread runs even then.
    """

    def __init__(self, state: State) -> None:
        self._done = _thread.allocate_lock()
        self._done.acquire()
        self._over = False
        self._state = state
        _thread.start_new_thread(self._watch, ())

    def _watch(self) -> None:
        left_ns = self._state.deadline_ns - time.monotonic_ns()
        if self._done.acquire(timeout=max(0, left_ns) / 1e9):
            return
        if not _ending.acquire(blocking=False):
            return
        if self._over:
            # Cancelled between the time-out above and this line.
            _ending.release()
            return
        limit_s = self._state.policy.fail.deadline_s
        _end_boot(self._state, "deadline", f"the boot took longer than {limit_s} seconds")

    def cancel(self) -> None:
        """The boot is over in time. Never returns where the deadline was faster."""
        if not _ending.acquire(blocking=False):
            _sleep_for_ever()
        self._over = True
        _ending.release()
        self._done.release()


def stay_if_ending() -> None:
    """Stop the caller for good where another thread is ending the machine."""
    if _ending.locked():
        _sleep_for_ever()


def refuse(state: State, code: str, sentence: str, *, exact: str = "") -> NoReturn:
    """End this boot. The last console line is ``troth: refused <code>: <sentence>``.

    ``exact``: a code that, with the sentence, is kept from the host unless the policy says
    otherwise (SECURITY S41).
    """
    if not _ending.acquire(blocking=False):
        _sleep_for_ever()
    _end_boot(state, code, sentence, exact)


def _end_boot(state: State, code: str, sentence: str, exact: str = "") -> NoReturn:
    policy = getattr(state, "policy", None)
    action = policy.fail.action if policy is not None else "poweroff"
    if action != "halt":
        _thread.start_new_thread(_force_later, ())
    _end_workers(state)
    failed = code
    if exact and policy is not None and policy.fail.detail == "console":
        failed, sentence = f"{code} {exact}", f"{exact}: {sentence}"
    elif exact:
        sentence = _VEIL
    state.say(f"troth: stage {state.stage} failed {failed}")
    lost = _measure(state, code)
    if lost:
        state.say(f"troth: the refusal could not be measured: {lost}")
    try:
        kmsg.last_line(f"troth: refused {code}: {sentence}")
    except OSError:
        # No console to speak to; the log line above and the power-off remain.
        state.say(f"troth: refused {code}: {sentence}")
    end(action)


def _end_workers(state: State) -> None:
    """Processes that hold keys go first: whatever hangs later, their memory is gone."""
    for pid in state.workers:
        try:
            os.kill(pid, signals.KILL)
        except OSError:
            # It has ended, and nobody has heard of it yet.
            continue


def _measure(state: State, code: str) -> str:
    """Extend ``refused`` and the caps; the reason where that was not possible."""
    if state.sealed:
        return "the registers are capped already"
    if code == "tpm-lost":
        return "the TPM is lost"
    lost = ""
    try:
        if state.log is None:
            # Up to stage tee: the refusal alone is then the log of this boot.
            from troth.boot import vtpm

            lost = vtpm.open_log_to_refuse(state)
        state.events.measure(event_log.REFUSED, f"refused:{code}".encode())
        seal(state)
    except BaseException as error:  # noqa: BLE001 - part of PID 1's last line: it must go on
        return f"{type(error).__name__}: {error}"
    return lost


def seal(state: State) -> None:
    """``leave-initrd`` and the caps, in every bank, read back (SECURITY S25)."""
    state.events.measure(event_log.PHASE, event_log.LEAVE_INITRD)
    for pcr in event_log.CAPPED_PCRS:
        state.events.measure(event_log.CAP, event_log.CAP_CONTENT, pcr_index=pcr)
    state.events.confirm()


def end(action: str) -> NoReturn:
    """Power off, reboot or halt. Never returns."""
    try:
        power.end(action)
    except OSError:
        # The end of PID 1 is a kernel panic, and panic=-1 is on the measured command line.
        os._exit(1)
    # The kernel keeps PID 1 running while devices shut down.
    _sleep_for_ever()


def _force_later() -> None:
    time.sleep(_FORCE_S)
    try:
        power.force()
    except OSError:
        os._exit(1)


def _sleep_for_ever() -> NoReturn:
    while True:
        time.sleep(60)
