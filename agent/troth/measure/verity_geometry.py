# SPDX-License-Identifier: Apache-2.0
"""Where the blocks of a dm-verity hash tree lie.

Serves the tree builder, and PID 1, which reads the tree path of single data
blocks before the kernel maps the device. Pure sums over baked numbers: it must
never read a file, hash, or import anything beyond the floor.

Blocks of the tree are counted from the start of the tree, which is
``tree_start_block`` hash blocks into the hash device. Levels are stored root
level first; the last level holds the digests of the data.

Source: Linux, ``Documentation/admin-guide/device-mapper/verity.rst``;
cryptsetup, ``lib/verity/verity_hash.c``, ``hash_levels``.
"""

from __future__ import annotations

from troth.errors import FormatError
from troth.record import record


@record
class Level:
    """One level: ``blocks`` hash blocks from ``first_block`` on, holding ``digests`` digests."""

    first_block: int
    blocks: int
    digests: int


@record
class Step:
    """One digest on the way down: in tree block ``block``, ``offset_bytes`` into it."""

    block: int
    offset_bytes: int


@record
class Geometry:
    """The layout of one tree.

    ``slot_bytes``: from one digest to the next; ``digests_per_block``: a power
    of two; ``levels``: root level first, empty for a single data block, whose
    digest is the root hash itself; ``tree_blocks``: hash blocks of all levels.
    """

    data_blocks: int
    digest_bytes: int
    hash_block_bytes: int
    slot_bytes: int
    digests_per_block: int
    levels: tuple[Level, ...]
    tree_blocks: int

    def path(self, data_block: int) -> tuple[Step, ...]:
        """The digests that vouch for ``data_block``, from the top block down to the leaf.

        The first step's block must hash to the root hash, the digest at each
        step is that of the next step's block, the last one that of the data
        block. Raises ``FormatError`` ``verity-geometry`` for a block outside.
        """
        if not 0 <= data_block < self.data_blocks:
            raise FormatError(
                "verity-geometry",
                f"there is no data block {data_block}, only {self.data_blocks} blocks",
            )
        steps: list[Step] = []
        below = data_block
        for level in reversed(self.levels):
            index = below // self.digests_per_block
            slot = below % self.digests_per_block
            steps.append(Step(level.first_block + index, slot * self.slot_bytes))
            below = index
        steps.reverse()
        return tuple(steps)


def geometry(
    data_blocks: int,
    *,
    digest_bytes: int = 32,
    hash_block_bytes: int = 4096,
    hash_type: int = 1,
) -> Geometry:
    """The layout of the tree over ``data_blocks`` data blocks.

    ``digest_bytes``: size of one digest; type 1 pads each digest to a power of
    two, type 0 packs them. Raises ``FormatError`` ``verity-geometry`` where no
    such tree exists.
    """
    if hash_block_bytes < 1 or hash_block_bytes & (hash_block_bytes - 1):
        raise FormatError(
            "verity-geometry", f"hash blocks of {hash_block_bytes} bytes are not a power of two"
        )
    if digest_bytes < 1 or hash_block_bytes < 2 * digest_bytes:
        raise FormatError(
            "verity-geometry",
            f"a block of {hash_block_bytes} bytes does not hold two digests"
            f" of {digest_bytes} bytes",
        )
    if not 1 <= data_blocks < 1 << 64 or hash_type not in (0, 1):
        raise FormatError(
            "verity-geometry", f"no tree of type {hash_type} over {data_blocks} data blocks exists"
        )
    padded_bytes = 1 << (digest_bytes - 1).bit_length()
    bits = (hash_block_bytes // digest_bytes).bit_length() - 1
    per_block = 1 << bits
    sizes: list[tuple[int, int]] = []
    digests = data_blocks
    while digests > 1:
        blocks = (digests + per_block - 1) >> bits
        sizes.append((blocks, digests))
        digests = blocks
    levels: list[Level] = []
    first_block = 0
    for blocks, held in reversed(sizes):
        levels.append(Level(first_block, blocks, held))
        first_block += blocks
    return Geometry(
        data_blocks=data_blocks,
        digest_bytes=digest_bytes,
        hash_block_bytes=hash_block_bytes,
        slot_bytes=padded_bytes if hash_type == 1 else digest_bytes,
        digests_per_block=per_block,
        levels=tuple(levels),
        tree_blocks=first_block,
    )


def tree_start_block(hash_offset_bytes: int, *, superblock: bool, hash_block_bytes: int) -> int:
    """The hash block of the hash device where the tree starts.

    ``hash_offset_bytes``: of the superblock where there is one (a multiple of
    512), else of the tree (a multiple of the block). Raises ``FormatError``
    ``verity-geometry`` for an offset that is not such a multiple.
    """
    step_bytes = 512 if superblock else hash_block_bytes
    if hash_offset_bytes < 0 or hash_offset_bytes % step_bytes:
        raise FormatError(
            "verity-geometry",
            f"the hash offset {hash_offset_bytes} is not a multiple of {step_bytes} bytes",
        )
    end_bytes = hash_offset_bytes + (512 if superblock else 0)
    return (end_bytes + hash_block_bytes - 1) // hash_block_bytes
