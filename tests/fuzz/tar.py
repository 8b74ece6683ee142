# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: tar archives, read and extracted."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from troth.errors import BuildError, FormatError
from troth.image.roots.root_tree import RootTree
from troth.image.roots.tree_archive import extract_stream


def fuzz(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder, RootTree(Path(folder) / "tree") as tree:
        try:
            extract_stream(io.BytesIO(data), tree, limit_bytes=1 << 20)
        except (FormatError, BuildError):
            return
