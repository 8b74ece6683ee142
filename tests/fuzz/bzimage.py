# SPDX-License-Identifier: Apache-2.0
"""Hostile kernel images."""

from troth.abi import bzimage
from troth.errors import FormatError


def fuzz(data: bytes) -> None:
    try:
        release = bzimage.release(data)
    except FormatError:
        return
    if "/" in release or not release:
        raise AssertionError("a release that is no file name")
