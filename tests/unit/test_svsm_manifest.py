# SPDX-License-Identifier: Apache-2.0
"""Lists of services, written by hand."""

import struct
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz import svsm_manifest as fuzzed
from troth.abi import svsm_manifest
from troth.abi.svsm_manifest import Service
from troth.errors import FormatError

TABLE = "63849ebb-3d92-4670-a1ff-58f9c94b87bb"
VTPM = "c476f1eb-0123-45a5-9641-b4e7dde5bfe3"
OTHER = "a4453a59-9e1b-4787-a033-1986d6adbe55"


def written(entries, body=b"", *, magic=TABLE, total=None, count=None):
    """``entries``: (guid, offset, length)."""
    table = b"".join(struct.pack("<16sII", uuid.UUID(g).bytes_le, o, n) for g, o, n in entries)
    size = 24 + len(table) + len(body) if total is None else total
    number = len(entries) if count is None else count
    return struct.pack("<16sII", uuid.UUID(magic).bytes_le, size, number) + table + body


TWO = written([(VTPM, 72, 4), (OTHER, 76, 3)], b"vtpmuef")


def test_services_in_their_order():
    services = (Service(VTPM, b"vtpm"), Service(OTHER, b"uef"))
    assert svsm_manifest.parse(TWO) == services
    assert svsm_manifest.build(services) == TWO
    assert (svsm_manifest.VTPM, svsm_manifest.UEFI_MM) == (VTPM, OTHER)
    assert svsm_manifest.parse(written([])) == ()


def test_gaps_and_empty_services():
    data = written([(OTHER, 80, 1), (VTPM, 75, 0)], b"........x")
    assert svsm_manifest.parse(data) == (Service(OTHER, b"x"), Service(VTPM, b""))


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "size"),
        (TWO[:23], "size"),
        (TWO + b"x", "size"),
        (written([], total=0xFFFFFFFF), "size"),
        (bytes((1 << 20) + 1), "size"),
        (written([], magic=VTPM), "magic"),
        (written([(VTPM, 48, 0)], count=2), "count"),
        (written([], count=0xFFFFFFFF), "count"),
        (written([(str(uuid.UUID(int=n)), 24 + 65 * 24, 0) for n in range(65)]), "count"),
        (written([(VTPM, 47, 1)], b"x"), "bounds"),
        (written([(VTPM, 48, 2)], b"x"), "bounds"),
        (written([(VTPM, 50, 0)], b"x"), "bounds"),
        (written([(VTPM, 0xFFFFFFFF, 0xFFFFFFFF)], b"x"), "bounds"),
        (written([(VTPM, 72, 2), (OTHER, 73, 1)], b"xx"), "overlap"),
        (written([(VTPM, 72, 1), (VTPM, 73, 1)], b"xx"), "duplicate"),
    ],
)
def test_what_is_refused(data, code):
    with pytest.raises(FormatError) as caught:
        svsm_manifest.parse(data, where="manifest")
    assert (caught.value.code, caught.value.where) == (f"svsm-manifest-{code}", "manifest")


@pytest.mark.parametrize(
    "guid", ["", VTPM.upper(), VTPM[:-1], "x" + VTPM[1:], VTPM.replace("-", "")]
)
def test_guids_that_are_none(guid):
    with pytest.raises(FormatError) as caught:
        svsm_manifest.build((Service(guid, b""),))
    assert caught.value.code == "svsm-manifest-guid"


@given(st.dictionaries(st.uuids().map(str), st.binary(max_size=50), max_size=8))
def test_round_trip(found):
    services = tuple(Service(guid, data) for guid, data in found.items())
    assert svsm_manifest.parse(svsm_manifest.build(services)) == services


@given(st.integers(0, len(TWO) - 1), st.integers(1, 255))
def test_changed_bytes(at, change):
    data = bytearray(TWO)
    data[at] ^= change
    fuzzed.fuzz(bytes(data))


@given(st.binary(max_size=200))
def test_random_bytes(data):
    fuzzed.fuzz(data)
