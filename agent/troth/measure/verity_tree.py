# SPDX-License-Identifier: Apache-2.0
"""The hashing of a dm-verity tree, over buffers.

Serves the image builder and the verifying command line. Pure sums: it must
never open a file; ``troth.image.hashing.verity_image`` brings the bytes.

Source: Linux, ``Documentation/admin-guide/device-mapper/verity.rst``;
cryptsetup, ``lib/verity/verity_hash.c``.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from troth.abi.verity_sb import DIGEST_BYTES, MAX_SALT_BYTES
from troth.errors import FormatError
from troth.measure.verity_geometry import geometry
from troth.record import record

if TYPE_CHECKING:
    from troth.measure.verity_geometry import Geometry

    Buffer = bytes | bytearray | memoryview


class TreeHash:
    """How one tree hashes its blocks.

    ``algorithm``: a key of ``troth.abi.verity_sb.DIGEST_BYTES``; ``salt``: 0
    to 256 bytes; ``hash_type``: 1 hashes the salt before the block, 0 after it.
    Raises ``FormatError`` ``verity-tree-parameters``.
    """

    def __init__(self, algorithm: str = "sha256", *, salt: bytes = b"", hash_type: int = 1) -> None:
        if algorithm not in DIGEST_BYTES or len(salt) > MAX_SALT_BYTES or hash_type not in (0, 1):
            raise FormatError(
                "verity-tree-parameters",
                f"no verity tree of type {hash_type} uses {algorithm!r}"
                f" with a salt of {len(salt)} bytes",
            )
        self.digest_bytes = DIGEST_BYTES[algorithm]
        self.hash_type = hash_type
        # A copy of the salted state saves hashing the salt, and the name look-up, per block.
        # Trees are integrity, so FIPS mode needs no say about sha1 here.
        self._before = hashlib.new(
            algorithm, salt if hash_type == 1 else b"", usedforsecurity=False
        )
        self._after = salt if hash_type == 0 else b""

    def digest(self, block: Buffer) -> bytes:
        """The digest of one block."""
        state = self._before.copy()
        state.update(block)
        state.update(self._after)
        return state.digest()

    def digests(self, blocks: memoryview, block_bytes: int) -> list[bytes]:
        """The digest of each block of ``block_bytes`` bytes in ``blocks``, in order."""
        copy = self._before.copy
        after = self._after
        found: list[bytes] = []
        # The loop every byte of an image passes: kept flat, measured in docs/performance.md.
        if after:
            for start in range(0, len(blocks), block_bytes):
                state = copy()
                state.update(blocks[start : start + block_bytes])
                state.update(after)
                found.append(state.digest())
        else:
            for start in range(0, len(blocks), block_bytes):
                state = copy()
                state.update(blocks[start : start + block_bytes])
                found.append(state.digest())
        return found


def hash_block(digests: list[bytes], layout: Geometry) -> bytes:
    """One hash block holding ``digests``, which fit into it, zeros behind each and at the end."""
    gap = bytes(layout.slot_bytes - layout.digest_bytes)
    return gap.join(digests).ljust(layout.hash_block_bytes, b"\0")


@record
class Tree:
    """``root_hash`` and the ``blocks`` of the tree, root level first, as stored."""

    root_hash: bytes
    blocks: bytes


def build(
    data: Buffer,
    *,
    algorithm: str = "sha256",
    salt: bytes = b"",
    hash_type: int = 1,
    data_block_bytes: int = 4096,
    hash_block_bytes: int = 4096,
) -> Tree:
    """The tree over ``data``, a whole number of data blocks, in memory.

    Raises ``FormatError``: ``verity-tree-parameters``, ``verity-geometry``.
    """
    hashing = TreeHash(algorithm, salt=salt, hash_type=hash_type)
    view = memoryview(data).cast("B")
    if data_block_bytes < 1 or len(view) % data_block_bytes:
        raise FormatError(
            "verity-tree-parameters",
            f"{len(view)} bytes are not whole blocks of {data_block_bytes} bytes",
        )
    layout = geometry(
        len(view) // data_block_bytes,
        digest_bytes=hashing.digest_bytes,
        hash_block_bytes=hash_block_bytes,
        hash_type=hash_type,
    )
    per_block = layout.digests_per_block
    levels: list[bytes] = []
    below, block_bytes = view, data_block_bytes
    for _ in layout.levels:
        digests = hashing.digests(below, block_bytes)
        level = b"".join(
            hash_block(digests[at : at + per_block], layout)
            for at in range(0, len(digests), per_block)
        )
        levels.append(level)
        below, block_bytes = memoryview(level), hash_block_bytes
    return Tree(root_hash=hashing.digest(below), blocks=b"".join(reversed(levels)))
