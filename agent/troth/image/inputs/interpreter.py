# SPDX-License-Identifier: Apache-2.0
"""The Python that a guest will run: what it is, and the two questions the packer asks it.

Serves ``python_closure`` and ``initramfs``. The target interpreter may differ
from the one that runs the build, so both questions, "what does importing this
load?" and "what is this source's bytecode?", are answered by itself in a
subprocess with a fixed environment. It must never import anything of the
guest into the builder's own process.
"""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from troth.errors import BuildError, HostError
from troth.image import program
from troth.record import record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DEFAULT = Path("/usr/bin/python3")
#: PID 1 speaks to the kernel's 3.11-era interfaces of the standard library and troth's own syntax.
OLDEST = (3, 11)

_IDENTIFY = r"""
import sys, encodings, importlib.machinery
print(sys.implementation.name)
print("%d.%d" % sys.version_info[:2])
print("%d.%d.%d" % sys.version_info[:3])
print(encodings.__spec__.origin)
print(next((p for p in sys.path if p.endswith("lib-dynload")), ""))
"""

# First the search path, then modules the build itself makes: empty ones stand in for them. Then
# packages of others, lines of "name=directory", whose own __init__ is not run, or "name=file" of
# a compiled module. Each argument
# after these is "name", "?name" (an import the source guards) or
# "name:attribute" (``from name import attribute``). One line per module that the argument brought:
# argument index, name, kind, origin. Whatever start-up itself loaded has index -1.
_TRACE = r"""
import sys
sys.path.append(sys.argv[1])
for name in filter(None, sys.argv[2].split(",")):
    sys.modules[name] = type(sys)(name)
compiled = {}
for line in filter(None, sys.argv[3].split("\n")):
    name, _, place = line.partition("=")
    if place.endswith(".so"):
        compiled[name] = place
        continue
    sys.modules[name] = type(sys)(name)
    sys.modules[name].__path__ = [place]
external = sys.modules["_frozen_importlib_external"]
class Compiled:
    @staticmethod
    def find_spec(name, path=None, target=None):
        place = compiled.get(name)
        return place and external.spec_from_file_location(name, place)
sys.meta_path.append(Compiled)
seen = set()
def tell(index):
    for name, module in sorted(sys.modules.items()):
        spec = getattr(module, "__spec__", None)
        above = sys.modules.get(name.rpartition(".")[0])
        if spec is None and hasattr(above, "__path__"):
            # Some modules put an object of their own into their place.
            spec = external.PathFinder.find_spec(name, above.__path__)
        if name in seen or name == "__main__" or spec is None:
            continue
        seen.add(name)
        origin = spec.origin
        if origin in ("built-in", "frozen"):
            kind, origin = origin, ""
        elif origin is None:
            kind, origin = "namespace", ""
        else:
            kind = "source" if origin.endswith(".py") else "extension"
        sys.stdout.write("%d\t%s\t%s\t%s\n" % (index, spec.name, kind, origin))
tell(-1)
for index, word in enumerate(sys.argv[4:]):
    guarded = word[:1] == "?"
    name, _, attribute = word.lstrip("?").partition(":")
    try:
        if attribute:
            __import__(name, fromlist=[attribute])
        else:
            __import__(name)
    except ImportError:
        if not guarded:
            raise
    tell(index)
"""

# A child per module: what an earlier module left in the interned strings and reference counts of
# the process would otherwise show in the marshalled bytes of the next.
_COMPILE = r"""
import sys, os, marshal, importlib.util
def take(count):
    data = sys.stdin.buffer.read(count)
    if len(data) != count:
        raise SystemExit("short request")
    return data
def number():
    return int.from_bytes(take(8), "little")
def one(path, source, out):
    code = compile(source, path, "exec", dont_inherit=True, optimize=2)
    head = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little")
    data = head + importlib.util.source_hash(source) + marshal.dumps(code)
    with open(out, "wb", closefd=True) as pipe:
        pipe.write(data)
for _ in range(number()):
    path, source = take(number()).decode(), take(number())
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            one(path, source, writing)
        except SyntaxError as error:
            os.write(2, ("%s:%s: %s\n" % (path, error.lineno, error.msg)).encode())
            os._exit(1)
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        data = pipe.read()
    if os.waitpid(child, 0)[1] != 0:
        raise SystemExit("%s cannot be compiled" % path)
    sys.stdout.buffer.write(len(data).to_bytes(8, "little") + data)
"""


@record
class Interpreter:
    """A CPython to pack.

    ``path``: the binary itself, links resolved; ``version``: "3.11", part of
    paths; ``full_version``: "3.11.2"; ``stdlib``: directory of os.py;
    ``dynload``: directory of extension modules, or the stdlib where all are
    built in.
    """

    path: Path
    version: str
    full_version: str
    stdlib: Path
    dynload: Path


