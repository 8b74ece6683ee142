# SPDX-License-Identifier: Apache-2.0
"""TOML that people write: which line each key stands on, and typed access that names it.

Serves the manifest and the verification policy. ``tomllib`` decides what a
text says; ``key_lines`` only walks the same text again to find where, and must
never give a value a meaning of its own: on text that ``tomllib`` refuses its
answer is undefined (source: TOML 1.0.0).

Whoever reads a document brings its errors: a function of a kind ("syntax",
"unknown-key", "missing-key", "type" or "value"), a message, ``where`` and
``hint``.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from datetime import date
from typing import TYPE_CHECKING

from troth.record import record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from troth.errors import UsageError

    Path = tuple[str | int, ...]
    Refuse = Callable[[str, str, str, str], UsageError]

MAX_BYTES = 256 << 10

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
# One whole string token: the four kinds of TOML 1.0, longest delimiters first.
_STRING = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*"{3,5}'
    r"|'''(?:[^']|'(?!''))*'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}#\r\n]*")
# tomllib's time grows with the cube of a dotted key's length; nobody needs one of these.
_LONG_KEY = re.compile(r"(?<![\w\"'-])(?:[\w\"'-]+[ \t]*\.[ \t]*){64}")
_AT_LINE = re.compile(r"\(at line (\d+), column \d+\)")


class _Scanner:
    """One walk over valid TOML text; ``lines`` maps key paths to line numbers."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.counted = 0
        self.line = 1
        self.lines: dict[Path, int] = {}
        self.counts: dict[Path, int] = {}

    def _skip(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.position)
        if found is None:
            return ""
        self.position = found.end()
        return found.group()

    def _at(self, token: str) -> bool:
        if self.text.startswith(token, self.position):
            self.position += len(token)
            return True
        return False

    def _line(self) -> int:
        self.line += self.text.count("\n", self.counted, self.position)
        self.counted = self.position
        return self.line

    def _key(self) -> list[tuple[str, int]]:
        parts = []
        while True:
            self._skip(_SPACE)
            line = self._line()
            if self.text[self.position : self.position + 1] in ('"', "'"):
                part = str(tomllib.loads("k=" + self._skip(_STRING))["k"])
            else:
                part = self._skip(_BARE_KEY)
            parts.append((part, line))
            self._skip(_SPACE)
            if not self._at("."):
                return parts

    def _note(self, base: Path, parts: Sequence[tuple[str, int]]) -> Path:
        path = base
        for part, line in parts:
            path = (*path, part)
            self.lines.setdefault(path, line)
        return path

    def _resolve(self, parts: Sequence[tuple[str, int]]) -> Path:
        # A header names the newest element of each array of tables on its way.
        path: Path = ()
        for part, line in parts:
            path = (*path, part)
            self.lines.setdefault(path, line)
            if path in self.counts:
                path = (*path, self.counts[path] - 1)
        return path

    def run(self) -> None:
        base: Path = ()
        while self._skip(_BLANK) is not None and self.position < len(self.text):
            before = self.position
            if self._at("[["):
                parts = self._key()
                parent = self._resolve(parts[:-1])
                path = (*parent, parts[-1][0])
                self.lines.setdefault(path, parts[-1][1])
                index = self.counts.get(path, 0)
                self.counts[path] = index + 1
                base = (*path, index)
                self.lines[base] = parts[-1][1]
                self._at("]]")
            elif self._at("["):
                base = self._resolve(self._key())
                self._at("]")
            else:
                self._pair(base)
            if self.position == before:  # not TOML after all: end instead of standing still
                return

    def _pair(self, base: Path) -> None:
        path = self._note(base, self._key())
        self._at("=")
        self._skip(_SPACE)
        self._value(path)

    def _value(self, path: Path) -> None:
        first = self.text[self.position : self.position + 1]
        if first in ('"', "'"):
            self._skip(_STRING)
        elif first == "[":
            self._items(path)
        elif first == "{":
            self._inline(path)
        else:
            self._skip(_SCALAR)

    def _items(self, path: Path) -> None:
        self._at("[")
        index = 0
        while self._skip(_BLANK) is not None and self.position < len(self.text):
            before = self.position
            if self._at("]"):
                return
            self.lines[(*path, index)] = self._line()
            self._value((*path, index))
            index += 1
            self._skip(_BLANK)
            self._at(",")
            if self.position == before:
                return

    def _inline(self, path: Path) -> None:
        self._at("{")
        while self._skip(_BLANK) is not None and self.position < len(self.text):
            before = self.position
            if self._at("}"):
                return
            self._pair(path)
            self._skip(_BLANK)
            self._at(",")
            if self.position == before:
                return


