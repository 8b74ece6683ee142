# SPDX-License-Identifier: Apache-2.0
"""The launch digest core: one-step values, and the firmware's own table written out by hand."""

import hashlib
import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from troth.errors import FormatError
from troth.measure import launch
from troth.measure.launch import LaunchDigest

#: After one update at 0x800000 from zeros.
ONE_STEP = {
    launch.NORMAL: "3b5db2165614578df5be1b3a7656a147a57cf73cf1a03bcaebb0f12c00c7d1e3"
    "cb2885ad03f030aa62d0467ebe76fda3",
    launch.ZERO: "4472405c6dbc65e5629805f2be1b3df74eb119841eff12466c24f43e67083c23"
    "df5e645b2742b6d9aa0f943e095cebaa",
    launch.UNMEASURED: "8cd64e16495d28db9db5fb176885ec972db5d0b66163a37dabe352d30f850170"
    "1c570b7c146bf32d6d26903eb36f9398",
    launch.SECRETS: "51f530bde774becf6f159aafaaeb748ad6f88d178be5f0ad6a466268ef2ad862"
    "ef20690ecc157e3b3b7b389c4c8d9677",
    launch.CPUID: "5c2d762da872690f9043abc1a6cfa4b303fef58ecac6088d6bc3c6b92cd8a1cd"
    "cdee5c8449a1bdd9017895e83c44f8bd",
}


def by_hand(start, updates):
    """PAGE_INFO as the firmware's document lays it out, one byte field after another."""
    value = start
    for kind, gpa, page in updates:
        content = hashlib.sha384(page).digest() if page is not None else b"\0" * 48
        info = value + content + b"\x70\0" + bytes((kind, 0, 0, 0, 0, 0)) + struct.pack("<Q", gpa)
        assert len(info) == 0x70
        value = hashlib.sha384(info).digest()
    return value


@pytest.mark.parametrize("kind", sorted(ONE_STEP))
def test_one_step(kind):
    digest = LaunchDigest()
    assert digest.value == bytes(48)
    if kind == launch.NORMAL:
        digest.normal(0x800000, bytes(4096))
        again = LaunchDigest()
        again.zeros(0x800000)
        assert again.value == digest.value
    else:
        digest.update(kind, 0x800000)
    assert digest.value.hex() == ONE_STEP[kind]


def test_all_kinds_in_a_row_as_written_by_hand():
    pages = random.Random(3).randbytes(3 * 4096)
    digest = LaunchDigest(bytes(range(48)))
    digest.region(0x1000, pages)
    digest.update(launch.ZERO, 0x9000, pages=2)
    digest.zeros(0x20000, 2)
    digest.update(launch.SECRETS, 0x7000)
    digest.vmsa(pages[:4096])
    digest.vmsa(pages[4096:8192], 0x803000)
    updates = [(1, 0x1000 + at, pages[at : at + 4096]) for at in (0, 4096, 8192)]
    updates += [(3, 0x9000, None), (3, 0xA000, None)]
    updates += [(1, 0x20000, bytes(4096)), (1, 0x21000, bytes(4096)), (5, 0x7000, None)]
    updates += [(2, 0xFFFFFFFFF000, pages[:4096]), (2, 0x803000, pages[4096:8192])]
    assert digest.value == by_hand(bytes(range(48)), updates)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_of_any_kind(kind):
    page = random.Random(1).randbytes(4096)
    digest = LaunchDigest()
    digest.region(0, kind(page))
    assert digest.value == by_hand(bytes(48), [(1, 0, page)])


def test_nothing_changes_nothing():
    digest = LaunchDigest()
    digest.region(0x1000, b"")
    digest.zeros(0x1000, 0)
    digest.update(launch.ZERO, 0x1000, pages=0)
    assert digest.value == bytes(48)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda digest: digest.normal(0x1001, bytes(4096)),
        lambda digest: digest.normal(-4096, bytes(4096)),
        lambda digest: digest.normal(1 << 52, bytes(4096)),
        lambda digest: digest.normal(0, bytes(4095)),
        lambda digest: digest.vmsa(bytes(4097)),
        lambda digest: digest.region(0, bytes(4095)),
        lambda digest: digest.region((1 << 52) - 4096, bytes(8192)),
        lambda digest: digest.zeros(0, -1),
        lambda digest: digest.update(launch.NORMAL, 0),
        lambda digest: digest.update(launch.VMSA, 0),
        lambda digest: digest.update(7, 0),
        lambda digest: digest.update(launch.ZERO, 0x800),
        lambda digest: LaunchDigest(bytes(32)),
    ],
)
def test_what_is_no_page_is_refused_and_changes_nothing(wrong):
    digest = LaunchDigest()
    with pytest.raises(FormatError) as caught:
        wrong(digest)
    assert caught.value.code == "launch-page"
    assert digest.value == bytes(48)


@given(
    st.lists(
        st.tuples(st.sampled_from([3, 4, 5, 6]), st.integers(0, (1 << 40) - 3), st.integers(0, 3))
    )
)
def test_runs_are_their_pages_one_by_one(runs):
    whole, single = LaunchDigest(), LaunchDigest()
    for kind, page, pages in runs:
        whole.update(kind, page * 4096, pages=pages)
        for number in range(pages):
            single.update(kind, (page + number) * 4096)
    assert whole.value == single.value
