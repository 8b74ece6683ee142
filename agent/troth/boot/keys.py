# SPDX-License-Identifier: Apache-2.0
"""Stage 7: the key of each encrypted volume, in one process that ends before the handover.

PID 1 never holds a key: it starts the worker (``boot.key_worker``), tells it
which disks there are, and measures who released what for which volume. Stage
volumes goes on with the same worker. What goes wrong before something is
authenticated has one public code a stage (SECURITY S41). The conversation is
lines of ASCII words, so that PID 1 needs no parser for it:

``disk NAME KERNEL-NAME SECTORS MAJOR:MINOR`` · ``bank NAME`` · ``deadline NANOSECONDS`` ·
``release`` · ``open``, and back
``released NAME HEX`` · ``opened NAME MAP MINOR HEX BANK=HEX,...`` · ``done`` ·
``refused PUBLIC EXACT HEX``.
"""

from __future__ import annotations

import os
import select
import time

from troth.boot import process
from troth.documents import event_log, stages
from troth.errors import VeiledRefusal
from troth.linux import rights

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.boot.state import State

#: Public codes, one for each thing that is not authenticated before.
KEY_REFUSED, HEADER_REFUSED, VOLUME_REFUSED = "key-refused", "header-refused", "volume-refused"
PUBLIC = (KEY_REFUSED, HEADER_REFUSED, VOLUME_REFUSED)

_PROGRAM = f"from {stages.KEY_WORKER} import main; main()"
_MOST_BYTES = 64 << 10
#: The worker's own deadline is that much earlier, so that it can still say what it waited for.
_LAST_WORDS_NS = 2_000_000_000


class KeyWorker:
    """The process: ``ask`` it, then ``end`` it."""

    def __init__(self, state: State) -> None:
        # Device mapper needs the one right; all files that it opens are root's.
        self._process = process.start(
            state, _PROGRAM, capabilities=(rights.CAP_SYS_ADMIN,), quiet=True
        )
        self._to, self._from = self._process.tells, self._process.said

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def tell(self, line: str) -> None:
        """One line; a worker that has ended is heard of by ``ask``."""
        try:
            os.write(self._to, f"{line}\n".encode())
        except BrokenPipeError:
            return

    def ask(self, line: str, *, public: str, end_ns: int) -> list[list[str]]:
        """What the worker answers to ``line``: the words of each line up to ``done``.

        Raises ``VeiledRefusal`` as the worker says, or with ``public`` where it says nothing
        that can be understood.
        """
        self.tell(line)
        data = b""
        poll = select.poll()
        poll.register(self._from, select.POLLIN)
        while not data.endswith(b"done\n"):
            left_ms = (end_ns - time.monotonic_ns()) // 1_000_000
            if left_ms <= 0 or not poll.poll(left_ms):
                raise VeiledRefusal(public, "key-worker", "the key worker does not answer")
            part = os.read(self._from, _MOST_BYTES)
            data += part
            if not part or len(data) > _MOST_BYTES:
                break
        if len(data) > _MOST_BYTES:
            raise VeiledRefusal(public, "key-worker", "the key worker says too much")
        found = [item.split(" ") for item in data.decode("ascii", "replace").splitlines()]
        for words in found:
            if words[0] == "refused" and len(words) == 4 and words[1] in PUBLIC:
                raise VeiledRefusal(words[1], words[2], _text(words[3]))
        if not found or found.pop() != ["done"]:
            raise VeiledRefusal(public, "key-worker", "the key worker ended without a word")
        return found

    def end(self, state: State) -> None:
        """Kill it, whatever it is doing, and wait: its memory is given back before this returns."""
        os.close(self._to)
        os.close(self._from)
        self._process.end(state)


def run(state: State) -> None:
    """Start the worker, measure what it was given; ``Refusal`` ``key-refused`` (veiled)."""
    worker = state.key_worker = KeyWorker(state)
    for volume in state.policy.encrypted:
        disk = state.disks[volume.name]
        worker.tell(f"disk {volume.name} {disk.name} {disk.sectors} {disk.number}")
    for bank in state.events.banks:
        worker.tell(f"bank {bank}")
    worker.tell(f"deadline {_deadline_ns(state)}")
    answers = worker.ask("release", public=KEY_REFUSED, end_ns=state.deadline_ns)
    check_answers(state, answers, word="released", size=3, public=KEY_REFUSED)
    for words in answers:
        content = octets(words[2], public=KEY_REFUSED)
        state.events.measure(event_log.KEY_RELEASE, content)
    state.events.confirm()


def _deadline_ns(state: State) -> int:
    left_ns = max(0, state.deadline_ns - time.monotonic_ns())
    return state.deadline_ns - min(_LAST_WORDS_NS, left_ns // 4)


def check_answers(
    state: State, answers: list[list[str]], *, word: str, size: int, public: str
) -> None:
    """One line of ``size`` words for each volume, in the policy's order; ``VeiledRefusal``."""
    wanted = [[word, volume.name] for volume in state.policy.encrypted]
    if [words[:2] for words in answers] != wanted or any(len(words) != size for words in answers):
        raise VeiledRefusal(public, "key-worker", f"not every volume was {word}")


def octets(text: str, *, public: str) -> bytes:
    """What ``text`` is the hex of; ``VeiledRefusal`` where it is none."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise VeiledRefusal(public, "key-worker", "the key worker's answer is no hex") from None


def _text(encoded: str) -> str:
    try:
        return bytes.fromhex(encoded).decode("ascii", "replace")
    except ValueError:
        return "its answer is none"
