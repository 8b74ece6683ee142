# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: the dm-verity superblock."""

from troth.abi import verity_sb
from troth.errors import FormatError
from troth.measure.verity_geometry import geometry


def fuzz(data: bytes) -> None:
    try:
        superblock = verity_sb.parse(data)
    except FormatError:
        return
    if verity_sb.pack(superblock) != data[: verity_sb.SIZE_BYTES]:
        raise AssertionError("a parsed superblock does not pack to its own bytes")
    layout = geometry(
        superblock.data_blocks,
        digest_bytes=verity_sb.DIGEST_BYTES[superblock.algorithm],
        hash_block_bytes=superblock.hash_block_bytes,
        hash_type=superblock.hash_type,
    )
    layout.path(superblock.data_blocks - 1)
