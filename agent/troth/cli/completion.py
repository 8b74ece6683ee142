# SPDX-License-Identifier: Apache-2.0
"""Completion scripts for bash and zsh, made from ``cli.grammar``.

Serves ``troth --completion SHELL``. The scripts hold plain word lists, so
completing never starts Python.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.cli import grammar
from troth.errors import UsageError

if TYPE_CHECKING:
    from troth.cli.grammar import Verb


def script(shell: str) -> str:
    """The script for ``shell``; ``UsageError`` ``usage`` for another than bash and zsh."""
    if shell == "bash":
        return _bash()
    if shell == "zsh":
        # zsh runs bash completions; one generator means one thing to get right.
        return f"#compdef troth\nautoload -U +X bashcompinit && bashcompinit\n{_bash()}"
    raise UsageError("usage", "--completion SHELL: bash or zsh")


def _bash() -> str:
    first = dict.fromkeys(verb.words[0] for verb in grammar.VERBS)
    globals_ = [name for option in grammar.GLOBAL for name in option.names]
    lines = [
        "# completion of troth, generated from its grammar",
        "_troth() {",
        '    local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}"',
        '    local verb="${COMP_WORDS[1]}" words="" files=""',
        "    COMPREPLY=()",
        '    if [ "$COMP_CWORD" -eq 1 ]; then',
        f'        words="{" ".join([*first, *globals_])}"',
        "    else",
    ]
    for group in grammar.GROUPS:
        second = " ".join(verb.words[1] for verb in grammar.VERBS if verb.words[0] == group)
        lines += [
            f'        if [ "$verb" = {group} ]; then',
            f'            if [ "$COMP_CWORD" -eq 2 ]; then words="{second}"; fi',
            '            verb="$verb ${COMP_WORDS[2]}"',
            "        fi",
        ]
    lines += ['        if [ -z "$words" ]; then', '            case "$verb" in']
    for verb in grammar.VERBS:
        lines += _case(verb)
    lines += [
        "            esac",
        "        fi",
        "    fi",
        '    COMPREPLY=($(compgen -W "$words" -- "$word"))',
        '    if [ -n "$files" ]; then COMPREPLY+=($(compgen $files -- "$word")); fi',
        "}",
        "complete -o filenames -F _troth troth",
        "",
    ]
    return "\n".join(lines)


def _case(verb: Verb) -> list[str]:
    """The branch of one verb: values after an option that takes one, else options and files."""
    pad = " " * 16
    kinds = {"file": "-f", "directory": "-d"}
    lines = [f'{pad}"{" ".join(verb.words)}")', f'{pad}    case "$before" in']
    for option in verb.options:
        if option.metavar:
            value = (
                f'words="{" ".join(option.choices)}"'
                if option.choices
                else f'files="{kinds.get(option.kind, "")}"'
            )
            lines.append(f"{pad}    {'|'.join(option.names)}) {value} ;;")
    names = " ".join(name for option in verb.options for name in option.names)
    files = kinds.get(verb.positionals[0].kind, "") if verb.positionals else ""
    lines.append(f'{pad}    *) words="{names} --help --debug" files="{files}" ;;')
    return [*lines, f"{pad}    esac ;;"]
