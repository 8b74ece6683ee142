# SPDX-License-Identifier: Apache-2.0
"""The bundle directory: filled in private, moved into place as a whole."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from troth.documents import bundle
from troth.errors import BuildError, HostError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def staged(output: Path) -> Iterator[Path]:
    """A private directory that becomes ``output`` when the block ends well.

    An older bundle there is replaced, and kept where that fails; anything else
    there is left alone and refused. Raises ``UsageError`` ``output-occupied``,
    ``HostError`` ``output-write``.
    """
    _check(output)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    except OSError as error:
        raise HostError("output-write", f"{error.strerror}", where=str(output)) from None
    try:
        yield stage
        _publish(stage, output)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _check(output: Path) -> None:
    if not output.exists():
        return
    if not output.is_dir():
        raise UsageError("output-occupied", "is not a directory", where=str(output))
    if any(output.iterdir()) and not (output / bundle.FILE_NAME).is_file():
        raise UsageError(
            "output-occupied",
            "holds something that is not a bundle",
            where=str(output),
            hint="name a new directory, or one that troth build has made",
        )


def _publish(stage: Path, output: Path) -> None:
    aside = stage.with_name(stage.name + ".old")
    try:
        stage.chmod(0o755)
        replaces = output.exists()
        if replaces:
            os.rename(output, aside)
        try:
            os.rename(stage, output)
        except OSError:
            if replaces:
                os.rename(aside, output)
            raise
    except OSError as error:
        raise BuildError("output-write", f"{error.strerror}", where=str(output)) from None
    shutil.rmtree(aside, ignore_errors=True)
