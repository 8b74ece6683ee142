# SPDX-License-Identifier: Apache-2.0
"""Shared libraries an image needs: what its programs ask the loader for, recursively.

Serves ``initramfs``. Resolves as ld.so does without a cache (RPATH, RUNPATH,
the default directories), reading the ELF files ourselves: ``ldd`` would run
them. All libraries land in one directory of the guest, where its loader looks
without a cache. A name that resolves nowhere ends the build; nothing is
guessed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from troth.abi import elf
from troth.errors import BuildError, FormatError
from troth.record import record

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from troth.abi.elf import Elf

#: ld.so(8) on Debian amd64, in the order it searches.
DEFAULT_DIRECTORIES = (
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib",
    "/usr/lib",
)
_LIMIT_BYTES = 512 << 20


@record
class Library:
    """A library or the loader: ``name`` as asked for, ``origin`` its file here, ``why``."""

    name: str
    origin: Path
    why: str


@record
class Closure:
    """``loader``: the file PT_INTERP names and its path in the guest; ``libraries``: by name."""

    loader: Library
    libraries: tuple[Library, ...]


def close(
    program: Path,
    objects: Sequence[tuple[Path, str]],
    dlopened: Iterable[tuple[str, str]] = (),
    *,
    directories: Sequence[str] = DEFAULT_DIRECTORIES,
) -> Closure:
    """The libraries behind ``program`` (dynamically linked) and ``objects``.

    ``objects``: extension modules, pairs of (file, its name for people);
    ``dlopened``: pairs of (soname, who opens it at run time). Raises
    ``BuildError``: ``library-unresolved``, ``library-conflict`` (one name, two
    files), ``library-loader`` (the program names no loader); ``FormatError``
    ``elf-*``.
    """
    parsed = _parse(program)
    if not parsed.interpreter.startswith("/"):
        raise BuildError(
            "library-loader", "is not dynamically linked: PT_INTERP is missing", where=str(program)
        )
    loader = Library(
        parsed.interpreter, Path(parsed.interpreter).resolve(), f"loader of {program.name}"
    )
    if not loader.origin.is_file():
        raise BuildError("library-unresolved", f"no loader {loader.name}", where=str(program))
    walk = _Walk(directories, os.path.basename(parsed.interpreter))
    walk.needs(program, parsed, program.name, ())
    for path, name in objects:
        walk.needs(path, _parse(path), name, ())
    for soname, opener in dlopened:
        walk.add(soname, program, (), (), f"opened at run time by {opener}")
    return Closure(loader, tuple(walk.found[name] for name in sorted(walk.found)))


class _Walk:
    """Depth first over DT_NEEDED, each name once."""

    def __init__(self, directories: Sequence[str], loader_name: str) -> None:
        self._directories = directories
        self._loader_name = loader_name
        self.found: dict[str, Library] = {}

    def needs(self, path: Path, parsed: Elf, name: str, rpath_above: tuple[str, ...]) -> None:
        # RPATH of the requester and of those above it counts only where it has no RUNPATH.
        own = () if parsed.runpath else (*_expand(parsed.rpath, path), *rpath_above)
        runpath = _expand(parsed.runpath, path)
        for wanted in parsed.needed:
            self.add(wanted, path, own, runpath, f"library of {name}")

    def add(
        self, name: str, asker: Path, rpath: tuple[str, ...], runpath: tuple[str, ...], why: str
    ) -> None:
        if name == self._loader_name:
            return  # libc asks for the loader, which is in memory already
        if "/" in name:
            raise BuildError("library-unresolved", f"asks for the path {name}", where=str(asker))
        resolved = self._resolve(name, (*rpath, *runpath, *self._directories))
        if resolved is None:
            raise BuildError(
                "library-unresolved",
                f"{name} is in none of the loader's directories",
                where=str(asker),
                hint="install the package that holds it, or drop what needs it",
            )
        path, parsed = resolved
        if name in self.found:
            if self.found[name].origin != path:
                raise BuildError(
                    "library-conflict",
                    f"{name} is both {self.found[name].origin} and {path}",
                    where=str(asker),
                )
            return
        self.found[name] = Library(name, path, why)
        self.needs(path, parsed, name, rpath)

    def _resolve(self, name: str, directories: Sequence[str]) -> tuple[Path, Elf] | None:
        for directory in directories:
            candidate = Path(directory, name)
            if not candidate.is_file():
                continue
            try:
                return candidate.resolve(), _parse(candidate)
            except FormatError as error:
                # Like ld.so: a library of another machine or class is stepped over.
                if error.code != "elf-header":
                    raise
        return None


def _expand(directories: Iterable[str], path: Path) -> tuple[str, ...]:
    origin = os.fspath(path.resolve().parent)
    expanded = tuple(
        text.replace("${ORIGIN}", origin).replace("$ORIGIN", origin) for text in directories
    )
    return tuple(text for text in expanded if text.startswith("/"))


def _parse(path: Path) -> Elf:
    return elf.parse(read(path), where=os.fspath(path))


def read(path: Path) -> bytes:
    """The bytes of a program or library; ``BuildError`` ``library-unresolved`` if unreadable."""
    try:
        if path.stat().st_size > _LIMIT_BYTES:
            raise BuildError("library-unresolved", "larger than any library", where=str(path))
        return path.read_bytes()
    except OSError as error:
        raise BuildError(
            "library-unresolved", f"cannot be read: {error.strerror}", where=str(path)
        ) from None
