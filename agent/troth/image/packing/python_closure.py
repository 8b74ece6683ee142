# SPDX-License-Identifier: Apache-2.0
"""Python modules an image needs: what its entry modules import, now or later.

Serves ``initramfs``. What imports load is asked of the target interpreter;
what troth's own functions import when they run is read from their source, so
a stage may import lazily and is still packed whole. The standard library's
own lazy imports are not followed: a profile names the few that matter. It
must never import guest code into the builder.
"""

from __future__ import annotations

import ast
import os
from pathlib import Path
from typing import TYPE_CHECKING

import troth
from troth.errors import BuildError
from troth.image.inputs import interpreter as python
from troth.record import record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from troth.image.inputs.interpreter import Interpreter, Loaded

PACKAGE = "troth"
#: The policy as a module of literals, compiled by the build after all else is known.
TWIN = "troth_baked"

#: CPython imports these before its first statement or when it opens the standard streams; 3.11
#: does not freeze them. ``os`` is frozen, but its file is the landmark that makes a prefix.
_START = (
    ("encodings.utf_8", "the interpreter's start"),
    ("encodings.ascii", "the interpreter's start"),
    ("encodings.latin_1", "the interpreter's start"),
)
LANDMARK = "os"
#: A lazy import may lead to a module with lazy imports; real code is three deep.
_MAX_ROUNDS = 16


@record
class PythonModule:
    """One module of the closure.

    ``kind``: "source" or "extension"; ``origin``: its file on this machine;
    ``path``: where it goes, relative to the guest's library directory, with
    its final suffix; ``why``: for people.
    """

    name: str
    kind: str
    origin: Path
    path: str
    why: str


@record
class Closure:
    """``modules``: that need a file, sorted by path; ``builtin``: names that need none."""

    modules: tuple[PythonModule, ...]
    builtin: tuple[str, ...]


def package_root() -> Path:
    """The directory that holds the troth package this builder runs from."""
    if troth.__file__ is None:
        raise BuildError("python-layout", "the troth package has no directory")
    return Path(troth.__file__).resolve().parent.parent


def has_module(name: str, *, root: Path | None = None) -> bool:
    """Whether this troth has the module ``name``."""
    place = (root or package_root()).joinpath(*name.split("."))
    return place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()


def close(
    interpreter: Interpreter,
    entries: Sequence[tuple[str, str]],
    *,
    root: Path | None = None,
    also: Sequence[PythonModule] = (),
    packages: Mapping[str, Path] | None = None,
) -> Closure:
    """The modules behind ``entries``, pairs of (module, phrase that says who wants it).

    ``root``: the directory that holds the troth package, default our own;
    ``also``: modules of other packages, taken as they are; ``packages``: directories of
    other packages whose modules may be taken where something imports them. As with the
    standard library, what those import lazily is not followed. Raises ``BuildError``:
    ``python-import``, ``python-origin`` (a module from a place nobody declared),
    ``python-kind``.
    """
    place = (root or package_root()).resolve()
    foreign = packages or {}
    words: dict[str, str] = {name: f"python: {why}" for name, why in (*_START, *entries)}
    scanned: set[str] = set()
    for _round in range(_MAX_ROUNDS):
        loaded = python.trace(interpreter, place, list(words), made=(TWIN,), packages=foreign)
        fresh: dict[str, str] = {}
        for module in loaded:
            if module.name.partition(".")[0] != PACKAGE or module.name in scanned:
                continue
            scanned.add(module.name)
            if module.kind == "source":
                for word in _imports(module):
                    fresh.setdefault(word, f"python: {module.name} imports it")
        added = {word: why for word, why in fresh.items() if word not in words}
        if not added:
            found = _closure(interpreter, {PACKAGE: place / PACKAGE, **foreign}, loaded, words)
            modules = sorted((*found.modules, *also), key=lambda module: module.path)
            return Closure(tuple(modules), found.builtin)
        words.update(added)
    raise BuildError("python-import", f"lazy imports nest more than {_MAX_ROUNDS} deep")


