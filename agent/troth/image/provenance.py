# SPDX-License-Identifier: Apache-2.0
"""Where files come from: Debian packages of the build host and of a root.

Serves the lock and the SBOM. Asks ``dpkg-query``; a file or machine that dpkg
does not know gives empty names, never an error: the digest is what binds.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from troth import __version__
from troth.abi import elf
from troth.documents.lock import Item
from troth.documents.sbom import Package
from troth.errors import BuildError, HostError
from troth.image import program, wheels
from troth.image.packing import library_closure

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from troth.image.roots.root_tree import RootTree

_BATCH = 500
_ELF_MAGIC = b"\x7fELF"
#: As /etc/ld.so.conf.d of Debian amd64: what the machine's owner installed comes first.
_TOOL_DIRECTORIES = (
    "/usr/local/lib",
    "/usr/local/lib/x86_64-linux-gnu",
    *library_closure.DEFAULT_DIRECTORIES,
)
_MAX_STATUS_BYTES = 128 << 20


def sha256_of(path: str) -> str:
    """Hex digest of a file of the build host."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def owners(paths: Iterable[str]) -> dict[str, tuple[str, str]]:
    """(package, version) by path, for the paths that dpkg knows."""
    # On a usr-merged machine dpkg may know a file by its path before the merge.
    asked: dict[str, str] = {}
    for path in paths:
        for name in {path, os.path.realpath(path)}:
            asked[name] = path
            asked[name.removeprefix("/usr") if name.startswith("/usr/") else "/usr" + name] = path
    names = sorted(asked)
    packages: dict[str, str] = {}
    for start in range(0, len(names), _BATCH):
        for line in _query(["-S", *names[start : start + _BATCH]]).splitlines():
            package, separator, name = line.partition(": ")
            if separator and name in asked and not line.startswith("diversion by "):
                packages.setdefault(asked[name], package.split(",")[0].partition(":")[0])
    versions = _versions(sorted(set(packages.values())))
    return {path: (package, versions.get(package, "")) for path, package in packages.items()}


def _query(arguments: Sequence[str]) -> str:
    # dpkg-query ends with 1 as soon as one of many names is unknown, and still prints the rest.
    script = 'dpkg-query "$@" || [ $? = 1 ]'
    try:
        said = program.run(["sh", "-c", script, "sh", *arguments])
    except (BuildError, HostError):
        return ""
    return said.decode("utf-8", "replace")


def _versions(packages: Sequence[str]) -> dict[str, str]:
    if not packages:
        return {}
    said = _query(["-W", "-f", "${Package} ${Version}\n", *packages])
    pairs = (line.partition(" ") for line in said.splitlines())
    return {package: version for package, _, version in pairs}


def items(paths: Iterable[str]) -> tuple[Item, ...]:
    """Lock items for libraries and extensions of the build host, sorted by path.

    A file of a Python package has a name that is the same in any environment.
    """
    listed = sorted(set(paths))
    installed = wheels.of(listed)
    found = owners(path for path in listed if path not in installed)
    made = []
    for path in listed:
        own = installed.get(path)
        if own is None:
            made.append(Item(path, sha256_of(path), *found.get(path, ("", ""))))
        else:
            made.append(Item(own.name, sha256_of(path), own.package, own.version))
    return tuple(made)


def tools(names: Iterable[str]) -> tuple[Item, ...]:
    """Lock items for programs of the build host and the libraries they are linked to.

    A program stands under its name, a library under its path. Raises
    ``HostError`` ``program-missing``; ``BuildError`` ``library-*``.
    """
    places = {name: _place(name) for name in sorted(set(names))}
    found = owners(places.values())
    programs = tuple(
        Item(name, sha256_of(path), *found.get(path, ("", ""))) for name, path in places.items()
    )
    return programs + items(path for place in places.values() for path in _linked(place))


def _place(name: str) -> str:
    path = shutil.which(name, path=program.environment()["PATH"])
    if path is None:
        package = program.PACKAGES.get(name)
        raise HostError(
            "program-missing",
            f"the program {name} is not on this machine",
            hint=f"apt-get install {package}" if package else "",
        )
    return os.path.realpath(path)


def _linked(path: str) -> list[str]:
    """Loader and libraries of the program at ``path``; none of a script or a static program."""
    with open(path, "rb") as file:
        if file.read(len(_ELF_MAGIC)) != _ELF_MAGIC:
            return []
    if not elf.parse(library_closure.read(Path(path)), where=path).interpreter:
        return []
    closure = library_closure.close(Path(path), (), directories=_TOOL_DIRECTORIES)
    return [os.fspath(item.origin) for item in (closure.loader, *closure.libraries)]


def troth(files: Iterable[tuple[str, str]]) -> Item:
    """The lock item of troth itself: its version, and a digest over ``files``.

    ``files``: (path here, path in the initramfs) of its packed sources. The
    digest is that of their ``sha256sum`` lines, sorted by packed path.
    """
    total = hashlib.sha256()
    for origin, path in sorted(files, key=lambda pair: pair[1]):
        total.update(f"{sha256_of(origin)}  {path}\n".encode())
    return Item("troth", total.hexdigest(), "troth", __version__)


def root_packages(tree: RootTree) -> tuple[Package, ...]:
    """The Debian packages installed in a root, by its own dpkg status; empty without one."""
    path = tree.resolve("/var/lib/dpkg/status")
    if path is None or tree.entries[path].kind != "file":
        return ()
    text = tree.read(path, limit_bytes=_MAX_STATUS_BYTES).decode("utf-8", "replace")
    found = []
    for stanza in text.split("\n\n"):
        fields = dict(
            line.split(": ", 1)
            for line in stanza.splitlines()
            if ": " in line and not line.startswith(" ")
        )
        if fields.get("Status", "").endswith(" installed") and "Package" in fields:
            found.append(Package(fields["Package"], fields.get("Version", ""), "root"))
    return tuple(sorted(found, key=lambda item: (item.name, item.version)))
