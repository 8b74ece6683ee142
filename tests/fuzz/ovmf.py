# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: OVMF's table and SEV metadata, with the footer repaired so that mutants get past."""

from made_firmware import SVSM, firmware, with_table
from troth.abi import ovmf
from troth.errors import FormatError
from troth.image import firmware as firmware_file


def seed(made: bytes) -> bytes:
    """The size of the table, and what stands before the footer."""
    return made[-50:-48] + made[-400:-50]


SEEDS = [seed(firmware(4096)), seed(firmware(4096, sections=SVSM, gap=0))]


def fuzz(data: bytes) -> None:
    size, data = int.from_bytes(data[:2], "little"), data[2:8000]
    for table_bytes in (size, len(data) + 18):
        tail = with_table(data, size=table_bytes).rjust(8192, b"\0")
        for candidate in (tail, data[-8192:].rjust(8192, b"\0")):
            try:
                found = ovmf.parse(candidate, footer_required=False)
            except FormatError as error:
                if not error.code.startswith("firmware-"):
                    raise
                continue
            check(found, candidate)


def check(found: ovmf.Firmware, data: bytes) -> None:
    """What callers rely on: bounded work, and facts that are in the file."""
    if sum(section.pages for section in found.sections) > 1 << 20:
        raise RuntimeError("more pages than there are below 4 GiB")
    if any(entry.data not in data for entry in found.entries):
        raise RuntimeError("an entry that is not in the file")
    if len(firmware_file.uses(found)) != 4:
        raise RuntimeError("a use is missing")
