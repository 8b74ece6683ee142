# SPDX-License-Identifier: Apache-2.0
"""The release that a kernel image names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.bzimage import fuzz
from made_kernel import bzimage_bytes
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


@given(st.binary(max_size=700))
def test_arbitrary_bytes(data):
    fuzz(data)
    fuzz(bzimage_bytes("6.1 x")[:0x20E] + data)
