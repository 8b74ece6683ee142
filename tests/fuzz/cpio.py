# SPDX-License-Identifier: Apache-2.0
"""Hostile archives: what parses must survive being written and read again."""

from troth.abi import cpio
from troth.errors import FormatError


def fuzz(data: bytes) -> None:
    try:
        members = cpio.parse(data)
    except FormatError:
        return
    again = cpio.parse(cpio.write(members))
    if [(m.path, m.mode, m.data) for m in again] != [(m.path, m.mode, m.data) for m in members]:
        raise AssertionError("a parsed archive does not survive writing")
