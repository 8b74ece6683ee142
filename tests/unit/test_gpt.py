# SPDX-License-Identifier: Apache-2.0
"""The GUID partition table, written here by hand from the specification."""

import binascii
import struct
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz import gpt as fuzzed
from troth.abi import gpt
from troth.errors import FormatError

ROOT_TYPE = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"
DISK = "d209c89e-a7f8-4eac-8d1d-5e9d1a1c0001"
BLOCKS = 4096


def entry(number, first, last, name, *, kind=ROOT_TYPE, unique=None):
    unique = unique or f"11111111-2222-3333-4444-{number:012x}"
    return struct.pack(
        "<16s16sQQQ72s",
        uuid.UUID(kind).bytes_le,
        uuid.UUID(unique).bytes_le,
        first,
        last,
        0,
        name.encode("utf-16-le"),
    )


def disk(entries, *, block=512, entry_size=128, count=128, first=None, last=None, **header):
    table = b"".join(item.ljust(entry_size, b"\0") for item in entries)
    table = table.ljust(count * entry_size, b"\0")
    table_blocks = -(-len(table) // block)
    values = {
        "signature": b"EFI PART",
        "revision": 0x10000,
        "size": 92,
        "reserved": 0,
        "my_lba": 1,
        "other_lba": BLOCKS - 1,
        "first": 2 + table_blocks if first is None else first,
        "last": BLOCKS - 2 - table_blocks if last is None else last,
        "guid": uuid.UUID(DISK).bytes_le,
        "table_lba": 2,
        "count": count,
        "entry_size": entry_size,
        "table_crc": binascii.crc32(table),
    } | header
    parts = (
        struct.pack("<8sII", *(values[key] for key in ("signature", "revision", "size"))),
        struct.pack("<I", values["reserved"])
        + struct.pack("<4Q", *(values[key] for key in ("my_lba", "other_lba", "first", "last")))
        + values["guid"]
        + struct.pack("<Q", values["table_lba"])
        + struct.pack("<3I", *(values[key] for key in ("count", "entry_size", "table_crc"))),
    )
    crc = binascii.crc32(parts[0] + bytes(4) + parts[1])
    head = parts[0] + struct.pack("<I", header.get("crc", crc)) + parts[1]
    return bytes(block) + head.ljust(block, b"\0") + table


def parse(data, **options):
    return gpt.parse(data, **({"disk_blocks": BLOCKS, "where": "vda"} | options)).partitions


def refused(data, code, **options):
    with pytest.raises(FormatError) as caught:
        parse(data, **options)
    assert caught.value.code == code
    assert caught.value.where == "vda"


TWO = [entry(1, 100, 199, "root"), bytes(128), entry(3, 200, 200, "Grüße")]


@pytest.mark.parametrize(("block", "entry_size"), [(512, 128), (4096, 128), (512, 256)])
def test_partitions_by_number(block, entry_size):
    data = disk(TWO, block=block, entry_size=entry_size)
    assert len(data) <= gpt.HEAD_BYTES or entry_size > 128
    assert (
        parse(data, block_bytes=block)
        == parse(data)
        == (
            gpt.Partition(1, ROOT_TYPE, "11111111-2222-3333-4444-000000000001", 100, 199, "root"),
            gpt.Partition(3, ROOT_TYPE, "11111111-2222-3333-4444-000000000003", 200, 200, "Grüße"),
        )
    )


def test_header_says_what_to_read_next():
    data = disk(TWO)
    header = gpt.parse_header(data[512:1024], disk_blocks=BLOCKS)
    assert (header.table_offset_bytes, header.table_bytes) == (1024, 16384)
    assert header.disk_guid == DISK
    assert gpt.parse_entries(header, data[1024:]) == parse(data)


def test_without_the_size_of_the_disk_its_end_is_not_checked():
    data = disk(TWO, last=2**63)
    refused(data, "gpt-bounds")
    assert len(parse(data, disk_blocks=None)) == 2


def test_no_partitions():
    assert parse(disk([])) == ()


def test_a_full_name_and_a_hostile_one():
    names = ["x" * 36, "a\x1b[2J\n", "\ufffeb"]
    found = parse(disk([entry(n, 100 + n, 100 + n, name) for n, name in enumerate(names)]))
    assert [item.name for item in found] == ["x" * 36, "a?[2J?", "?b"]


def test_a_lone_surrogate_does_not_escape():
    broken = bytearray(entry(1, 100, 100, "ab"))
    broken[56:58] = b"\x00\xd8"
    (found,) = parse(disk([bytes(broken)]))
    found.name.encode()


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ({"signature": b"EFI PARK"}, "gpt-magic"),
        ({"revision": 0x20000}, "gpt-header"),
        ({"size": 91}, "gpt-header"),
        ({"size": 513}, "gpt-header"),
        ({"size": 2**32 - 1}, "gpt-header"),
        ({"crc": 1}, "gpt-checksum"),
        ({"reserved": 1}, "gpt-header"),
        ({"my_lba": 2}, "gpt-header"),
        ({"entry_size": 64}, "gpt-header"),
        ({"entry_size": 129}, "gpt-header"),
        ({"entry_size": 0}, "gpt-header"),
        ({"count": 0}, "gpt-bounds"),
        ({"count": 2**32 - 1}, "gpt-bounds"),
        ({"count": 8193}, "gpt-bounds"),
        ({"table_lba": 1}, "gpt-bounds"),
        ({"table_lba": 2**64 - 1}, "gpt-bounds"),
        ({"first": 33}, "gpt-bounds"),
        ({"first": 3000, "last": 2999}, "gpt-bounds"),
        ({"last": BLOCKS}, "gpt-bounds"),
        ({"table_crc": 5}, "gpt-checksum"),
    ],
)
def test_refused_headers(header, code):
    data = disk(TWO)
    # The checksum is made anew over the changed values, unless it is what changes.
    values = {key: value for key, value in header.items() if key not in ("count", "entry_size")}
    changed = bytearray(disk(TWO, **values))
    for key, at in (("count", 592), ("entry_size", 596)):
        if key in header:
            changed[at : at + 4] = struct.pack("<I", header[key])
            changed[528:532] = bytes(4)
            changed[528:532] = struct.pack("<I", binascii.crc32(changed[512:604]))
    assert bytes(changed) != data
    refused(bytes(changed), code)


