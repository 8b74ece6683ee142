# SPDX-License-Identifier: Apache-2.0
"""Reading IGVM files that are assembled by hand, right and wrong in each place."""

import os
import struct
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import made_igvm as made
from fuzz.igvm import SEEDS, fuzz
from troth.abi.igvm import headers as h
from troth.abi.igvm.coverage import Coverage
from troth.abi.igvm.file import BytesSource, FileSource, Pages, open_
from troth.errors import FormatError

VECTOR = Path(
    os.environ.get("TROTH_VECTORS", Path(__file__).parents[3] / "shared/vectors")
).joinpath("measure/igvm/tooling_bzimage_x64.igvm")
PAGE = made.PAGE


def opened(data):
    return open_(BytesSource(data))


def code(data):
    with pytest.raises(FormatError) as caught:
        opened(data)
    return caught.value.code


def snp(*headers, data=bytes(PAGE), **lies):
    return made.made([made.platform(), *headers], data, **lies)


@pytest.mark.vectors
def test_the_vector():
    if not VECTOR.exists():
        pytest.skip(f"no vectors at {VECTOR} (set TROTH_VECTORS)")
    file = opened(VECTOR.read_bytes())
    assert (file.version, file.architecture, file.header_bytes) == (1, 0, 0x31E0)
    assert file.platforms == (h.SupportedPlatform(1, 0, h.SEV_SNP, 1, 0),)
    assert len(file.warnings) == 1
    assert "padded" in file.warnings[0]
    headers = list(file.headers())
    assert len(headers) == 380
    assert headers[1] == h.GuestPolicy(0x3001F, 1)
    (context,) = (item for item in headers if isinstance(item, h.VpContext))
    assert context.gpa == 0x803000
    assert len(file.data(context)) == PAGE


def test_every_header_type_is_read():
    body = bytes(range(16)) * 4
    data = made.counted(1) + struct.pack("<I", 2) + body + bytes(PAGE)
    file = opened(
        made.made(
            [
                made.platform(1, made.SNP, vtl=2, boundary=1 << 40),
                made.platform(2, made.NATIVE),
                made.platform(4, made.VSM),
                made.policy(0x30000, 1),
                made.relocatable(1, 3, 2, 7, PAGE, 0x2000, 0x3000, 0x1000, 0x9000),
                made.page_tables(1, 3, 2, 0x5000, 0x2000, 0x1000),
                made.corim(0, 10),
                made.corim(10, 20, kind=0x105),
                (0x106, body[:32]),
                made.area(2 * PAGE, 9, 0),
                *(made.usage(kind, 9, number) for number, kind in enumerate(h.USAGES)),
                made.page(0x1000, 0, mask=7, flags=2, kind=0),
                made.page(0x4000, kind=1),
                made.insert(0x8000, 9),
                made.context(0, vp=5),
                made.context(PAGE, gpa=0, mask=4),
                made.memory(0x100000, 0x2000, flags=1),
                made.id_block(b"\7" * 48),
                made.error_range(0x7000),
                made.vbs(4),
            ],
            data,
            version=2,
        )
    )
    start = file.size_bytes - len(data)
    headers = list(file.headers())
    assert headers[:9] == [
        h.SupportedPlatform(1, 2, 2, 1, 1 << 40),
        h.SupportedPlatform(2, 0, 0),
        h.SupportedPlatform(4, 0, 1),
        h.GuestPolicy(0x30000, 1),
        h.RelocatableRegion(1, 3, 2, 7, PAGE, 0x2000, 0x3000, 0x1000, 0x9000),
        h.PageTableRelocation(1, 3, 2, 0x5000, 0x2000, 0x1000),
        h.CorimDocument(1, start, 10),
        h.CorimSignature(1, start + 10, 20),
        h.CcaPolicy(body[:32]),
    ]
    assert headers[9] == h.ParameterArea(2 * PAGE, 9, start)
    assert headers[10:20] == [h.Usage(kind, 9, n) for n, kind in enumerate(h.USAGES)]
    assert headers[20:26] == [
        h.PageData(0x1000, 7, start, 2, 0),
        h.PageData(0x4000, 1, 0, 0, 1),
        h.ParameterInsert(0x8000, 1, 9),
        h.VpContext(made.KVM_GPA, 1, start, 5),
        h.VpContext(0, 4, start + PAGE, 0),
        h.RequiredMemory(0x100000, 1, 0x2000, 1),
    ]
    assert headers[26].launch_digest == b"\7" * 48
    assert headers[27] == h.ErrorRange(0x7000, 1, PAGE)
    assert (headers[28].compatibility_mask, len(headers[28].body)) == (4, 864)
    assert file.data(headers[6]) == data[:10]
    assert file.data(headers[9]) == data[: 2 * PAGE]
    assert file.data(headers[20]) == made.counted(1)
    assert file.data(headers[21]) == b""
    assert file.data(headers[24]) == data[PAGE : PAGE + 4 + 64]


