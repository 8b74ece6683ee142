# SPDX-License-Identifier: Apache-2.0
"""What ``/run/troth/bin/troth`` asks the agent: measurements, its own state, an event to add.

Packed by the profile ``agent``; ``cli.guest`` imports it by name, because images
without an agent have nothing of it. None where no agent answers: the verbs then
look for themselves.
"""

from __future__ import annotations

import json
import sys

from troth.attest.client import ATTEST_SOCKET, AgentClient
from troth.cli import guest_words
from troth.errors import HostError, ProviderError, UsageError
from troth.record import record
from troth.registers.measurements import Measurements, RegisterValue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.documents.strict import Reader

USAGE = "usage: troth extend --event TYPE --data FILE|- [--socket PATH] [--json]\n"
NAMES = ("--event", "--data", "--socket")
"""The options of ``troth extend`` that take a value."""
_DATA_BYTES = 1024
_TIMEOUT_S = 30.0


def measurements(path: str = ATTEST_SOCKET) -> Measurements | None:
    """What the agent measured; None where nobody answers, or not to this user.

    Raises what ``AgentClient.get`` does, ``no-agent`` apart.
    """
    found = _asked("/v1/measurements", path)
    if found is None:
        return None
    values = found.each(
        "registers",
        lambda row: RegisterValue(
            row.text("bank"), row.integer("index"), row.text("replayed"), row.text("observed")
        ),
    )
    return Measurements(
        events=found.integer("events"),
        software_register=found.digest("software_register", size_bytes=48),
        registers=values,
        tpm=found.text("tpm"),
    )


def state(path: str = ATTEST_SOCKET) -> dict[str, object]:
    """The agent as ``troth status`` shows it; ``{"running": False}`` where nobody answers."""
    try:
        found = _asked("/v1/info", path)
    except ProviderError as error:
        return {"running": True, "error": error.code}
    if found is None:
        return {"running": False}
    return {
        "running": True,
        "provider": found.text("provider"),
        "log": found.text("log"),
        "raw_report_data": found.text("raw_report_data"),
    }


def _asked(target: str, path: str) -> Reader | None:
    try:
        return AgentClient(path, timeout_s=_TIMEOUT_S).get(target)
    except HostError as error:
        if error.code != "no-agent":
            raise
        return None


@record
class Options:
    """The options of the grammar; ``socket`` None where not given."""

    event: str
    data: str
    socket: str | None = None
    json: bool = False


def extend(options: Options) -> int:
    """Add one event; print its number and the software register after it.

    ``options``: these, or an object with the same attributes. Raises
    ``UsageError`` ``event-file``, and what ``AgentClient.extend`` does.
    """
    client = AgentClient(options.socket or ATTEST_SOCKET, timeout_s=_TIMEOUT_S)
    number, value = client.extend(options.event, _data(options.data))
    if options.json:
        sys.stdout.write(json.dumps({"recnum": number, "software_register": value}) + "\n")
    else:
        sys.stdout.write(f"event {number}; software register {value}\n")
    return 0


def main(words: list[str]) -> int:
    """Run ``troth extend``, its words read without argparse. ``UsageError`` ``usage``."""
    return extend(parse(words))


def parse(words: list[str]) -> Options:
    """The options in ``words``: ``--name value`` or ``--name=value``. ``UsageError`` ``usage``."""
    given, flags = guest_words.read(
        words,
        dict.fromkeys(NAMES, ()),
        needed=("--event", "--data"),
        usage=USAGE,
        flags=("--json",),
    )
    return Options(**given, json="--json" in flags)


def _data(path: str) -> bytes:
    try:
        if path == "-":
            found = sys.stdin.buffer.read(_DATA_BYTES + 1)
        else:
            with open(path, "rb") as file:
                found = file.read(_DATA_BYTES + 1)
    except OSError as error:
        raise UsageError("event-file", f"cannot be read: {error.strerror}", where=path) from None
    if len(found) > _DATA_BYTES:
        raise UsageError(
            "event-file", f"an event has at most {_DATA_BYTES} bytes", where=path,
            hint="measure a digest of it",
        )  # fmt: skip
    return found
