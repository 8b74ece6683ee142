# SPDX-License-Identifier: Apache-2.0
"""Giving up rights, and the view of the machine, before another program is started.

Serves PID 1's children. Nothing here can be taken back by the process that
called it, nor by what it executes.

Source: capabilities(7), unshare(2); include/uapi/linux/{capability,prctl,sched}.h.
"""

from __future__ import annotations

from troth.linux import syscalls
from troth.linux.mount import MS_PRIVATE, MS_REC

CAP_CHOWN, CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN = 0, 12, 13, 21
_LAST_CAPABILITY = 63
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38
_CLONE_NEWNS, _CLONE_NEWUTS, _CLONE_NEWIPC, _CLONE_NEWNET = (
    0x0002_0000,
    0x0400_0000,
    0x0800_0000,
    0x4000_0000,
)


def bound_capabilities(*keep: int) -> None:
    """Take every capability but ``keep`` out of the bounding set. ``OSError``.

    It counts from the next execve(2) on, for user 0 as well.
    """
    for capability in range(_LAST_CAPABILITY + 1):
        if capability in keep:
            continue
        try:
            syscalls.prctl(_PR_CAPBSET_DROP, capability)
        except OSError:
            # EINVAL: past the last capability this kernel knows.
            break


def no_new_privileges() -> None:
    """No execve(2) gives more rights any more. ``OSError``."""
    syscalls.prctl(_PR_SET_NO_NEW_PRIVS, 1)


def own_namespaces() -> None:
    """Mounts, host name, IPC and network of our own, the network empty. ``OSError``.

    Mounts no longer come or go with those of others.
    """
    syscalls.unshare(_CLONE_NEWNS | _CLONE_NEWUTS | _CLONE_NEWIPC | _CLONE_NEWNET)
    syscalls.mount("none", "/", "", flags=MS_REC | MS_PRIVATE)
