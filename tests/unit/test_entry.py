# SPDX-License-Identifier: Apache-2.0
"""Entries of an initramfs: order, parents, compression, the rows of the manifest."""

import hashlib
import os
import shutil
import subprocess

import pytest

from troth.abi import cpio
from troth.errors import BuildError, FormatError
from troth.image.packing import entry


def test_entries_are_sorted_and_parents_appear():
    arranged = entry.arrange(
        [entry.file("b/c/f", b"x", "t"), entry.link("a", "b", "t"), entry.file("b-c", b"", "t")]
    )
    assert [(item.path, item.kind) for item in arranged] == [
        ("a", "link"),
        ("b", "directory"),
        ("b-c", "file"),
        ("b/c", "directory"),
        ("b/c/f", "file"),
    ]
    assert all(item.why for item in arranged)
    paths = [member.path for member in cpio.parse(entry.archive(arranged))]
    assert paths == [item.path for item in arranged]


def test_clashes_are_refused():
    with pytest.raises(BuildError, match="one; two") as caught:
        entry.arrange([entry.file("a", b"", "one"), entry.file("a", b"", "two")])
    assert caught.value.code == "initramfs-duplicate"
    with pytest.raises(BuildError) as caught:
        entry.arrange([entry.link("usr", "x", "t"), entry.file("usr/f", b"", "t")])
    assert caught.value.code == "initramfs-path"
    with pytest.raises(FormatError):
        entry.archive(entry.arrange([entry.file("a/../b", b"", "t")]))


@pytest.mark.tool
@pytest.mark.parametrize(
    ("compression", "undo"), [("zstd", ["zstd", "-dcq"]), ("lz4", ["lz4", "-dcq"])]
)
def test_compression_is_undone_by_its_own_tool(compression, undo):
    if shutil.which(undo[0]) is None:
        pytest.skip(f"{undo[0]} is not installed")
    data = bytes(range(256)) * 700
    packed = entry.compress(data, compression)
    assert packed == entry.compress(data, compression)
    assert len(packed) < len(data)
    done = subprocess.run(undo, input=packed, capture_output=True, check=True)
    assert done.stdout == data
    # The magic numbers the kernel's decompressors look for (lib/decompress.c).
    assert packed[:4] == {"zstd": b"\x28\xb5\x2f\xfd", "lz4": b"\x02\x21\x4c\x18"}[compression]


def test_no_other_compression():
    assert entry.compress(b"x", "none") == b"x"
    with pytest.raises(BuildError) as caught:
        entry.compress(b"x", "gzip")
    assert caught.value.code == "initramfs-compression"


def test_rows_of_the_manifest():
    file, link = entry.packed([entry.file("f", b"x", "w", mode=0o755), entry.link("l", "f", "v")])
    assert (file.size_bytes, file.mode, file.why) == (1, 0o755, "w")
    assert file.sha256 == hashlib.sha256(b"x").hexdigest()
    assert (link.kind, link.target, link.sha256) == ("link", "f", "")


def test_a_directory_keeps_modes_and_links_not_owners(tmp_path):
    source = tmp_path / "app"
    (source / "bin").mkdir(parents=True)
    (source / "bin/run").write_bytes(b"#!")
    (source / "bin/run").chmod(0o750)
    (source / "current").symlink_to("bin/run")
    (source / "outside").symlink_to("/nowhere")
    source.chmod(0o755)
    (source / "bin").chmod(0o711)
    found = {item.path: item for item in entry.tree(source, "app", "files")}
    assert sorted(found) == ["app", "app/bin", "app/bin/run", "app/current", "app/outside"]
    assert (found["app/bin"].mode, found["app/bin/run"].mode) == (0o711, 0o750)
    assert (found["app/current"].target, found["app/outside"].target) == ("bin/run", "/nowhere")


def test_what_a_directory_may_not_hold(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BuildError) as caught:
        entry.tree(tmp_path, "app", "files")
    assert caught.value.code == "files-node"
    (tmp_path / "pipe").unlink()
    os.close(os.open(os.fsencode(tmp_path) + b"/\xff", os.O_CREAT | os.O_WRONLY))
    with pytest.raises(BuildError) as caught:
        entry.tree(tmp_path, "app", "files")
    assert caught.value.code == "files-name"
    with pytest.raises(BuildError) as caught:
        entry.tree(tmp_path / "absent", "app", "files")
    assert caught.value.code == "files-missing"


@pytest.mark.parametrize("name", ["a\nf b", "a\x7f", "a\x85b", "a\u2028b"])
def test_names_that_break_lines_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(BuildError) as caught:
        entry.tree(tmp_path, "app", "files")
    assert caught.value.code == "files-name"


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o777, 0o4722])
def test_what_others_may_write_is_refused(tmp_path, mode):
    tmp_path.chmod(0o755)
    (tmp_path / "run").write_bytes(b"")
    (tmp_path / "current").symlink_to("run")
    (tmp_path / "run").chmod(0o4755)
    assert len(entry.tree(tmp_path, "app", "files")) == 3
    (tmp_path / "run").chmod(mode)
    with pytest.raises(BuildError) as caught:
        entry.tree(tmp_path, "app", "files")
    assert (caught.value.code, caught.value.hint) == ("files-mode", "chmod go-w")
    assert caught.value.where == str(tmp_path / "run")
    (tmp_path / "run").chmod(0o755)
    tmp_path.chmod(0o775)
    with pytest.raises(BuildError) as caught:
        entry.tree(tmp_path, "app", "files")
    assert caught.value.code == "files-mode"
