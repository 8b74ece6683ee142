# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: the GUID partition table, with the checksums repaired so that mutants get past."""

import binascii

from troth.abi import gpt
from troth.errors import FormatError


def fuzz(data: bytes) -> None:
    for candidate in (data, repaired(data)):
        for block_bytes in (None, 512, 4096):
            try:
                gpt.parse(candidate, disk_blocks=1 << 20, block_bytes=block_bytes)
            except FormatError:
                continue


def repaired(data: bytes) -> bytes:
    """``data`` with a signature and checksums that hold, as a table of 512-byte blocks."""
    disk = bytearray(data.ljust(1024, b"\0"))
    disk[512:520] = b"EFI PART"
    header_bytes = min(int.from_bytes(disk[524:528], "little"), 512)
    start = int.from_bytes(disk[584:592], "little") * 512
    count, size = (int.from_bytes(disk[at : at + 4], "little") for at in (592, 596))
    if start < len(disk):
        table = binascii.crc32(disk[start : start + min(count * size, 1 << 20)])
        disk[600:604] = table.to_bytes(4, "little")
    disk[528:532] = bytes(4)
    disk[528:532] = binascii.crc32(disk[512 : 512 + header_bytes]).to_bytes(4, "little")
    return bytes(disk)