@pytest.mark.parametrize(
    ("entries", "code"),
    [
        ([entry(1, 33, 50, "")], "gpt-bounds"),
        ([entry(1, 60, 50, "")], "gpt-bounds"),
        ([entry(1, 60, BLOCKS - 34 + 1, "")], "gpt-bounds"),
        ([entry(1, 60, 2**64 - 1, "")], "gpt-bounds"),
        ([entry(1, 60, 70, ""), entry(2, 50, 60, "")], "gpt-overlap"),
        ([entry(1, 60, 70, ""), entry(2, 71, 72, ""), entry(3, 65, 65, "")], "gpt-overlap"),
        ([entry(1, 60, 70, ""), entry(1, 71, 72, "")], "gpt-duplicate"),
    ],
)
def test_refused_entries(entries, code):
    refused(disk(entries), code)


def test_cut_off():
    data = disk(TWO)
    refused(data[:-1], "gpt-short")
    refused(data[:520], "gpt-short")
    refused(data[:515], "gpt-magic")
    refused(b"", "gpt-magic")


@given(st.binary(max_size=2048))
def test_arbitrary_bytes(data):
    fuzzed.fuzz(data)
    with pytest.raises(FormatError):
        parse(b"\0" + data)


@given(st.integers(512, 1500), st.binary(min_size=1, max_size=8))
def test_mutants_with_repaired_checksums(at, change):
    data = bytearray(disk(TWO))
    data[at : at + len(change)] = change
    fuzzed.fuzz(bytes(data))


def test_the_repair_of_the_fuzz_entry_reaches_the_entries():
    broken = bytearray(disk(TWO))
    broken[512:520] = b"????????"
    broken[528:532] = b"????"
    broken[600:604] = b"????"
    assert parse(fuzzed.repaired(bytes(broken))) == parse(disk(TWO))
