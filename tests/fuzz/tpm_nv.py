# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: a TPM's answers about NV indices."""

import struct

from troth.abi import tpm_nv
from troth.errors import FormatError

INDEX = 0x01400001


def fuzz(data: bytes) -> None:
    try:
        found = tpm_nv.public_of(data, INDEX)
    except FormatError:
        pass
    else:
        if found.index != INDEX or not 0 <= found.size_bytes <= tpm_nv.MAX_INDEX_BYTES:
            raise AssertionError("an index of another number or size")
    try:
        most = tpm_nv.buffer_max_of(data)
    except FormatError:
        pass
    else:
        if not 0 < most <= tpm_nv.MAX_BUFFER_BYTES:
            raise AssertionError("more at once than is bounded")
    for size in (0, 1, 64):
        try:
            read = tpm_nv.data_of(data, size_bytes=size)
        except FormatError:
            continue
        if len(read) != size or read not in data:
            raise AssertionError("other bytes than the TPM sent")


SEEDS = [
    struct.pack(">HIHIHHH", 14, INDEX, 0x000B, 0x20020002, 0, 2600, 0),
    struct.pack(">BIIII", 0, 6, 1, 0x12C, 1024),
    struct.pack(">IH", 66, 64) + bytes(64) + b"\0\0\1\0\0",
]
