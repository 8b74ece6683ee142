# SPDX-License-Identifier: Apache-2.0
"""``troth evidence``: all that a guest shows of itself, bound to a nonce, from its agent.

Runs in a guest: packed where the policy has SNP, so it imports no more than it
needs. Only the agent makes evidence: it knows who asks, holds the log's lock and
the turn at the processor, and what a caller made by itself would bind a caller
of its own choice.
"""

from __future__ import annotations

from troth.attest.client import ATTEST_SOCKET, AgentClient
from troth.cli import guest_words
from troth.documents import evidence as document
from troth.errors import UsageError
from troth.record import record

USAGE = (
    "usage: troth evidence --nonce HEX [-o FILE] [--user-data HEX] [--channel-key-sha256 HEX]\n"
    "                      [--socket PATH]\n"
)
NAMES = ("--nonce", "--output", "--user-data", "--channel-key-sha256", "--socket")
"""The options, all of which take a value."""

_SHA256_BYTES = 32


@record
class Options:
    """The options of the grammar, texts; none where not given."""

    nonce: str
    user_data: str | None = None
    channel_key_sha256: str | None = None
    output: str | None = None
    socket: str | None = None


def evidence(options: Options) -> int:
    """Ask, and print or write what came.

    ``options``: these, or an object with the same attributes. Raises
    ``UsageError``: ``usage``, ``nonce-length``, ``output-file``; and what
    ``AgentClient.evidence`` does.
    """
    channel = guest_words.hex_of("--channel-key-sha256", options.channel_key_sha256 or "")
    if len(channel) not in (0, _SHA256_BYTES):
        raise UsageError("usage", f"--channel-key-sha256 takes {_SHA256_BYTES} bytes in hex")
    found = AgentClient(options.socket or ATTEST_SOCKET).evidence(
        guest_words.hex_of("--nonce", options.nonce),
        user_data=guest_words.hex_of("--user-data", options.user_data or ""),
        channel_sha256=channel,
    )
    guest_words.give(document.print_(found), options.output)
    return 0


def main(words: list[str]) -> int:
    """Run the verb, its words read without argparse. ``UsageError`` ``usage``."""
    return evidence(parse(words))


def parse(words: list[str]) -> Options:
    """The options in ``words``: ``--name value`` or ``--name=value``. ``UsageError`` ``usage``."""
    options = dict.fromkeys(NAMES, ())
    given, _flags = guest_words.read(words, options, needed=("--nonce",), usage=USAGE)
    return Options(**given)
