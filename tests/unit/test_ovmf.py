# SPDX-License-Identifier: Apache-2.0
"""OVMF's table and metadata: the tails of real builds, and every way to be wrong."""

import os
import random
import struct
import uuid
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import made_firmware as made
from made_firmware import entry, firmware, with_table
from troth.abi import ovmf
from troth.abi.ovmf import Area, Section
from troth.errors import FormatError

VECTORS = Path(
    os.environ.get("TROTH_VECTORS", Path(__file__).parents[3] / "shared/vectors")
).joinpath("measure/direct-boot")
DEBIAN = Path("/usr/share/ovmf/OVMF.fd")

SECTIONS = {
    "AmdSev": made.MIDDLE,
    "OvmfX64": (*made.MIDDLE[:5], (0x810000, 0x10000, made.MEM)),
}


def code(data, **options):
    with pytest.raises(FormatError) as caught:
        ovmf.parse(data, **options)
    return caught.value.code


@pytest.mark.vectors
@pytest.mark.parametrize("name", sorted(SECTIONS))
def test_tails_of_real_builds(name):
    if not VECTORS.exists():
        pytest.skip(f"no vectors at {VECTORS} (set TROTH_VECTORS)")
    found = ovmf.parse((VECTORS / f"ovmf_{name}_suffix.bin").read_bytes())
    assert [(item.gpa, item.size_bytes, item.kind) for item in found.sections] == list(
        SECTIONS[name]
    )
    assert found.ap_eip == 0x0080B004
    assert found.has_metadata
    assert found.hashes_area == (Area(0x810C00, 0x400) if name == "AmdSev" else Area(0, 0))
    assert found.launch_secret == (Area(0x810000, 0xC00) if name == "AmdSev" else Area(0, 0))
    assert [item.guid for item in found.entries] == [
        made.RESET,
        made.INJECT,
        made.HASHES,
        made.SEV,
        made.TDX,
    ]


@pytest.mark.tool
def test_debians_firmware_has_no_place_for_hashes():
    if not DEBIAN.exists():
        pytest.skip("needs the package ovmf")
    found = ovmf.parse(DEBIAN.read_bytes())
    assert found.hashes_area == Area(0, 0)
    assert all(item.kind != ovmf.KERNEL_HASHES for item in found.sections)
    assert found.gpa == 0x100000000 - DEBIAN.stat().st_size


def test_synthetic_firmware_is_read_as_made():
    facts = [(made.TDX, b"\1\2\3\4"), (made.IGVM, b"x" * 9), (str(uuid.UUID(int=5)), b"")]
    found = ovmf.parse(firmware(sections=made.SVSM, eip=7, extra=facts))
    assert [(item.gpa, item.size_bytes, item.kind) for item in found.sections] == list(made.SVSM)
    assert found.ap_eip == 7
    read = {item.guid: item.data for item in found.entries}
    assert {guid: read[guid] for guid, _ in facts} == dict(facts)


def test_what_is_not_there_is_none():
    found = ovmf.parse(firmware(sections=None, area=None, eip=None, inject=None))
    assert (found.ap_eip, found.hashes_area, found.launch_secret) == (None, None, None)
    assert (found.sections, found.has_metadata, found.entries) == ((), False, ())
    none = ovmf.parse(firmware(sections=()))
    assert none.has_metadata
    assert none.sections == ()


def test_the_tail_is_enough():
    whole = firmware(1 << 20)
    assert ovmf.parse(whole[-4096:], size_bytes=len(whole)) == ovmf.parse(whole)


def test_metadata_in_front_of_the_tail_is_refused():
    whole = firmware(1 << 16, gap=8192)
    assert ovmf.parse(whole).sections
    assert code(whole[-4096:], size_bytes=1 << 16) == "firmware-metadata"


def test_a_firmware_without_table():
    other = random.Random(5).randbytes(8192)
    assert code(other) == "firmware-footer"
    found = ovmf.parse(other, footer_required=False)
    assert (found.size_bytes, found.entries) == (8192, ())


@pytest.mark.parametrize("size", [0, 1, 49, 4095, 4097, 12288 - 16])
def test_sizes_that_are_not_whole_pages(size):
    assert code(bytes(size)) == "firmware-size"


@pytest.mark.parametrize(
    ("tail", "size"), [(4096, (1 << 30) + 4096), (4095, 8192), (8192, 4096), (4096, 0), (0, 4096)]
)
def test_tails_that_are_not_of_their_file(tail, size):
    assert code(bytes(tail), size_bytes=size) == "firmware-size"


def ended(table, **options):
    return with_table(table, **options).rjust(8192, b"\xcc")


@pytest.mark.parametrize(
    "data",
    [
        ended(b"", size=17),
        ended(b"", size=0),
        ended(b"", size=8192),
        ended(b"", size=0xFFFF),
        ended(b"x" * 17),
        ended(b"x" + entry(made.RESET, bytes(4))),
        ended(b"\0" * 17 + entry(made.RESET, bytes(4))),
        ended(entry(made.RESET, bytes(4))[4:]),
        ended(b"\x11\0" + uuid.UUID(made.TDX).bytes_le),
        ended(b"\0\0" + uuid.UUID(made.TDX).bytes_le),
        ended(b"\xff\xff" + uuid.UUID(made.TDX).bytes_le),
        ended(entry(made.RESET, bytes(3))),
        ended(entry(made.RESET, bytes(5))),
        ended(entry(made.HASHES, bytes(4))),
        ended(entry(made.INJECT, bytes(9))),
        ended(entry(made.SEV, b"")),
        ended(entry(made.RESET, bytes(4)) * 2),
        ended(entry(made.TDX, b"") + entry(made.TDX, b"x")),
    ],
)
def test_tables_that_do_not_add_up(data):
    assert code(data) == "firmware-table"


