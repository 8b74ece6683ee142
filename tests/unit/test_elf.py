# SPDX-License-Identifier: Apache-2.0
"""ELF files: real ones against readelf, made ones, hostile ones."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.elf import fuzz
from made_elf import made
from troth.abi import elf
from troth.errors import FormatError


def test_all_fields_of_a_made_file():
    found = elf.parse(made())
    assert found == elf.Elf(
        kind=elf.SHARED,
        interpreter="/lib64/ld.so",
        needed=("libc.so.6",),
        soname="libx.so.1",
        rpath=(),
        runpath=("$ORIGIN/../lib", "/opt/lib"),
        dynamic=True,
    )
    assert elf.section(made(), ".modinfo") == b"depends=a,b\0"
    assert elf.section(made(), ".absent") == b""


@given(
    st.lists(st.text("abcdefghijklmnopqrstuvwxyz.0-+_", min_size=1, max_size=30), max_size=20),
    st.text("abc.", max_size=8),
)
def test_needed_names_come_back(needed, soname):
    found = elf.parse(made(needed=needed, soname=soname))
    assert found.needed == tuple(needed)
    assert found.soname == soname


@pytest.mark.tool
def test_readelf_agrees():
    tool = shutil.which("readelf")
    if tool is None:
        pytest.skip("readelf (binutils) is not installed")
    files = [
        Path(sys.executable).resolve(),
        *sorted(Path("/usr/lib/x86_64-linux-gnu").glob("lib*.so.*"))[:20],
    ]
    for path in files:
        text = subprocess.run(
            [tool, "-lWd", path], capture_output=True, text=True, check=True, env={"LC_ALL": "C"}
        ).stdout
        found = elf.parse(path.read_bytes(), where=str(path))
        assert list(found.needed) == re.findall(r"\(NEEDED\).*\[(.*)\]", text)
        assert [found.soname] == (re.findall(r"\(SONAME\).*\[(.*)\]", text) or [""])
        assert [found.interpreter] == (
            re.findall(r"Requesting program interpreter: (.*)\]", text) or [""]
        )


def put(at, raw):
    data = bytearray(made())
    data[at : at + len(raw)] = raw
    return bytes(data)


LOAD, INTERP, DYNAMIC = 64, 64 + 56, 64 + 112


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "elf-header"),
        (b"\x7fELF", "elf-header"),
        (made()[:63], "elf-header"),
        (put(4, b"\x01"), "elf-header"),
        (put(5, b"\x02"), "elf-header"),
        (made(machine=183), "elf-header"),
        (made(kind=4), "elf-header"),
        (put(54, b"\x20\x00"), "elf-header"),
        (put(56, b"\xff\xff"), "elf-limit"),
        (put(32, b"\xff" * 8), "elf-bounds"),
        (put(INTERP, b"\x02\0\0\0"), "elf-header"),
        (put(INTERP + 8, b"\xff" * 8), "elf-bounds"),
        (put(INTERP + 32, b"\xff" * 8), "elf-text"),
        (put(INTERP + 32, bytes(8)), "elf-text"),
        (made(interpreter=b"/lib64/ld.so"), "elf-text"),
        (made(interpreter=b"/li\0/ld.so\0"), "elf-text"),
        (made(interpreter=b"/\xff\xff\0"), "elf-text"),
        (put(DYNAMIC + 8, b"\xff" * 8), "elf-bounds"),
        (put(DYNAMIC + 32, b"\xff" * 8), "elf-limit"),
        (put(LOAD, bytes(4)), "elf-bounds"),
        (made(needed=("",)), "elf-text"),
        (made(needed=("a\nb",)), "elf-text"),
    ],
)
def test_hostile_files_are_refused(data, code):
    with pytest.raises(FormatError) as caught:
        elf.parse(data)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (put(40, b"\xff" * 8), "elf-bounds"),
        (put(60, b"\xff\xff"), "elf-limit"),
        (put(60, b"\0\0"), "elf-limit"),
        (put(62, b"\x09\0"), "elf-bounds"),
        (put(58, b"\x20\0"), "elf-header"),
    ],
)
def test_hostile_section_tables_are_refused(data, code):
    with pytest.raises(FormatError) as caught:
        elf.section(data, ".modinfo")
    assert caught.value.code == code


@given(st.binary(max_size=400))
def test_arbitrary_bytes(data):
    fuzz(data)
    fuzz(made()[:64] + data)


@given(st.data())
def test_mutated_files(data):
    raw = bytearray(made())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    fuzz(bytes(raw[: data.draw(st.integers(0, len(raw)))]))
    fuzz(bytes(raw))
