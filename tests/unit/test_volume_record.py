# SPDX-License-Identifier: Apache-2.0
"""The record of a headerless volume: bytes, MAC, and what a slot is before it is proved."""

import hashlib
import hmac
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from troth.abi import volume_record
from troth.abi.volume_record import RECORD_BYTES, VolumeRecord
from troth.errors import FormatError
from troth.record import replace

KEY = bytes(range(32))
GOOD = VolumeRecord(
    uuid=bytes.fromhex("1b4e28ba2fa111d2883f0016d3cca427"),
    profile="headerless/hmac/4096",
    generation=7,
    data_sectors=62704,
    tcb=0,
    guest_svn=0,
    nonce=b"\x5a" * 32,
)

records = st.builds(
    VolumeRecord,
    uuid=st.binary(min_size=16, max_size=16),
    profile=st.text("abcdefghijklmnopqrstuvwxyz0123456789/-", max_size=64),
    generation=st.integers(1, 2**64 - 1),
    data_sectors=st.integers(1, 2**64 - 1),
    tcb=st.integers(0, 2**64 - 1),
    guest_svn=st.integers(0, 2**32 - 1),
    nonce=st.binary(min_size=32, max_size=32),
)
keys = st.binary(min_size=32, max_size=32)


def code_of(data, key=KEY):
    with pytest.raises(FormatError) as caught:
        volume_record.check(data, key)
    return caught.value.code


def sealed(body, key=KEY):
    """``body`` with the MAC of somebody who has the key, made without the code under test."""
    data = bytearray(body)
    data[480:512] = bytes(32)
    data[480:512] = hmac.new(key, bytes(data), hashlib.sha256).digest()
    return bytes(data)


@given(records, keys)
def test_round_trip(value, key):
    data = volume_record.pack(value, key)
    assert len(data) == RECORD_BYTES
    assert volume_record.check(data, key) == value
    assert volume_record.claims(data) == value.uuid
    assert not volume_record.is_blank(data)


def test_every_field_has_its_place():
    data = volume_record.pack(GOOD, KEY)
    assert data[:16] == b"TROTHVOL" + struct.pack("<II", 1, 0)
    assert data[16:32] == GOOD.uuid
    assert data[32:96] == b"headerless/hmac/4096".ljust(64, b"\0")
    assert data[96:120] == struct.pack("<QQQ", 7, 62704, 0)
    assert data[120:152] == GOOD.nonce
    assert data == sealed(data)
    # One sector holds all of it, which a disk writes whole or not at all.
    assert not any(data[152:480])
    assert not any(data[512:])


@given(records, keys, st.integers(0, RECORD_BYTES - 1), st.integers(1, 255))
def test_no_changed_byte_passes(value, key, at, flip):
    data = bytearray(volume_record.pack(value, key))
    data[at] ^= flip
    assert code_of(bytes(data), key) == "record-mac"


@pytest.mark.parametrize(
    "change",
    [
        {"uuid": bytes(16)},
        {"profile": "headerless/none/4096"},
        {"generation": 8},
        {"data_sectors": 62696},
        {"tcb": 1},
        {"guest_svn": 1},
        {"nonce": bytes(32)},
    ],
)
def test_each_field_is_under_the_mac(change):
    """What somebody without the key made of a record: a field turned, the MAC kept."""
    good = volume_record.pack(GOOD, KEY)
    turned = bytearray(volume_record.pack(replace(GOOD, **change), KEY))
    assert volume_record.check(bytes(turned), KEY) == replace(GOOD, **change)
    turned[480:512] = good[480:512]
    assert code_of(bytes(turned)) == "record-mac"


def test_another_volumes_key():
    assert code_of(volume_record.pack(GOOD, KEY), bytes(32)) == "record-mac"


@pytest.mark.parametrize("size", [0, 1, 511, 512, RECORD_BYTES - 1, RECORD_BYTES + 1])
def test_another_size(size):
    data = volume_record.pack(GOOD, KEY).ljust(size, b"\0")[:size]
    assert code_of(data) == "record-size"
    assert volume_record.claims(data) == b""


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (0, b"TROTHVOX"),
        (8, struct.pack("<I", 2)),
        (32, b"headerless\xff"),
        (32, b"\0headerless"),
        (95, b"\xe9"),
        (96, bytes(8)),
        (104, bytes(8)),
        (152, b"\1"),
        (479, b"\1"),
        (512, b"\1"),
        (RECORD_BYTES - 1, b"\1"),
    ],
)
def test_made_with_the_key_but_not_by_this_version(offset, value):
    data = bytearray(volume_record.pack(GOOD, KEY))
    data[offset : offset + len(value)] = value
    assert code_of(sealed(data)) == "record-form"


def test_blank_and_claims():
    assert volume_record.is_blank(bytes(RECORD_BYTES))
    assert not volume_record.is_blank(bytes(RECORD_BYTES - 1) + b"\1")
    assert volume_record.claims(bytes(RECORD_BYTES)) == b""
    # For wording only: it is shown before anything is proved.
    forged = (b"TROTHVOL" + bytes(8) + GOOD.uuid).ljust(RECORD_BYTES, b"\0")
    assert volume_record.claims(forged) == GOOD.uuid
    assert code_of(forged) == "record-mac"


def test_the_level_of_a_derived_key_is_claimed_before_anything_is_proved():
    """It chooses the key that the record is then checked with: a lie gives another key."""
    blank = bytes(RECORD_BYTES)
    one = volume_record.pack(replace(GOOD, tcb=3 << 56, guest_svn=9), KEY)
    other = volume_record.pack(GOOD, KEY)
    assert volume_record.claimed_level(blank + one) == (3 << 56, 9)
    assert volume_record.claimed_level(one + other) == (3 << 56, 9)
    assert volume_record.claimed_level(other + blank) == (0, 0)
    assert volume_record.claimed_level(blank + blank) is None
    assert volume_record.claimed_level(b"") is None
    assert volume_record.claimed_level(one[:100]) is None


def test_neighbours_take_turns():
    assert [volume_record.slot(number) for number in (1, 2, 3, 4)] == [1, 0, 1, 0]
    assert volume_record.HEAD_BYTES == 2 * RECORD_BYTES
    assert volume_record.DATA_OFFSET_BYTES == 1 << 20


@given(st.binary(max_size=RECORD_BYTES + 8), keys)
def test_arbitrary_bytes_are_refused_with_a_typed_error(data, key):
    assert code_of(data, key) in ("record-size", "record-mac")


@given(st.binary(min_size=512, max_size=512), keys)
def test_arbitrary_bytes_of_somebody_with_the_key(data, key):
    whole = sealed(data.ljust(RECORD_BYTES, b"\0"), key)
    try:
        found = volume_record.check(whole, key)
    except FormatError as error:
        assert error.code == "record-form"
    else:
        assert volume_record.pack(found, key) == whole