@pytest.mark.parametrize("version", [1, 2])
def test_fixed_header_lies(version):
    good = {"version": version, "data": made.vmsa()}
    assert opened(snp(made.page(0), **good)).version == version
    for lies, wanted in (
        ({"magic": 0x4D564748}, "igvm-magic"),
        ({"total": 4096}, "igvm-size"),
        ({"total": 2**32 - 1}, "igvm-size"),
        ({"crc": 0}, "igvm-checksum"),
        ({"start": 0}, "igvm-header-bounds"),
        ({"start": 25}, "igvm-header-bounds"),
        ({"start": 2**32 - 8}, "igvm-header-bounds"),
        ({"size": 0}, "igvm-header-bounds"),
        ({"size": 12}, "igvm-header-bounds"),
        ({"size": 2**32 - 8}, "igvm-header-bounds"),
    ):
        assert code(snp(made.page(0), **good, **lies)) == wanted, lies


def test_versions_and_architectures():
    file = snp(made.page(0))
    for number in (0, 3, 2**32 - 1):
        assert code(file[:4] + struct.pack("<I", number) + file[8:]) == "igvm-version"
    assert opened(snp(made.page(0), version=2, architecture=1)).architecture == 1
    assert code(snp(made.page(0), version=2, architecture=2)) == "igvm-architecture"
    assert code(snp(made.page(0), version=2, page_size=16384)) == "igvm-page-size"
    assert code(snp(made.page(0), data=b"")) == "igvm-header-bounds"


def test_every_cut_is_refused():
    whole = made.linux(2, version=2)
    for length in [*range(64), *range(64, len(whole), 97)]:
        with pytest.raises(FormatError):
            opened(whole[:length])
    for length in range(0, len(whole) - 1, 411):
        with pytest.raises(FormatError):
            opened(made.repaired(whole[:length]))


