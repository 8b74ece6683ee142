# SPDX-License-Identifier: Apache-2.0
"""Telling file systems apart: superblocks from the kernel's headers, and from the mkfs tools."""

import shutil
import struct
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz import filesystem_superblock as fuzzed
from troth.abi import filesystem_sb
from troth.abi.filesystem_sb import FileSystem, check_mountable, identify
from troth.errors import FormatError

UUID = "11111111-2222-3333-4444-555555555555"
RAW = bytes.fromhex(UUID.replace("-", ""))


def put(*fields):
    data = bytearray(4096)
    for at, value in fields:
        data[at : at + len(value)] = value
    return bytes(data)


def u16(value):
    return struct.pack("<H", value)


def u32(value):
    return struct.pack("<I", value)


def u64(value):
    return struct.pack("<Q", value)


def erofs(*fields, bits=12, blocks=7):
    base = (
        (1024, u32(0xE0F5E1E2)),
        (1024 + 12, bytes([bits])),
        (1024 + 36, u32(blocks)),
        (1024 + 48, RAW),
        (1024 + 64, b"label"),
    )
    return put(*base, *fields)


def squashfs(*fields, used=5000):
    base = (
        (0, b"hsqs"),
        (12, u32(131072)),
        (22, u16(17)),
        (28, u16(4)),
        (40, u64(used)),
    )
    return put(*base, *fields)


def ext(*fields, log=2, blocks=2048, incompat=0x2C2):
    base = (
        (1024 + 4, u32(blocks)),
        (1024 + 0x18, u32(log)),
        (1024 + 0x38, u16(0xEF53)),
        (1024 + 0x60, u32(incompat)),
        (1024 + 0x68, RAW),
        (1024 + 0x78, b"root fs"),
    )
    return put(*base, *fields)


def test_what_is_told():
    assert identify(erofs()) == FileSystem("erofs", UUID, "label", 4096, 7 * 4096)
    assert identify(squashfs()) == FileSystem("squashfs", "", "", 131072, 5000)
    assert identify(ext()) == FileSystem("ext4", UUID, "root fs", 4096, 2048 * 4096)
    large = ext((1024 + 0x150, u32(1)))
    assert identify(large).size_bytes == (2048 + (1 << 32)) * 4096
    assert identify(ext((1024 + 0x150, u32(1)), incompat=0)).size_bytes == 2048 * 4096
    for data in (erofs(), squashfs(), ext()):
        check_mountable(identify(data))


@pytest.mark.parametrize(
    ("data", "code", "hint"),
    [
        (ext(log=0), "filesystem-block-size", "mkfs.ext4 -b 4096"),
        (ext(log=1), "filesystem-block-size", "mkfs.ext4 -b 4096"),
        (ext(log=6), "filesystem-block-size", "mkfs.ext4 -b 4096"),
        (erofs(bits=9), "filesystem-block-size", "mkfs.erofs"),
        (ext(incompat=0x2C6), "filesystem-recovery", "e2fsck"),
    ],
)
def test_found_but_not_mountable(data, code, hint):
    found = identify(data)
    with pytest.raises(FormatError) as caught:
        check_mountable(found, where="root.ext4")
    assert caught.value.code == code
    assert caught.value.where == "root.ext4"
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (bytes(4096), "filesystem-unknown"),
        (b"", "filesystem-unknown"),
        (ext()[: 1024 + 0x150], "filesystem-unknown"),
        (erofs()[: 1024 + 80], "filesystem-unknown"),
        (squashfs()[:40], "filesystem-unknown"),
        (erofs(bits=8), "filesystem-superblock"),
        (erofs(bits=255), "filesystem-superblock"),
        (erofs(blocks=0), "filesystem-superblock"),
        (erofs((1024 + 86, u16(1))), "filesystem-feature"),
        (erofs((1024 + 80, u32(0x80))), "filesystem-feature"),
        (squashfs((28, u16(3))), "filesystem-superblock"),
        (squashfs((30, u16(1))), "filesystem-superblock"),
        (squashfs((22, u16(16))), "filesystem-superblock"),
        (squashfs((22, u16(65535))), "filesystem-superblock"),
        (squashfs(used=95), "filesystem-superblock"),
        (squashfs(used=1 << 63), "filesystem-superblock"),
        (ext(log=7), "filesystem-superblock"),
        (ext(log=2**32 - 1), "filesystem-superblock"),
        (ext(blocks=0), "filesystem-superblock"),
        (ext((1024 + 0x150, u32(2**32 - 1))), "filesystem-superblock"),
        (ext(incompat=0x8), "filesystem-feature"),
    ],
)
def test_refused(data, code):
    with pytest.raises(FormatError) as caught:
        identify(data, where="disk")
    assert caught.value.code == code
    assert caught.value.where == "disk"


def test_hostile_labels_are_printable():
    assert identify(erofs((1024 + 64, b"\x1b[2J\n\0xx"))).label == "?[2J?"
    assert identify(ext((1024 + 0x78, b"\xff" * 16))).label == "\ufffd" * 16


@given(st.binary(max_size=4096))
def test_arbitrary_bytes(data):
    fuzzed.fuzz(data)


@given(st.sampled_from([erofs(), squashfs(), ext()]), st.data())
def test_mutants(good, data):
    at = data.draw(st.integers(0, 1500))
    change = data.draw(st.binary(min_size=1, max_size=8))
    fuzzed.fuzz(good[:at] + change + good[at + len(change) :])


@pytest.mark.tool
@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["mkfs.erofs", f"-U{UUID}", "IMAGE", "TREE"], ("erofs", UUID, 4096)),
        (["mksquashfs", "TREE", "IMAGE", "-quiet"], ("squashfs", "", 131072)),
        (["mkfs.ext4", "-q", "-b4096", f"-U{UUID}", "IMAGE", "8M"], ("ext4", UUID, 4096)),
        (["mkfs.ext4", "-q", "-b1024", f"-U{UUID}", "IMAGE", "8M"], ("ext4", UUID, 1024)),
        (["mkfs.ext2", "-q", "-b4096", f"-U{UUID}", "IMAGE", "8M"], ("ext4", UUID, 4096)),
    ],
)
def test_what_the_tools_write(tmp_path, command, expected):
    path = shutil.which(command[0], path="/usr/sbin:/usr/bin:/sbin:/bin")
    if not path:
        pytest.skip(f"{command[0]} is missing (apt install erofs-utils squashfs-tools e2fsprogs)")
    tree, image = tmp_path / "tree", tmp_path / "image"
    tree.mkdir()
    (tree / "file").write_bytes(b"x" * 10_000)
    places = {"IMAGE": str(image), "TREE": str(tree)}
    subprocess.run(
        [path, *(places.get(word, word) for word in command[1:])], check=True, capture_output=True
    )
    with image.open("rb") as file:
        found = identify(file.read(filesystem_sb.HEAD_BYTES))
    assert (found.type, found.uuid, found.block_bytes) == expected
    # Everything the image says it has lies within the file, padded to 4096 at most.
    assert -(-found.size_bytes // 4096) * 4096 == image.stat().st_size
