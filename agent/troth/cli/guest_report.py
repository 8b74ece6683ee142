# SPDX-License-Identifier: Apache-2.0
"""``/run/troth/bin/troth report``: the words of ``troth report``, read without argparse.

Packed by the profile ``snp``. A unit test holds the options below against the
grammar, which the image does without.
"""

from __future__ import annotations

from troth.cli import report
from troth.cli.report import Options
from troth.errors import UsageError

USAGE = (
    "usage: troth report --nonce HEX [--user-data HEX] [--format bin|hex|json] [-o FILE]\n"
    "                    [--socket PATH | [--provider configfs-tsm|sev-guest] [--vmpl 0..3]]\n"
)

CHOICES: dict[str, tuple[str, ...]] = {
    "--nonce": (),
    "--user-data": (),
    "--format": ("bin", "hex", "json"),
    "--output": (),
    "--socket": (),
    "--provider": ("configfs-tsm", "sev-guest"),
    "--vmpl": ("0", "1", "2", "3"),
}
"""Every option, and the values it takes where they are counted."""

_SHORT = {"-o": "--output"}


def main(words: list[str]) -> int:
    """Run the verb. ``UsageError`` ``usage``, and what ``report.report`` raises."""
    return report.report(parse(words))


def parse(words: list[str]) -> Options:
    """The options in ``words``: ``--name value`` or ``--name=value``. ``UsageError`` ``usage``."""
    given: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
        name = _SHORT.get(name, name)
        if name not in CHOICES:
            raise _wrong(f"unknown option {word}")
        if not equals:
            if not rest:
                raise _wrong(f"{name} takes a value")
            value = rest.pop(0)
        if CHOICES[name] and value not in CHOICES[name]:
            raise _wrong(f"{name} takes {', '.join(CHOICES[name])}")
        given[name[2:].replace("-", "_")] = value
    if "nonce" not in given:
        raise _wrong("--nonce is missing")
    return Options(**given)


def _wrong(message: str) -> UsageError:
    return UsageError("usage", message, hint=USAGE.rstrip())
