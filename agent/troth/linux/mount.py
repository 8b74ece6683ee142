# SPDX-License-Identifier: Apache-2.0
"""Mounts as PID 1 needs them (include/uapi/linux/mount.h)."""

from __future__ import annotations

import errno
import os

from troth.linux import syscalls

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_PRIVATE = 0x4_0000
_MNT_DETACH = 0x2

#: Mounts that hold data only.
TIGHT = MS_NOSUID | MS_NODEV | MS_NOEXEC


def mount(kind: str, target: str, *, source: str = "", flags: int = 0, data: str = "") -> None:
    """A new mount of file system ``kind``; ``OSError`` as mount(2) says."""
    syscalls.mount(source or kind, target, kind, flags=flags, data=data)


def bind(source: str, target: str, *, flags: int = 0) -> None:
    """Make ``source`` visible at ``target`` too, with mount flags ``flags``.

    Two calls, because a bind ignores every flag but MS_REC until it is
    remounted (mount(2), "Creating a bind mount").
    """
    syscalls.mount(source, target, "", flags=MS_BIND)
    if flags:
        syscalls.mount("", target, "", flags=MS_BIND | MS_REMOUNT | flags)


def move(source: str, target: str) -> None:
    """Move a mount, everything below it included."""
    syscalls.mount(source, target, "", flags=MS_MOVE)


def become_root(path: str) -> None:
    """Make the mount at ``path`` this process's root, and let go of the one before.

    For a mount namespace of one's own: nothing of the old root stays mounted in it.
    """
    os.chdir(path)
    try:
        # Both on one place, as pivot_root(2) describes: the old root lies above the new one.
        syscalls.pivot_root(".", ".")
        syscalls.umount2(".", flags=_MNT_DETACH)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # The rootfs itself, which cannot be pivoted away, and nobody could unmount.
        move(".", "/")
        os.chroot(".")
    os.chdir("/")