@pytest.mark.parametrize("offset", [0, 15, 8193, 2**31, 2**32 - 1])
def test_metadata_that_is_nowhere(offset):
    assert code(ended(entry(made.SEV, struct.pack("<I", offset)))) == "firmware-metadata"


@pytest.mark.parametrize(
    "options",
    [
        {"magic": b"ASEW"},
        {"version": 0},
        {"version": 2},
        {"length": 0},
        {"length": 99},
        {"length": 101},
        {"length": 2**32 - 1},
        {"count": 6},
        {"count": 8},
        {"count": 0},
    ],
)
def test_metadata_that_does_not_add_up(options):
    assert code(firmware(**options)) == "firmware-metadata"


def test_metadata_that_leaves_the_file():
    table = entry(made.SEV, struct.pack("<I", 16))
    end = with_table(table)
    # The header is the last 16 bytes, and promises one section behind them.
    data = (end[:-16] + struct.pack("<4sIII", b"ASEV", 28, 1, 1)).rjust(8192, b"\0")
    assert code(data) == "firmware-metadata"


PAGE = 0x1000


@pytest.mark.parametrize(
    "sections",
    [
        ((0x800000, PAGE, 0),),
        ((0x800000, PAGE, 5),),
        ((0x800000, PAGE, 0xF),),
        ((0x800000, PAGE, 0x11),),
        ((0x800000, PAGE, 2**32 - 1),),
        ((0x800000, 0, made.MEM),),
        ((0x800000, PAGE - 1, made.MEM),),
        ((0x800001, PAGE, made.MEM),),
        ((0x800800, PAGE, made.MEM),),
        ((2**32 - PAGE, PAGE, made.MEM),),
        ((2**32 - 3 * PAGE, 2 * PAGE, made.MEM),),
        ((2**32 - PAGE, 2**32 - PAGE, made.MEM),),
        ((0x800000, PAGE, made.MEM), (0x800000, PAGE, made.MEM)),
        ((0x800000, 3 * PAGE, made.MEM), (0x802000, PAGE, made.CAA)),
        ((0x802000, PAGE, made.CAA), (0x800000, 3 * PAGE, made.MEM)),
        ((0x800000, PAGE, made.SECRETS), (0x900000, PAGE, made.SECRETS)),
        ((0x800000, PAGE, made.CPUID), (0x900000, PAGE, made.CPUID)),
        ((0x800000, PAGE, made.KERNEL), (0x900000, PAGE, made.KERNEL)),
        ((0x800000, 2 * PAGE, made.SECRETS),),
        ((0x800000, 2 * PAGE, made.CPUID),),
        tuple((index * PAGE, PAGE, made.MEM) for index in range(65)),
    ],
)
def test_sections_that_cannot_be(sections):
    assert code(firmware(sections=sections)) == "firmware-section"


def test_the_most_there_can_be():
    sections = tuple((index * PAGE, PAGE, made.MEM) for index in range(64))
    assert len(ovmf.parse(firmware(sections=sections)).sections) == 64
    below = ((0, 2**32 - 8192, made.MEM),)
    assert ovmf.parse(firmware(8192, sections=below)).sections[0].pages == (1 << 20) - 2
    assert code(firmware(12288, sections=below)) == "firmware-section"


def test_errors_name_the_file():
    with pytest.raises(FormatError) as caught:
        ovmf.parse(bytes(4096), where="OVMF_VARS.fd")
    assert caught.value.where == "OVMF_VARS.fd"
    assert "VARS" in caught.value.hint


@st.composite
def some_sections(draw):
    """Sections that any firmware could have, in any order."""
    kinds = draw(st.permutations([1, 1, 4, 4, 2, 3, 0x10]))
    gpa, found = draw(st.integers(0, 1 << 18)) * PAGE, []
    for kind in kinds[: draw(st.integers(0, len(kinds)))]:
        pages = 1 if kind in (2, 3) else draw(st.integers(1, 40))
        found.append((gpa, pages * PAGE, kind))
        gpa += (pages + draw(st.integers(0, 9))) * PAGE
    return tuple(draw(st.permutations(found)))


@given(
    sections=some_sections(),
    eip=st.none() | st.integers(0, 2**32 - 1),
    area=st.none() | st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
    pages=st.integers(1, 5),
)
def test_whatever_is_made_is_read(sections, eip, area, pages):
    found = ovmf.parse(firmware(pages * 4096, sections=sections, eip=eip, area=area))
    assert found.sections == tuple(Section(*item) for item in sections)
    assert (found.ap_eip, found.hashes_area) == (eip, None if area is None else Area(*area))


@settings(max_examples=300)
@given(st.data())
def test_mutants_are_refused_or_bounded(data):
    made_bytes = bytearray(firmware(4096))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(4096 - 400, 4095))
        made_bytes[at] = data.draw(st.integers(0, 255))
    try:
        found = ovmf.parse(bytes(made_bytes))
    except FormatError as error:
        assert error.code.startswith("firmware-")
    else:
        assert len(found.sections) <= 64
        assert sum(item.pages for item in found.sections) <= 1 << 20


@given(st.binary(max_size=300), st.integers(0, 2**16 - 1))
def test_random_tables(table, size):
    try:
        ovmf.parse(with_table(table, size=size).rjust(4096, b"\0"))
    except FormatError as error:
        assert error.code.startswith("firmware-")
