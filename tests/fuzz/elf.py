# SPDX-License-Identifier: Apache-2.0
"""Hostile ELF files: parse and look up a section."""

from troth.abi import elf
from troth.errors import FormatError


def fuzz(data: bytes) -> None:
    for read in (elf.parse, lambda raw: elf.section(raw, ".modinfo")):
        try:
            read(data)
        except FormatError:
            continue
