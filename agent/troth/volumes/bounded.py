# SPDX-License-Identifier: Apache-2.0
"""A computation in a child with bounds on its memory and time, that is killed at its end.

Serves key derivations, whose cost a header names: the strict profile bounds that cost,
and this bounds what it becomes on a slow or small machine. The child is forked, so that
it needs no second start of the interpreter; call only where no other thread runs. What it
computes comes back by a pipe and is written nowhere else.
"""

from __future__ import annotations

import os
import resource
import select
import time

from troth.errors import FormatError, HostError
from troth.linux import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

LIMIT_BYTES = 4096
"""The longest result: no more than a pipe takes at once."""

_DONE, _REFUSED, _LACKING, _NO_MEMORY = range(4)


def run(work: Callable[[], bytes], *, memory_bytes: int, timeout_s: float) -> bytes:
    """What ``work`` returns, in a child with ``memory_bytes`` more than this process has.

    A ``FormatError`` or ``HostError`` of ``work`` is raised here, code and sentence. Raises
    ``HostError``: ``bounded-memory``, ``bounded-timeout``, ``bounded-ended`` where the child
    ended in another way, ``bounded-start``.
    """
    try:
        limit_bytes = _own_bytes() + memory_bytes
        said, says = os.pipe2(os.O_CLOEXEC)
    except OSError as error:
        raise _unstarted(error) from None
    try:
        pid = os.fork()
    except OSError as error:
        os.close(said)
        os.close(says)
        raise _unstarted(error) from None
    if pid == 0:
        _child(work, says, limit_bytes, timeout_s)
    os.close(says)
    try:
        data, late = _read(said, time.monotonic() + timeout_s)
    finally:
        os.close(said)
        os.kill(pid, signals.KILL)  # it has said all, or is late
        _, status = os.waitpid(pid, 0)
    if late:
        raise HostError(
            "bounded-timeout",
            f"the key derivation did not end within {timeout_s:g} s",
            hint="a key of full entropy needs no more than PBKDF2 with 1000 iterations",
        )
    kind = data[0] if data else -1
    if kind == _DONE:
        return data[1:]
    if kind in (_REFUSED, _LACKING):
        code, _, message = data[1:].decode().partition("\n")
        raise (FormatError if kind == _REFUSED else HostError)(code, message)
    if kind == _NO_MEMORY:
        raise HostError(
            "bounded-memory",
            f"the key derivation needs more than the {memory_bytes} bytes it may have",
        )
    raise HostError("bounded-ended", f"the key derivation ended without a result ({status:#x})")


def _child(work: Callable[[], bytes], says: int, limit_bytes: int, timeout_s: float) -> NoReturn:
    said = b""
    try:
        signals.block_all()  # an interrupt at the terminal is the caller's to handle
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))
        # Even if nobody is left to kill it, it ends.
        seconds = int(timeout_s) + 2
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        said = bytes((_DONE,)) + work()
    except (FormatError, HostError) as error:
        kind = _REFUSED if isinstance(error, FormatError) else _LACKING
        said = bytes((kind,)) + f"{error.code}\n{error.message}".encode("ascii", "replace")
        said = said[:LIMIT_BYTES]
    except MemoryError:
        said = bytes((_NO_MEMORY,))
    finally:
        # No return into the caller's frames: a surprise in `work` ends here too.
        if 0 < len(said) <= LIMIT_BYTES:
            os.write(says, said)
        os._exit(0 if said else 1)


def _read(fd: int, deadline_s: float) -> tuple[bytes, bool]:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    data = b""
    while True:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0 or not poll.poll(int(left_s * 1000) + 1):
            return b"", True
        part = os.read(fd, LIMIT_BYTES)
        if not part:
            return data, False
        data += part


def _own_bytes() -> int:
    """This process's address space, which the child starts with."""
    with open("/proc/self/statm", "rb") as file:
        pages = int(file.read().split()[0])
    return pages * resource.getpagesize()


def _unstarted(error: OSError) -> HostError:
    return HostError("bounded-start", f"no process for a key derivation: {error.strerror}")
