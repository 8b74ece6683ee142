# SPDX-License-Identifier: Apache-2.0
"""Writing IGVM files: byte for byte what is assembled by hand."""

import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import made_igvm as made
from troth.abi.igvm import headers as h
from troth.abi.igvm.file import BytesSource, Contents, open_
from troth.abi.igvm.write import write
from troth.errors import FormatError

VECTOR = Path(
    os.environ.get("TROTH_VECTORS", Path(__file__).parents[3] / "shared/vectors")
).joinpath("measure/igvm/tooling_bzimage_x64.igvm")
PAGE = made.PAGE


def written(headers, version=1, **options):
    stream = io.BytesIO()
    size = write(headers, version=version, stream=stream, **options)
    assert size == len(stream.getvalue())
    return stream.getvalue()


def again(data):
    file = open_(BytesSource(data))
    return written(Contents(file), version=file.version, architecture=file.architecture)


@pytest.mark.parametrize("version", [1, 2])
def test_a_whole_file_by_hand(version):
    headers = [
        (h.SupportedPlatform(1, 0, h.SEV_SNP), b""),
        (h.GuestPolicy(0x30000, 1), b""),
        (h.RequiredMemory(0, 1, 1 << 20), b""),
        (h.PageData(0x1000, 1, data_type=h.CPUID_DATA), b""),
        (h.PageData(0x2000, 1, data_type=h.SECRETS), b""),
        *((h.PageData(0x10000 + n * PAGE, 1), made.counted(n)) for n in range(8)),
        (h.PageData(0x18000, 1), b""),
        (h.VpContext(made.KVM_GPA, 1, 0), made.vmsa()),
    ]
    assert written(headers, version) == made.linux(8, version=version)


def test_equal_pages_are_stored_once():
    headers = [(h.SupportedPlatform(1, 0, h.SEV_SNP), b"")]
    headers += [(h.PageData(n * PAGE, 1), made.counted(n % 3)) for n in range(9)]
    headers += [(h.ParameterArea(PAGE, 0), made.counted(1))]
    data = b"".join(made.counted(n) for n in range(3))
    by_hand = [made.platform(), *(made.page(n * PAGE, n % 3 * PAGE) for n in range(9))]
    assert written(headers) == made.made([*by_hand, made.area(data_at=PAGE)], data)


def test_a_short_page_is_filled_with_zeros():
    headers = [(h.SupportedPlatform(1, 0, h.SEV_SNP), b""), (h.PageData(0, 1), b"abc")]
    assert written(headers) == made.made(
        [made.platform(), made.page(0, 0)], b"abc" + bytes(PAGE - 3)
    )


def test_zeros_as_data_stay_data():
    file = made.made([made.platform(), made.page(0, 0)], bytes(PAGE))
    assert again(file) == file


def test_old_offsets_do_not_matter():
    headers = [
        (h.SupportedPlatform(1, 0, h.SEV_SNP), b""),
        (h.PageData(0, 1, 0xFFFFFFFF), made.counted(1)),
        (h.PageData(PAGE, 1, 12345), b""),
    ]
    by_hand = [made.platform(), made.page(0, 0), made.page(PAGE)]
    assert written(headers) == made.made(by_hand, made.counted(1))


PLATFORM = (h.SupportedPlatform(1, 0, h.SEV_SNP), b"")
DATA = (h.PageData(0, 1), b"x")


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        ([PLATFORM], "igvm-no-data"),
        ([], "igvm-no-data"),
        ([(h.PageData(0, 1), bytes(PAGE + 1))], "igvm-value"),
        ([DATA, (h.GuestPolicy(0, 1), b"x")], "igvm-value"),
        ([DATA, (h.ParameterArea(2 * PAGE, 0), bytes(PAGE))], "igvm-value"),
        ([DATA, (h.VpContext(0, 1, 0), b"")], "igvm-value"),
        ([DATA, (h.CorimDocument(1, 0, 3), b"ab")], "igvm-value"),
        ([DATA, (h.CorimDocument(1, 0, 0), b"")], "igvm-value"),
        ([DATA, (h.SnpIdBlock(bytes(695)), b"")], "igvm-value"),
        ([DATA, (h.GuestPolicy(1 << 64, 1), b"")], "igvm-value"),
        ([DATA, (h.GuestPolicy(-1, 1), b"")], "igvm-value"),
        ([DATA, (h.Usage(0x307, 1 << 32, 0), b"")], "igvm-value"),
        ([DATA, (h.Usage(0x306, 0, 0), b"")], "igvm-type"),
    ],
)
def test_what_cannot_be_written(headers, wanted):
    stream = io.BytesIO()
    with pytest.raises(FormatError) as caught:
        write(headers, version=1, stream=stream)
    assert caught.value.code == wanted
    assert stream.getvalue() == b""


def test_an_iterator_is_refused():
    with pytest.raises(TypeError):
        write(iter([PLATFORM, DATA]), version=1, stream=io.BytesIO())


def test_four_gibibytes_are_too_much(monkeypatch):
    monkeypatch.setattr("troth.abi.igvm.write._MAX_FILE_BYTES", 3 * 4096 + 200)
    stream = io.BytesIO()
    with pytest.raises(FormatError) as caught:
        write(
            [PLATFORM, *((h.PageData(n * PAGE, 1), made.counted(n)) for n in range(4))],
            version=1,
            stream=stream,
        )
    assert caught.value.code == "igvm-too-large"
    assert stream.getvalue() == b""


@pytest.mark.vectors
def test_the_vector_with_true_padding():
    if not VECTOR.exists():
        pytest.skip(f"no vectors at {VECTOR} (set TROTH_VECTORS)")
    data = VECTOR.read_bytes()
    once = again(data)
    assert again(once) == once
    # Pages equal to others are stored once; apart from that only padding and checksum change.
    assert len(once) <= len(data)
    assert list(_with_data(once)) == list(_with_data(data))


def _with_data(data):
    file = open_(BytesSource(data))
    for header, content in Contents(file):
        if isinstance(header, h.PageData | h.VpContext):
            yield h.type_of(header), header.gpa, header.compatibility_mask, content
        else:
            yield header, content


_PAGES = st.lists(
    st.tuples(st.sampled_from([None, 0, 1, 2]), st.sampled_from([0, 2, 4]), st.booleans()),
    max_size=40,
)


@given(_PAGES, st.sampled_from([1, 2]), st.sampled_from([0, 1]), st.booleans())
def test_reading_then_writing_is_the_identity(pages, version, architecture, with_area):
    """For canonical files: data in the order of their first use, each once."""
    order, headers = [], [made.platform(1), made.platform(2, made.NATIVE), made.policy()]

    def place(number):
        if number not in order:
            order.append(number)
        return order.index(number) * PAGE

    if with_area:
        headers += [made.area(2 * PAGE, 4), made.usage(0x30C, 4, 8), made.insert(0x800000, 4, 3)]
    for index, (number, flags, both) in enumerate(pages):
        at = None if number is None else place(number)
        headers.append(made.page(index * PAGE, at, mask=3 if both else 1, flags=flags))
    headers += [made.context(place(9)), made.id_block(bytes(range(48))), made.error_range(1 << 30)]
    data = b"".join(made.counted(number) for number in order)
    file = made.made(
        headers, data, version=version, **({"architecture": architecture} if version > 1 else {})
    )
    assert again(file) == file
