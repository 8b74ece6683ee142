# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: troth.toml."""

from __future__ import annotations

from pathlib import Path

from troth.errors import ManifestError
from troth.image.inputs import manifest


def fuzz(data: bytes) -> None:
    try:
        manifest.parse(data, Path("troth.toml"))
    except ManifestError:
        return
