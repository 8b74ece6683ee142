# SPDX-License-Identifier: Apache-2.0
"""TCB versions in both layouts, and products by family and model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from troth.abi import snp_tcb
from troth.abi.snp_tcb import Tcb
from troth.errors import FormatError

# Written as the products' certificates say them: fmc, boot loader, tee, snp, microcode.
KNOWN = [
    ("Genoa", "0a00000000001b1b", Tcb(None, 10, 0, 27, 27)),
    ("Milan", "04000000000018db", Tcb(None, 4, 0, 24, 219)),
    ("Turin", "0101010400000051", Tcb(1, 1, 1, 4, 81)),
    ("Venice", "0102030400000005", Tcb(1, 2, 3, 4, 5)),
]


@pytest.mark.parametrize(("product", "raw", "tcb"), KNOWN)
def test_layouts(product, raw, tcb):
    assert snp_tcb.decode(bytes.fromhex(raw), product) == tcb
    assert snp_tcb.encode(tcb, product).hex() == raw
    assert snp_tcb.reserved_zero(bytes.fromhex(raw), product)
    assert snp_tcb.has_fmc(product) == (tcb.fmc is not None)


@pytest.mark.parametrize(
    ("product", "reserved"),
    [("Milan", (2, 3, 4, 5)), ("Genoa", (2, 3, 4, 5)), ("Turin", (4, 5, 6))],
)
def test_reserved_bytes(product, reserved):
    for at in range(8):
        raw = bytearray(8)
        raw[at] = 1
        assert snp_tcb.reserved_zero(bytes(raw), product) == (at not in reserved)


@pytest.mark.parametrize(
    ("family", "model", "product"),
    [
        (0x19, 0x00, "Milan"),
        (0x19, 0x01, "Milan"),
        (0x19, 0x0F, "Milan"),
        (0x19, 0x10, "Genoa"),
        (0x19, 0x11, "Genoa"),
        (0x19, 0x1F, "Genoa"),
        (0x19, 0x20, None),
        (0x19, 0x9F, None),
        (0x19, 0xA0, "Genoa"),
        (0x19, 0xAF, "Genoa"),
        (0x1A, 0x02, "Turin"),
        (0x1A, 0x11, "Turin"),
        (0x1A, 0x12, None),
        (0x1A, 0x50, "Venice"),
        (0x1A, 0x58, None),
        (0x1A, 0x90, "Venice"),
        (0x1A, 0xC7, "Venice"),
        (0x1A, 0xC8, None),
        (0x17, 0x01, None),
        (0x00, 0x00, None),
    ],
)
def test_products(family, model, product):
    assert snp_tcb.product_of(family, model) == product


def test_parts_are_compared_one_by_one():
    floor = Tcb(None, 4, 0, 24, 210)
    assert floor.at_least(floor)
    assert Tcb(None, 5, 1, 25, 211).at_least(floor)
    # As one number this is far above the floor: the microcode is the highest byte.
    newer_microcode = Tcb(None, 3, 0, 24, 219)
    assert not newer_microcode.at_least(floor)
    assert newer_microcode.below(floor) == ("bootloader",)
    assert Tcb(None, 3, 0, 23, 209).below(floor) == ("bootloader", "snp", "microcode")


def test_other_products_are_not_comparable():
    legacy, turin = Tcb(None, 9, 9, 9, 9), Tcb(0, 0, 0, 0, 0)
    assert legacy.below(turin) == ("fmc",)
    assert "fmc" in turin.below(legacy)
    assert Tcb(1, 0, 0, 0, 0).below(Tcb(2, 0, 0, 0, 0)) == ("fmc",)


def test_words():
    assert str(Tcb(None, 4, 0, 24, 219)) == "bootloader 4 tee 0 snp 24 microcode 219"
    assert str(Tcb(1, 1, 1, 4, 81)) == "fmc 1 bootloader 1 tee 1 snp 4 microcode 81"


@pytest.mark.parametrize(
    "call",
    [
        lambda: snp_tcb.decode(bytes(7), "Milan"),
        lambda: snp_tcb.decode(bytes(9), "Turin"),
        lambda: snp_tcb.decode(bytes(8), "Rome"),
        lambda: snp_tcb.encode(Tcb(1, 0, 0, 0, 0), "Milan"),
        lambda: snp_tcb.encode(Tcb(None, 0, 0, 0, 0), "Turin"),
        lambda: snp_tcb.encode(Tcb(None, 256, 0, 0, 0), "Milan"),
        lambda: snp_tcb.encode(Tcb(None, 0, -1, 0, 0), "Milan"),
    ],
)
def test_refused(call):
    with pytest.raises(FormatError) as caught:
        call()
    assert caught.value.code == "snp-tcb"


@given(st.binary(min_size=8, max_size=8), st.sampled_from(snp_tcb.PRODUCTS))
def test_round_trip(raw, product):
    tcb = snp_tcb.decode(raw, product)
    again = snp_tcb.encode(tcb, product)
    assert snp_tcb.decode(again, product) == tcb
    assert (again == raw) == snp_tcb.reserved_zero(raw, product)
