# SPDX-License-Identifier: Apache-2.0
"""Start the attestation agent where the handover ends: a unit for systemd, else a process.

Serves both handovers, which import it by name, because only some images have an
agent. The agent runs from the runtime, in a root and namespaces of its own with
one capability, so that it does not matter what the next root is made of. Must
never let PID 1 itself be changed by what the child does, nor start two agents.

Source: DESIGN sections 5 (The runtime) and 7; sd_notify(3).
"""

from __future__ import annotations

import _socket
import os
import select
import time

from troth.boot.state import RUN, RUNTIME
from troth.errors import Refusal
from troth.linux import rights, signals
from troth.linux.mount import MS_NOEXEC, MS_NOSUID, MS_RDONLY, TIGHT, become_root, bind, mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

UNIT = "troth-agent.service"
UNITS = "/run/systemd/system"
#: Orders requests of all processes to the secure processor (``attest.pacing``).
TURN = "/run/troth-report.turn"
NOTIFY = f"{RUN}/state/notify"
_CONFIGFS = "/sys/kernel/config"
_DEVICES = ("null", "kmsg", "sev-guest")

WATCHDOG_S = 30.0
READY_S = 10.0
#: An agent that lived this long may start again at once.
_STEADY_S = 60.0
_FIRST_DELAY_S, _LAST_DELAY_S = 1.0, 30.0
_LOOK_S = 10.0

_PYTHON = "/usr/bin/python3"
_PROGRAM = "import sys; from troth.attest.agent import main; sys.exit(main())"
_OOM_ADJUST = b"-900"
_FAILED = 127


def prepare(*, manager: str) -> None:
    """What must be there before any other program runs; systemd's unit where it is the manager.

    Raises ``Refusal`` ``agent-start``.
    """
    try:
        if not os.path.exists(TURN):
            # Else the key worker has asked for a report; nobody but PID 1's own has run yet.
            _make(TURN, b"", mode=0o600)
        if manager == "systemd":
            with open(f"{RUNTIME}/etc/troth/{UNIT}", "rb", buffering=0) as file:
                _make(f"{UNITS}/{UNIT}", file.read(), mode=0o644)
            wants = f"{UNITS}/multi-user.target.wants"
            os.mkdir(wants, 0o755)
            os.symlink(f"../{UNIT}", f"{wants}/{UNIT}")
    except OSError as error:
        raise Refusal("agent-start", f"{error.filename}: {error.strerror}") from error


