# SPDX-License-Identifier: Apache-2.0
"""troth.lock: which kernel, interpreter, libraries and tools an image was built from.

Flows from one ``troth build`` to the next: same manifest, lock and inputs give
the same bytes (SECURITY S37), and a build that would use something else is
refused until ``--update``. Canonical order, indented JSON, so that a change is
a readable line of a diff. Fields are described in ``docs/formats.md``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.documents import strict
from troth.errors import BuildError
from troth.record import record

if TYPE_CHECKING:
    from troth.documents.strict import Reader

SCHEMA = "troth-lock-v1"
FILE_NAME = "troth.lock"
MAX_BYTES = 8 << 20
_SHOWN_DIGITS, _SHOWN_DIFFERENCES = 12, 8


@record
class Kernel:
    """``package`` and ``version`` of Debian (empty for paths); ``sha256`` of package or vmlinuz."""

    package: str
    version: str
    sha256: str


@record
class Interpreter:
    """The packed Python: its path on the build host, ``sys.version_info`` as text, digest."""

    path: str
    version: str
    sha256: str


@record
class Item:
    """A library, extension or tool: ``name`` is its path, or the program's name for a tool.

    Among the tools are the libraries that they are linked to, by path, and
    ``troth`` itself. ``package``, ``version``: of Debian where dpkg knows the file, else empty.
    """

    name: str
    sha256: str
    package: str
    version: str


@record
class Lock:
    """The whole of troth.lock."""

    kernel: Kernel
    interpreter: Interpreter
    libraries: tuple[Item, ...]
    tools: tuple[Item, ...]


@record
class Difference:
    """One thing that is not as locked: ``what`` it is, ``locked`` and ``found`` in words."""

    what: str
    locked: str
    found: str


def parse(data: bytes, *, where: str = FILE_NAME) -> Lock:
    """The lock in ``data``; ``FormatError`` ``json-*`` where it is not one."""
    top = strict.Reader(strict.parse(data, where=where, limit_bytes=MAX_BYTES), where=where)
    top.text("schema", allowed=(SCHEMA,))
    kernel = top.reader("kernel")
    interpreter = top.reader("interpreter")
    lock = Lock(
        kernel=Kernel(
            package=kernel.text("package"),
            version=kernel.text("version"),
            sha256=kernel.digest("sha256", size_bytes=32),
        ),
        interpreter=Interpreter(
            path=interpreter.text("path"),
            version=interpreter.text("version"),
            sha256=interpreter.digest("sha256", size_bytes=32),
        ),
        libraries=top.each("libraries", _item),
        tools=top.each("tools", _item),
    )
    for reader in (kernel, interpreter, top):
        reader.close()
    return lock


def _item(reader: Reader) -> Item:
    return Item(
        name=reader.text("name"),
        sha256=reader.digest("sha256", size_bytes=32),
        package=reader.text("package"),
        version=reader.text("version"),
    )


def _tree(value: object) -> dict[str, object]:
    names: tuple[str, ...] = getattr(value, "__match_args__", ())
    return {name: getattr(value, name) for name in names}


def print_(lock: Lock) -> bytes:
    """troth.lock for ``lock``: items sorted by name, final newline."""
    return strict.pretty(
        {
            "schema": SCHEMA,
            "kernel": _tree(lock.kernel),
            "interpreter": _tree(lock.interpreter),
            "libraries": [_tree(item) for item in _sorted(lock.libraries)],
            "tools": [_tree(item) for item in _sorted(lock.tools)],
        }
    )


def _sorted(items: tuple[Item, ...]) -> list[Item]:
    return sorted(items, key=lambda item: (item.name, item.sha256))


def compare(old: Lock, new: Lock) -> tuple[Difference, ...]:
    """What ``new`` has otherwise than ``old``, in a fixed order; empty where they agree.

    Files are compared by content: the package a file came from may be another
    version as long as the bytes are the same.
    """
    found = []
    if old.kernel != new.kernel:
        found.append(Difference("kernel", _kernel(old.kernel), _kernel(new.kernel)))
    if old.interpreter != new.interpreter:
        found.append(Difference("interpreter", _python(old.interpreter), _python(new.interpreter)))
    for kind, before, after in (
        ("library", old.libraries, new.libraries),
        ("tool", old.tools, new.tools),
    ):
        was = {item.name: item for item in before}
        now = {item.name: item for item in after}
        found += [
            Difference(
                f"{kind} {name}",
                _words(was[name]) if name in was else "absent",
                _words(now[name]) if name in now else "absent",
            )
            for name in sorted(was.keys() | now.keys())
            if name not in was or name not in now or was[name].sha256 != now[name].sha256
        ]
    return tuple(found)


def _kernel(kernel: Kernel) -> str:
    name = f"{kernel.package} {kernel.version} " if kernel.package else ""
    return f"{name}sha256:{kernel.sha256}"


def _python(interpreter: Interpreter) -> str:
    return f"{interpreter.path} {interpreter.version} sha256:{interpreter.sha256}"


def _words(item: Item) -> str:
    name = f"{item.package} {item.version} " if item.package else ""
    return f"{name}sha256:{item.sha256[:_SHOWN_DIGITS]}"


def refuse_differences(differences: tuple[Difference, ...], *, where: str = FILE_NAME) -> None:
    """Raise ``BuildError`` ``lock-differs`` naming the first of ``differences``; none, nothing."""
    if differences:
        lines = [
            f"{item.what}: locked {item.locked}, found {item.found}"
            for item in differences[:_SHOWN_DIFFERENCES]
        ]
        if len(differences) > len(lines):
            lines.append(f"and {len(differences) - len(lines)} more")
        raise BuildError(
            "lock-differs",
            "not what the lock names: " + "; ".join(lines),
            where=where,
            hint="install the locked versions, or rewrite the lock with: troth build --update",
        )