def test_a_gap_before_the_headers_is_allowed():
    assert len(list(opened(snp(made.page(0), gap=bytes(16))).headers())) == 2


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        ([(0x306, bytes(8))], "igvm-type"),
        ([(0, bytes(8))], "igvm-type"),
        ([(0x7FFFFFFF, bytes(8))], "igvm-type"),
        ([(0x80000302, bytes(24))], "igvm-type-ignorable"),
        ([made.page(0), made.policy()], "igvm-order"),
        ([made.policy(), made.platform(2, 0)], "igvm-order"),
        ([made.page(0), made.platform(2, 0)], "igvm-order"),
        ([made.platform(1, 0)], "igvm-platform-mask"),
        ([made.platform(0, 0)], "igvm-platform-mask"),
        ([made.platform(6, 0)], "igvm-platform-mask"),
        ([made.platform(2, 7)], "igvm-platform-type"),
        ([made.platform(2, made.SNP)], "igvm-platform-twice"),
        ([made.platform(2, 0, version=2)], "igvm-platform-version"),
        ([made.platform(2, 0, vtl=1)], "igvm-platform-version"),
        ([made.policy(), made.policy()], "igvm-policy-twice"),
        ([made.policy(mask=2)], "igvm-mask"),
        ([made.policy(mask=0)], "igvm-mask"),
        ([made.policy(reserved=1)], "igvm-reserved"),
        ([made.page(0, mask=2)], "igvm-mask"),
        ([made.page(0, mask=0)], "igvm-mask"),
        ([made.page(1)], "igvm-alignment"),
        ([made.page(0x800)], "igvm-alignment"),
        ([made.page(1 << 52)], "igvm-gpa"),
        ([made.page(2**64 - PAGE)], "igvm-gpa"),
        ([made.page(0, flags=8)], "igvm-flags"),
        ([made.page(0, flags=1 << 31)], "igvm-flags"),
        ([made.page(0, kind=4)], "igvm-data-type"),
        ([made.page(0, kind=0xFFFF)], "igvm-data-type"),
        ([made.page(0, kind=1, flags=4)], "igvm-flags"),
        ([made.page(0, kind=2, flags=4)], "igvm-flags"),
        ([made.page(0, reserved=1)], "igvm-reserved"),
        ([made.page(0, 1)], "igvm-data"),
        ([made.page(0, -1)], "igvm-data"),
        ([made.page(0, PAGE)], "igvm-data"),
        ([made.page(0, 0x7FFFFFFF)], "igvm-data"),
        ([made.page(0, flags=1), made.page(0x1FF000)], "igvm-overlap"),
        ([made.page(0x1000, flags=1)], "igvm-large-page"),
        ([made.page(0, 0, flags=1)], "igvm-large-page"),
        ([made.page(0, flags=1, kind=1)], "igvm-large-page"),
        ([made.page((1 << 52) - PAGE, flags=1)], "igvm-gpa"),
        ([made.page(0), made.page(0)], "igvm-overlap"),
        ([made.page(0x2000), made.page(0x1000), made.page(0x2000)], "igvm-overlap"),
        ([made.area(2 * PAGE), made.page(0x1000), made.insert(0)], "igvm-overlap"),
        ([made.area(), made.area()], "igvm-parameter-twice"),
        ([made.area(), made.insert(0), made.area()], "igvm-parameter-twice"),
        ([made.area(0)], "igvm-parameter-size"),
        ([made.area(100)], "igvm-parameter-size"),
        ([made.area((64 << 20) + PAGE)], "igvm-parameter-size"),
        ([made.area(2**64 - PAGE)], "igvm-parameter-size"),
        ([made.area(2 * PAGE, 0, 0)], "igvm-data"),
        ([*(made.area(index=n) for n in range(4097))], "igvm-limit"),
        ([made.insert(0)], "igvm-parameter-index"),
        ([made.area(), made.insert(0, 1)], "igvm-parameter-index"),
        ([made.area(), made.insert(0), made.insert(0x1000)], "igvm-parameter-index"),
        ([made.area(), made.insert(0, mask=2)], "igvm-mask"),
        ([made.area(), made.insert(8)], "igvm-alignment"),
        ([made.area(2 * PAGE), made.insert((1 << 52) - PAGE)], "igvm-gpa"),
        ([made.usage(0x307)], "igvm-parameter-index"),
        ([made.area(), made.insert(0), made.usage(0x307)], "igvm-parameter-index"),
        ([made.area(), made.usage(0x307, 0, PAGE)], "igvm-parameter-offset"),
        ([made.area(), made.usage(0x30C, 0, 2**32 - 1)], "igvm-parameter-offset"),
        ([made.context(1)], "igvm-data"),
        ([made.context(-8)], "igvm-data"),
        ([made.context(), made.context()], "igvm-context-twice"),
        ([made.context(gpa=8)], "igvm-alignment"),
        ([made.context(mask=2)], "igvm-mask"),
        ([made.context(reserved=1)], "igvm-reserved"),
        ([made.context(gpa=0x1000), made.page(0x1000)], "igvm-overlap"),
        ([made.platform(2, made.NATIVE), made.context(mask=3)], "igvm-context-platform"),
        ([made.platform(2, made.VSM), made.context(mask=2)], "igvm-limit"),
        ([made.memory(0, 0)], "igvm-alignment"),
        ([made.memory(1)], "igvm-alignment"),
        ([made.memory(0, 100)], "igvm-alignment"),
        ([made.memory((1 << 52) - PAGE, 2 * PAGE)], "igvm-gpa"),
        ([made.memory(2**64 - PAGE, 2 * PAGE)], "igvm-gpa"),
        ([made.memory(flags=2)], "igvm-flags"),
        ([made.memory(reserved=1)], "igvm-reserved"),
        ([made.error_range(1)], "igvm-alignment"),
        ([made.error_range(0, size=0)], "igvm-alignment"),
        ([made.id_block(), made.id_block()], "igvm-id-block-twice"),
        ([made.id_block(mask=2)], "igvm-mask"),
        ([made.corim(0, 0)], "igvm-corim"),
        ([made.corim(0, 8), made.corim(0, 8)], "igvm-corim"),
        ([made.corim(0, 8, kind=0x105)], "igvm-corim"),
        ([made.corim(0, PAGE + 1)], "igvm-data"),
        ([made.corim(-8, 8)], "igvm-data"),
        ([made.relocatable(align=0)], "igvm-relocation"),
        ([made.relocatable(align=100)], "igvm-relocation"),
        ([made.relocatable(flags=8)], "igvm-relocation"),
        ([made.relocatable(vtl=3)], "igvm-relocation"),
        ([made.relocatable(low=0x2000, high=0x1000)], "igvm-relocation"),
        ([made.relocatable(size=0)], "igvm-alignment"),
        ([made.page_tables(used=0x2000)], "igvm-relocation"),
        ([made.page_tables(reserved=1)], "igvm-reserved"),
        ([made.page_tables(), made.page_tables(gpa=0x9000)], "igvm-relocation"),
        ([made.vbs(2)], "igvm-mask"),
    ],
)
def test_wrong_headers(headers, wanted):
    # the state of a VSM processor would have 0xFFFFFFFF registers
    assert code(snp(*headers, data=b"\xff" * PAGE)) == wanted


