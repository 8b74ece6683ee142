# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: the superblock of dm-integrity."""

from __future__ import annotations

import struct

from troth.abi import integrity_sb
from troth.errors import FormatError

SEEDS = [
    struct.pack("<8sBbHIQIBB2sQ", b"integrt\0", 4, 15, tag, 1, 62704, 8, 3, 12, b"\0\0", 0).ljust(
        512, b"\0"
    )
    for tag in (28, 32)
]


def fuzz(data: bytes) -> None:
    try:
        found = integrity_sb.parse(data)
    except FormatError:
        return
    if not 512 <= found.block_bytes <= 4096 or not 0 < found.tag_bytes <= 4096:
        raise AssertionError("a geometry that dm-integrity does not make")
    if not 1 <= found.interleave_sectors <= 1 << 31 or found.provided_sectors < 1:
        raise AssertionError("a geometry that dm-integrity does not make")
