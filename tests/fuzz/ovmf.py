# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: OVMF's table and SEV metadata, with the footer repaired so that mutants get past."""

from made_firmware import SVSM, firmware, with_table
from troth.abi import ovmf
from troth.errors import FormatError
from troth.image import firmware as firmware_file

SEEDS = [firmware(4096)[-400:-50], firmware(4096, sections=SVSM, gap=0)[-400:-50]]


def fuzz(data: bytes) -> None:
    data = data[-8000:]
    for size in (len(data) + 18, int.from_bytes(data[:2], "little")):
        tail = with_table(data, size=size).rjust(8192, b"\0")
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
