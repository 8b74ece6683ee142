# SPDX-License-Identifier: Apache-2.0
"""Runs of measured pages, and lines about what was not measured; both stay small.

Serves ``measure.igvm``: a hostile file alternates kinds of pages millions of
times, so a run takes 16 bytes and lines about pages end at a limit.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from typing import TYPE_CHECKING

from troth.record import record

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE_BYTES = 4096
MAX_LINES = 1000
"""Lines about inputs that are not measured; a count of the rest follows them."""

KINDS = ("Normal", "Unmeasured", "Zero", "Secrets", "Cpuid", "VMSA")
"""Kinds of pages, as igvmmeasure prints them."""

_SHIFT = 8


def count(pages: int) -> str:
    """``1 page`` or ``7 pages``."""
    return "1 page" if pages == 1 else f"{pages} pages"


@record
class Run:
    """``pages`` pages of one ``kind`` from ``gpa`` on, measured one after the other."""

    kind: str
    gpa: int
    pages: int


class Runs:
    """All runs in the order of measuring: iterate, or ask for the length."""

    def __init__(self) -> None:
        self._gpas: array[int] = array("Q")
        self._pages: array[int] = array("Q")  # number of pages, then the kind in 8 bits

    def add(self, kind: str, gpa: int, pages: int) -> None:
        """Further pages; they join the last run where they are its kind and follow it."""
        number = KINDS.index(kind)
        if self._pages:
            last = self._pages[-1]
            if last & 0xFF == number and self._gpas[-1] + (last >> _SHIFT) * PAGE_BYTES == gpa:
                self._pages[-1] = last + (pages << _SHIFT)
                return
        self._gpas.append(gpa)
        self._pages.append(pages << _SHIFT | number)

    def __len__(self) -> int:
        return len(self._gpas)

    def __iter__(self) -> Iterator[Run]:
        for gpa, packed in zip(self._gpas, self._pages, strict=True):
            yield Run(KINDS[packed & 0xFF], gpa, packed >> _SHIFT)

    def pages_of(self) -> dict[str, int]:
        """Kind -> number of its pages, for the kinds there are."""
        found = dict.fromkeys(KINDS, 0)
        for run in self:
            found[run.kind] += run.pages
        return {kind: pages for kind, pages in found.items() if pages}


class Memory:
    """Memory that a file demands, to find what no measured page fills."""

    def __init__(self) -> None:
        self._areas: list[tuple[int, int]] = []

    def add(self, gpa: int, pages: int) -> None:
        """``pages`` pages from ``gpa`` on must be there; areas may overlap."""
        self._areas.append((gpa, gpa + pages * PAGE_BYTES))

    def unfilled(self, runs: Runs) -> Iterator[tuple[int, int, int]]:
        """Address, pages, and pages that ``runs`` leave out, of each area that has any.

        Areas side by side count as one. No page stands twice in ``runs``.
        """
        starts, ends = _joined(self._areas)
        left = [end - start for start, end in zip(starts, ends, strict=True)]
        for run in runs if starts else ():
            end = run.gpa + run.pages * PAGE_BYTES
            # From the last area that begins before the run to the last that begins in it.
            for index in range(max(0, bisect_right(starts, run.gpa) - 1), len(starts)):
                if starts[index] >= end:
                    break
                left[index] -= max(0, min(end, ends[index]) - max(run.gpa, starts[index]))
        for start, end, size_bytes in zip(starts, ends, left, strict=True):
            if size_bytes:
                yield start, (end - start) // PAGE_BYTES, size_bytes // PAGE_BYTES


def _joined(areas: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    starts: list[int] = []
    ends: list[int] = []
    for start, end in sorted(areas):
        if ends and start <= ends[-1]:
            ends[-1] = max(end, ends[-1])
        else:
            starts.append(start)
            ends.append(end)
    return starts, ends


class Notes:
    """Lines about inputs that the digest does not cover."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._left_out = 0
        self._what = ""
        self._gpa = 0
        self._pages = 0

    def line(self, text: str) -> None:
        """One line."""
        self._close()
        self._add(text)

    def pages(self, what: str, gpa: int, pages: int) -> None:
        """``pages`` pages of ``what``; pages side by side share a line."""
        if what == self._what and gpa == self._gpa + self._pages * PAGE_BYTES:
            self._pages += pages
            return
        self._close()
        self._what, self._gpa, self._pages = what, gpa, pages

    def lines(self) -> tuple[str, ...]:
        """All lines."""
        self._close()
        if self._left_out:
            return (*self._lines, f"{self._left_out} further inputs, not listed")
        return tuple(self._lines)

    def _close(self) -> None:
        if self._what:
            self._add(f"{self._what}: {count(self._pages)} at {self._gpa:#x}")
            self._what = ""

    def _add(self, text: str) -> None:
        if len(self._lines) < MAX_LINES:
            self._lines.append(text)
        else:
            self._left_out += 1
