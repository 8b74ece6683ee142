# SPDX-License-Identifier: Apache-2.0
"""Progress for people: timed nested steps, and one updating line on a terminal.

Serves ``troth build`` and ``troth verity``. Writes to standard error, so that
standard output stays a verb's answer. On anything but a terminal it prints one
line a step and no control characters.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TextIO

_REDRAW_S = 0.1


class Terminal:
    """Where progress goes; ``stream`` is standard error unless given."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._live = self._stream.isatty()
        self._depth = 0
        self._drawn = False
        self._redraw_after_s = 0.0

    @contextlib.contextmanager
    def step(self, text: str) -> Iterator[None]:
        """A named piece of work; prints its name with its time when it has ended.

        Steps may nest; a step that raised is printed as failed.
        """
        began_s = time.monotonic()
        if self._live:
            self._draw(text)
        self._depth += 1
        ended = "failed after "
        try:
            yield
            ended = ""
        finally:
            self._depth -= 1
            self.line(f"{text}: {ended}{_elapsed(time.monotonic() - began_s)}")

    def line(self, text: str) -> None:
        """One line that stays, indented as deep as the steps around it."""
        self._clear()
        self._stream.write(f"{'  ' * self._depth}{_printable(text)}\n")
        self._stream.flush()

    def bar(self, text: str) -> Callable[[int, int], None]:
        """A function to be called with bytes done and bytes in all; silent elsewhere."""

        def update(done_bytes: int, total_bytes: int) -> None:
            now_s = time.monotonic()
            if self._live and (now_s >= self._redraw_after_s or done_bytes >= total_bytes):
                self._redraw_after_s = now_s + _REDRAW_S
                percent = 100 * done_bytes // total_bytes if total_bytes else 100
                sizes = f"{done_bytes / 1e6:.0f} of {total_bytes / 1e6:.0f} MB"
                self._draw(f"{text}: {percent:3d} %  {sizes}")

        return update

    @contextlib.contextmanager
    def passing_bar(self, text: str) -> Iterator[Callable[[int, int], None]]:
        """As ``bar``, for work that is a verb's all: nothing of it stays."""
        try:
            yield self.bar(text)
        finally:
            self._clear()
            self._stream.flush()

    def _draw(self, text: str) -> None:
        columns = shutil.get_terminal_size().columns
        shown = f"{'  ' * self._depth}{_printable(text)}"[: columns - 1]
        self._stream.write(f"\r\x1b[K{shown}")
        self._stream.flush()
        self._drawn = True

    def _clear(self) -> None:
        if self._drawn:
            self._stream.write("\r\x1b[K")
            self._drawn = False


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "�" for c in text)


def _elapsed(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"
