# SPDX-License-Identifier: Apache-2.0
"""The page of secrets, written by hand at the offsets of its table."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz import secrets_page as fuzzed
from troth.abi import secrets_page
from troth.abi.secrets_page import SecretsPage, Svsm
from troth.errors import FormatError
from troth.record import replace

KEYS = tuple(bytes([number]) * 32 for number in (1, 2, 3, 4))
SVSM = Svsm(
    base=0x8000000000, size_bytes=0x1000000, calling_area=0x8000001000, max_version=1, guest_vmpl=2
)


def written(**changes):
    """A version 3 page as one bytearray, fields by offset."""
    page = bytearray(4096)
    fields = {
        0x000: (3).to_bytes(4, "little"),
        0x004: (1).to_bytes(4, "little"),
        0x008: (0x00A10F11).to_bytes(4, "little"),
        0x010: b"g" * 16,
        0x020: KEYS[0],
        0x040: KEYS[1],
        0x060: KEYS[2],
        0x080: KEYS[3],
        0x0A0: (2).to_bytes(4, "little"),
        0x0AC: (8).to_bytes(4, "little"),
        0x0B0: (0xFFFF000).to_bytes(8, "little"),
        0x0E0: b"u" * 32,
        0x100: b"t" * 64,
        0x160: (200).to_bytes(4, "little"),
    } | {int(at[1:], 16): value for at, value in changes.items()}
    for at, value in fields.items():
        page[at : at + len(value)] = value
    return bytes(page)


PAGE = SecretsPage(
    vmpcks=KEYS,
    version=3,
    imi_enabled=True,
    fms=0x00A10F11,
    gosvw=b"g" * 16,
    counts=(2, 0, 0, 8),
    ap_jump_table=0xFFFF000,
    guest_usage=b"u" * 32,
    vmsa_tweak_bitmap=b"t" * 64,
    tsc_factor=200,
)
SVSM_FIELDS = {
    "x140": (0x8000000000).to_bytes(8, "little"),
    "x148": (0x1000000).to_bytes(8, "little"),
    "x150": (0x8000001000).to_bytes(8, "little"),
    "x158": (1).to_bytes(4, "little"),
    "x15C": b"\2",
}


def code_of(function, *arguments):
    with pytest.raises(FormatError) as caught:
        function(*arguments)
    return caught.value.code


def test_every_field_has_its_place():
    assert secrets_page.parse(written()) == PAGE
    assert secrets_page.encode(PAGE) == written()
    assert PAGE.guest_vmpl == 0


def test_below_a_service_module_the_keys_above_are_gone():
    guest = secrets_page.below(PAGE, SVSM)
    raw = written(**SVSM_FIELDS, x20=bytes(32), x40=bytes(32))
    assert secrets_page.encode(guest) == raw
    assert secrets_page.parse(raw) == guest
    assert [guest.has_key(number) for number in range(4)] == [False, False, True, True]
    assert guest.guest_vmpl == 2


def test_a_service_module_that_left_a_key_above_is_refused():
    raw = written(**SVSM_FIELDS, x20=bytes(32))
    assert code_of(secrets_page.parse, raw) == "secrets-page-field"
    assert code_of(secrets_page.encode, replace(PAGE, svsm=SVSM)) == "secrets-page-field"


def test_a_cleared_key():
    page = secrets_page.without_keys(PAGE, 0)
    assert secrets_page.encode(page) == written(x20=bytes(32))


def test_version_2_ends_before_the_service_module():
    raw = written(x0=(2).to_bytes(4, "little"), **SVSM_FIELDS)
    page = secrets_page.parse(raw)
    assert (page.svsm, page.tsc_factor, page.vmpcks) == (None, 0, KEYS)
    assert code_of(secrets_page.encode, replace(PAGE, version=2)) == "secrets-page-field"


@pytest.mark.parametrize("version", [0, 1, 4, 0xFFFFFFFF])
def test_unknown_versions(version):
    raw = written(x0=version.to_bytes(4, "little"))
    assert code_of(secrets_page.parse, raw) == "secrets-page-version"
    assert code_of(secrets_page.encode, replace(PAGE, version=version)) == "secrets-page-version"


@pytest.mark.parametrize("size", [0, 4095, 4097])
def test_size(size):
    assert code_of(secrets_page.parse, bytes(size)) == "secrets-page-size"


def test_a_level_above_3():
    raw = written(**SVSM_FIELDS | {"x15C": b"\4"})
    assert code_of(secrets_page.parse, raw) == "secrets-page-field"


@pytest.mark.parametrize(
    "change",
    [
        {"vmpcks": KEYS[:3]},
        {"vmpcks": (*KEYS[:3], b"short")},
        {"counts": (1, 2, 3)},
        {"counts": (1 << 32, 0, 0, 0)},
        {"gosvw": b""},
        {"guest_usage": bytes(33)},
        {"fms": -1},
        {"tsc_factor": 1 << 32},
    ],
)
def test_pages_that_cannot_be(change):
    assert code_of(secrets_page.encode, replace(PAGE, **change)) == "secrets-page-field"


def test_keys_are_not_shown():
    assert repr(secrets_page.without_keys(PAGE, 1)) == (
        "SecretsPage(version=3, vmpcks present: [0, 2, 3])"
    )


@given(st.binary(max_size=400))
def test_random_bytes(data):
    fuzzed.fuzz(data)
    fuzzed.fuzz(written()[: 4096 - len(data)] + data)
