# SPDX-License-Identifier: Apache-2.0
"""The superblock of dm-integrity: a kernel's own, and every kind that no volume of troth has."""

import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from troth.abi import integrity_sb
from troth.abi.integrity_sb import IntegritySuperblock
from troth.errors import FormatError

VECTOR = (
    Path(os.environ.get("TROTH_VECTORS", Path(__file__).parents[3] / "shared/vectors"))
    / "luks2/aead-xts-hmac-4096.dmintegrity-sb"
)
LAYOUT = "<8sBbHIQIBB2sQ"
#: The fields of the kernel's own superblock, by name.
FIELDS = {
    "magic": b"integrt\0", "version": 4, "log2_interleave": 15, "tag": 32, "sections": 1,
    "provided": 62704, "flags": 8, "log2_block": 3, "log2_bitmap": 12, "pad": b"\0\0", "at": 0,
}  # fmt: skip


def made(**changes):
    return struct.pack(LAYOUT, *(FIELDS | changes).values()).ljust(512, b"\0")


def refused(data):
    with pytest.raises(FormatError) as caught:
        integrity_sb.parse(data)
    assert caught.value.code == "integrity-superblock"
    return True


@pytest.mark.vectors
def test_a_kernels_own():
    if not VECTOR.exists():
        pytest.skip(f"no vectors at {VECTOR} (set TROTH_VECTORS)")
    data = VECTOR.read_bytes()
    assert data == made()
    assert integrity_sb.parse(data) == IntegritySuperblock(
        version=4,
        tag_bytes=32,
        provided_sectors=62704,
        block_bytes=4096,
        interleave_sectors=32768,
        journal_sections=1,
    )


@pytest.mark.parametrize(
    "change",
    [
        {"magic": b"integrt\1"},
        {"magic": bytes(8)},
        {"version": 0},
        {"version": 6},
        {"flags": 1},
        {"flags": 8 | 2},
        {"flags": 4},
        {"flags": 32},
        {"flags": 1 << 31},
        {"pad": b"\1\0"},
        {"at": 1},
        {"log2_interleave": -1},
        {"log2_interleave": 32},
        {"log2_block": 4},
        {"log2_block": 255},
        {"provided": 0},
        {"tag": 0},
        {"tag": 4097},
    ],
    ids=str,
)
def test_refused(change):
    assert refused(made(**change))


@pytest.mark.parametrize(
    "change",
    [{"version": 1}, {"version": 5}, {"flags": 0}, {"flags": 24}, {"log2_bitmap": 255},
     {"log2_interleave": 0}, {"log2_block": 0}, {"tag": 4096}, {"provided": 2**64 - 1}],
    ids=str,
)  # fmt: skip
def test_taken(change):
    found = integrity_sb.parse(made(**change))
    wanted = FIELDS | change
    assert found.version == wanted["version"]
    assert found.tag_bytes == wanted["tag"]
    assert found.provided_sectors == wanted["provided"]
    assert found.block_bytes == 512 << wanted["log2_block"]
    assert found.interleave_sectors == 1 << wanted["log2_interleave"]


@pytest.mark.parametrize("size", [0, 7, 39, 40, 511])
def test_cut_off(size):
    assert refused(made()[:size])


def test_what_follows_is_not_looked_at():
    assert integrity_sb.parse(made() + b"\xff" * 3584) == integrity_sb.parse(made())


@given(st.binary(max_size=600))
def test_arbitrary_bytes(data):
    assert refused(data)


@given(st.integers(8, 39), st.integers(1, 255))
def test_a_changed_byte_is_refused_or_read_as_it_stands(at, flip):
    data = bytearray(made())
    data[at] ^= flip
    try:
        found = integrity_sb.parse(bytes(data))
    except FormatError as error:
        assert error.code == "integrity-superblock"
        return
    # The grain of a bitmap, and the flag "fix_hmac", say nothing about a volume of ours.
    silent = at == 29 or (at, flip & ~24) == (24, 0)
    assert silent or found != integrity_sb.parse(made())
