# SPDX-License-Identifier: Apache-2.0
"""Verity trees in memory: the shared vectors, and paths through a built tree."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from troth.abi import verity_sb
from troth.abi.verity_sb import Superblock
from troth.errors import FormatError
from troth.measure import verity_tree
from troth.measure.verity_geometry import geometry, tree_start_block

VECTORS = Path(
    os.environ.get("TROTH_VECTORS", Path(__file__).parents[3] / "shared/vectors")
).joinpath("verity/verity.json")


def generated(rule, size):
    if rule == "zero":
        return bytes(size)
    if rule == "counter":
        parts = (index.to_bytes(8, "little") for index in range(-(-size // 8)))
    elif rule == "sha256ctr":
        parts = (
            hashlib.sha256(index.to_bytes(8, "little")).digest() for index in range(-(-size // 32))
        )
    else:
        raise ValueError(rule)
    return b"".join(parts)[:size]


@pytest.mark.vectors
def test_all_vectors():
    if not VECTORS.exists():
        pytest.skip(f"no vectors at {VECTORS} (set TROTH_VECTORS)")
    cases = json.loads(VECTORS.read_text())["cases"]
    assert len(cases) >= 40
    for case in cases:
        superblock = Superblock(
            uuid=bytes.fromhex(case["uuid"].replace("-", "")) if case["uuid"] else bytes(16),
            algorithm=case["hash"],
            data_blocks=case["data_blocks"],
            salt=bytes.fromhex(case["salt"]),
            data_block_bytes=case["data_block_size"],
            hash_block_bytes=case["hash_block_size"],
            hash_type=case["hash_type"],
        )
        tree = verity_tree.build(
            generated(case["data_rule"], superblock.data_bytes),
            algorithm=superblock.algorithm,
            salt=superblock.salt,
            hash_type=superblock.hash_type,
            data_block_bytes=superblock.data_block_bytes,
            hash_block_bytes=superblock.hash_block_bytes,
        )
        assert tree.root_hash.hex() == case["root_hash"], case
        head = verity_sb.pack(superblock) if case["superblock"] else b""
        start = superblock.hash_block_bytes * tree_start_block(
            0, superblock=case["superblock"], hash_block_bytes=superblock.hash_block_bytes
        )
        assert start == case["tree_offset"]
        assert len(tree.blocks) == case["tree_len"]
        area = head.ljust(start, b"\0") + tree.blocks
        # With one data block and no superblock there is nothing to write at all.
        assert len(area) == case["hash_area_len"], case
        assert hashlib.sha256(area).hexdigest() == case["hash_area_sha256"], case


@pytest.mark.parametrize("hash_type", [0, 1])
@pytest.mark.parametrize("algorithm", sorted(verity_sb.DIGEST_BYTES))
def test_geometry_paths_lead_through_a_built_tree(algorithm, hash_type):
    data = generated("sha256ctr", 70 * 512)
    tree = verity_tree.build(
        data,
        algorithm=algorithm,
        salt=b"salt",
        hash_type=hash_type,
        data_block_bytes=512,
        hash_block_bytes=1024,
    )
    hashing = verity_tree.TreeHash(algorithm, salt=b"salt", hash_type=hash_type)
    layout = geometry(
        70, digest_bytes=hashing.digest_bytes, hash_block_bytes=1024, hash_type=hash_type
    )
    for index in range(70):
        expected = tree.root_hash
        for step in layout.path(index):
            block = tree.blocks[step.block * 1024 : (step.block + 1) * 1024]
            assert hashing.digest(block) == expected
            expected = block[step.offset_bytes : step.offset_bytes + hashing.digest_bytes]
        assert hashing.digest(data[index * 512 : (index + 1) * 512]) == expected


@pytest.mark.parametrize(
    "change",
    [{"algorithm": "md5"}, {"salt": bytes(257)}, {"hash_type": 2}, {"data_block_bytes": 0}],
)
def test_impossible_parameters(change):
    with pytest.raises(FormatError) as caught:
        verity_tree.build(bytes(4096), **change)
    assert caught.value.code == "verity-tree-parameters"


def test_data_must_be_whole_blocks_and_not_empty():
    with pytest.raises(FormatError) as caught:
        verity_tree.build(bytes(4095))
    assert caught.value.code == "verity-tree-parameters"
    with pytest.raises(FormatError) as caught:
        verity_tree.build(b"")
    assert caught.value.code == "verity-geometry"
