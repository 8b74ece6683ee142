# SPDX-License-Identifier: Apache-2.0
"""How a verb is described: options, positionals, exit statuses; and what several verbs share.

Serves the other modules of this room. Must hold no verb.
"""

from __future__ import annotations

from troth.record import record


@record
class Option:
    """``--name METAVAR``.

    ``names``: long name first; ``metavar``: empty for a flag; ``kind``:
    "text", "file", "directory", "integer" or "number"; ``choices``: the only
    values, where not empty; ``repeat``: may be given several times, and is then
    a list. An option not given is None, a flag not given False, a repeated one
    an empty list, unless ``default`` says otherwise.
    """

    names: tuple[str, ...]
    help: str
    metavar: str = ""
    kind: str = "text"
    choices: tuple[str, ...] = ()
    default: str | None = None
    repeat: bool = False
    required: bool = False

    @property
    def described(self) -> str:
        """``help`` with everything else that people should know of the option."""
        text = self.help
        if self.choices:
            several = "; one of" if len(self.choices) > 1 else ":"
            text += f"{several} {', '.join(self.choices)}"
        if self.default is not None:
            text += f" (default {self.default})"
        return f"{text}; may be given several times" if self.repeat else text


@record
class Positional:
    """An argument by position; ``count``: "one", "optional" (else None) or "many" (a list)."""

    name: str
    help: str
    metavar: str
    kind: str = "text"
    count: str = "one"


@record
class Verb:
    """One command.

    ``words``: what is typed, one or two; ``function``: ``module:name``, called
    with an object whose attributes are the positionals and the options' long
    names with underscores; it returns the exit status.
    """

    words: tuple[str, ...]
    function: str
    summary: str
    description: str
    positionals: tuple[Positional, ...] = ()
    options: tuple[Option, ...] = ()
    status: tuple[tuple[int, str], ...] = ()


JSON = Option(("--json",), "print one JSON object on standard output")
DEBUG = Option(("--debug",), "print a traceback with errors")

STATUS = (
    (0, "yes: done, or every check passed"),
    (1, "no: refused, failed, or a check failed"),
    (2, "the command line or the manifest is wrong"),
    (3, "this machine lacks something; the message names the package"),
)
