# SPDX-License-Identifier: Apache-2.0
"""``bin/troth`` of the runtime: a program of 4 KiB that starts the packed interpreter.

Serves ``initramfs``. Assembled at build time from ``initramfs/launcher.S``
with the distribution's ``as`` and ``ld``, because a root without libc or shell
must be able to run it. It must never contain anything but fixed paths.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from troth.errors import BuildError
from troth.image import program
from troth.record import record

_SAFE = re.compile(r"/[A-Za-z0-9_./+-]+")


@record
class Paths:
    """Absolute paths in the guest: of the loader, the library directory, the
    interpreter and the .pyc to run.
    """  # noqa: D205 - the fields are the summary

    loader: str
    libraries: str
    python: str
    script: str


def assemble(source: str, paths: Paths) -> bytes:
    """The static program that ``source`` (launcher.S) describes for ``paths``.

    Raises ``BuildError`` ``launcher-path``, ``program-failed``; ``HostError``
    ``program-missing``.
    """
    text = source
    for word in paths.__match_args__:
        path: str = getattr(paths, word)
        if not _SAFE.fullmatch(path):
            raise BuildError("launcher-path", f"{path!r} cannot stand in the launcher")
        text = text.replace(f"@{word.upper()}@", path)
    with tempfile.TemporaryDirectory(prefix="troth-launcher-") as name:
        place = Path(name)
        # From standard input and with relative names: no path of this machine can get in.
        program.run(["as", "--64", "-o", "launcher.o", "-"], stdin=text.encode(), cwd=place)
        program.run(
            ["ld", "-m", "elf_x86_64", "-static", "-s", "--build-id=none", "-n",
             "-z", "noexecstack", "-o", "launcher", "launcher.o"],
            cwd=place,
        )  # fmt: skip
        return (place / "launcher").read_bytes()
