# SPDX-License-Identifier: Apache-2.0
"""The release that a kernel image names, and what its setup header tells a boot loader."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.bzimage import fuzz
from made_kernel import bzimage_bytes, linux_bytes
from troth.abi import bzimage
from troth.errors import FormatError


def test_release_is_the_first_word_of_the_version():
    image = bzimage_bytes("6.12.117+deb12-cloud-amd64 (builder) #1 SMP")
    assert bzimage.release(image) == "6.12.117+deb12-cloud-amd64"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "bzimage-header"),
        (bytes(4096), "bzimage-header"),
        (bzimage_bytes("6.1")[:0x20F], "bzimage-header"),
        (bzimage_bytes(""), "bzimage-release"),
        (bzimage_bytes(".."), "bzimage-release"),
        (bzimage_bytes("../../etc x"), "bzimage-release"),
        (bzimage_bytes("6.1\xff"), "bzimage-release"),
        (bzimage_bytes("6.1", pointer=0), "bzimage-release"),
        (bzimage_bytes("6.1", pointer=0xFFFF), "bzimage-release"),
        (bzimage_bytes("x" * 600), "bzimage-release"),
    ],
)
def test_hostile_images_are_refused(data, code):
    with pytest.raises(FormatError) as caught:
        bzimage.release(data)
    assert caught.value.code == code


def test_the_setup_header_of_a_kernel():
    code = bytes(range(256)) * 33
    image = linux_bytes(code=code, sectors=5, cmdline_size=255, init_size=0x37DC000)
    header = bzimage.setup_header(image)
    assert header == bzimage.SetupHeader(
        protocol=0x20F, fields=image[0x1F1:0x26C], kernel_at=6 * 512, kernel_bytes=8448 - 15,
        loadflags=1, xloadflags=0x7F, initrd_addr_max=0x7FFFFFFF, kernel_alignment=0x200000,
        cmdline_size=255, pref_address=0x1000000, init_size_bytes=0x37DC000,
    )  # fmt: skip
    assert image[header.kernel_at :] == code


def test_no_sectors_stand_for_four():
    image = bytearray(linux_bytes(sectors=4))
    image[0x1F1] = 0
    assert bzimage.setup_header(bytes(image)).kernel_at == 5 * 512


def changed(at, value):
    image = bytearray(linux_bytes())
    image[at : at + len(value)] = value
    return bytes(image)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "bzimage-header"),
        (bytes(4096), "bzimage-header"),
        (bzimage_bytes("6.1"), "bzimage-protocol"),
        (linux_bytes(protocol=0x20B), "bzimage-protocol"),
        (linux_bytes()[:0x26B], "bzimage-header"),
        (changed(0x201, b"\x61"), "bzimage-header"),
        (changed(0x201, b"\x00"), "bzimage-header"),
        (changed(0x201, b"\x8f"), "bzimage-header"),
        (linux_bytes()[:-16], "bzimage-truncated"),
        (linux_bytes()[: 4 * 512], "bzimage-truncated"),
        (linux_bytes(code=b""), "bzimage-truncated"),
        (changed(0x1F1, b"\xff"), "bzimage-truncated"),
        (changed(0x1F4, b"\xff\xff\xff\xff"), "bzimage-truncated"),
    ],
)
def test_setup_headers_that_no_loader_can_use(data, code):
    with pytest.raises(FormatError) as caught:
        bzimage.setup_header(data)
    assert caught.value.code == code


@given(st.binary(max_size=700))
def test_arbitrary_bytes(data):
    fuzz(data)
    fuzz(bzimage_bytes("6.1 x")[:0x20E] + data)
    fuzz(linux_bytes()[:0x206] + data)


@given(st.lists(st.tuples(st.integers(0x1F0, 0x270), st.integers(0, 255)), max_size=6))
def test_mutated_headers(changes):
    image = bytearray(linux_bytes())
    for at, value in changes:
        image[at] = value
    fuzz(bytes(image))