def key_lines(text: str) -> dict[Path, int]:
    """Line (from 1) of the last component of every key path of the valid TOML ``text``.

    Paths are tuples of keys and, inside arrays, indices. A table that several
    headers mention has the line of the first.
    """
    scanner = _Scanner(text)
    scanner.run()
    return scanner.lines


@record
class Source:
    """A text, already read: ``name`` is how errors call the file, ``refuse`` makes them."""

    name: str
    tree: dict[str, object]
    lines: dict[Path, int]
    refuse: Refuse

    def where(self, path: Path) -> str:
        """``file:line`` of ``path`` or of the nearest table around it that is written."""
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.name}:{self.lines.get(path, 1)}"


def read_source(data: bytes, name: str, *, refuse: Refuse) -> Source:
    """The TOML in ``data``, at most 256 KiB; an error of kind "syntax" where it is none."""
    if len(data) > MAX_BYTES:
        raise refuse("syntax", f"{len(data)} bytes, at most {MAX_BYTES}", name, "")
    try:
        # TOML counts CRLF as one line end; tomllib.loads wants it done before.
        text = data.decode("utf-8").replace("\r\n", "\n")
        long = _LONG_KEY.search(text)
        if long is not None:
            where = f"{name}:{text.count(chr(10), 0, long.start()) + 1}"
            raise refuse("syntax", "more than 64 dotted words", where, "")
        return Source(name=name, tree=tomllib.loads(text), lines=key_lines(text), refuse=refuse)
    except RecursionError:
        raise refuse("syntax", "nested too deeply", name, "") from None
    except ValueError as error:
        found = _AT_LINE.search(str(error))
        where = f"{name}:{found.group(1)}" if found else f"{name}:1"
        raise refuse("syntax", f"not TOML: {error}", where, "") from None


