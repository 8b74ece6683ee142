# SPDX-License-Identifier: Apache-2.0
"""``troth evidence``: all that a guest shows of itself, bound to a nonce, from its agent.

Runs in a guest: packed where the policy has SNP, so it imports no more than it
needs. Only the agent makes evidence: it knows who asks, holds the log's lock and
the turn at the processor, and what a caller made by itself would bind a caller
of its own choice.
"""

from __future__ import annotations

import sys

from troth.attest.client import ATTEST_SOCKET, AgentClient
from troth.documents import evidence as document
from troth.errors import UsageError
from troth.record import record

USAGE = (
    "usage: troth evidence --nonce HEX [-o FILE] [--user-data HEX] [--channel-key-sha256 HEX]\n"
    "                      [--socket PATH]\n"
)
NAMES = ("--nonce", "--output", "--user-data", "--channel-key-sha256", "--socket")
"""The options, all of which take a value."""

_SHORT = {"-o": "--output"}
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
    channel = _hex("--channel-key-sha256", options.channel_key_sha256 or "")
    if len(channel) not in (0, _SHA256_BYTES):
        raise UsageError("usage", f"--channel-key-sha256 takes {_SHA256_BYTES} bytes in hex")
    found = AgentClient(options.socket or ATTEST_SOCKET).evidence(
        _hex("--nonce", options.nonce),
        user_data=_hex("--user-data", options.user_data or ""),
        channel_sha256=channel,
    )
    data = document.print_(found)
    if options.output is None:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return 0
    # Not cli.output_file: its tempfile would bring hashlib and libcrypto into the guest.
    try:
        with open(options.output, "wb") as file:
            file.write(data)
    except OSError as error:
        raise UsageError(
            "output-file", f"cannot be written: {error.strerror}", where=options.output
        ) from None
    return 0


def main(words: list[str]) -> int:
    """Run the verb, its words read without argparse. ``UsageError`` ``usage``."""
    return evidence(parse(words))


def parse(words: list[str]) -> Options:
    """The options in ``words``: ``--name value`` or ``--name=value``. ``UsageError`` ``usage``."""
    given: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
        name = _SHORT.get(name, name)
        if name not in NAMES:
            raise _wrong(f"unknown option {word}")
        if not equals:
            if not rest:
                raise _wrong(f"{name} takes a value")
            value = rest.pop(0)
        given[name[2:].replace("-", "_")] = value
    if "nonce" not in given:
        raise _wrong("--nonce is missing")
    return Options(**given)


def _hex(option: str, text: str) -> bytes:
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if value.hex() != text.lower():
        raise UsageError("usage", f"{option} takes pairs of hex digits")
    return value


def _wrong(message: str) -> UsageError:
    return UsageError("usage", message, hint=USAGE.rstrip())
