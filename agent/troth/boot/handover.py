# SPDX-License-Identifier: Apache-2.0
"""Stage 12: close what only the boot may use, then give the machine to the next init.

Nothing after the caps may fail in a way that was foreseeable before them, so
the next init is looked at first.
"""

from __future__ import annotations

import os
import stat
import sys
import time

from troth.boot import closing, fail
from troth.boot.state import RUN, RUNTIME, SYSROOT
from troth.documents import agent_units, stages
from troth.documents.event_log import quote
from troth.errors import Refusal
from troth.linux import signals, tree
from troth.linux.mount import (
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    bind,
    mount,
    move,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

    from troth.boot.state import State

ENVIRON = {
    "HOME": "/",
    "TERM": "linux",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
}
#: Where systemd reads what the host would like it to do (SECURITY S12): SMBIOS and fw_cfg
#: credentials, and the EFI variable SystemdOptions, a second command line.
_HOST_INPUTS = ("/sys/firmware/dmi", "/sys/firmware/qemu_fw_cfg", "/sys/firmware/efi")


def run(state: State) -> None:
    """Never returns: executes the next init."""
    agent = close(state)
    if agent is not None and state.policy.handover.manager != "systemd":
        try:
            agent.start({})
        except OSError as error:
            # The boot was good, and what the next init does stays as it was measured.
            state.say(f"troth: the agent cannot be started: {error.strerror}")
    _execute(state.policy.handover.argv)


def close(state: State) -> ModuleType | None:
    """Seal, close and give up what only the boot may use; afterwards the next root is "/".

    What starts the agent (``boot.agent``) comes back where the policy has one.
    Raises ``Refusal`` ``network-down``, ``init-missing``, ``root-unit-shadowed``,
    ``agent-start``, ``kernel-open``, ``lockdown``, ``tpm-*``.
    """
    begun_ns = time.monotonic_ns()
    if state.network is not None:
        # Whatever needed it has closed it before; nothing of it may reach the next init.
        state.network.close()
    policy = state.policy
    root = SYSROOT if policy.volumes else ""
    _check_init(root, policy.handover.argv[0])
    if policy.handover.manager == "systemd":
        _check_units(root)
    _runtime(state)
    agent = _prepare_agent(state)
    _hide_host_inputs()
    closing.finish(policy)
    fail.seal(state)
    state.sealed = True
    _write_state(state)
    state.guard.cancel()
    duration_ms = (time.monotonic_ns() - begun_ns) // 1_000_000
    state.say(f"troth: stage handover ok {duration_ms}")
    state.say(f"troth: handover {policy.handover.argv[0]}")
    if state.tpm is not None:
        state.tpm.close()
        state.tpm = None
    _free()
    if root:
        _move_root()
    return agent


def _prepare_agent(state: State) -> ModuleType | None:
    policy = state.policy
    if not stages.has_agent(policy):
        return None
    # By name, so that an image without an agent packs nothing of it; and here, since after
    # the move the next root's files are where troth's were.
    __import__(stages.AGENT_START)
    agent = sys.modules[stages.AGENT_START]
    agent.prepare(manager=policy.handover.manager)
    return agent


def _check_init(root: str, path: str) -> None:
    try:
        fd = tree.open_inside(root or "/", path)
    except OSError as error:
        raise Refusal("init-missing", f"{path}: {error.strerror}") from None
    try:
        mode = os.fstat(fd).st_mode
    finally:
        os.close(fd)
    if not stat.S_ISREG(mode) or not mode & 0o111:
        raise Refusal("init-missing", f"{path} is not an executable file")


def _check_units(root: str) -> None:
    """Refuse a root whose units would change the agent's (``documents.agent_units``)."""
    for directory in agent_units.DIRECTORIES:
        try:
            fd = tree.open_inside(root, directory)
        except OSError:
            # No such directory, as a process in that root would see it.
            continue
        try:
            place = f"/proc/self/fd/{fd}"
            for name in os.listdir(place):
                if name.startswith(agent_units.AGENT) or (
                    name in agent_units.FOR_ALL and _says_anything(f"{place}/{name}")
                ):
                    raise Refusal(
                        "root-unit-shadowed", f"/{directory}/{name} would change the agent"
                    )
        finally:
            os.close(fd)


def _says_anything(drop_ins: str) -> bool:
    """Whether a drop-in directory is not simply empty."""
    return os.path.islink(drop_ins) or not os.path.isdir(drop_ins) or bool(os.listdir(drop_ins))


def _runtime(state: State) -> None:
    """/run/troth: the runtime read-only and executable, verbs in bin, state beside them."""
    for name in ("runtime", "bin", "state"):
        os.mkdir(f"{RUN}/{name}", 0o755)
    flags = MS_RDONLY | MS_NOSUID | MS_NODEV
    bind(RUNTIME, f"{RUN}/runtime", flags=flags)
    bind(f"{RUNTIME}/bin", f"{RUN}/bin", flags=flags)
    if state.policy.handover.manager == "systemd":
        os.makedirs("/run/systemd/system", 0o755)


def _hide_host_inputs() -> None:
    for path in _HOST_INPUTS:
        if os.path.isdir(path):
            flags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC
            mount("tmpfs", path, source="hidden", flags=flags, data="mode=0555,size=4k,nr_inodes=2")


def _write_state(state: State) -> None:
    """/run/troth/state/boot.json, for ``troth status``."""
    stages = ",".join(f"[{quote(name)},{ms}]" for name, ms in state.times_ms)
    own = state.own_report
    clock = "null" if state.tpm_clock is None else "[{},{},{}]".format(*state.tpm_clock)
    host_data, report_id = ("", "") if own is None else (own.host_data.hex(), own.report_id.hex())
    text = (
        f'{{"schema":"troth-boot-v1","handover":{quote(state.policy.handover.argv[0])},'
        f'"tpm_kind":{quote(state.tpm_kind)},"events":{state.events.count},'
        f'"software_register":"{state.events.register.hex()}","stages":[{stages}],'
        f'"host_data":"{host_data}","report_id":"{report_id}","tpm_clock":{clock}}}\n'
    )
    fd = os.open(f"{RUN}/state/boot.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _free() -> None:
    """Give back the memory of what only the boot needed; the runtime stays."""
    if os.path.isdir("/modules"):
        for name in os.listdir("/modules"):
            os.unlink(f"/modules/{name}")
    os.unlink("/init")


def _move_root() -> None:
    for name in ("/proc", "/sys", "/dev", "/run"):
        move(name, SYSROOT + name)
    os.chdir(SYSROOT)
    # The rootfs can neither be unmounted nor pivoted away: the new root is moved over it.
    move(".", "/")
    os.chroot(".")
    os.chdir("/")


def _execute(argv: tuple[str, ...]) -> None:
    signals.restore_defaults()
    try:
        os.execve(argv[0], argv, ENVIRON)
    except OSError as error:
        raise Refusal("init-refused", f"{argv[0]}: {error.strerror}") from error
