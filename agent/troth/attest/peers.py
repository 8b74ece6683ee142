# SPDX-License-Identifier: Apache-2.0
"""Who asks: user, group, process and systemd unit of a connection, taken once.

Serves the agent's server. Rights follow from what is found here at the moment
of connecting and never change afterwards (SECURITY S38). Must never trust a
process id alone, which another process may carry by now, nor a name that the
caller chose: only the kernel and the root-owned part of the cgroup path speak.
"""

from __future__ import annotations

import os

from troth.errors import UsageError
from troth.linux import peer as kernel
from troth.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Protocol

    class Kernel(Protocol):
        """What ``linux.peer`` does, or a model of it."""

        def credentials(self, connection: socket.socket, /) -> tuple[int, int, int]: ...

        def peer_pidfd(self, connection: socket.socket, /) -> int | None: ...

        def pidfd_open(self, pid: int, /) -> int: ...

        def alive(self, pidfd: int, /) -> bool: ...

        def start_time(self, pid: int, /) -> int: ...

        def cgroup(self, pid: int, /) -> str: ...

        def uid_map(self, pid: int | str = "self", /) -> bytes: ...


_UNIT_SUFFIXES = (".service", ".scope", ".socket", ".mount", ".swap")
_UNIT_CHARS = 256


@record
class Peer:
    """One caller. ``unit``: of the system's systemd, "" where it runs in none."""

    uid: int
    gid: int
    pid: int
    unit: str

    def text(self) -> str:
        """The caller as the agent writes it into events: ``uid=0 gid=0 unit=x.service``."""
        return f"uid={self.uid} gid={self.gid} unit={self.unit or '-'}"


def identify(connection: socket.socket, *, system: Kernel = kernel) -> Peer:
    """The process that made ``connection``.

    Raises ``UsageError``: ``caller-gone`` where it has ended, or its number
    belongs to another process; ``caller-namespace`` where its user numbers are
    not those of this machine.
    """
    pid, uid, gid = system.credentials(connection)
    if pid <= 0:
        # Not visible from here: a process of a foreign process namespace.
        raise UsageError("caller-namespace", "the caller has no process id here")
    try:
        pidfd = system.peer_pidfd(connection)
        is_peers = pidfd is not None
        if pidfd is None:
            pidfd = system.pidfd_open(pid)
        try:
            started = system.start_time(pid)
            group = system.cgroup(pid)
            if system.uid_map(pid) != system.uid_map():
                raise UsageError("caller-namespace", "the caller lives in another user namespace")
            # Without the peer's own pidfd, look twice: both looks must be of one process.
            same = is_peers or (system.start_time(pid), system.cgroup(pid)) == (started, group)
            if not same or not system.alive(pidfd):
                raise UsageError("caller-gone", "the caller ended while it was looked at")
        finally:
            os.close(pidfd)
    except (OSError, ValueError, IndexError):
        raise UsageError("caller-gone", "the caller ended before it was looked at") from None
    return Peer(uid, gid, pid, unit_of(group))


def unit_of(cgroup: str) -> str:
    """The system unit of a cgroup path, "" for none.

    It is the first part that is no slice: everything below it belongs to the
    unit, which may make what it likes there. A user's own units therefore count
    as ``user@1000.service`` (source: systemd, src/basic/cgroup-util.c).
    """
    for part in cgroup.split("/"):
        # systemd marks names that could be taken for the kernel's files.
        name = part.removeprefix("_")
        if not name or name.endswith(".slice"):
            continue
        if name.endswith(_UNIT_SUFFIXES) and len(name) <= _UNIT_CHARS and _is_plain(name):
            return name
        return ""
    return ""


def _is_plain(name: str) -> bool:
    return name.isascii() and name.isprintable() and " " not in name
