# SPDX-License-Identifier: Apache-2.0
"""newc archives: ours read back by us and by cpio(1), hostile ones refused."""

import shutil
import stat
import subprocess
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.cpio import fuzz
from troth.abi import cpio
from troth.errors import FormatError

names = st.lists(
    st.text(
        st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)),
        min_size=1,
        max_size=20,
    ).filter(lambda text: text not in (".", "..", cpio.TRAILER)),
    min_size=1,
    max_size=4,
).map("/".join)
members = st.builds(
    cpio.Member,
    path=names,
    mode=st.sampled_from(
        [stat.S_IFREG | 0o644, stat.S_IFDIR | 0o1777, stat.S_IFLNK | 0o777, stat.S_IFCHR | 0o600]
    ),
    data=st.binary(max_size=300),
    device=st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
)

SAMPLE = (
    cpio.Member("dir", stat.S_IFDIR | 0o755),
    cpio.Member("dir/file", stat.S_IFREG | 0o600, b"content"),
    cpio.Member("dir/link", stat.S_IFLNK | 0o777, b"file"),
    cpio.Member("null", stat.S_IFCHR | 0o666, device=(1, 3)),
)


@given(st.lists(members, max_size=6))
def test_what_is_written_is_read(items):
    data = cpio.write(items)
    assert len(data) % 512 == 0
    assert list(cpio.parse(data)) == items


@given(st.lists(st.lists(members, max_size=3), min_size=1, max_size=3), st.integers(0, 5))
def test_archives_follow_each_other(archives, gap):
    data = b"".join(cpio.write(items) + bytes(4 * gap) for items in archives)
    parsed = cpio.parse(data)
    assert [(m.path, m.archive) for m in parsed] == [
        (m.path, number) for number, items in enumerate(archives) for m in items
    ]


def test_owner_time_and_numbers_of_this_machine_do_not_get_in():
    bare = cpio.Member("a", stat.S_IFREG | 0o644, b"x")
    owned = cpio.Member("a", stat.S_IFREG | 0o644, b"x", owner=(1000, 1000), mtime_s=1234567)
    assert cpio.write([bare]) == cpio.write([owned])


def test_header_fields_are_the_documented_ones():
    data = cpio.write([cpio.Member("ab", stat.S_IFREG | 0o644, b"hello")])
    fields = [int(data[at : at + 8], 16) for at in range(6, 110, 8)]
    assert fields == [1, 0o100644, 0, 0, 1, 0, 5, 0, 0, 0, 0, 3, 0]
    assert data[110:113] == b"ab\0"
    assert data[116:121] == b"hello"


@pytest.mark.tool
def test_cpio_lists_our_archive(tmp_path):
    tool = shutil.which("cpio")
    if tool is None:
        pytest.skip("cpio is not installed")
    data = cpio.write(SAMPLE)
    listed = subprocess.run(
        [tool, "-tv", "--quiet", "-n"], input=data, capture_output=True, check=False
    )
    assert listed.returncode == 0, listed.stderr
    lines = listed.stdout.decode().splitlines()
    assert [line.split()[0] for line in lines] == [
        "drwxr-xr-x",
        "-rw-------",
        "lrwxrwxrwx",
        "crw-rw-rw-",
    ]
    assert [line.split()[8] for line in lines[:3]] == ["dir", "dir/file", "dir/link"]
    assert all("1970" in line for line in lines)
    subprocess.run(
        [tool, "-idm", "--quiet", "dir", "dir/file", "dir/link"],
        input=data,
        cwd=tmp_path,
        check=True,
    )
    assert (tmp_path / "dir/link").read_bytes() == b"content"


@pytest.mark.tool
def test_we_read_what_cpio_writes(tmp_path):
    tool = shutil.which("cpio")
    if tool is None:
        pytest.skip("cpio is not installed")
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_bytes(b"12345")
    done = subprocess.run(
        [tool, "-o", "-H", "newc", "--quiet"],
        input=b".\nd\nd/f\n",
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )
    assert [(m.path, m.data) for m in cpio.parse(done.stdout)] == [
        (".", b""),
        ("d", b""),
        ("d/f", b"12345"),
    ]


def broken(change):
    data = bytearray(cpio.write(SAMPLE))
    change(data)
    return bytes(data)


def put(at, raw):
    def change(data):
        data[at : at + len(raw)] = raw

    return change


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "cpio-trailer"),
        (bytes(4096), "cpio-trailer"),
        (b"\x1f\x8b" + bytes(200), "cpio-header"),
        (b"\0\0" + cpio.write(SAMPLE), "cpio-header"),
        (cpio.write(SAMPLE)[:60], "cpio-header"),
        (cpio.write(SAMPLE)[:116], "cpio-trailer"),
        (cpio.write(SAMPLE) + b"garbage!", "cpio-header"),
        (broken(put(0, b"070702")), "cpio-header"),
        (broken(put(6, b"0000 001")), "cpio-header"),
        (broken(put(6, b"+0000001")), "cpio-header"),
        (broken(put(54, b"FFFFFFFF")), "cpio-bounds"),
        (broken(put(94, b"FFFFFFFF")), "cpio-bounds"),
        (broken(put(94, b"00000000")), "cpio-name"),
        (broken(put(94, b"00000001")), "cpio-name"),
        (broken(put(110, b"../")), "cpio-name"),
        (broken(put(110, b"/xy")), "cpio-name"),
        (broken(put(110, b"a\0b")), "cpio-name"),
        (broken(put(110, b"\xff\xfe\xfd")), "cpio-name"),
        (broken(put(14, b"00000000")), "cpio-type"),
        (broken(put(14, b"FFFF81A4")), "cpio-type"),
    ],
)
def test_hostile_archives_are_refused(data, code):
    with pytest.raises(FormatError) as caught:
        cpio.parse(data, where="x.cpio")
    assert caught.value.code == code


@pytest.mark.parametrize(
    "path", ["", "/etc", "a/../b", "a//b", "a\0b", "x" * 5000, "\udcff", cpio.TRAILER]
)
def test_names_that_cannot_be_packed(path):
    with pytest.raises(FormatError, match="name"):
        cpio.write([cpio.Member(path, stat.S_IFREG)])


def test_many_small_archives_do_not_take_long():
    data = (cpio.write([]) * 20000)[: 8 << 20]
    start = time.monotonic()
    assert cpio.parse(data) == ()
    assert time.monotonic() - start < 5


@given(st.binary(max_size=600))
def test_arbitrary_bytes(data):
    fuzz(data)
    fuzz(cpio.MAGIC + data)


@given(st.data())
def test_mutated_archives(data):
    raw = bytearray(cpio.write(SAMPLE))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    fuzz(bytes(raw[: data.draw(st.integers(0, len(raw)))]))
    fuzz(bytes(raw))
