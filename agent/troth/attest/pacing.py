# SPDX-License-Identifier: Apache-2.0
"""Requests to the secure processor: one at a time, and not too often.

Serves ``troth report`` and the agent. Hosts slow down guests that ask more than
about once in two seconds; the kernel then waits up to a minute and afterwards
destroys its key. So callers wait here, where waiting harms nobody. Must never
let two requests be under way at once, in one process or in several.

Time is CLOCK_MONOTONIC, the same for all processes of a machine, and no host
sets it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time

from troth.errors import HostError, ProviderError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")

INTERVAL_S = 2.0
STATE = "/run/troth-report.turn"
"""Locked while a request is under way; holds when the last one ended."""

_POLL_S = 0.05
_STATE_BYTES = 32


class Pacer:
    """Turns for whoever shares the file ``state``: processes, and threads too.

    ``interval_s``: from the end of one request to the beginning of the next;
    ``clock`` and ``sleep``: in seconds, for whoever keeps other time.
    """

    def __init__(
        self,
        state: str = STATE,
        *,
        interval_s: float = INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._state = state
        self._interval_s = interval_s
        self._clock = clock
        self._sleep = sleep

    def run(self, work: Callable[[], T], *, timeout_s: float) -> T:
        """What ``work`` returns, called when it is this caller's turn.

        ``timeout_s`` bounds the waiting, not the work. A turn that cannot come in
        time is refused without waiting for it. Raises ``ProviderError``
        ``provider-busy``, ``HostError`` ``provider-turn``, and what ``work`` raises.
        """
        deadline_s = self._clock() + timeout_s
        fd = self._open()
        try:
            self._lock(fd, deadline_s)
            wait_s = self._wait_s(fd)
            if self._clock() + wait_s > deadline_s:
                raise _busy(wait_s)
            if wait_s > 0:
                self._sleep(wait_s)
            try:
                return work()
            finally:
                # A failed request was a request as well.
                os.pwrite(fd, f"{self._clock():.6f}".ljust(_STATE_BYTES).encode(), 0)
        finally:
            os.close(fd)

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            return os.open(self._state, flags, 0o600)
        except OSError as error:
            raise HostError(
                "provider-turn",
                f"the file that orders requests cannot be opened: {error.strerror}",
                where=self._state,
                hint="only root asks for reports directly",
            ) from None

    def _lock(self, fd: int, deadline_s: float) -> None:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno != errno.EWOULDBLOCK:
                    raise
            else:
                return
            if self._clock() + _POLL_S > deadline_s:
                raise _busy(self._interval_s)
            self._sleep(_POLL_S)

    def _wait_s(self, fd: int) -> float:
        """How long until the next request may begin; a file of nonsense costs one interval."""
        text = os.pread(fd, _STATE_BYTES, 0)
        if not text:
            return 0
        try:
            ended_s = float(text)
        except ValueError:
            return self._interval_s
        since_s = self._clock() - ended_s
        if since_s >= self._interval_s:
            return 0
        # What is no number, and a time to come, is nonsense as well.
        return self._interval_s - since_s if since_s >= 0 else self._interval_s


def _busy(wait_s: float) -> ProviderError:
    return ProviderError(
        "provider-busy",
        "other requests came first, and the time to wait is over",
        hint=f"ask again in {max(1, round(wait_s))} s",
    )
