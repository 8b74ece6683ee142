# SPDX-License-Identifier: Apache-2.0
"""``troth build``: from a manifest to a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from troth.cli.terminal import Terminal
from troth.documents import bundle
from troth.image import build as image_build
from troth.image import manifest, output

if TYPE_CHECKING:
    from typing import Protocol

    class Options(Protocol):
        """What the grammar gives."""

        manifest: str
        output: str
        update: bool


def build(options: Options) -> int:
    """Build; 0, or the error that says why not."""
    terminal = Terminal()
    loaded = manifest.load(Path(options.manifest))
    target = Path(options.output)
    with output.staged(target) as stage:
        made = image_build.make(loaded, stage, progress=terminal)
        (stage / bundle.FILE_NAME).write_bytes(image_build.describe(made, stage))
    for warning in made.warnings:
        terminal.line(f"warning: {warning}")
    return 0
