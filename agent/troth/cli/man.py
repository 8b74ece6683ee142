# SPDX-License-Identifier: Apache-2.0
"""Manual pages (roff, man(7)) made from ``cli.grammar``.

Serves ``troth --man [VERB]`` and packagers. Pure; the same grammar gives the
same page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.cli import grammar

if TYPE_CHECKING:
    from troth.cli.grammar import Option, Positional, Verb

_SYNOPSIS = {"one": "{}", "optional": "[{}]", "many": "[{} ...]"}


def pages() -> dict[str, str]:
    """Every page by file name, ``troth.1`` and one for each verb."""
    found = {"troth.1": page(None)}
    for verb in grammar.VERBS:
        found[f"{'-'.join(('troth', *verb.words))}.1"] = page(verb)
    return found


def page(verb: Verb | None) -> str:
    """The page of ``verb``, or of ``troth`` itself."""
    return _overview() if verb is None else _verb(verb)


def _overview() -> str:
    lines = _head("troth", "boot agent and image tools for confidential VMs")
    lines += [".SH SYNOPSIS", ".B troth", _escape("VERB ...")]
    lines += [".SH DESCRIPTION"]
    lines.append(_escape("troth carries trust from the launch measurement of a confidential VM"))
    lines.append(_escape("to the code that runs in it. Each verb has a page of its own."))
    lines.append(".SH VERBS")
    for verb in grammar.VERBS:
        lines += [".TP", f".B {_escape(' '.join(verb.words))}", _escape(verb.summary)]
    lines.append(".SH OPTIONS")
    for option in grammar.GLOBAL:
        lines += _option(option)
    return _end(lines, grammar.STATUS)


def _verb(verb: Verb) -> str:
    lines = _head("-".join(("troth", *verb.words)), verb.summary)
    lines += [".SH SYNOPSIS", f".B {_escape(' '.join(('troth', *verb.words)))}"]
    lines += [_escape(_synopsis_option(option)) for option in verb.options]
    lines += [_escape(_SYNOPSIS[item.count].format(item.metavar)) for item in verb.positionals]
    lines += [".SH DESCRIPTION", _escape(verb.description), ".SH OPTIONS"]
    for positional in verb.positionals:
        lines += _positional(positional)
    for option in (*verb.options, grammar.DEBUG):
        lines += _option(option)
    return _end(lines, verb.status or grammar.STATUS)


def _head(name: str, summary: str) -> list[str]:
    title = f'.TH "{_escape(name.upper())}" 1 "" "troth" "User Commands"'
    return [title, ".SH NAME", _escape(name) + r" \- " + _escape(summary)]


def _end(lines: list[str], status: tuple[tuple[int, str], ...]) -> str:
    lines.append(".SH EXIT STATUS")
    for number, meaning in status:
        lines += [".TP", f".B {number}", _escape(meaning)]
    return "\n".join(lines) + "\n"


def _positional(item: Positional) -> list[str]:
    return [".TP", f".I {_escape(item.metavar)}", _escape(item.help)]


def _option(option: Option) -> list[str]:
    names = ", ".join(rf"\fB{_escape(name)}\fR" for name in option.names)
    value = rf" \fI{_escape(option.metavar)}\fR" if option.metavar else ""
    return [".TP", names + value, _escape(option.described)]


def _synopsis_option(option: Option) -> str:
    text = f"{option.names[0]} {option.metavar}".rstrip()
    return text if option.required else f"[{text}]"


def _escape(text: str) -> str:
    r"""``text`` for roff: no escapes, no requests, minus signs that can be copied."""
    text = text.replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{text}" if text.startswith((".", "'")) else text
