# SPDX-License-Identifier: Apache-2.0
"""An agent under load, for ``reports``: its processor, and callers that never lose patience.

Processor, agent and callers are three processes. All callers live in one loop;
each sends, waits for the answer, and sends again; who is told to come back comes
back when told. An answer that is missing, late or of another question ends the bench.
"""

from __future__ import annotations

import heapq
import json
import multiprocessing
import os
import resource
import selectors
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from made_front import opened, report_request, sealed
from made_platform import platform
from troth.record import record
from troth.simulated.launch import Launch
from troth.simulated.processor import Processor

if TYPE_CHECKING:
    from collections.abc import Iterator

BENCH = Path(__file__).parent
PATIENCE_S = 120
REPORT_DATA_BYTES = 64
OK, LATER = 200, 429


@record
class Memory:
    """Of one process: resident bytes, the most there ever were, open descriptors."""

    resident_bytes: int
    peak_bytes: int
    descriptors: int


@record
class Load:
    """``tries``: the most that one request needed; ``later``: answers 429."""

    clients: int
    requests: int
    took_s: float
    later: int
    tries: int

    @property
    def per_second(self) -> float:
        """Requests that were answered, each second."""
        return self.requests / self.took_s


class Agent:
    """A started agent: its sockets and its process."""

    def __init__(self, directory: Path, process: subprocess.Popen[bytes]) -> None:
        self.attest = directory / "attest.sock"
        self.control = directory / "control.sock"
        self._process = process

    def memory(self) -> Memory:
        """What the process holds now."""
        place = Path(f"/proc/{self._process.pid}")
        words = dict(
            line.split(":", 1)
            for line in (place / "status").read_text().splitlines()
            if ":" in line
        )
        resident, peak = (int(words[key].split()[0]) * 1024 for key in ("VmRSS", "VmHWM"))
        return Memory(resident, peak, len(os.listdir(place / "fd")))

    def gauge(self, name: str) -> int:
        """One figure of its metrics, asked for at the control socket."""
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(PATIENCE_S)
            asking.connect(str(self.control))
            asking.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            text = b""
            while part := asking.recv(65536):
                text += part
        (found,) = (line for line in text.decode().splitlines() if line.partition(" ")[0] == name)
        return int(float(found.split()[1]))


@contextmanager
def running(work: Path, *, interval_s: float) -> Iterator[Agent]:
    """An agent before a processor of its own, until the block ends."""
    directory = work / f"agent-{interval_s}"
    state = Path(f"{directory}.state")
    state.mkdir()
    path = work / f"processor-{interval_s}"
    ready = multiprocessing.Event()
    processor = multiprocessing.Process(target=_process, args=(path, ready), daemon=True)
    processor.start()
    ready.wait(PATIENCE_S)
    program = [sys.executable, "-ISB", BENCH / "agent_under_load.py"]
    process = subprocess.Popen([*program, directory, path, str(interval_s)], env={})
    agent = Agent(directory, process)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not agent.control.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("bench: the agent did not start")
            time.sleep(0.01)
        yield agent
    finally:
        process.send_signal(signal.SIGTERM)
        status = process.wait(PATIENCE_S)
        processor.terminate()
        processor.join()
    if status:
        raise SystemExit(f"bench: the agent ended with status {status}")


def _process(path: Path, ready: multiprocessing.synchronize.Event) -> None:
    """The simulated processor, and the kernel's half of its messages."""
    made = Processor(Launch(measurement=bytes(48)), platform())
    key = made.secrets_page()[0x20:0x40]
    count = 0
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        ready.set()
        peer, _address = listener.accept()
        with peer:
            while data := peer.recv(REPORT_DATA_BYTES, socket.MSG_WAITALL):
                answer = made.request(sealed(key, count + 1, 5, report_request(data)))
                count += 2
                peer.sendall(opened(key, answer.page, sequence=count, kind=6)[32:])


