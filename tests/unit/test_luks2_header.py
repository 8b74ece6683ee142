# SPDX-License-Identifier: Apache-2.0
"""The binary headers of LUKS2: read, written, chosen between, and what is refused."""

import hashlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from made_luks2 import vector
from troth.abi import luks2
from troth.abi.luks2 import Copy, Header
from troth.errors import FormatError
from troth.record import replace

GOOD = Copy(Header(16384, 7, "0c5f4a3e-7b11-4f7e-9d59-3f6f5d0f2a10", bytes(range(64))), b"{}")


def words(limit):
    return st.text(max_size=limit).filter(
        lambda text: "\0" not in text and len(text.encode()) < limit
    )


copies = st.builds(
    Copy,
    st.builds(
        Header,
        size_bytes=st.sampled_from(luks2.HEADER_SIZES[:3]),
        seqid=st.integers(0, 2**64 - 1),
        uuid=words(40),
        salt=st.binary(min_size=64, max_size=64),
        label=words(48),
        subsystem=words(48),
    ),
    st.binary(max_size=64).filter(lambda data: 0 not in data).map(lambda data: b"{" + data),
)


def sealed(data, offset=0):
    """``data`` with the checksum that belongs to it, by other code than the module's."""
    data = bytearray(data)
    size = struct.unpack_from(">Q", data, offset + 8)[0]
    data[offset + 448 : offset + 512] = bytes(64)
    digest = hashlib.sha256(data[offset : offset + size]).digest()
    data[offset + 448 : offset + 480] = digest
    return bytes(data)


@given(copies)
def test_round_trip(copy):
    area = luks2.pack(copy, secondary=False) + luks2.pack(copy, secondary=True)
    assert sealed(area) == area
    assert luks2.parse(area) == copy
    assert luks2.parse(area, offset_bytes=copy.header.size_bytes) == copy
    assert [place.copy for place in luks2.pair(area)] == [copy, copy]


@given(st.binary(max_size=8192))
def test_arbitrary_bytes_are_refused_with_a_typed_error(data):
    with pytest.raises(FormatError) as caught:
        luks2.parse(data)
    assert caught.value.code.startswith("luks2-")
    places = luks2.pair(data)
    assert [place.copy for place in places] == [None, None]
    assert luks2.selected(places) is None


@given(copies, st.integers(0, 16383), st.integers(1, 255))
def test_no_byte_can_change(copy, at, flip):
    area = bytearray(luks2.pack(copy, secondary=False))
    area[at] ^= flip
    with pytest.raises(FormatError) as caught:
        luks2.parse(bytes(area))
    assert caught.value.code.startswith("luks2-")


@given(copies, st.integers(0, 16383), st.integers(1, 255))
def test_a_changed_byte_under_a_right_checksum_is_refused_or_read_as_it_stands(copy, at, flip):
    area = bytearray(luks2.pack(copy, secondary=False))
    area[at] ^= flip
    if struct.unpack_from(">Q", area, 8)[0] != copy.header.size_bytes:
        return
    area = sealed(area)
    try:
        found = luks2.parse(area)
    except FormatError as error:
        assert error.code.startswith("luks2-")
    else:
        assert luks2.pack(found, secondary=False) == area