def dotted(path: Path) -> str:
    """``path`` as people write it: ``volume[0].name``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def nearest(word: str, valid: Sequence[str]) -> str:
    """A hint naming the valid word nearest to ``word``, or all of them."""
    close = difflib.get_close_matches(word, valid, n=1)
    return f'did you mean "{close[0]}"?' if close else f"valid: {', '.join(valid)}"


class Table:
    """Typed access to one table whose keys are ``known``; anything else is refused at once."""

    def __init__(self, source: Source, tree: object, path: Path, known: Sequence[str]) -> None:
        self.source = source
        self.path = path
        if not isinstance(tree, dict):
            raise source.refuse("type", f"{dotted(path)} is not a table", source.where(path), "")
        self.tree: Mapping[str, object] = tree
        for key in tree:
            if key not in known:
                raise source.refuse(
                    "unknown-key",
                    f"unknown key {dotted((*path, key))!r}",
                    source.where((*path, key)),
                    nearest(key, tuple(known)),
                )

    def fail(
        self, key: str, message: str, *, kind: str = "value", code: str = "", hint: str = ""
    ) -> UsageError:
        """The error about ``key``, with its line; ``code`` instead of the kind's own."""
        path = (*self.path, key)
        error = self.source.refuse(kind, f"{dotted(path)} {message}", self.source.where(path), hint)
        error.code = code or error.code
        return error

    def has(self, key: str) -> bool:
        return key in self.tree

    def need(self, key: str) -> None:
        """Refuse a table without ``key``."""
        if key not in self.tree:
            raise self.fail(key, "is missing", kind="missing-key")

    def _typed(self, key: str, kind: type, wanted: str) -> object:
        value = self.tree[key]
        if type(value) is not kind:
            raise self.fail(key, f"must be {wanted}", kind="type")
        return value

    def text(self, key: str, default: str = "", *, allowed: Sequence[str] = ()) -> str:
        """A string without control characters, one of ``allowed`` where given."""
        if key not in self.tree:
            return default
        value = str(self._typed(key, str, "text"))
        if allowed and value not in allowed:
            raise self.fail(
                key, f"must be one of {', '.join(allowed)}", hint=nearest(value, allowed)
            )
        if not value or not value.isprintable():
            raise self.fail(key, "must be text without control characters, and not empty")
        return value

    def integer(self, key: str, default: int, *, minimum: int, maximum: int) -> int:
        """An integer within the bounds, both included."""
        if key not in self.tree:
            return default
        value = self._typed(key, int, "an integer")
        if not isinstance(value, int) or not minimum <= value <= maximum:
            raise self.fail(key, f"must be within {minimum} and {maximum}")
        return value

    def boolean(self, key: str, *, default: bool) -> bool:
        """A boolean."""
        if key not in self.tree:
            return default
        return bool(self._typed(key, bool, "true or false"))

    def day(self, key: str) -> date:
        """A date without time, written without quotes; it must be there."""
        self.need(key)
        value = self._typed(key, date, "a date such as 2026-01-31")
        return value if isinstance(value, date) else date.min

    def digest(self, key: str, *, size_bytes: int) -> bytes:
        """One value of ``digests``; it must be there."""
        self.need(key)
        return self._digest((key,), self.tree[key], size_bytes)

    def digests(self, key: str, *, size_bytes: int) -> tuple[bytes, ...]:
        """An array of distinct values of ``size_bytes`` bytes in hex; empty where absent."""
        value = self.tree.get(key, [])
        if not isinstance(value, list):
            raise self.fail(key, "must be an array of hex text", kind="type")
        found: list[bytes] = []
        for index, item in enumerate(value):
            digest = self._digest((key, index), item, size_bytes)
            if digest in found:
                path = (*self.path, key, index)
                raise self.source.refuse(
                    "value", f"{dotted(path)} is there twice", self.source.where(path), ""
                )
            found.append(digest)
        return tuple(found)

    def _digest(self, inner: Path, value: object, size_bytes: int) -> bytes:
        path = (*self.path, *inner)
        text = value.lower() if isinstance(value, str) else ""
        if len(text) != 2 * size_bytes or not set(text) <= set("0123456789abcdef"):
            raise self.source.refuse(
                "type" if not isinstance(value, str) else "value",
                f"{dotted(path)} must be {size_bytes} bytes in hex",
                self.source.where(path),
                "",
            )
        return bytes.fromhex(text)

    def texts(self, key: str) -> tuple[str, ...]:
        """An array of distinct strings without control characters; empty where absent."""
        if key not in self.tree:
            return ()
        value = self.tree[key]
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.fail(key, "must be an array of text", kind="type")
        for index, item in enumerate(value):
            if not item or not item.isprintable() or item in value[:index]:
                raise self.source.refuse(
                    "value",
                    f"{dotted((*self.path, key, index))} is empty, repeated or has control"
                    " characters",
                    self.source.where((*self.path, key, index)),
                    "",
                )
        return tuple(value)

    def texts_repeated(self, key: str) -> tuple[str, ...]:
        """An array of strings that may repeat: the words of a command."""
        value = self.tree.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.fail(key, "must be an array of text", kind="type")
        if any("\0" in item for item in value):
            raise self.fail(key, "must not hold NUL")
        return tuple(value)

    def table(self, key: str, known: Sequence[str]) -> Table:
        """The table below ``key``, an empty one where it is absent."""
        return Table(self.source, self.tree.get(key, {}), (*self.path, key), known)

    def tables(self, key: str, known: Sequence[str]) -> tuple[Table, ...]:
        """The array of tables below ``key``; empty where absent."""
        value = self.tree.get(key, [])
        if not isinstance(value, list):
            raise self.fail(key, f"must be written [[{key}]]", kind="type")
        return tuple(
            Table(self.source, item, (*self.path, key, index), known)
            for index, item in enumerate(value)
        )
