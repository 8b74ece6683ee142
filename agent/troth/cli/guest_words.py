# SPDX-License-Identifier: Apache-2.0
"""Words of a command line, read in a guest, and bytes given back there.

Serves the verbs that an image packs. They run without argparse, and without
``cli.output_file``, whose tempfile would bring hashlib and libcrypto along. Must
never know a verb.
"""

from __future__ import annotations

import sys

from troth.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_SHORT = {"-o": "--output"}


def read(
    words: list[str],
    options: Mapping[str, tuple[str, ...]],
    *,
    needed: tuple[str, ...],
    usage: str,
    flags: tuple[str, ...] = (),
) -> tuple[dict[str, str], frozenset[str]]:
    """Values by name, ``--user-data`` as ``user_data``, and the ``flags`` that were given.

    ``words``: ``--name value`` or ``--name=value``; ``options``: those that take a
    value, and which where they are counted; ``flags``: those that take none;
    ``usage``: for the hint. Raises ``UsageError`` ``usage``.
    """
    given: dict[str, str] = {}
    said = set()
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word in flags:
            said.add(word)
            continue
        name, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
        name = _SHORT.get(name, name)
        if name not in options:
            raise _wrong(f"unknown option {word}", usage)
        if not equals:
            if not rest:
                raise _wrong(f"{name} takes a value", usage)
            value = rest.pop(0)
        if options[name] and value not in options[name]:
            raise _wrong(f"{name} takes {', '.join(options[name])}", usage)
        given[name[2:].replace("-", "_")] = value
    for name in needed:
        if name[2:].replace("-", "_") not in given:
            raise _wrong(f"{name} is missing", usage)
    return given, frozenset(said)


def hex_of(option: str, text: str) -> bytes:
    """The bytes that ``option`` gives as pairs of hex digits; ``UsageError`` ``usage``."""
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    # fromhex passes over blanks.
    if value.hex() != text.lower():
        raise UsageError("usage", f"{option} takes pairs of hex digits")
    return value


def give(data: bytes, path: str | None) -> None:
    """Write ``data`` to ``path``, to standard output where None; ``UsageError`` ``output-file``."""
    if path is None:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        with open(path, "wb") as file:
            file.write(data)
    except OSError as error:
        raise UsageError(
            "output-file", f"cannot be written: {error.strerror}", where=path
        ) from None


def _wrong(message: str, usage: str) -> UsageError:
    return UsageError("usage", message, hint=usage.rstrip())
