# SPDX-License-Identifier: Apache-2.0
"""Hostile kernel images."""

from made_kernel import bzimage_bytes, linux_bytes
from troth.abi import bzimage
from troth.errors import FormatError

SEEDS = [bzimage_bytes("6.1.0-1-amd64 (x) #1"), linux_bytes()]


def fuzz(data: bytes) -> None:
    try:
        release = bzimage.release(data)
    except FormatError:
        pass
    else:
        if "/" in release or not release:
            raise AssertionError("a release that is no file name")
    try:
        header = bzimage.setup_header(data)
    except FormatError:
        return
    if not 0 < header.kernel_at < header.kernel_at + header.kernel_bytes <= len(data):
        raise AssertionError("a kernel that is not in the file")
    if data[0x1F1 : 0x1F1 + len(header.fields)] != header.fields or len(header.fields) > 0x9F:
        raise AssertionError("fields that are not the file's, or not for boot_params")
