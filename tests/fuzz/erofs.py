# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: the inodes of an erofs image."""

from __future__ import annotations

import io

from troth.abi import erofs
from troth.errors import FormatError


def fuzz(data: bytes) -> None:
    try:
        for _ in erofs.walk(io.BytesIO(data)):
            pass
    except FormatError:
        return
