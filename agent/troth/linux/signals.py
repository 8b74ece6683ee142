# SPDX-License-Identifier: Apache-2.0
"""Signals of PID 1, without the ``signal`` package, which imports ``enum`` to name them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable
else:
    import _signal

HUP, INT, TERM, KILL, CHLD, PWR = 1, 2, 15, 9, 17, 30  # asm-generic/signal.h, signal(7)
ALL = _signal.valid_signals()


def block_all() -> None:
    """From here on signals wait until somebody asks for them."""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, ALL)


def restore_defaults() -> None:
    """What a program expects to start with: nothing blocked, nothing ignored.

    Python itself ignores SIGPIPE and SIGXFSZ, and ignoring is inherited.
    """
    _signal.signal(_signal.SIGPIPE, _signal.SIG_DFL)
    _signal.signal(_signal.SIGXFSZ, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def wait(timeout_s: float | None) -> int:
    """The next pending signal's number, 0 after ``timeout_s`` without one."""
    if timeout_s is None:
        return int(_signal.sigwaitinfo(ALL).si_signo)
    found = _signal.sigtimedwait(ALL, max(0.0, timeout_s))
    return 0 if found is None else int(found.si_signo)


def catch(numbers: tuple[int, ...], call: Callable[[int], None]) -> None:
    """Call ``call`` with the number of each of ``numbers`` that comes, in the main thread."""
    for number in numbers:
        _signal.signal(number, lambda found, _frame: call(found))
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, numbers)