def _make(path: str, data: bytes, *, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def start(environ: dict[str, str]) -> int:
    """Fork the agent; its process id. After the move into the next root. ``OSError``."""
    child = os.fork()
    if not child:
        _become(environ)
    return child


def _become(environ: dict[str, str]) -> NoReturn:
    # The child: any failure ends here, never in a second PID 1.
    try:
        os.setsid()
        with open("/proc/self/oom_score_adj", "wb", buffering=0) as score:
            score.write(_OOM_ADJUST)
        _own_root()
        _speak_to_the_log()
        os.umask(0o077)
        rights.bound_capabilities(rights.CAP_CHOWN)
        rights.no_new_privileges()
        signals.restore_defaults()
        os.execve(_PYTHON, (_PYTHON, "-ISB", "-c", _PROGRAM), environ)
    except OSError as error:
        os.write(2, f"troth: cannot start the agent: {error.strerror}\n".encode())
    finally:
        os._exit(_FAILED)


def _own_root() -> None:
    """The runtime as root, and of the machine only what the agent works with.

    User 0 may write to much of /proc/sys, /sys and /dev without any capability, so
    what is not needed is not there, or read-only.
    """
    rights.own_namespaces()
    root = f"{RUN}/runtime"
    mount("proc", f"{root}/proc", flags=TIGHT, data="subset=pid")
    bind("/sys", f"{root}/sys", flags=MS_RDONLY | TIGHT)
    if os.path.ismount(_CONFIGFS):
        # Where reports are asked for.
        bind(_CONFIGFS, root + _CONFIGFS)
    mount("tmpfs", f"{root}/dev", flags=MS_NOSUID | MS_NOEXEC, data="mode=0755,size=64k")
    for name in os.listdir("/dev"):
        if name in _DEVICES or name.startswith("tpmrm"):
            _bind_file(f"/dev/{name}", root)
    mount("tmpfs", f"{root}/run", flags=TIGHT, data="mode=0755,size=64k")
    os.mkdir(root + RUN, 0o755)
    bind(RUN, root + RUN)
    _bind_file(TURN, root)
    become_root(root)


def _bind_file(path: str, root: str) -> None:
    _make(root + path, b"", mode=0o600)
    bind(path, root + path)


def _speak_to_the_log() -> None:
    """No terminal: what the agent has to say goes into the kernel's log."""
    for path, flags, numbers in (
        ("/dev/null", os.O_RDONLY, (0,)),
        ("/dev/kmsg", os.O_WRONLY, (1, 2)),
    ):
        fd = os.open(path, flags | os.O_CLOEXEC)
        for number in numbers:
            os.dup2(fd, number)


class Keeper:
    """The agent as a child of PID 1: started again when it ends, ended when it is silent.

    ``say``: one line for the operator. The clock is the machine's monotonic one.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        """Raises ``OSError`` where there can be no socket for its signs of life."""
        self._say = say
        self._pid = 0
        self._started_s = 0.0
        self._alive_s = 0.0
        self._start_at_s = 0.0
        self._delay_s = _FIRST_DELAY_S
        self._ready = False
        kind = _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
        self._socket = _socket.socket(_socket.AF_UNIX, kind)
        before = os.umask(0o177)
        try:
            self._socket.bind(NOTIFY)
        finally:
            os.umask(before)

    def start(self) -> None:
        """Start it, and wait until it serves, ``READY_S`` at most."""
        self._start()
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLIN)
        end_s = time.monotonic() + READY_S
        while not self._ready:
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                self._say("troth: the agent is not ready yet")
                return
            poll.poll(left_s * 1000)
            self._listen()

    @property
    def wait_s(self) -> float:
        """How long PID 1 may sleep before the next ``look``."""
        if self._pid:
            return _LOOK_S
        return max(0.0, self._start_at_s - time.monotonic())

    def look(self) -> None:
        """Hear its signs of life; end it where there were none, start it where it is time."""
        now_s = time.monotonic()
        if not self._pid:
            if now_s >= self._start_at_s:
                self._start()
            return
        self._listen()
        if now_s - self._alive_s > WATCHDOG_S:
            self._say(f"troth: the agent gave no sign of life for {WATCHDOG_S:.0f} s")
            self._alive_s = now_s
            os.kill(self._pid, signals.KILL)

    def ended(self, pid: int, status: int) -> None:
        """Take note of a child that PID 1 has reaped, which may be the agent."""
        if pid != self._pid:
            return
        self._pid = 0
        now_s = time.monotonic()
        if now_s - self._started_s > _STEADY_S:
            self._delay_s = _FIRST_DELAY_S
        self._start_at_s = now_s + self._delay_s
        self._say(f"troth: the agent ended with {status}, starts again in {self._delay_s:.0f} s")
        self._delay_s = min(2 * self._delay_s, _LAST_DELAY_S)

    def _start(self) -> None:
        self._ready = False
        environ = {"NOTIFY_SOCKET": NOTIFY, "WATCHDOG_USEC": str(int(WATCHDOG_S * 1_000_000))}
        self._started_s = self._alive_s = time.monotonic()
        self._pid = start(environ)

    def _listen(self) -> None:
        while True:
            try:
                words = self._socket.recv(4096).split(b"\n")
            except BlockingIOError:
                return
            self._alive_s = time.monotonic()
            self._ready |= b"READY=1" in words