@pytest.mark.parametrize("kind", sorted(h.NAMES))
def test_each_length_at_its_extremes(kind):
    size = h.body_bytes(kind)
    for length in (0, 1, size - 1, size + 1, size + 8, 2**31, 2**32 - 1):
        odd = made.packed(kind, bytes(size), length=length)
        assert code(made.made([odd, made.page(0)], bytes(PAGE))) == "igvm-header-length"


def test_a_header_that_leaves_the_section():
    for cut in range(8, 24, 8):
        body = made.packed(0x302, bytes(24))[:-cut]
        assert code(made.made([made.platform(), body], bytes(PAGE))) == "igvm-header-bounds"
    whole = made.linux(1)
    start, size = struct.unpack_from("<II", whole, 8)
    moved = bytearray(whole)
    struct.pack_into("<I", moved, 12, size - 8)  # without the end of VP_CONTEXT
    assert code(made.repaired(bytes(moved))) == "igvm-header-bounds"
    assert start == 24


def test_padding():
    assert opened(snp(made.context(), padding=b"0")).warnings != ()
    assert opened(snp(made.context())).warnings == ()
    for padding in (b"1", b"\xff"):
        assert code(snp(made.context(), padding=padding)) == "igvm-padding"
    mixed = made.packed(0x304, struct.pack("<QIIHH", 0, 1, 4000, 0, 0))[:-1] + b"0"
    assert code(made.made([made.platform(), mixed], bytes(8192))) == "igvm-padding"


def test_no_platform():
    assert code(made.made([(0x106, bytes(32))], bytes(PAGE))) == "igvm-platform-none"


def test_a_foreign_bit_in_a_mask_is_a_warning():
    file = opened(snp(made.page(0, mask=0x81), made.page(0x1000, mask=0x81)))
    assert len(file.warnings) == 1


def test_pages_of_different_platforms_may_share_an_address():
    file = opened(snp(made.platform(2, 0), made.page(0, mask=1), made.page(0, mask=2)))
    assert [item.compatibility_mask for item in file.headers()][2:] == [1, 2]
    both = snp(made.platform(2, 0), made.page(0, mask=3), made.page(0, mask=2))
    assert code(both) == "igvm-overlap"


