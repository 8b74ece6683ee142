# SPDX-License-Identifier: Apache-2.0
"""The process at the other end of a unix socket, as the kernel tells it.

Serves ``attest.peers``, which decides whom to believe. Process ids are used
again: what /proc says of one holds only while a pidfd of the same process is
alive. Must never be asked for a name or a path that the process chose itself.

Source: unix(7), pidfd_open(2), proc(5), user_namespaces(7);
include/uapi/asm-generic/socket.h (SO_PEERPIDFD, Linux 6.5).
"""

from __future__ import annotations

import errno
import os
import select
import socket

SO_PEERPIDFD = 77
_CREDENTIALS_BYTES = 12
_FILE_BYTES = 4096
_START_TIME_FIELD = 22
_UNKNOWN_OPTION = (errno.ENOPROTOOPT, errno.EINVAL, errno.EOPNOTSUPP)


def credentials(connection: socket.socket) -> tuple[int, int, int]:
    """(pid, uid, gid) of the process that connected, at that moment."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS_BYTES)
    pid, uid, gid = (
        int.from_bytes(found[at : at + 4], "little", signed=at == 0) for at in (0, 4, 8)
    )
    return pid, uid, gid


def peer_pidfd(connection: socket.socket) -> int | None:
    """A pidfd of the process that connected; None where the kernel cannot give one.

    ``OSError`` (ESRCH) where the process is gone.
    """
    try:
        fd = connection.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
    except OSError as error:
        if error.errno in _UNKNOWN_OPTION:
            return None
        raise
    os.set_inheritable(fd, False)
    return fd


def pidfd_open(pid: int) -> int:
    """A pidfd of whatever process has ``pid`` now. ``OSError`` (ESRCH)."""
    return os.pidfd_open(pid)


def alive(pidfd: int) -> bool:
    """Whether the process of ``pidfd`` has not ended."""
    waiter = select.poll()
    waiter.register(pidfd, select.POLLIN)
    return not waiter.poll(0)


def start_time(pid: int) -> int:
    """When process ``pid`` started, in clock ticks since the boot. ``OSError``."""
    # The name before it is the process's own choice and may hold blanks and parentheses.
    fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return int(fields[_START_TIME_FIELD - 3])


def cgroup(pid: int) -> str:
    """Path of ``pid`` in the unified hierarchy, or in systemd's own; "" for none. ``OSError``."""
    found = ""
    for line in _read(f"/proc/{pid}/cgroup").decode("utf-8", "replace").split("\n"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers and path:
            return path
        if controllers == "name=systemd":
            found = path
    return found


def uid_map(pid: int | str = "self") -> bytes:
    """The user namespace of ``pid``, as the lines that map its users. ``OSError``."""
    return _read(f"/proc/{pid}/uid_map")


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read(_FILE_BYTES) or b""
