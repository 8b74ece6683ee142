# SPDX-License-Identifier: Apache-2.0
"""Which pages a file places, to find one that is placed twice.

Serves ``rules``. A file of 256 MiB of headers places up to eight million
pages in any order, so this keeps eight bytes a run of pages, never an object.
"""

from __future__ import annotations

import heapq
from array import array

from troth.abi.igvm.headers import PAGE_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_SHIFT = 24
_MAX_RUN_PAGES = (1 << _SHIFT) - 1
_BLOCK = 1 << 16


class Coverage:
    """Runs of pages for each set of platforms."""

    def __init__(self) -> None:
        # A run is its first page's number (40 bits, addresses have 52) and its length (24 bits).
        self._runs: dict[int, array[int]] = {}

    def add(self, mask: int, gpa: int, pages: int) -> None:
        """``pages`` pages from ``gpa`` on are placed on the platforms of ``mask``.

        Addresses are page-aligned and end below 2**52.
        """
        runs = self._runs.get(mask)
        if runs is None:
            runs = self._runs[mask] = array("Q")
        page = gpa // PAGE_BYTES
        if runs:
            first, length = runs[-1] >> _SHIFT, runs[-1] & _MAX_RUN_PAGES
            if first + length == page and length + pages <= _MAX_RUN_PAGES:
                runs[-1] += pages
                return
        while pages:
            taken = min(pages, _MAX_RUN_PAGES)
            runs.append(page << _SHIFT | taken)
            page += taken
            pages -= taken

    def twice(self) -> int | None:
        """The lowest address that is placed twice on one platform."""
        streams = [_ascending(runs, mask) for mask, runs in self._runs.items()]
        ends: dict[int, int] = {}
        bits = {mask: tuple(_bits(mask)) for mask in self._runs}
        for run, mask in heapq.merge(*streams):
            first = run >> _SHIFT
            end = first + (run & _MAX_RUN_PAGES)
            for bit in bits[mask]:
                if ends.get(bit, 0) > first:
                    return first * PAGE_BYTES
                ends[bit] = end
        return None


def _ascending(runs: array[int], mask: int) -> Iterator[tuple[int, int]]:
    # Sorted block by block, so that no list of all runs exists at any time.
    blocks = []
    for start in range(0, len(runs), _BLOCK):
        block = sorted(runs[start : start + _BLOCK])
        runs[start : start + _BLOCK] = array("Q", block)
        blocks.append(_values(runs, start, min(start + _BLOCK, len(runs))))
    return ((run, mask) for run in heapq.merge(*blocks))


def _values(runs: array[int], start: int, end: int) -> Iterator[int]:
    return (runs[index] for index in range(start, end))


def _bits(mask: int) -> Iterator[int]:
    while mask:
        bit = mask & -mask
        yield bit
        mask ^= bit
