# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: guest policies, as numbers and as text; what parses must come back the same."""

from troth.abi import snp_policy
from troth.errors import FormatError, UsageError

SEEDS = [(0x30000).to_bytes(8, "little"), b"0x30000", b"3001F"]


def fuzz(data: bytes) -> None:
    value = int.from_bytes(data[:8], "little")
    for number in (value, value & 0x3FFFFFF | 1 << 17):
        try:
            policy = snp_policy.parse(number)
        except FormatError:
            continue
        if snp_policy.encode(policy) != number:
            raise ValueError(f"{number:#x} came back as {snp_policy.encode(policy):#x}")
        snp_policy.warnings(policy)
    try:
        number = snp_policy.parse_hex(data.decode("latin-1"))
    except UsageError:
        return
    snp_policy.parse(number)
