# SPDX-License-Identifier: Apache-2.0
"""One guest from start to end: QEMU, its vTPM, its console, and the verdict.

Serves ``troth run``. Everything started here has ended at return, also after
Ctrl-C, SIGTERM and time-out. Must never take the guest's word alone for a good
end: that needs QEMU's own exit and QEMU's reason for it.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from troth.errors import HostError
from troth.machine import console, process, qemu
from troth.machine.monitor import Monitor
from troth.machine.outcome import Ending, Record
from troth.machine.swtpm import Swtpm
from troth.machine.swtpm import command as swtpm_command
from troth.record import record, replace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from troth.machine.qemu import Description, Machine, Port
    from troth.machine.simulated_platform import SimulatedPlatform
    from troth.simulated.server import Server

#: A refused guest that does not end (``[fail] action = "halt"``) is ended after this long.
LINGER_S = 10.0
_TICK_S = 0.05
_MAX_COMPLAINT_BYTES = 16 << 10
_MAX_SOCKET_PATH = 100  # sun_path has 108 bytes
#: ``simulated.wire.PORT``, whose room only runs with such a processor load.
SIMULATED_PORT = "troth.sim-snp"


@record
class Plan:
    """A guest to run.

    ``machine``: its sockets are filled in by the run; ``tpm``: attach a vTPM;
    ``tpm_state``: directory that keeps its state, None for a fresh one;
    ``supervised``: PID 1 stays and says how the workload ended; ``timeout_s``:
    None for no limit; ``simulated``: the secure processor to start beside it.
    """

    machine: Machine
    description: Description
    tpm: bool
    tpm_state: Path | None
    supervised: bool
    timeout_s: float | None
    simulated: SimulatedPlatform | None = None


def commands(plan: Plan, folder: Path) -> tuple[tuple[str, ...], ...]:
    """The commands a run of ``plan`` starts, with its sockets in ``folder``; QEMU is last."""
    machine = replace(plan.machine, monitor_socket=folder / "monitor")
    if plan.simulated is not None:
        port = qemu.Port(SIMULATED_PORT, plan.simulated.socket(folder), listens=False)
        machine = replace(machine, ports=(*machine.ports, port))
    if not plan.tpm:
        return (qemu.command(machine, plan.description),)
    machine = replace(machine, tpm_socket=folder / "tpm")
    state = plan.tpm_state or folder / "tpm-state"
    return (swtpm_command(state, folder / "tpm"), qemu.command(machine, plan.description))


def run(plan: Plan, *, show: Callable[[bytes], object]) -> Record:
    """Run ``plan`` to its end; every console byte goes to ``show`` as it comes.

    Raises ``HostError`` ``qemu-missing``, ``swtpm-missing``, ``socket-path``;
    ``MachineError`` ``swtpm-failed``; with a simulated processor as
    ``SimulatedPlatform.start`` does. What the guest did is in the result.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(_sigterm_interrupts())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="troth-run-")))
        if len(os.fsencode(folder / "monitor")) > _MAX_SOCKET_PATH:
            raise HostError(
                "socket-path", "the name is too long for a socket", where=str(folder),
                hint="set TMPDIR to a shorter one",
            )  # fmt: skip
        if plan.tpm:
            state = plan.tpm_state or folder / "tpm-state"
            state.mkdir(mode=0o700, parents=True, exist_ok=True)
            stack.callback(Swtpm(state, folder / "tpm").close)
        stack.callback(_remove_ports, plan.machine.ports)
        platform = None
        if plan.simulated is not None:
            platform = plan.simulated.start(folder)
            stack.callback(platform.close)
        return _Run(plan, commands(plan, folder)[-1], folder, show, platform).to_end()


def _remove_ports(ports: tuple[Port, ...]) -> None:
    """Take away the sockets that a killed QEMU leaves."""
    for port in ports:
        if port.socket.is_socket():
            port.socket.unlink()


