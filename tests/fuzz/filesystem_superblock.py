# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: telling file systems from their superblocks."""

from troth.abi import filesystem_sb
from troth.errors import FormatError

MAGICS = ((0, b"hsqs"), (1024, b"\xe2\xe1\xf5\xe0"), (1024 + 56, b"\x53\xef"))


def fuzz(data: bytes) -> None:
    for at, magic in ((0, b""), *MAGICS):
        candidate = data
        if magic:
            padded = data.ljust(at + len(magic), b"\0")
            candidate = padded[:at] + magic + padded[at + len(magic) :]
        try:
            filesystem_sb.check_mountable(filesystem_sb.identify(candidate))
        except FormatError:
            continue