@record
class Loaded:
    """A module that an import brought: ``index`` of the word that did (-1: start-up),
    ``kind`` built-in, frozen, source, extension or namespace, ``origin`` its file or empty.
    """  # noqa: D205 - the fields are the summary

    index: int
    name: str
    kind: str
    origin: str


def identify(path: Path = DEFAULT) -> Interpreter:
    """What the interpreter at ``path`` is.

    Raises ``HostError`` ``program-missing``, ``BuildError`` ``python-version``
    (not CPython 3.11 or newer), ``python-layout``.
    """
    # -I -S: neither the caller's environment nor site packages may shape what is found.
    words = program.run([path, "-ISB", "-c", _IDENTIFY]).decode().splitlines()
    if len(words) != 5:
        raise BuildError("python-layout", "does not say what it is", where=os.fspath(path))
    implementation, version, full_version, encodings, dynload = words
    if not re.fullmatch(r"[0-9]+\.[0-9]+", version):
        raise BuildError("python-layout", f"has the version {version!r}", where=os.fspath(path))
    numbers = tuple(map(int, version.split(".")))
    if implementation != "cpython" or numbers < OLDEST:
        raise BuildError(
            "python-version",
            f"{implementation} {full_version}; the guest needs CPython 3.11 or newer",
            where=os.fspath(path),
        )
    stdlib = Path(encodings).parent.parent
    if not (stdlib / "os.py").is_file():
        raise BuildError(
            "python-layout", "has no standard library in source form", where=os.fspath(path)
        )
    return Interpreter(
        path.resolve(), version, full_version, stdlib, Path(dynload) if dynload else stdlib
    )


def trace(
    interpreter: Interpreter,
    search: Path,
    words: Sequence[str],
    *,
    made: Sequence[str] = (),
    packages: Mapping[str, Path] | None = None,
) -> tuple[Loaded, ...]:
    """What importing ``words`` in order loads, ``search`` appended to the library's path.

    Words: "module", "?module" (may be missing), "module:attribute". ``made``:
    modules that do not exist yet because the build makes them; importing one
    gives an empty module and they are not in the answer. ``packages``: directories of
    other packages, each a namespace here, or files of compiled modules. Raises ``BuildError``
    ``python-import`` with the interpreter's last line.
    """
    argv: list[str | Path] = [
        interpreter.path,
        "-ISB",
        "-c",
        _TRACE,
        search,
        ",".join(made),
        "\n".join(f"{name}={place}" for name, place in (packages or {}).items()),
        *words,
    ]
    try:
        text = program.run(argv).decode()
    except BuildError as error:
        raise BuildError(
            "python-import", f"a module of the guest cannot be imported: {error.message}"
        ) from error
    found = []
    for line in text.splitlines():
        index, name, kind, origin = line.split("\t")
        found.append(Loaded(int(index), name, kind, origin))
    return tuple(found)


def compile_all(
    interpreter: Interpreter, sources: Sequence[tuple[str, bytes]]
) -> tuple[bytes, ...]:
    """Bytecode files of ``sources``, pairs of (path inside the guest, source text).

    Unchecked-hash .pyc (PEP 552), optimisation 2: without asserts and
    docstrings, which a guest would unpack and measure for nothing. The bytes
    depend on interpreter, guest path and source only. Raises ``BuildError``
    ``python-compile``.
    """
    request = [struct.pack("<Q", len(sources))]
    for path, source in sources:
        name = path.encode()
        request += [struct.pack("<Q", len(name)), name, struct.pack("<Q", len(source)), source]
    # Not -I here: it would ignore the fixed hash seed, and set order is order of bytes.
    environment = {"LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0", "TZ": "UTC"}
    try:
        answer = program.run(
            [interpreter.path, "-PsSB", "-c", _COMPILE],
            stdin=b"".join(request),
            cwd=Path("/"),
            env=environment,
        )
    except BuildError as error:
        raise BuildError("python-compile", error.message) from error
    compiled = []
    at = 0
    for path, _source in sources:
        size_bytes = int.from_bytes(answer[at : at + 8], "little")
        at += 8 + size_bytes
        if size_bytes == 0 or at > len(answer):
            raise BuildError("python-compile", "the interpreter's answer is cut off", where=path)
        compiled.append(answer[at - size_bytes : at])
    return tuple(compiled)


def require_source(path: Path) -> bytes:
    """The text of a module, which must be there to be compiled; ``HostError`` otherwise."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise HostError(
            "python-source", f"cannot be read: {error.strerror}", where=os.fspath(path)
        ) from None
