# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: troth.lock and the SBOM's file list."""

from __future__ import annotations

from troth.documents import lock, sbom
from troth.errors import FormatError


def fuzz(data: bytes) -> None:
    for parse in (lock.parse, sbom.files_of):
        try:
            parse(data)
        except FormatError:
            continue
