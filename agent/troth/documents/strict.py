# SPDX-License-Identifier: Apache-2.0
"""Strict JSON: canonical printing, and reading that refuses what it does not know.

Every JSON document of troth is read through ``Reader``: duplicate and unknown
keys, missing keys and wrong types are ``FormatError`` with the path of the
value. Printing is RFC 8785 (JCS) for the subset troth uses: objects, arrays,
strings, booleans, null and integers below 2**53; floats do not occur.

Never runs on the verity boot path: PID 1 reads literals instead.
"""

from __future__ import annotations

import json

from troth.errors import FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeVar

    T = TypeVar("T")

MAX_INTEGER = 2**53 - 1

#: What a document of another kind is, and what reads it: files get mixed up on a command line.
_READ_BY = {
    "troth-evidence-v1": "this is evidence: troth verify evidence",
    "troth-report-answer-v1": "this is an agent's answer with a report: troth verify report",
    "troth-result-v1": "this is a result: troth explain",
    "troth-reference-values-v1": "these are reference values: troth verify evidence --reference",
    "troth-policy-v1": "this is the policy of an image, which is in its bundle for its PID 1",
}


def canonical(tree: object) -> bytes:
    """Canonical bytes of ``tree`` (RFC 8785), without a final newline."""
    _check_printable(tree, "$")
    # JCS sorts keys by UTF-16 code units; troth's keys are ASCII, where that is plain order.
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


def pretty(tree: object) -> bytes:
    """The same document for people: sorted, indented by two, final newline."""
    _check_printable(tree, "$")
    return (json.dumps(tree, sort_keys=True, indent=2, ensure_ascii=False) + "\n").encode()


def _check_printable(value: object, path: str) -> None:
    match value:
        case None | bool() | str():
            return
        case int():
            if abs(value) > MAX_INTEGER:
                raise FormatError("json-number", f"{path} is too large for JSON: {value}")
        case dict():
            for key, item in value.items():
                if not isinstance(key, str) or not key.isascii():
                    raise FormatError("json-key", f"{path} has a key that is not ASCII text")
                _check_printable(item, f"{path}.{key}")
        case list() | tuple():
            for index, item in enumerate(value):
                _check_printable(item, f"{path}[{index}]")
        case _:
            raise FormatError("json-type", f"{path} holds a {type(value).__name__}")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise FormatError("json-duplicate", f"the key {key!r} occurs twice in one object")
        found[key] = value
    return found


def _refuse_number(text: str) -> object:
    raise FormatError("json-number", f"{text} is not an integer")


def parse(data: bytes, *, where: str = "", limit_bytes: int = 64 << 20) -> object:
    """The tree in ``data`` (UTF-8 JSON, at most ``limit_bytes``).

    Raises ``FormatError``: ``json-size``, ``json-syntax``, ``json-duplicate``,
    ``json-number``.
    """
    if len(data) > limit_bytes:
        raise FormatError("json-size", f"{len(data)} bytes, at most {limit_bytes}", where=where)
    try:
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_float=_refuse_number,
            parse_constant=_refuse_number,
        )
    except FormatError as error:
        raise FormatError(error.code, error.message, where=where) from None
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise FormatError("json-syntax", f"not JSON: {error}", where=where) from None


class Reader:
    """Typed access to one JSON object; ``close`` refuses what was not asked for.

    >>> reader = Reader({"name": "demo"}, where="x.json")
    >>> reader.text("name")
    'demo'
    >>> reader.close()
    """

    def __init__(self, tree: object, *, where: str = "", path: str = "$") -> None:
        if not isinstance(tree, dict):
            raise FormatError("json-type", f"{path} is not an object", where=where)
        self._tree: Mapping[str, object] = tree
        self._where = where
        self._path = path
        self._seen: set[str] = set()

    def _fail(self, key: str, wanted: str, *, hint: str = "") -> FormatError:
        message = f"{self._path}.{key} is not {wanted}"
        return FormatError("json-type", message, where=self._where, hint=hint)

    def _get(self, key: str) -> object:
        self._seen.add(key)
        if key not in self._tree:
            raise FormatError("json-missing", f"{self._path}.{key} is missing", where=self._where)
        return self._tree[key]

    def has(self, key: str) -> bool:
        """Whether ``key`` is there; it counts as asked for only when read."""
        return key in self._tree

    def raw(self, key: str) -> object:
        """The value as it is."""
        return self._get(key)

    def text(self, key: str, *, allowed: tuple[str, ...] = ()) -> str:
        """A string, one of ``allowed`` where given."""
        value = self._get(key)
        if not isinstance(value, str):
            raise self._fail(key, "text")
        if allowed and value not in allowed:
            several = "one of " if len(allowed) > 1 else ""
            hint = _READ_BY.get(value, "") if key == "schema" else ""
            raise self._fail(key, f"{several}{', '.join(allowed)} but {value!r}", hint=hint)
        return value

    def integer(self, key: str, *, minimum: int = 0, maximum: int = MAX_INTEGER) -> int:
        """An integer within the bounds, both included."""
        value = self._get(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._fail(key, "an integer")
        if not minimum <= value <= maximum:
            raise self._fail(key, f"within {minimum} to {maximum} but {value}")
        return value

    def boolean(self, key: str) -> bool:
        """Either true or false, not 0 or 1."""
        value = self._get(key)
        if not isinstance(value, bool):
            raise self._fail(key, "true or false")
        return value

    def digest(self, key: str, *, size_bytes: int) -> str:
        """A lower-case hex string of ``size_bytes`` bytes."""
        value = self.text(key)
        if len(value) != 2 * size_bytes or not set(value) <= set("0123456789abcdef"):
            raise self._fail(key, f"{size_bytes} bytes of lower-case hex")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """An array of strings."""
        value = self._get(key)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._fail(key, "an array of text")
        return tuple(value)

    def reader(self, key: str) -> Reader:
        """The object below ``key``."""
        return Reader(self._get(key), where=self._where, path=f"{self._path}.{key}")

    def each(self, key: str, build: Callable[[Reader], T]) -> tuple[T, ...]:
        """``build`` over an array of objects; each object is closed after it."""
        value = self._get(key)
        if not isinstance(value, list):
            raise self._fail(key, "an array")
        built = []
        for index, item in enumerate(value):
            reader = Reader(item, where=self._where, path=f"{self._path}.{key}[{index}]")
            built.append(build(reader))
            reader.close()
        return tuple(built)

    def keys(self) -> tuple[str, ...]:
        """All keys, for objects that are maps; they count as asked for."""
        self._seen.update(self._tree)
        return tuple(self._tree)

    def close(self) -> None:
        """Refuse keys that nobody asked for."""
        unknown = sorted(set(self._tree) - self._seen)
        if unknown:
            raise FormatError(
                "json-unknown", f"{self._path}.{unknown[0]} is not known", where=self._where
            )
