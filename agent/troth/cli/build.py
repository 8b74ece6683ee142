# SPDX-License-Identifier: Apache-2.0
"""``troth build``: from a manifest to a bundle, by its lock or with a new one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from troth.cli.terminal import Terminal
from troth.documents import lock
from troth.image import account, output
from troth.image import build as image_build
from troth.image.inputs import manifest
from troth.image.inputs.kernel import Pin

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
    locked = None if options.update else account.read_lock(loaded)
    pin = None
    if locked is not None and locked.kernel.package:
        pin = Pin(locked.kernel.package, locked.kernel.version, locked.kernel.sha256)
    with output.staged(Path(options.output)) as stage:
        made = image_build.make(loaded, stage, progress=terminal, kernel_pin=pin)
        with terminal.step("lock"):
            used = account.lock_of(made)
        if locked is not None:
            differences = lock.compare(locked, used)
            lock.refuse_differences(differences, where=str(account.lock_path(loaded)))
        with terminal.step("reference values, SBOM, manifest"):
            account.write(made, stage, used=used)
        if locked is None:
            # Before the bundle is published: there is none without the lock that it was made by.
            account.write_lock(loaded, used)
    if locked is None:
        terminal.line(f"wrote {account.lock_path(loaded)}")
    for warning in made.warnings:
        terminal.line(f"warning: {warning}")
    return 0
