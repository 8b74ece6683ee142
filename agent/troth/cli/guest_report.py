# SPDX-License-Identifier: Apache-2.0
"""``/run/troth/bin/troth report``: the words of ``troth report``, read without argparse.

Packed by the profile ``snp``. A unit test holds the options below against the
grammar, which the image does without.
"""

from __future__ import annotations

from troth.cli import guest_words, report
from troth.cli.report import Options

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


def main(words: list[str]) -> int:
    """Run the verb. ``UsageError`` ``usage``, and what ``report.report`` raises."""
    return report.report(parse(words))


def parse(words: list[str]) -> Options:
    """The options in ``words``: ``--name value`` or ``--name=value``. ``UsageError`` ``usage``."""
    given, _flags = guest_words.read(words, CHOICES, needed=("--nonce",), usage=USAGE)
    return Options(**given)
