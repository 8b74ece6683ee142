# SPDX-License-Identifier: Apache-2.0
"""The verity superblock: parse, pack, and what is refused."""

import shutil
import struct
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from troth.abi import verity_sb
from troth.abi.verity_sb import Superblock
from troth.errors import FormatError
from troth.record import replace

GOOD = Superblock(
    uuid=bytes(range(16)),
    algorithm="sha256",
    data_blocks=147,
    salt=b"\x12\x34" * 16,
)

superblocks = st.builds(
    Superblock,
    uuid=st.binary(min_size=16, max_size=16),
    algorithm=st.sampled_from(sorted(verity_sb.DIGEST_BYTES)),
    data_blocks=st.integers(1, 2**43),
    salt=st.binary(max_size=256),
    data_block_bytes=st.sampled_from([1 << n for n in range(9, 20)]),
    hash_block_bytes=st.sampled_from([1 << n for n in range(9, 20)]),
    hash_type=st.integers(0, 1),
)


@given(superblocks)
def test_round_trip(superblock):
    data = verity_sb.pack(superblock)
    assert len(data) == 512
    assert verity_sb.parse(data) == superblock
    assert verity_sb.parse(data + b"anything after") == superblock


@given(st.binary(max_size=1024))
def test_arbitrary_bytes_are_refused_with_a_typed_error(data):
    with pytest.raises(FormatError) as caught:
        verity_sb.parse(data)
    assert caught.value.code.startswith("verity-superblock-")


@given(superblocks, st.integers(0, 511), st.integers(1, 255))
def test_a_changed_byte_is_refused_or_read_as_it_stands(superblock, at, flip):
    data = bytearray(verity_sb.pack(superblock))
    data[at] ^= flip
    try:
        changed = verity_sb.parse(bytes(data))
    except FormatError as error:
        assert error.code.startswith("verity-superblock-")
    else:
        assert changed != superblock
        assert verity_sb.pack(changed) == bytes(data)


@pytest.mark.parametrize(
    ("offset", "value", "code"),
    [
        (0, b"verity\0\1", "magic"),
        (8, struct.pack("<I", 2), "version"),
        (12, struct.pack("<I", 2), "type"),
        (32, b"SHA256", "algorithm"),
        (32, b"md5\0\0\0", "algorithm"),
        (32, b"\xff\xfe", "algorithm"),
        (32, bytes(32), "algorithm"),
        (63, b"\1", "padding"),
        (64, struct.pack("<I", 0), "block-size"),
        (64, struct.pack("<I", 256), "block-size"),
        (64, struct.pack("<I", 4097), "block-size"),
        (68, struct.pack("<I", 1 << 20), "block-size"),
        (72, struct.pack("<Q", 0), "data-blocks"),
        (72, struct.pack("<Q", 2**51), "data-blocks"),
        (80, struct.pack("<H", 257), "salt"),
        (80, struct.pack("<H", 8), "padding"),
        (82, b"\1", "padding"),
        (87, b"\1", "padding"),
        (343, b"\1", "padding"),
        (344, b"\1", "padding"),
        (511, b"\1", "padding"),
    ],
)
def test_refusals(offset, value, code):
    data = bytearray(verity_sb.pack(GOOD))
    data[offset : offset + len(value)] = value
    with pytest.raises(FormatError) as caught:
        verity_sb.parse(bytes(data), where="/dev/vda")
    assert caught.value.code == f"verity-superblock-{code}"
    assert caught.value.where == "/dev/vda"


def test_one_byte_short():
    with pytest.raises(FormatError) as caught:
        verity_sb.parse(verity_sb.pack(GOOD)[:-1])
    assert caught.value.code == "verity-superblock-short"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"uuid": b"short"}, "uuid"),
        ({"salt": bytes(257)}, "salt"),
        ({"algorithm": "blake3"}, "algorithm"),
        ({"hash_type": 7}, "type"),
        ({"data_blocks": 0}, "data-blocks"),
        ({"hash_block_bytes": 1000}, "block-size"),
    ],
)
def test_pack_refuses_what_parse_would(change, code):
    with pytest.raises(FormatError) as caught:
        verity_sb.pack(replace(GOOD, **change))
    assert caught.value.code == f"verity-superblock-{code}"


def test_uuid_text_and_data_bytes():
    assert GOOD.uuid_text == "00010203-0405-0607-0809-0a0b0c0d0e0f"
    assert GOOD.data_bytes == 147 * 4096


@pytest.mark.tool
def test_veritysetup_writes_the_same_bytes(tmp_path):
    if not shutil.which("veritysetup"):
        pytest.skip("veritysetup is missing (apt install cryptsetup-bin)")
    data, tree = tmp_path / "data", tmp_path / "hash"
    data.write_bytes(bytes(147 * 4096))
    options = [f"--uuid={GOOD.uuid_text}", f"--salt={GOOD.salt.hex()}"]
    subprocess.run(
        ["veritysetup", "format", *options, str(data), str(tree)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    assert tree.read_bytes()[:512] == verity_sb.pack(GOOD)