class _Run:
    """The loop that reads console, complaints and monitor until QEMU has ended.

    The simulated processor, where there is one, answers in the same loop.
    """

    def __init__(
        self,
        plan: Plan,
        words: tuple[str, ...],
        folder: Path,
        show: Callable[[bytes], object],
        platform: Server | None,
    ) -> None:
        self._plan = plan
        self._platform = platform
        self._show = show
        self._parser = console.Parser()
        self._record = Record(plan.machine.accelerator, supervised=plan.supervised)
        self._monitor = Monitor(folder / "monitor")
        self._complaints = b""
        self._began_s = time.monotonic()
        self._selector = selectors.DefaultSelector()
        try:
            self._process = process.start(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        except FileNotFoundError:
            raise HostError(
                "qemu-missing",
                f"{words[0]} is not installed",
                hint="sudo apt-get install qemu-system-x86",
            ) from None

    def to_end(self) -> Record:
        timed_out = False
        try:
            timed_out = self._loop()
        finally:
            # SIGKILL, not SIGTERM: on SIGTERM QEMU would end swtpm before the TPM is shut down.
            process.end(self._process, at_once=True)
            self._drain()
            self._monitor.drain()
            self._monitor.close()
            self._selector.close()
            for pipe in (self._process.stdout, self._process.stderr):
                if pipe is not None:
                    pipe.close()
        for event in self._parser.close():
            self._record.take(event)
        self._record.ending = Ending(
            timed_out_s=self._plan.timeout_s if timed_out else None,
            status=self._process.returncode,
            reason=self._monitor.reason,
            complaint=process.last_line(self._complaints),
        )
        self._record.duration_s = time.monotonic() - self._began_s
        return self._record

    def _loop(self) -> bool:
        """Read until QEMU has ended or must be; whether that was the time limit."""
        for pipe, take in (
            (self._process.stdout, self._take_console),
            (self._process.stderr, self._take_complaint),
        ):
            if pipe is not None:
                os.set_blocking(pipe.fileno(), False)
                self._selector.register(pipe, selectors.EVENT_READ, take)
        if self._platform is not None:
            self._selector.register(self._platform, selectors.EVENT_READ, self._platform.step)
        limit_s = self._plan.timeout_s
        over_since_s: float | None = None
        while self._process.poll() is None:
            if self._monitor.connect() and self._monitor.connection is not None:
                self._selector.register(
                    self._monitor.connection, selectors.EVENT_READ, self._monitor.read
                )
            for key, _ in self._selector.select(timeout=_TICK_S):
                if not key.data():
                    self._selector.unregister(key.fileobj)
            if self._platform is not None:
                self._platform.step()  # what was held back may be due
            now_s = time.monotonic()
            if limit_s is not None and now_s - self._began_s >= limit_s:
                return True
            if self._record.is_over():
                over_since_s = over_since_s or now_s
                if now_s - over_since_s >= LINGER_S:
                    return False
        return False

    def _drain(self) -> None:
        """What QEMU left in the pipes when it ended; bounded by what a pipe holds."""
        for key in list(self._selector.get_map().values()):
            if key.fileobj in (self._monitor.connection, self._platform):
                continue
            with contextlib.suppress(BrokenPipeError):
                for _ in range(64):
                    if not key.data():
                        break

    def _take_console(self) -> bool:
        data = self._read(self._process.stdout)
        if data:
            self._show(data)
            for event in self._parser.feed(data):
                self._record.take(event)
        return data != b""

    def _take_complaint(self) -> bool:
        data = self._read(self._process.stderr)
        self._complaints = (self._complaints + (data or b""))[-_MAX_COMPLAINT_BYTES:]
        return data != b""

    @staticmethod
    def _read(pipe: object) -> bytes | None:
        """Up to 64 KiB; None where nothing is there yet, empty at the end."""
        try:
            return os.read(pipe.fileno(), 65536)  # type: ignore[attr-defined]
        except BlockingIOError:
            return None


@contextlib.contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """SIGTERM and SIGHUP unwind like Ctrl-C while a guest runs, so that it is ended."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