def test_runs_are_as_single_headers(tmp_path):
    """Wherever runs of pages begin, end and cross the reader's chunks, headers are the same."""
    headers, gpa = [made.platform(), made.policy()], 0
    expected = []
    for length in (1, 15, 16, 17, 33, 5000, 3, 40000, 1):
        for _ in range(length):
            headers.append(made.page(gpa))
            expected.append(gpa)
            gpa += PAGE
        headers.append(made.memory())
        expected.append(None)
    path = tmp_path / "file"
    path.write_bytes(made.made(headers, bytes(PAGE)))
    with path.open("rb") as stream:
        file = open_(FileSource(stream.fileno(), where=str(path)))
        assert file.where == str(path)
        found = [item.gpa if isinstance(item, h.PageData) else None for item in file.headers()][2:]
        batches = [item for item in file.batches() if isinstance(item, Pages)]
    assert found == expected
    assert len(batches) < 60
    for batch in batches:
        at = struct.unpack_from("<Q", path.read_bytes(), batch.at + 8)[0]
        assert at == batch.gpas[0]


def test_the_error_names_the_header():
    file = snp(*(made.page(n * PAGE) for n in range(20)), made.page(3))
    with pytest.raises(FormatError) as caught:
        open_(BytesSource(file, where="x.igvm"))
    assert caught.value.where == f"x.igvm: header at {24 + 24 + 20 * 32:#x}"


def test_too_many_pages_are_refused_in_time():
    large = [made.page(n << 21, flags=1) for n in range((1 << 24) // 512 + 1)]
    assert code(snp(*large)) == "igvm-limit"


def test_too_many_other_headers_are_refused():
    others = made.packed(*made.memory()) * (1 << 16)
    assert code(made.made([made.platform(), others], bytes(PAGE))) == "igvm-limit"


def test_a_file_that_shrinks(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(made.linux(4))
    with path.open("rb") as stream:
        file = open_(FileSource(stream.fileno()))
        os.truncate(path, 8192)
        (*_, context) = (item for item in file.headers())
        with pytest.raises(FormatError) as caught:
            file.data(context)
    assert caught.value.code == "igvm-truncated"


def test_memory_grows_by_eight_bytes_a_page():
    """In the worst order: every second page upwards, then the others downwards."""
    peaks = []
    for count in (1 << 15, 3 << 14):
        order = [*range(0, count, 2), *range(count - 1, 0, -2)]
        body = b"".join(
            struct.pack("<IIQIIIHH", 0x302, 24, (gpa + 1) * PAGE, 1, 0, 0, 0, 0) for gpa in order
        )
        file = made.made([made.platform(), body], bytes(PAGE))
        tracemalloc.start()
        opened(file)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 16 * (1 << 14), peaks


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 60), st.integers(1, 5)), max_size=12))
def test_coverage_is_as_sets(runs):
    coverage = Coverage()
    seen, twice = {1: set(), 2: set()}, set()
    for mask, first, pages in runs:
        coverage.add(mask, first * PAGE, pages)
        for bit in (1, 2):
            if mask & bit:
                placed = set(range(first, first + pages))
                twice |= placed & seen[bit]
                seen[bit] |= placed
    assert coverage.twice() == (min(twice) * PAGE if twice else None)


@given(st.binary(max_size=400))
def test_any_bytes(data):
    fuzz(data)
    fuzz(b"IGVM" + struct.pack("<III", 1, 24, len(data) // 8 * 8) + bytes(8) + data + bytes(PAGE))


@given(st.data())
def test_mutants(data):
    seed = bytearray(data.draw(st.sampled_from(SEEDS)))
    end = sum(struct.unpack_from("<II", seed, 8))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(4, end - 1))
        seed[place] = data.draw(st.integers(0, 255))
    fuzz(bytes(seed))


def test_a_pipe_is_not_read():
    reader, writer = os.pipe()
    try:
        with pytest.raises(FormatError) as caught:
            FileSource(reader, where="pipe")
    finally:
        os.close(reader)
        os.close(writer)
    assert (caught.value.code, caught.value.where) == ("igvm-size", "pipe")