@pytest.mark.parametrize(
    ("offset", "value", "code"),
    [
        (0, b"LUKS\xba\xbf", "magic"),
        (0, b"SKUL\xba\xbe", "magic"),
        (6, b"\0\1", "version"),
        (8, struct.pack(">Q", 0), "size"),
        (8, struct.pack(">Q", 16385), "size"),
        (8, struct.pack(">Q", 8 << 20), "size"),
        (8, struct.pack(">Q", 2**63), "size"),
        (8, struct.pack(">Q", 32768), "short"),
        (24, b"x" * 48, "text"),
        (24, b"a\0b", "text"),
        (24, b"\xff\xfe", "text"),
        (72, b"sha512", "checksum-kind"),
        (72, b"x" * 32, "text"),
        (168, b"x" * 40, "text"),
        (208, b"\0x", "text"),
        (256, struct.pack(">Q", 16384), "offset"),
        (264, b"\1", "padding"),
        (447, b"\1", "padding"),
        (512, b"\1", "padding"),
        (4095, b"\1", "padding"),
        (4096, b"[", "tail"),
        (4096, b" ", "tail"),
        (4100, b"x", "tail"),
        (16383, b"x", "tail"),
    ],
)
def test_refusals(offset, value, code):
    data = bytearray(luks2.pack(GOOD, secondary=False))
    data[offset : offset + len(value)] = value
    if code not in ("size", "short"):
        data = sealed(data)
    with pytest.raises(FormatError) as caught:
        luks2.parse(bytes(data), where="/dev/vda")
    assert caught.value.code == f"luks2-{code}"
    assert caught.value.where == "/dev/vda"


def test_bytes_behind_the_checksum_are_refused():
    data = bytearray(luks2.pack(GOOD, secondary=False))
    data[500] = 1
    with pytest.raises(FormatError) as caught:
        luks2.parse(bytes(data))
    assert caught.value.code == "luks2-padding"


@pytest.mark.parametrize(
    ("change", "metadata", "code"),
    [
        ({"size_bytes": 4096}, b"{}", "size"),
        ({"seqid": 2**64}, b"{}", "seqid"),
        ({"seqid": -1}, b"{}", "seqid"),
        ({"salt": bytes(63)}, b"{}", "salt"),
        ({"checksum": "sha1"}, b"{}", "checksum-kind"),
        ({"label": "x" * 48}, b"{}", "text"),
        ({"uuid": "a\0"}, b"{}", "text"),
        ({}, b"", "tail"),
        ({}, b"{\0}", "tail"),
        ({}, b"{" + b" " * 12288, "room"),
    ],
)
def test_pack_refuses_what_parse_would(change, metadata, code):
    with pytest.raises(FormatError) as caught:
        luks2.pack(Copy(replace(GOOD.header, **change), metadata), secondary=False)
    assert caught.value.code == f"luks2-{code}"


def pair(first, second):
    return luks2.pack(first, secondary=False) + luks2.pack(second, secondary=True)


def test_the_higher_sequence_number_is_selected():
    newer = Copy(replace(GOOD.header, seqid=8), b'{"newer":1}')
    for area, expected in (
        (pair(GOOD, newer), newer),
        (pair(newer, GOOD), newer),
        (pair(GOOD, GOOD), GOOD),
    ):
        assert luks2.selected(luks2.pair(area)) == expected


@pytest.mark.parametrize("size", luks2.HEADER_SIZES)
def test_a_secondary_without_primary_is_found_where_it_can_be(size):
    second = Copy(replace(GOOD.header, size_bytes=size), b"{}")
    area = bytes(size) + luks2.pack(second, secondary=True)
    places = luks2.pair(area)
    assert places[0].error.code == "luks2-magic"
    assert places[1].offset_bytes == size
    assert luks2.selected(places) == second


def test_a_secondary_elsewhere_than_it_says_is_refused():
    area = bytearray(pair(GOOD, GOOD))
    struct.pack_into(">Q", area, 16384 + 256, 32768)
    places = luks2.pair(sealed(bytes(area), 16384))
    assert places[1].error.code == "luks2-offset"


@pytest.mark.vectors
def test_headers_of_cryptsetup_pack_to_their_own_bytes():
    area = vector("pbkdf2-sha256-512.hdr").read_bytes()
    first, second = luks2.pair(area)
    assert luks2.pack(first.copy, secondary=False) == area[:16384]
    assert luks2.pack(second.copy, secondary=True) == area[16384:32768]
    broken = luks2.pair(vector("primary-csum-bad.hdr").read_bytes())
    assert broken[0].error.code == "luks2-checksum"
    assert luks2.selected(broken) == broken[1].copy
