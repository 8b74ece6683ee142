# SPDX-License-Identifier: Apache-2.0
"""Numbered tasks on all cores, by forked workers that see the caller's memory.

Serves the hashing of images: threads gain nothing there, because giving up
and taking back the interpreter's lock costs as much as hashing 4096 bytes, and
``multiprocessing`` takes longer to import than a small image takes to hash.

A task is an integer, its outcome two integers, so nothing is pickled and
memory stays bounded. Workers never outlive the iteration: they end when their
socket closes, which happens even if the caller is killed. They must never
return into the caller's code.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
from typing import TYPE_CHECKING

from troth.errors import HostError
from troth.record import record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_TASK = struct.Struct("<Q")
_DONE = struct.Struct("<QQQ")
_AHEAD = 2  # tasks a worker holds: one at work, one waiting, so that it never idles


@record
class Outcome:
    """What ``task`` came to: a ``status`` and a ``value``, both 0 to 2**64 - 1, as it likes."""

    task: int
    status: int
    value: int


@record
class _Worker:
    pid: int
    link: socket.socket


def cores() -> int:
    """The number of cores this process may use."""
    return len(os.sched_getaffinity(0))


def outcomes(
    work: Callable[[int], tuple[int, int]], count: int, *, workers: int
) -> Iterator[Outcome]:
    """Do tasks 0 to ``count`` - 1 with ``work`` and yield their outcomes in order.

    Stopping the iteration starts no further tasks. ``work`` runs in forked
    children, so it must not change anything the caller is to see except files,
    and must report expected errors by its outcome; call this only where no
    other thread runs. With one worker, or one task, everything happens in this
    process. Raises ``HostError`` ``worker-ended`` where a worker is gone before
    its task is done.
    """
    workers = min(workers, count)
    if workers <= 1:
        for task in range(count):
            status, value = work(task)
            yield Outcome(task, status, value)
        return
    pool: dict[int, _Worker] = {}
    try:
        for _ in range(workers):
            worker = _start(work, [other.link for other in pool.values()])
            pool[worker.link.fileno()] = worker
        yield from _share(pool, count)
    finally:
        for worker in pool.values():
            worker.link.close()
        for worker in pool.values():
            os.waitpid(worker.pid, 0)


def _share(pool: dict[int, _Worker], count: int) -> Iterator[Outcome]:
    poll = select.poll()
    given = 0
    for _ in range(_AHEAD):
        for worker in pool.values():
            if given < count:
                _give(worker, given)
                given += 1
    for descriptor in pool:
        poll.register(descriptor, select.POLLIN)
    early: dict[int, Outcome] = {}
    turn = 0
    while turn < count:
        for descriptor, _ in poll.poll():
            answer = _take(pool[descriptor])
            if given < count:
                _give(pool[descriptor], given)
                given += 1
            outcome = Outcome(*_DONE.unpack(answer))
            early[outcome.task] = outcome
        while turn in early:
            yield early.pop(turn)
            turn += 1


def _give(worker: _Worker, task: int) -> None:
    try:
        worker.link.send(_TASK.pack(task))
    except (BrokenPipeError, ConnectionResetError):
        raise _gone() from None


def _take(worker: _Worker) -> bytes:
    try:
        answer = worker.link.recv(_DONE.size)
    except ConnectionResetError:
        answer = b""
    if not answer:
        raise _gone()
    return answer


def _gone() -> HostError:
    return HostError(
        "worker-ended",
        "a worker process ended before its work was done",
        hint="look for the kernel's out-of-memory message in dmesg, then try again",
    )


def _start(work: Callable[[int], tuple[int, int]], siblings: list[socket.socket]) -> _Worker:
    # Packets keep their borders, so an answer is never half there.
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid:
        theirs.close()
        return _Worker(pid, ours)
    status = 1
    try:
        # An interrupt at the terminal is the caller's to handle; its closed socket ends us.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        ours.close()
        for link in siblings:
            link.close()
        while request := theirs.recv(_TASK.size):
            (task,) = _TASK.unpack(request)
            theirs.send(_DONE.pack(task, *work(task)))
        status = 0
    except (BrokenPipeError, ConnectionResetError):
        status = 0
    finally:
        # No return into the caller's frames, no flush of its buffers. A surprise in `work`
        # ends here too: the caller sees the socket close.
        os._exit(status)
