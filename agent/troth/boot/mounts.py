# SPDX-License-Identifier: Apache-2.0
"""Stage 1: kernel file systems with tight flags, the log to the operator, signals blocked."""

from __future__ import annotations

import errno

from troth.boot import closing
from troth.errors import Refusal
from troth.linux import signals, tree
from troth.linux.kmsg import Kmsg
from troth.linux.mount import MS_NOEXEC, MS_NOSUID, TIGHT, mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.boot.state import State

#: The console shows what is below: notices too, since PID 1's own lines are notices.
_CONSOLE_LEVEL = b"6"
_KERNEL_ENVIRON = {"HOME": "/", "TERM": "linux"}  # init/main.c, envp_init
_PRINTK = "/proc/sys/kernel/printk"


def run(state: State) -> None:
    """Mount, open the log, and refuse variables that steer an interpreter or a loader."""
    signals.block_all()
    # Before anything is mounted: what lies under a mount point counts too.
    state.names = tree.names("")
    mount("proc", "/proc", flags=TIGHT)
    mount("sysfs", "/sys", flags=TIGHT)
    mount("devtmpfs", "/dev", flags=MS_NOSUID | MS_NOEXEC, data="mode=0755")
    mount("tmpfs", "/run", flags=TIGHT, data="mode=0755,size=20%")
    mount("securityfs", "/sys/kernel/security", flags=TIGHT)
    try:
        mount("configfs", "/sys/kernel/config", flags=TIGHT)
    except OSError as error:
        # A module in some kernels, needed only for reports: the stage that needs it says so.
        if error.errno not in (errno.ENODEV, errno.ENOENT):
            raise
    closing.begin()
    _open_log(state)
    _judge_start(state)


def _open_log(state: State) -> None:
    with open("/proc/sys/kernel/printk_devkmsg", "wb", buffering=0) as control:
        control.write(b"on\n")
    # It stays for the next init: a handover whose exec fails is still to be seen.
    with open(_PRINTK, "wb", buffering=0) as levels:
        levels.write(_CONSOLE_LEVEL)
    state.kmsg = Kmsg()


def _judge_start(state: State) -> None:
    """Words the kernel did not know became arguments and variables of PID 1 (SECURITY S13).

    Those with a known meaning to an interpreter or a loader get their own code
    here; any other is caught by the comparison of the whole command line.
    """
    for name in state.environ:
        if name.startswith(("PYTHON", "LD_", "GLIBC_")):
            raise Refusal(
                "cmdline-environment", f"the command line sets {name} in the environment of init"
            )
    state.environ = {
        name: value for name, value in state.environ.items() if _KERNEL_ENVIRON.get(name) != value
    }