class _Caller:
    """One connection, and what is left for it to ask."""

    def __init__(self, path: Path, number: int, left: int, *, reports: bool) -> None:
        self.path, self.number, self.left, self.reports = str(path), number, left, reports
        self.tries = 0
        self.nonce = ""
        self.connect()

    def connect(self) -> None:
        self.buffer = b""
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(self.path)

    def ask(self) -> None:
        self.tries += 1
        if not self.reports:
            self.socket.sendall(b"GET /v1/info HTTP/1.1\r\nHost: a\r\n\r\n")
            return
        self.nonce = f"{self.number:016x}{self.left:016x}"
        body = f'{{"nonce":"{self.nonce}"}}'.encode()
        head = (
            "POST /v1/report HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self.socket.sendall(head.encode() + body)

    def answer(self) -> tuple[int, int] | None:
        """(status, seconds to come back after), None where the answer is not whole yet."""
        part = self.socket.recv(65536)
        if not part:
            raise SystemExit(f"bench: caller {self.number} was cut off")
        self.buffer += part
        head, gap, body = self.buffer.partition(b"\r\n\r\n")
        if not gap:
            return None
        lines = head.decode().split("\r\n")
        fields = {name.lower(): value for name, _, value in (x.partition(": ") for x in lines[1:])}
        if len(body) < int(fields["content-length"]):
            return None
        self.buffer = b""
        status = int(lines[0].split()[1])
        if status == OK and self.reports and json.loads(body)["binding"]["nonce"] != self.nonce:
            raise SystemExit(f"bench: caller {self.number} got the answer to another question")
        return status, int(fields.get("retry-after", "0"))


class Crowd:
    """Callers of one agent, ``each`` with so many requests."""

    def __init__(self, agent: Agent, clients: int, *, each: int, reports: bool) -> None:
        self._callers = [_Caller(agent.attest, n, each, reports=reports) for n in range(clients)]
        self._requests = clients * each
        self._waiting: list[tuple[float, int]] = []
        self.answered = 0
        self.later = 0
        self.tries = 1

    def play(self, *, every_s: float = 0, look: object = None) -> Load:
        """Until all are answered; ``look`` is called about each ``every_s``."""
        began = time.monotonic()
        looked = began
        with selectors.DefaultSelector() as selector:
            for caller in self._callers:
                selector.register(caller.socket, selectors.EVENT_READ, caller)
                caller.ask()
            while self.answered < self._requests:
                now = time.monotonic()
                if now - began > PATIENCE_S + self._requests:
                    raise SystemExit("bench: the crowd is not served")
                while self._waiting and self._waiting[0][0] <= now:
                    caller = self._callers[heapq.heappop(self._waiting)[1]]
                    caller.connect()
                    selector.register(caller.socket, selectors.EVENT_READ, caller)
                    caller.ask()
                until = self._waiting[0][0] - now if self._waiting else 1.0
                for key, _events in selector.select(min(until, every_s or until)):
                    self._take(key.data, selector)
                if callable(look) and time.monotonic() - looked >= every_s:
                    looked = time.monotonic()
                    look(self)
        took_s = time.monotonic() - began
        return Load(len(self._callers), self._requests, took_s, self.later, self.tries)

    @property
    def unserved(self) -> int:
        """Callers that still want something."""
        return sum(1 for caller in self._callers if caller.left)

    def _take(self, caller: _Caller, selector: selectors.BaseSelector) -> None:
        found = caller.answer()
        if found is None:
            return
        status, after_s = found
        if status == LATER:
            self._leave(caller, selector)
            self.later += 1
            heapq.heappush(self._waiting, (time.monotonic() + after_s, caller.number))
            return
        if status != OK:
            raise SystemExit(f"bench: caller {caller.number} got status {status}")
        self.tries = max(self.tries, caller.tries)
        caller.tries = 0
        self.answered += 1
        caller.left -= 1
        if caller.left:
            caller.ask()
        else:
            self._leave(caller, selector)

    def _leave(self, caller: _Caller, selector: selectors.BaseSelector) -> None:
        """The agent closes whoever is silent for half a minute: nobody waits on a connection."""
        selector.unregister(caller.socket)
        caller.socket.close()


def room_for(clients: int) -> None:
    """Let this process and its children have so many connections."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = clients + 256
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise SystemExit(f"bench: at most {hard} descriptors here, {wanted} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
