# SPDX-License-Identifier: Apache-2.0
"""The other handover: troth stays PID 1 and runs the workload as its child.

The workload has no root rights and no way to gain any: no capabilities, no new
privileges, no user namespaces. PID 1 reaps whatever is
left to it, passes signals on, and when the workload ends, or the machine is
asked to stop, ends everything in order within bounds and switches off.
"""

from __future__ import annotations

import os
import time

from troth.boot import fail
from troth.boot import handover as last
from troth.boot.state import SYSROOT
from troth.linux import link, rights, signals
from troth.linux.mount import MS_NODEV, MS_NOEXEC, MS_NOSUID, TIGHT, mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import NoReturn

    from troth.boot.agent import Keeper
    from troth.boot.state import State
    from troth.documents.policy import Handover

_STOP = (signals.TERM, signals.INT, signals.PWR)
_EXEC_FAILED = 127


def run(state: State) -> NoReturn:
    """Close the boot, supervise ``policy.handover`` to its end, then power off."""
    handover = state.policy.handover
    _prepare(SYSROOT if state.policy.volumes else "")
    keeper = _keep_agent(state, last.close(state))
    child = _start(handover)
    status = _watch(child, handover.grace_s, keeper)
    state.say(f"troth: workload exited {status}")
    _stop_all(handover.grace_s)
    os.sync()
    fail.end("poweroff")


def _prepare(root: str) -> None:
    """What a program expects around it: terminals, shared memory, /tmp, loopback.

    Before the boot is sealed, so that what fails here is still refused with its
    code; mounts below /dev move with it.
    """
    if not root:
        # The rootfs is a tmpfs, whose root anybody may write into (mm/shmem.c: mode 1777).
        os.chmod("/", 0o755)  # noqa: S103 - the mode of any root
    # A user namespace of its own would give the workload every capability in it.
    with open("/proc/sys/user/max_user_namespaces", "wb", buffering=0) as limit:
        limit.write(b"0")
    tight = MS_NOSUID | MS_NOEXEC
    for path in ("/dev/pts", "/dev/shm"):  # noqa: S108 - the kernel's well-known place
        os.makedirs(path, exist_ok=True)
    mount("devpts", "/dev/pts", flags=tight, data="mode=0620,ptmxmode=0666")
    mount("tmpfs", "/dev/shm", flags=tight | MS_NODEV, data="mode=1777,size=25%")  # noqa: S108
    mount("tmpfs", f"{root}/tmp", flags=TIGHT, data="mode=1777,size=25%")  # noqa: S108
    link.up("lo")


def _keep_agent(state: State, agent: ModuleType | None) -> Keeper | None:
    """The agent, serving, before the workload asks it anything; None where there is none."""
    if agent is None:
        return None
    try:
        keeper: Keeper = agent.Keeper(state.say)
        keeper.start()
    except OSError as error:
        state.say(f"troth: the agent cannot be started: {error.strerror}")
        return None
    return keeper


def _start(handover: Handover) -> int:
    child = os.fork()
    if child:
        return child
    # The child: any failure ends here, never in a second PID 1.
    try:
        os.setsid()
        _drop_rights(handover)
        signals.restore_defaults()
        os.chdir("/")
        os.execve(handover.argv[0], handover.argv, last.ENVIRON)
    except OSError as error:
        os.write(2, f"troth: cannot start {handover.argv[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(_EXEC_FAILED)


def _drop_rights(handover: Handover) -> None:
    rights.bound_capabilities()
    os.setgroups([])
    os.setresgid(handover.group, handover.group, handover.group)
    os.setresuid(handover.user, handover.user, handover.user)
    rights.no_new_privileges()


def _watch(child: int, grace_s: int, keeper: Keeper | None) -> int:
    """Reap and forward until ``child`` has ended; its status as a shell reports it."""
    stop_at = 0.0
    while True:
        left = max(0.0, stop_at - time.monotonic()) if stop_at else None
        if left == 0.0:
            # Looked at before the next signal: a workload that never stops sending
            # them, or making children, would put its end off for ever.
            _send(child, signals.KILL)
            stop_at = time.monotonic() + max(1, grace_s)
            continue
        if keeper is not None and not stop_at:
            keeper.look()
            left = keeper.wait_s
        number = signals.wait(left)
        if number == signals.CHLD:
            status = _reap(child, keeper)
            if status is not None:
                return status
        elif number:
            if number in _STOP and not stop_at:
                stop_at = time.monotonic() + grace_s
            _send(child, signals.TERM if number in _STOP else number)


def _reap(child: int, keeper: Keeper | None) -> int | None:
    """Collect every ended process; the status of ``child`` where it is among them.

    One SIGCHLD may stand for a thousand children, so this asks until there is
    none left.
    """
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        code = os.waitstatus_to_exitcode(status)
        code = code if code >= 0 else 128 - code
        if pid == child:
            found = code
        elif keeper is not None:
            keeper.ended(pid, code)


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _stop_all(grace_s: int) -> None:
    """SIGTERM to everything, ``grace_s`` for it to end, then SIGKILL."""
    for number in (signals.TERM, signals.KILL):
        end = time.monotonic() + grace_s
        _send(-1, number)
        while time.monotonic() < end:
            try:
                pid, _status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                signals.wait(end - time.monotonic())
