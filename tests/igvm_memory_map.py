# SPDX-License-Identifier: Apache-2.0
"""The memory map (e820) that an IGVM image gives to Linux, and who lies where in memory.

Shares nothing with ``troth.abi``: written from ``struct boot_params``
(arch/x86/include/uapi/asm/bootparam.h) and what Linux does before it has an allocator.
"""

from __future__ import annotations

import bisect
import itertools
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from igvm_given import MIB, ROMS
from igvm_image import PAGE, ZERO

if TYPE_CHECKING:
    from igvm_given import Given
    from igvm_image import Image

#: Types of memory; rows of a table are start, end, type.
RAM, RESERVED, ACPI, NVS = 1, 2, 3, 4
Table = list[tuple[int, int, int]]


@dataclass
class Claims:
    """Who lies where; ``rows``: start, end, name."""

    rows: list[tuple[int, int, str]] = field(default_factory=list)

    def add(self, name: str, start: int, size: int) -> None:
        self.rows.append((start, start + size, name))

    def overlaps(self) -> list[str]:
        rows = sorted(self.rows)
        return [
            f"{first[2]} and {second[2]} overlap at {second[0]:#x}"
            for first, second in itertools.pairwise(rows)
            if second[0] < first[1]
        ]


def between(gpas: list[int], start: int, end: int) -> int:
    """How many of the sorted ``gpas`` lie from ``start`` to before ``end``."""
    return bisect.bisect_left(gpas, end) - bisect.bisect_left(gpas, start)


def read_table(params: bytes, found: list[str]) -> Table:
    """The table in ``boot_params``, with complaints about its form."""
    table = [struct.unpack_from("<QQI", params, 0x2D0 + 20 * row) for row in range(params[0x1E8])]
    ends = 0
    if not 0 < len(table) <= 128:
        found.append(f"memory map: {len(table)} entries")
    for start, size, kind in table:
        if start < ends or not size:
            found.append(f"memory map: entry at {start:#x} overlaps, is empty or out of order")
        if kind not in (RAM, RESERVED, ACPI, NVS):
            found.append(f"memory map: type {kind} at {start:#x}")
        ends = start + size
    return [(start, start + size, kind) for start, size, kind in table]


def kinds(table: Table, start: int, end: int) -> set[int]:
    """Types of the entries that cover all of a range; 0 for what no entry covers."""
    found, at = set(), start
    for first, last, kind in table:
        if first <= at < last and at < end:
            found.add(kind)
            at = last
    return found if at >= end else found | {0}


def check(image: Image, given: Given, table: Table, found: list[str]) -> None:
    """Add to ``found`` where the table, the pages and the machine do not fit."""
    gpas = sorted((*image.pages, *image.cpuid, *image.secrets))
    if sum(between(gpas, start, end) for start, end, _ in table) != len(gpas):
        found.append("memory map: it does not tell of all pages in the file")
    offered = 0
    for start, end, kind in table:
        if kind != RAM:
            continue
        offered += end - start
        if start < MIB and end > 0xA0000:
            found.append("memory map: RAM between 640 KiB and 1 MiB")
        if start % PAGE or end % PAGE:
            found.append(f"memory map: RAM {start:#x}-{end:#x} is not whole pages")
        elif not any(first <= start and end <= last for first, last in given.machine):
            found.append(f"memory map: RAM {start:#x}-{end:#x} beyond the machine's")
        elif between(gpas, start, end) != (end - start) // PAGE:
            absent = next(gpa for gpa in range(start, end, PAGE) if gpa not in image.pages)
            found.append(f"memory map: RAM page {absent:#x} is not in the file")
    # All that the machine has but what is kept from the kernel: a few pages.
    kept = sum(end - start for start, end in given.machine) - offered
    if kept > 1 << 20:
        found.append(f"memory map: {kept:#x} bytes of memory are not offered")
    for start, end, kind in table:
        if kind != RAM and end - start > 1 << 20:
            found.append(f"memory map: {end - start:#x} bytes are kept back")
    if not any(
        kind == RAM and start < 0x90000 and min(end, 0xA0000) - start >= 0x10000
        for start, end, kind in table
    ):
        found.append("memory map: no RAM below 640 KiB for the trampolines of the processors")
    # drivers/firmware/iscsi_ibft_find.c reads all of the ROM area where EFI has not started Linux.
    roms = {image.pages.get(gpa) for gpa in range(ROMS, MIB, PAGE)}
    if roms != {ZERO} or kinds(table, ROMS, MIB) != {RESERVED}:
        found.append("memory map: the ROM area is not empty memory, or not reserved")
    if 1 in {kind for gpa in (*image.cpuid, *image.secrets) for kind in
             kinds(table, gpa, gpa + PAGE)}:  # fmt: skip
        found.append("memory map: the CPUID or the secrets page is called RAM")
