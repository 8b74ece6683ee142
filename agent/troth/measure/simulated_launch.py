# SPDX-License-Identifier: Apache-2.0
"""The launch digest that a simulated platform claims for a direct boot.

Serves ``machine``, which launches with it, and whoever predicts it. No hardware
computes it: it has a tag of its own and a form of its own, so it can never be
equal to a digest of firmware's and never be taken for one.

Source: ``docs/simulated.md``, "Running".
"""

from __future__ import annotations

import hashlib

TAG = b"troth-simulated-launch-v1\0"
DIGEST_BYTES = 48


def digest(*, kernel: bytes, initramfs: bytes, cmdline: bytes) -> bytes:
    """SHA-384 over ``TAG`` and the three, each behind its length as u64 little-endian.

    ``cmdline``: as the kernel gets it, without newline and final zero.
    """
    summed = hashlib.sha384(TAG)
    for part in (kernel, initramfs, cmdline):
        summed.update(len(part).to_bytes(8, "little"))
        summed.update(part)
    return summed.digest()
