# SPDX-License-Identifier: Apache-2.0
"""The host's certificate table, written here by hand."""

import struct
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz import cert_table as fuzzed
from troth.abi import cert_table
from troth.abi.cert_table import Entry
from troth.errors import FormatError

VCEK = "63da758d-e664-4564-adc5-f4b93be8accd"
ASK = "4ab7b379-bbac-4fe4-a02f-05aef327c782"
OTHER = "00112233-4455-6677-8899-aabbccddeeff"


def table(*entries, tail=b""):
    """``entries``: (guid, offset, length); the end entry follows them."""
    head = b"".join(
        uuid.UUID(guid).bytes + struct.pack("<II", offset, length)
        for guid, offset, length in entries
    )
    return head + bytes(24) + tail


def refused(data, code):
    with pytest.raises(FormatError) as caught:
        cert_table.parse(data, where="table")
    assert caught.value.code == code
    assert caught.value.where == "table"


def test_entries_in_their_order():
    data = table((VCEK, 76, 4), (OTHER, 72, 4), tail=b"abcdefgh" + bytes(100))
    assert cert_table.parse(data) == (Entry(VCEK, b"efgh"), Entry(OTHER, b"abcd"))
    assert [entry.name for entry in cert_table.parse(data)] == ["vcek", OTHER]


def test_the_guid_stands_as_it_is_printed():
    data = table((VCEK, 48, 1), tail=b"x")
    assert data[:4] == bytes.fromhex("63da758d")


def test_a_host_that_gave_nothing():
    for data in (b"", bytes(24), bytes(16384)):
        assert cert_table.parse(data) == ()


def test_build_is_what_is_read():
    entries = (Entry(VCEK, b"one"), Entry(ASK, b"two!"))
    assert cert_table.build(entries) == table((VCEK, 72, 3), (ASK, 75, 4), tail=b"onetwo!")
    assert cert_table.build(()) == bytes(24)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\0", "cert-table-entries"),
        (bytes(23), "cert-table-entries"),
        (table((VCEK, 48, 1), tail=b"x")[:24], "cert-table-entries"),
        (table((VCEK, 48, 1), tail=b"x")[:47], "cert-table-entries"),
        (table(("0" * 32, 48, 1), tail=b"x"), "cert-table-entries"),
        (table((VCEK, 47, 1), tail=b"x"), "cert-table-bounds"),
        (table((VCEK, 0, 1), tail=b"x"), "cert-table-bounds"),
        (table((VCEK, 48, 2), tail=b"x"), "cert-table-bounds"),
        (table((VCEK, 49, 1), tail=b"x"), "cert-table-bounds"),
        (table((VCEK, 48, 0), tail=b"x"), "cert-table-bounds"),
        (table((VCEK, 2**32 - 1, 2**32 - 1), tail=b"x"), "cert-table-bounds"),
        (table((VCEK, 48, 2**32 - 48), tail=b"x"), "cert-table-bounds"),
        (table((VCEK, 72, 3), (ASK, 74, 2), tail=b"wxyz"), "cert-table-overlap"),
        (table((VCEK, 74, 2), (ASK, 72, 3), tail=b"wxyz"), "cert-table-overlap"),
        (table((VCEK, 72, 4), (ASK, 72, 4), tail=b"wxyz"), "cert-table-overlap"),
        (table((VCEK, 72, 2), (VCEK, 74, 2), tail=b"wxyz"), "cert-table-duplicate"),
        (bytes((1 << 20) + 1), "cert-table-size"),
    ],
)
def test_refused(data, code):
    refused(data, code)


def test_too_many():
    guids = [str(uuid.UUID(int=number + 1)) for number in range(33)]
    start = 34 * 24
    data = table(*((guid, start + at, 1) for at, guid in enumerate(guids)), tail=bytes(33))
    refused(data, "cert-table-entries")
    start -= 24
    data = table(*((guid, start + at, 1) for at, guid in enumerate(guids[:32])), tail=bytes(32))
    assert len(cert_table.parse(data)) == 32


@pytest.mark.parametrize(
    "guid", ["", "x", VCEK.upper(), VCEK.replace("-", ""), "0" * 8, VCEK + " "]
)
def test_guids_that_cannot_be_written(guid):
    with pytest.raises(FormatError) as caught:
        cert_table.build((Entry(guid, b"x"),))
    assert caught.value.code == "cert-table-guid"


@given(
    st.dictionaries(
        st.uuids().map(str).filter(lambda text: text.strip("0-")),
        st.binary(min_size=1, max_size=40),
        max_size=8,
    )
)
def test_round_trip(blobs):
    entries = tuple(Entry(guid, blob) for guid, blob in blobs.items())
    assert cert_table.parse(cert_table.build(entries) + bytes(7)) == entries


@given(st.binary(max_size=200))
def test_arbitrary_bytes(data):
    fuzzed.fuzz(data)


@given(st.integers(0, 80), st.sampled_from([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 72, 71]))
def test_mutants(at, value):
    data = bytearray(fuzzed.SEEDS[0])
    data[at : at + 4] = struct.pack("<I", value)
    fuzzed.fuzz(bytes(data))
