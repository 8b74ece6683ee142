# SPDX-License-Identifier: Apache-2.0
"""``troth``: from words to one verb's function, and from errors to words.

Serves the console script. Builds its parser from ``cli.grammar`` and imports
a verb's module only when that verb is used. Must never print a traceback
unless ``--debug`` asks for it.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
import traceback
from difflib import get_close_matches
from typing import TYPE_CHECKING, NoReturn

from troth import __version__
from troth.cli import grammar
from troth.errors import TrothError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from troth.cli.grammar import Option, Positional, Verb

_INTERRUPTED = 130
_MAX_DIGITS = 20
_COUNTS = {"one": None, "optional": "?", "many": "*"}


class _Parser(argparse.ArgumentParser):
    """argparse that raises instead of exiting."""

    def error(self, message: str) -> NoReturn:
        raise UsageError("usage", message, hint=f"see: {self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``troth`` with ``arguments`` (default: the process's) and return its exit status.

    Any ``TrothError`` is printed as ``troth: error [code]: message`` with
    ``where`` and ``hint`` lines on standard error.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    # Closed by the caller (>&-): there are none, and the next file opened would be taken for them.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - to the end
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115 - to the end
    if isinstance(sys.stdout, io.TextIOWrapper):
        # File names and guests' output hold what a terminal's encoding may lack.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = _dispatch([word for word in words if word != "--debug"])
        sys.stdout.flush()
    except TrothError as error:
        _print_error(error)
        if debug:
            traceback.print_exc()
        return error.exit_status
    except BrokenPipeError:
        # The reader went away (| head): nothing left to say, not even at interpreter exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("troth: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except OSError as error:
        # Files and devices named on the command line fail in ways no verb can foresee.
        _print_error(_os_error(error))
        if debug:
            traceback.print_exc()
        return 1
    return status


def _os_error(error: OSError) -> TrothError:
    where = error.filename if isinstance(error.filename, str) else ""
    return TrothError("os-error", error.strerror or str(error), where=where)


def _print_error(error: TrothError) -> None:
    lines = [f"troth: error [{error.code}]: {error.message}"]
    if error.where:
        lines.append(f"  where: {error.where}")
    if error.hint:
        lines.append(f"  hint: {error.hint}")
    print("\n".join(_safe(line) for line in lines), file=sys.stderr)


def _safe(line: str) -> str:
    """``line`` without control characters: messages quote hostile input."""
    return "".join(c if c.isprintable() else "�" for c in line)


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("--help", "-h"):
        print(overview())
        return 0 if words else 2
    first = words[0]
    if first == "--version":
        print(f"troth {__version__}")
        return 0
    if first == "--man":
        from troth.cli.man import page

        print(page(_find(words[1:])[0] if words[1:] else None), end="")
        return 0
    if first == "--completion":
        from troth.cli.completion import script

        print(script(words[1] if len(words) == 2 else ""), end="")
        return 0
    if first.startswith("-"):
        known = [name for option in grammar.GLOBAL for name in option.names]
        raise UsageError("usage", f"unknown option {first}", hint=_nearest(first, known))
    if first in grammar.GROUPS and words[1:2] in (["--help"], ["-h"]):
        print(overview(first))
        return 0
    verb, rest = _find(words)
    options = parse(verb, rest)
    return _function(verb)(options)


def _find(words: list[str]) -> tuple[Verb, list[str]]:
    """The verb that ``words`` begin with, and what follows it."""
    for verb in grammar.VERBS:
        if tuple(words[: len(verb.words)]) == verb.words:
            return verb, words[len(verb.words) :]
    if words[0] in grammar.GROUPS:
        known = [verb.words[1] for verb in grammar.VERBS if verb.words[0] == words[0]]
        if len(words) == 1:
            raise UsageError(
                "usage", f"troth {words[0]} needs one of: {', '.join(known)}",
                hint=f"see: troth {words[0]} --help",
            )  # fmt: skip
        hint = _nearest(words[1], known)
        raise UsageError("usage", f"unknown verb '{words[0]} {words[1]}'", hint=hint)
    known = sorted({verb.words[0] for verb in grammar.VERBS})
    raise UsageError("usage", f"unknown verb '{words[0]}'", hint=_nearest(words[0], known))


def _nearest(word: str, known: list[str]) -> str:
    close = get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else "see: troth --help"


def parse(verb: Verb, words: Sequence[str]) -> argparse.Namespace:
    """The options of ``verb`` in ``words``; ``UsageError`` ``usage`` where they are wrong."""
    parser = _parser(verb)
    options, unknown = parser.parse_known_intermixed_args(list(words))
    for word in unknown:
        if word.startswith("-"):
            name = word.partition("=")[0]
            known = [name for option in verb.options for name in option.names]
            message = f"{parser.prog} has no option {name}"
            raise UsageError("usage", message, hint=_nearest(name, known))
    if unknown:
        parser.error(f"unexpected argument {unknown[0]!r}")
    return options


def _parser(verb: Verb) -> _Parser:
    epilog = "exit status: " + "; ".join(
        f"{status}: {meaning}" for status, meaning in verb.status or grammar.STATUS
    )
    parser = _Parser(
        prog=" ".join(("troth", *verb.words)),
        description=verb.description,
        epilog=epilog,
        allow_abbrev=False,
    )
    for positional in verb.positionals:
        _add_positional(parser, positional)
    for option in verb.options:
        _add_option(parser, option)
    return parser


def _add_positional(parser: _Parser, positional: Positional) -> None:
    parser.add_argument(
        positional.name,
        metavar=positional.metavar,
        help=_help(positional.help),
        nargs=_COUNTS[positional.count],
    )


def _add_option(parser: _Parser, option: Option) -> None:
    destination = option.names[0].removeprefix("--").replace("-", "_")
    text = _help(option.described)
    if not option.metavar:
        parser.add_argument(*option.names, dest=destination, action="store_true", help=text)
        return
    converts: dict[str, Callable[[str], object]] = {"integer": _integer, "number": float}
    convert = converts.get(option.kind, str)
    default = convert(option.default) if option.default is not None else None
    parser.add_argument(
        *option.names,
        dest=destination,
        metavar=option.metavar,
        help=text,
        type=convert,
        choices=option.choices or None,
        default=[] if option.repeat else default,
        action="append" if option.repeat else "store",
        required=option.required,
    )


def _integer(text: str) -> int:
    # Not int() alone: it takes blanks, underscores and the digits of other scripts.
    digits = text.removeprefix("-")
    if not 0 < len(digits) <= _MAX_DIGITS or not set(digits) <= set("0123456789"):
        raise argparse.ArgumentTypeError(f"{text[:_MAX_DIGITS]!r} is no whole number")
    return int(text)


def _help(text: str) -> str:
    return text.replace("%", "%%")  # argparse formats help texts


def _function(verb: Verb) -> Callable[[argparse.Namespace], int]:
    module, _, name = verb.function.partition(":")
    function: Callable[[argparse.Namespace], int] = getattr(importlib.import_module(module), name)
    return function


def overview(group: str = "") -> str:
    """The verbs, of ``group`` where given, and the global options, as ``--help`` prints them."""
    verbs = [verb for verb in grammar.VERBS if not group or verb.words[0] == group]
    rows = [(" ".join(verb.words), verb.summary) for verb in verbs]
    lines = [f"usage: troth {group + ' ' if group else ''}VERB ...", ""]
    if group:
        lines += [grammar.GROUPS[group], ""]
    else:
        rows += [("", "")] + [(option.names[0], option.help) for option in grammar.GLOBAL]
    width = max(len(name) for name, _ in rows)
    lines += [f"  {name:<{width}}  {text}".rstrip() for name, text in rows]
    return "\n".join([*lines, "", "'troth VERB --help' describes a verb."])


if __name__ == "__main__":
    sys.exit(main())
