# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: the record of a headerless volume, as found and as somebody with the key made it."""

from __future__ import annotations

import contextlib
import hmac

from troth.abi import volume_record
from troth.abi.volume_record import RECORD_BYTES, VolumeRecord
from troth.errors import FormatError
from troth.volumes import headerless_checks
from troth.volumes.headerless_checks import Disk, Expected

KEY = bytes(range(32))
SEEDS = [
    volume_record.pack(
        VolumeRecord(bytes(range(16)), "headerless/hmac/4096", 1, 62704, 0, 0, bytes(32)), KEY
    )[:512],
    volume_record.pack(
        VolumeRecord(bytes(range(16)), "headerless/none/4096", 2**64 - 1, 8, 3 << 56, 7, bytes(32)),
        KEY,
    )[:512],
]


def fuzz(data: bytes) -> None:
    volume_record.claims(data)
    volume_record.claimed_level(data)
    volume_record.is_blank(data)
    with contextlib.suppress(FormatError):
        volume_record.check(data, KEY)
    # As both slots, as dm-integrity's superblock, and cut where it may be.
    for head in (data, data[:RECORD_BYTES].ljust(RECORD_BYTES, b"\0") * 2):
        for integrity in ("none", "hmac"):
            disk = Disk(head=head, superblock=data, size_bytes=len(data))
            found = headerless_checks.judge(disk, Expected(integrity), KEY)
            if (found.record is None) and not found.code:
                raise AssertionError("accepted, and no record")
    body = bytearray(data[:RECORD_BYTES].ljust(RECORD_BYTES, b"\0"))
    body[480:512] = bytes(32)
    body[480:512] = hmac.digest(KEY, bytes(body), "sha256")
    try:
        found = volume_record.check(bytes(body), KEY)
    except FormatError:
        return
    if volume_record.pack(found, KEY) != bytes(body):
        raise AssertionError("a checked record does not pack to its own bytes")
