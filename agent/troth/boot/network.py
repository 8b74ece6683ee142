# SPDX-License-Identifier: Apache-2.0
"""Stage 6: the network, in a process of its own that holds no key.

PID 1 waits for one line of that process, and later for the line that says that all
is down again; both with a bound. It speaks to nobody outside itself, and believes of
a refusal only that the boot is over. Nothing here is authenticated, so every code is
public (SECURITY S31, S41).
"""

from __future__ import annotations

import os
import select
import time

from troth.boot import process
from troth.errors import Refusal
from troth.linux import rights

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.boot.state import State

#: Beyond the policy's time, for the process to end its wait and say so itself.
_GRACE_S = 3.0
_DOWN_S = 10.0
_LINE_BYTES = 512
_PROGRAM = "import sys; from troth.boot import network_worker; network_worker.main(sys.argv[1:])"
#: What the process may refuse for; any other code of its is not its own.
_CODES = (
    "network-missing",
    "network-ambiguous",
    "network-dhcp",
    "network-config",
    "network-down",
)


def run(state: State) -> None:
    """Fill ``state.network``.

    Raises ``Refusal``: ``network-missing``, ``network-ambiguous``, ``network-dhcp``,
    ``network-config``; ``network-timeout``, ``network-worker``.
    """
    rules = state.policy.network
    if rules is None:
        raise RuntimeError("no network in the policy")
    end_ns = time.monotonic_ns() + rules.timeout_s * 1_000_000_000
    worker = Worker(state, _PROGRAM, str(end_ns))
    state.network = worker
    words = worker.hear(end_ns / 1e9 + _GRACE_S - time.monotonic(), code="network-timeout")
    if words[:1] != ["up"]:
        raise Refusal("network-worker", "its process said neither up nor refused")
    state.say(f"troth: network {' '.join(words[1:])}")


class Worker:
    """The process, from PID 1's side. ``program``: Python text, with its ``words``."""

    def __init__(self, state: State, program: str, *words: str) -> None:
        self._state = state
        self._open = True
        self._process = process.start(
            state, program, *words, capabilities=(rights.CAP_NET_ADMIN, rights.CAP_NET_RAW)
        )
        self._tells, self._said = self._process.tells, self._process.said

    def hear(self, timeout_s: float, *, code: str) -> list[str]:
        """The words of the next line; ``code``: the code where it takes longer.

        Raises ``Refusal``: what the process refuses for, ``network-worker`` where it
        ended or said something else.
        """
        end_s = time.monotonic() + timeout_s
        poll = select.poll()
        poll.register(self._said, select.POLLIN)
        found = b""
        while not found.endswith(b"\n"):
            left_s = end_s - time.monotonic()
            if left_s <= 0 or not poll.poll(int(left_s * 1000) + 1):
                raise Refusal(code, "the process that has the network said nothing in time")
            part = os.read(self._said, _LINE_BYTES)
            found += part
            if not part or len(found) > _LINE_BYTES:
                raise Refusal("network-worker", "the process that has the network ended")
        words = found.decode("ascii", "replace").split()
        if words[:1] == ["refused"] and len(words) > 1 and words[1] in _CODES:
            raise Refusal(words[1], " ".join(words[2:]))
        return words

    def close(self) -> None:
        """Take the network down, and be sure of it; nothing where that is done.

        Raises ``Refusal`` ``network-down``, ``network-worker``.
        """
        if not self._open:
            return
        self._open = False
        os.close(self._tells)
        if self.hear(_DOWN_S, code="network-down") != ["down"]:
            raise Refusal("network-worker", "its process did not say that all is down")
        os.close(self._said)
        self._process.end(self._state)
