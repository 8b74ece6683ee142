# SPDX-License-Identifier: Apache-2.0
"""Hostile tars: nothing leaves the tree, nothing is kept half, sizes are not believed."""

from __future__ import annotations

import io
import os
import tarfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz import tar as fuzz_tar
from troth.abi import tar
from troth.errors import BuildError, FormatError
from troth.image.roots.root_tree import DIRECTORY, FILE, LINK, Entry, RootTree, check_path
from troth.image.roots.tree_archive import extract, extract_stream

if TYPE_CHECKING:
    from pathlib import Path


def archive(*members, form=tarfile.GNU_FORMAT) -> bytes:
    """Members are (name, values, data)."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=form) as writer:
        for name, values, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in values.items():
                setattr(info, key, value)
            writer.addfile(info, io.BytesIO(data))
    return output.getvalue()


FOLDER = {"type": tarfile.DIRTYPE, "mode": 0o755}
LINKED = {"type": tarfile.SYMTYPE}


def unpack(data: bytes, folder: Path, **limits) -> RootTree:
    with RootTree(folder / "tree") as tree:
        extract_stream(io.BytesIO(data), tree, **limits)
        return tree


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ([("/etc/passwd", {}, b"x")], "tree-path"),
        ([("../outside", {}, b"x")], "tree-path"),
        ([("a/../../outside", {}, b"x")], "tree-path"),
        ([("a" * 300, {}, b"x")], "tree-path"),
        ([("a/" * 400 + "b", {}, b"x")], "tree-path"),
        ([("out", {**LINKED, "linkname": "/tmp"}, b""), ("out/x", {}, b"x")], "tree-through-link"),
        ([("out", {**LINKED, "linkname": ".."}, b""), ("out/x", {}, b"x")], "tree-through-link"),
        ([("f", {}, b"x"), ("f/x/y", {}, b"x")], "tree-through-link"),
        ([("out", {**LINKED, "linkname": "/tmp"}, b""), ("out", FOLDER, b"")], "tree-duplicate"),
        ([("out", {**LINKED, "linkname": "/tmp"}, b""), ("out", {}, b"x")], "tree-duplicate"),
        ([("f", {}, b"x"), ("f", {}, b"y")], "tree-duplicate"),
        ([("d/f", {}, b"x"), ("d", {}, b"y")], "tree-duplicate"),
        ([("h", {"type": tarfile.LNKTYPE, "linkname": "/etc/shadow"}, b"")], "tree-path"),
        ([("h", {"type": tarfile.LNKTYPE, "linkname": "../x"}, b"")], "tree-path"),
        ([("h", {"type": tarfile.LNKTYPE, "linkname": "later"}, b"")], "tree-hard-link"),
        (
            [
                ("l", {**LINKED, "linkname": "/etc/shadow"}, b""),
                ("h", {"type": tarfile.LNKTYPE, "linkname": "l"}, b""),
            ],
            "tree-hard-link",
        ),
        (
            [
                ("l", {**LINKED, "linkname": "/"}, b""),
                ("h", {"type": tarfile.LNKTYPE, "linkname": "l/etc/passwd"}, b""),
            ],
            "tree-hard-link",
        ),
        ([("l", {**LINKED, "linkname": ""}, b"")], "tree-path"),
        ([(".", {}, b"x")], "tree-path"),
        ([("w", {"type": tarfile.CHRTYPE}, b"")], "archive-node"),
    ],
)
def test_hostile_members(tmp_path, members, code):
    with pytest.raises(BuildError) as caught:
        unpack(archive(*members), tmp_path)
    assert caught.value.code == code
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tree"]


@pytest.mark.parametrize(
    "headers",
    [
        {"SCHILY.xattr.security.selinux": "x"},
        {"SCHILY.xattr.trusted.overlay.opaque": "y"},
        {"SCHILY.acl.access": "user::rw-"},
    ],
)
def test_attributes_that_would_be_lost(tmp_path, headers):
    data = archive(("f", {"pax_headers": headers}, b"x"), form=tarfile.PAX_FORMAT)
    with pytest.raises(BuildError) as caught:
        unpack(data, tmp_path)
    assert caught.value.code == "archive-attribute"


def patched(data: bytes, offset: int, value: bytes) -> bytes:
    block = bytearray(data)
    block[offset : offset + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:512])
    return bytes(block)


ONE = archive(("file", {"mode": 0o644}, b"data"))


@pytest.mark.parametrize(
    ("offset", "value", "code"),
    [
        (124, b"\x80" + b"\xff" * 11, "tar-size"),  # 2**88 bytes
        (124, b"\xff" * 12, "tar-header"),  # minus one
        (124, b"77777777777\0", "tar-truncated"),  # 8 GiB that are not there
        (124, b"0000000x004\0", "tar-header"),
        (156, b"S", "tar-sparse"),
        (156, b"M", "tar-type"),
        (156, b"1", "tar-header"),  # a hard link with data
        (156, b"x", "tar-pax"),
        (108, b"\x80\0\0\1\0\0\0\0", "tar-header"),
    ],
)
def test_hostile_headers(tmp_path, offset, value, code):
    with pytest.raises(FormatError) as caught:
        unpack(patched(ONE, offset, value), tmp_path)
    assert caught.value.code == code


def test_sizes_are_bounded_in_all(tmp_path):
    data = archive(("a", {}, b"x" * 5000), ("b", {}, b"x" * 5000))
    with pytest.raises(FormatError) as caught:
        unpack(data, tmp_path, limit_bytes=8000)
    assert caught.value.code == "tar-size"


def test_long_extended_headers_are_not_read(tmp_path):
    data = patched(archive(("f", {}, b"x")), 156, b"L")
    with pytest.raises(FormatError) as caught:
        unpack(patched(data, 124, b"00040000000\0"), tmp_path)
    assert caught.value.code == "tar-pax"


@pytest.mark.parametrize("cut", [1, 511, 513, 700, 1024])
def test_truncated(tmp_path, cut):
    with pytest.raises(FormatError) as caught:
        unpack(ONE[:cut], tmp_path)
    assert caught.value.code == "tar-truncated"


def test_wrong_checksum(tmp_path):
    with pytest.raises(FormatError) as caught:
        unpack(b"g" + ONE[1:], tmp_path)
    assert caught.value.code == "tar-header"


@pytest.mark.parametrize(
    "data", [b"5 a=\n", b"99 a=b\n", b"x a=b\n", b"6 a=bc", b"5 =b\n", b"4 ab", b"-1 a=\n"]
)
def test_hostile_pax(data):
    if data == b"5 a=\n":
        assert tar.parse_pax(data) == {"a": b""}
        return
    with pytest.raises(FormatError) as caught:
        tar.parse_pax(data)
    assert caught.value.code == "tar-pax"


def test_gnu_sparse_in_pax(tmp_path):
    data = archive(("f", {"pax_headers": {"GNU.sparse.major": "1"}}, b"x"), form=tarfile.PAX_FORMAT)
    with pytest.raises(FormatError) as caught:
        unpack(data, tmp_path)
    assert caught.value.code == "tar-sparse"


def test_broken_file_is_a_build_error(tmp_path):
    (tmp_path / "x.tar").write_bytes(ONE[:600])
    with RootTree(tmp_path / "tree") as tree, pytest.raises(BuildError) as caught:
        extract(tmp_path / "x.tar", tree)
    assert caught.value.code == "archive-broken"


def test_directories_may_come_twice_late_or_not_at_all(tmp_path):
    tree = unpack(
        archive(
            ("a/b/f", {"mode": 0o4711, "uid": 7, "gid": 8}, b"data"),
            ("a/", {**FOLDER, "mode": 0o700}, b""),
            ("a", {**FOLDER, "mode": 0o750, "uid": 3}, b""),
            ("l", {**LINKED, "linkname": "../../../etc"}, b""),
        ),
        tmp_path,
    )
    assert tree.entries["a"] == Entry(DIRECTORY, 0o750, 3, 0)
    assert tree.entries["a/b"] == Entry(DIRECTORY, 0o755)
    assert tree.entries["a/b/f"] == Entry(FILE, 0o4711, 7, 8, size_bytes=4)
    assert tree.entries["l"] == Entry(LINK, 0o777, target="../../../etc")
    assert (tmp_path / "tree/a/b/f").stat().st_mode & 0o7777 == 0o600


@pytest.mark.parametrize(
    ("path", "end"),
    [
        ("/sbin/init", "usr/bin/run"),
        ("/up/usr/bin/run", "usr/bin/run"),
        ("/loop", None),
        ("/absent", None),
        ("/usr/bin/run/x", None),
        ("/sbin", "usr/bin"),
        ("/", ""),
    ],
)
def test_links_are_followed_inside_the_tree_only(tmp_path, path, end):
    tree = unpack(
        archive(
            ("usr/bin/run", {}, b"x"),
            ("usr/bin/init", {**LINKED, "linkname": "/usr/bin/../bin/run"}, b""),
            ("sbin", {**LINKED, "linkname": "usr/bin"}, b""),
            ("up", {**LINKED, "linkname": "../../.."}, b""),
            ("loop", {**LINKED, "linkname": "loop"}, b""),
        ),
        tmp_path,
    )
    assert tree.resolve(path) == end


NAMES = st.lists(
    st.sampled_from(["a", "b", "..", ".", "", "link", "file", "é", "x" * 256]), max_size=4
).map("/".join)
KINDS = st.sampled_from(
    [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE]
)


@settings(deadline=None)
@given(st.lists(st.tuples(NAMES, KINDS, NAMES, st.binary(max_size=9)), max_size=6))
def test_no_archive_writes_outside(tmp_path_factory, members):
    folder = tmp_path_factory.mktemp("t")
    (folder / "outside").mkdir()
    data = archive(
        *(
            (name, {"type": kind, "linkname": target}, content if kind == tarfile.REGTYPE else b"")
            for name, kind, target, content in members
        )
    )
    try:
        tree = unpack(data, folder)
    except (BuildError, FormatError):
        tree = None
    assert sorted(os.listdir(folder)) == ["outside", "tree"]
    assert os.listdir(folder / "outside") == []
    if tree is not None:
        found = {
            os.path.relpath(os.path.join(where, name), tree.folder)
            for where, folders, files in os.walk(tree.folder)
            for name in (*folders, *files)
        }
        assert found == set(tree.entries) - {""}


@settings(deadline=None)
@given(st.binary(max_size=1200))
def test_arbitrary_bytes(data):
    fuzz_tar.fuzz(data)


@settings(deadline=None)
@given(st.integers(0, 511), st.integers(0, 255))
def test_mutated_header(offset, value):
    fuzz_tar.fuzz(patched(ONE, offset, bytes([value])))


@given(st.text(max_size=20))
def test_paths(text):
    try:
        found = check_path(text)
    except BuildError:
        return
    assert ".." not in found.split("/")
    assert not found.startswith("/")
    assert found == check_path(found)
