# SPDX-License-Identifier: Apache-2.0
"""An empty file system: the distribution's program, its failures, and zeros before it."""

import os
import shutil
import subprocess

import pytest

from made_volumes import UUID
from troth.errors import FormatError
from troth.volumes import mkfs


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Puts a shell script in the place of mke2fs."""

    def put(text):
        path = tmp_path / "mke2fs"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        monkeypatch.setattr(mkfs, "PATH", str(path))

    return put


@pytest.fixture
def node(tmp_path):
    path = tmp_path / "dm-1"
    path.write_bytes(bytes(4096))
    return str(path)


def failed(node):
    with pytest.raises(FormatError) as caught:
        mkfs.make(node, "ext4", uuid=UUID)
    assert caught.value.code == "volume-mkfs"
    return caught.value.message


def test_the_words_of_the_program(program, node, tmp_path):
    program(f'printf "%s\\n" "$@" > {tmp_path}/words; env > {tmp_path}/env; cat > {tmp_path}/in')
    mkfs.make(node, "ext4", uuid=UUID)
    options = "lazy_itable_init=0,lazy_journal_init=0,nodiscard"
    wanted = ["-q", "-F", "-t", "ext4", "-b", "4096", "-U", UUID, "-E", options, node]
    assert (tmp_path / "words").read_text().splitlines() == wanted
    assert "LC_ALL=C" in (tmp_path / "env").read_text()
    # No environment of the caller's, and nothing to read from.
    assert "HOME=" not in (tmp_path / "env").read_text()
    assert (tmp_path / "in").read_bytes() == b""


def test_what_it_says_when_it_fails(program, node):
    program('echo "no room" >&2; exit 3')
    message = failed(node)
    assert message == f"mke2fs ended with status {3 << 8}: no room\\n"


def test_a_signal(program, node):
    program("kill -9 $$")
    assert failed(node).startswith("mke2fs ended with status 9")


def test_a_flood_of_words_is_cut(program, node):
    program("head -c 300000 /dev/zero | tr '\\0' 'x'; exit 1")
    assert len(failed(node)) < 300


def test_words_that_are_no_text(program, node):
    program("printf '\\377\\033[2J\\n'; exit 1")
    message = failed(node)
    assert message.isascii()
    assert message.isprintable()


def test_a_program_that_is_not_there(node, monkeypatch, tmp_path):
    monkeypatch.setattr(mkfs, "PATH", str(tmp_path / "gone"))
    assert failed(node) == f"{tmp_path}/gone: No such file or directory"


def test_no_descriptor_is_left(program, node):
    program("exit 1")
    before = os.listdir("/proc/self/fd")
    failed(node)
    program("exit 0")
    mkfs.make(node, "ext4", uuid=UUID)
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("size", [0, 1, 4096, (1 << 20) + 512, (17 << 20) + 4096])
def test_zeros_over_all_of_it_and_no_more(tmp_path, size):
    path = tmp_path / "dm-1"
    path.write_bytes(b"\xff" * (size + 512))
    mkfs.zero(str(path), size)
    data = path.read_bytes()
    assert not any(data[:size])
    assert data[size:] == b"\xff" * 512


@pytest.mark.tool
def test_a_file_system_that_its_own_checker_likes(tmp_path, monkeypatch):
    found = shutil.which("mke2fs", path="/usr/sbin:/sbin:/usr/bin")
    checker = shutil.which("e2fsck", path="/usr/sbin:/sbin:/usr/bin")
    if not found or not checker:
        pytest.skip("mke2fs or e2fsck is missing (apt install e2fsprogs)")
    monkeypatch.setattr(mkfs, "PATH", found)
    path = tmp_path / "dm-1"
    with path.open("wb") as file:
        file.truncate(mkfs.LEAST_BYTES)
    mkfs.make(str(path), "ext4", uuid=UUID)
    data = path.read_bytes()
    assert data[1024 + 0x38 : 1024 + 0x3A] == b"\x53\xef"
    assert data[1024 + 0x68 : 1024 + 0x78].hex() == UUID.replace("-", "")
    # The smallest volume still has a journal: feature bit 2, "has_journal".
    assert data[1024 + 0x5C] & 4
    subprocess.run([checker, "-fn", str(path)], check=True, stdout=subprocess.DEVNULL)