def _closure(
    interpreter: Interpreter,
    packages: Mapping[str, Path],
    loaded: Sequence[Loaded],
    words: Mapping[str, str],
) -> Closure:
    whys = list(words.values())
    modules: dict[str, PythonModule] = {}
    builtin: set[str] = set()
    for item in loaded:
        if item.kind in ("built-in", "frozen", "namespace"):
            builtin.add(item.name)
            continue
        why = whys[item.index] if item.index >= 0 else f"python: {_START[0][1]}"
        found = PythonModule(
            item.name, item.kind, Path(item.origin), _place(interpreter, packages, item), why
        )
        modules[found.path] = found
    landmark = PythonModule(
        LANDMARK, "source", interpreter.stdlib / "os.py", "os.pyc",
        "python: the landmark of its library directory",
    )  # fmt: skip
    modules.setdefault(landmark.path, landmark)
    ordered = tuple(modules[path] for path in sorted(modules))
    return Closure(ordered, tuple(sorted(builtin)))


def _place(interpreter: Interpreter, packages: Mapping[str, Path], item: Loaded) -> str:
    origin = Path(item.origin)
    own = packages.get(item.name.partition(".")[0])
    if item.kind == "extension" and own is not None:
        if own != origin and not origin.is_relative_to(own):
            raise _foreign(item)
        check_compiled(item.name, origin, interpreter)
        return os.fspath(origin.relative_to(own.parent))
    if item.kind == "extension":
        if origin.parent != interpreter.dynload or ".so" not in origin.suffixes:
            raise _foreign(item)
        return f"lib-dynload/{origin.name}"
    base = interpreter.stdlib if own is None else own.parent
    if not origin.is_relative_to(own or base) or "site-packages" in origin.relative_to(base).parts:
        raise _foreign(item)
    return os.fspath(origin.relative_to(base).with_suffix(".pyc"))


def check_compiled(name: str, origin: Path, interpreter: Interpreter) -> None:
    """Refuse what another interpreter's module is: ``BuildError`` ``extension-version``."""
    suffix = origin.name.removeprefix(name.rpartition(".")[2])
    tag = interpreter.version.replace(".", "")
    if suffix != ".abi3.so" and not suffix.startswith(f".cpython-{tag}-"):
        raise BuildError(
            "extension-version",
            f"{name} is not compiled for Python {interpreter.version}",
            where=str(origin),
            hint="run troth by the interpreter that the image packs: /usr/bin/python3 -m venv",
        )


def _foreign(item: Loaded) -> BuildError:
    return BuildError(
        "python-origin",
        f"{item.name} comes from neither the standard library nor troth",
        where=item.origin,
    )


def _imports(module: Loaded) -> list[str]:
    """Words for ``interpreter.trace``: every import in the module's source, at any depth."""
    source = python.require_source(Path(module.origin))
    is_package = Path(module.origin).name == "__init__.py"
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        raise BuildError("python-import", f"not Python: {error}", where=module.origin) from None
    package = module.name if is_package else module.name.rpartition(".")[0]
    return list(dict.fromkeys(_walk(tree.body, package, guarded=False)))


def _walk(body: Sequence[ast.AST], package: str, *, guarded: bool) -> Iterator[str]:
    mark = "?" if guarded else ""
    for node in body:
        match node:
            case ast.Import(names=names):
                yield from (mark + alias.name for alias in names)
            case ast.ImportFrom(module=name, names=names, level=level):
                base = _absolute(name or "", package, level)
                yield from (
                    f"{mark}{base}" if alias.name == "*" else f"{mark}{base}:{alias.name}"
                    for alias in names
                    if base != "__future__"
                )
            case ast.If(test=test, body=_, orelse=otherwise) if _is_type_checking(test):
                yield from _walk(otherwise, package, guarded=guarded)
            case ast.Try(body=tried, handlers=handlers, orelse=otherwise, finalbody=final):
                # Either branch may be the one that is not there: "try this name, except that".
                either = guarded or any(_catches_import(handler) for handler in handlers)
                yield from _walk([*tried, *handlers], package, guarded=either)
                yield from _walk([*otherwise, *final], package, guarded=guarded)
            case _:
                yield from _walk(list(ast.iter_child_nodes(node)), package, guarded=guarded)


def _absolute(name: str, package: str, level: int) -> str:
    if level == 0:
        return name
    base = package.split(".")
    base = base[: len(base) - level + 1]
    return ".".join([*base, name] if name else base)


def _is_type_checking(test: ast.expr) -> bool:
    match test:
        case ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING"):
            return True
        case _:
            return False


def _catches_import(handler: ast.ExceptHandler) -> bool:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(
        isinstance(kind, ast.Name) and kind.id in ("ImportError", "ModuleNotFoundError")
        for kind in kinds
    )
