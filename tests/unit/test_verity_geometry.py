# SPDX-License-Identifier: Apache-2.0
"""The layout of a verity tree, against a tree built the naive way."""

import hashlib
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from troth.errors import FormatError
from troth.measure.verity_geometry import Level, Step, geometry, tree_start_block


def naive_tree(blocks, *, algorithm, salt, hash_block_bytes):
    """Root hash and list of levels (root first), straight from the kernel's description."""

    def digest(block):
        return hashlib.new(algorithm, salt + block).digest()

    size = hashlib.new(algorithm).digest_size
    slot = 1
    while slot < size:
        slot *= 2
    per_block = hash_block_bytes // slot
    below = list(blocks)
    levels = []
    while len(below) > 1:
        padded = [digest(block).ljust(slot, b"\0") for block in below]
        below = [
            b"".join(padded[at : at + per_block]).ljust(hash_block_bytes, b"\0")
            for at in range(0, len(padded), per_block)
        ]
        levels.insert(0, below)
    return digest(below[0]), levels


def test_one_block_has_no_tree():
    layout = geometry(1)
    assert layout.levels == ()
    assert layout.tree_blocks == 0
    assert layout.path(0) == ()


def test_known_layouts():
    assert geometry(2).levels == (Level(0, 1, 2),)
    assert geometry(128).levels == (Level(0, 1, 128),)
    assert geometry(129).levels == (Level(0, 1, 2), Level(1, 2, 129))
    layout = geometry(16385)
    assert layout.levels == (Level(0, 1, 2), Level(1, 2, 129), Level(3, 129, 16385))
    assert layout.tree_blocks * 4096 == 540672
    assert layout.path(16384) == (Step(0, 32), Step(2, 0), Step(131, 0))
    assert layout.path(0) == (Step(0, 0), Step(1, 0), Step(3, 0))


def test_type_0_packs_digests():
    layout = geometry(300, digest_bytes=20, hash_type=0)
    assert layout.slot_bytes == 20
    assert layout.digests_per_block == 128
    assert geometry(300, digest_bytes=20).slot_bytes == 32


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 700),
    algorithm=st.sampled_from(["sha1", "sha224", "sha256", "sha384", "sha512"]),
    hash_block_bytes=st.sampled_from([512, 1024, 4096]),
    salt=st.binary(max_size=4),
    data=st.data(),
)
def test_every_path_leads_from_the_root_hash_to_the_block(
    count, algorithm, hash_block_bytes, salt, data
):
    blocks = [index.to_bytes(8, "little") * 64 for index in range(count)]
    root, levels = naive_tree(
        blocks, algorithm=algorithm, salt=salt, hash_block_bytes=hash_block_bytes
    )
    flat = [block for level in levels for block in level]
    size = hashlib.new(algorithm).digest_size
    layout = geometry(count, digest_bytes=size, hash_block_bytes=hash_block_bytes)
    assert layout.tree_blocks == len(flat)
    assert [level.blocks for level in layout.levels] == [len(level) for level in levels]
    wanted = data.draw(st.sampled_from([0, count // 2, count - 1]))
    expected = root
    for step in layout.path(wanted):
        block = flat[step.block]
        assert hashlib.new(algorithm, salt + block).digest() == expected
        expected = block[step.offset_bytes : step.offset_bytes + size]
    assert hashlib.new(algorithm, salt + blocks[wanted]).digest() == expected


@given(st.integers(1, 2**64 - 1))
def test_any_count_has_a_bounded_layout(count):
    layout = geometry(count)
    assert len(layout.levels) <= 10
    path = layout.path(count - 1)
    assert len(path) == len(layout.levels)
    for step, level in zip(path, layout.levels, strict=True):
        assert step.block == level.first_block + level.blocks - 1
        assert 0 <= step.offset_bytes <= 4096 - 32


@pytest.mark.parametrize(
    "arguments",
    [
        {"data_blocks": 0},
        {"data_blocks": -1},
        {"data_blocks": 1 << 64},
        {"data_blocks": 1, "hash_block_bytes": 0},
        {"data_blocks": 1, "hash_block_bytes": 4095},
        {"data_blocks": 1, "digest_bytes": 0},
        {"data_blocks": 2, "digest_bytes": 64, "hash_block_bytes": 64},
        {"data_blocks": 1, "hash_type": 2},
    ],
)
def test_impossible_trees(arguments):
    with pytest.raises(FormatError) as caught:
        geometry(arguments.pop("data_blocks"), **arguments)
    assert caught.value.code == "verity-geometry"


@pytest.mark.parametrize("block", [-1, 5])
def test_a_block_outside_has_no_path(block):
    with pytest.raises(FormatError) as caught:
        geometry(5).path(block)
    assert caught.value.code == "verity-geometry"


def test_tree_start_block():
    assert tree_start_block(0, superblock=True, hash_block_bytes=4096) == 1
    assert tree_start_block(512, superblock=True, hash_block_bytes=4096) == 1
    assert tree_start_block(0, superblock=True, hash_block_bytes=512) == 1
    assert tree_start_block(147 * 4096, superblock=True, hash_block_bytes=4096) == 148
    assert tree_start_block(8192, superblock=False, hash_block_bytes=4096) == 2
    for offset, superblock in ((100, True), (512, False), (-512, True)):
        with pytest.raises(FormatError):
            tree_start_block(offset, superblock=superblock, hash_block_bytes=4096)


def test_importing_stays_cheap():
    code = (
        "import sys; before = set(sys.modules); "
        "import troth.measure.verity_geometry, troth.abi.verity_sb; "
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}; {code}"],
        check=True,
        capture_output=True,
        text=True,
    )
    others = {name for name in done.stdout.split() if not name.startswith("troth")}
    assert others <= {"__future__", "struct", "_struct"}
