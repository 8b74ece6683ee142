# SPDX-License-Identifier: Apache-2.0
"""One thread for work that may block: a report can take the kernel a minute.

Serves the agent's loop, which hands over work and gets the outcome back on its
own side. Must never run two pieces of work at once, and never swallow an error
nobody foresaw: the agent then ends, and its manager starts it again.
"""

from __future__ import annotations

import _queue
import _thread
import os
from collections import deque

from troth.errors import HostError, TrothError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Work = Callable[[], object]
    Done = Callable[[object], None]


class Worker:
    """``fd`` becomes readable when ``collect`` has something to do."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._tasks: _queue.SimpleQueue[tuple[Work, Done] | None] = _queue.SimpleQueue()
        self._ended: deque[tuple[Done, object]] = deque()
        self._dead = False
        self._pending = 0
        _thread.start_new_thread(self._run, ())

    @property
    def pending(self) -> int:
        """Pieces of work handed over and not collected yet."""
        return self._pending

    def submit(self, work: Work, done: Done) -> None:
        """Run ``work`` when its turn comes; ``done`` gets its result or its TrothError."""
        self._pending += 1
        self._tasks.put((work, done))

    def collect(self) -> None:
        """Call ``done`` of all that has ended: in the loop's thread, when ``fd`` is readable."""
        os.eventfd_read(self.fd)
        while self._ended:
            done, outcome = self._ended.popleft()
            self._pending -= 1
            done(outcome)
        if self._dead:
            raise RuntimeError("the worker met an error that nobody foresaw")

    def stop(self) -> None:
        """Let the thread end after the work it is at; it then closes ``fd``. Nobody waits."""
        self._tasks.put(None)

    def _run(self) -> None:
        foreseen = False
        try:
            while (task := self._tasks.get()) is not None:
                work, done = task
                outcome: object
                try:
                    outcome = work()
                except TrothError as error:
                    outcome = error
                except OSError as error:
                    outcome = HostError("agent-io", f"{error.strerror or error}")
                self._ended.append((done, outcome))
                os.eventfd_write(self.fd, 1)
            foreseen = True
        finally:
            if foreseen:
                os.close(self.fd)
            else:
                self._dead = True
                os.eventfd_write(self.fd, 1)
