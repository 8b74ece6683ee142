# SPDX-License-Identifier: Apache-2.0
"""Files that Python packages installed beside troth: which package, which version, where in it.

Serves the lock and the SBOM, through ``provenance``. A lock names them without
the place of this machine's environment, so that it can be compared elsewhere.
Must never take a package's word for a file's content: the digest is what binds.
"""

from __future__ import annotations

import os
from importlib import metadata
from typing import TYPE_CHECKING

from troth.record import record

if TYPE_CHECKING:
    from collections.abc import Iterable

_DIRECTORIES = ("site-packages", "dist-packages")
PREFIX = "python:"


@record
class Installed:
    """``package`` and ``version``: of the distribution, empty where none has the file;
    ``name``: ``python:`` and the path below the environment's directory of packages.
    """  # noqa: D205 - the fields are the summary

    package: str
    version: str
    name: str


def of(paths: Iterable[str]) -> dict[str, Installed]:
    """By path, for those of ``paths`` that lie in a directory of installed packages."""
    found: dict[str, Installed] = {}
    records: dict[str, dict[str, tuple[str, str]]] = {}
    for path in paths:
        parts = path.split(os.sep)
        depth = max((at for at, part in enumerate(parts) if part in _DIRECTORIES), default=-1)
        if depth < 0:
            continue
        directory, inside = os.sep.join(parts[: depth + 1]), "/".join(parts[depth + 1 :])
        if directory not in records:
            records[directory] = _files(directory)
        package, version = records[directory].get(inside, ("", ""))
        found[path] = Installed(package, version, f"{PREFIX}{inside}")
    return found


def _files(directory: str) -> dict[str, tuple[str, str]]:
    """(package, version) of each file that a distribution in ``directory`` lists."""
    return {
        file.as_posix(): (distribution.name, distribution.version)
        for distribution in metadata.distributions(path=[directory])
        for file in distribution.files or ()
    }
