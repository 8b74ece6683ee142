# SPDX-License-Identifier: Apache-2.0
"""Who waits for a report here, and who is asked to come back, and when.

Serves the agent's report endpoint. The secure processor answers about once in
two seconds, so a crowd is spread over time: some wait in slots, the others get a
time at which a place is kept for their question, so that those who come new do not
take it. Users take turns, and one slot is root's alone (SECURITY S27). Must never
give one caller the answer to another's question: only requests that are equal in
all that the processor is told share.

No sockets and no threads here, and the clock is the caller's.
"""

from __future__ import annotations

from collections import deque

from troth.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    from troth.attest.evidence import EvidenceQuestion

    #: What a job is known by: equal questions have one answer.
    Asked: TypeAlias = "Question | EvidenceQuestion"

MIN_SLOTS = 8
MAX_SLOTS = 256
WAIT_S = 20.0
"""How long somebody may be let wait in a slot, where eight slots are not more."""
MAX_RETRY_S = 3600
ROOT = 0

#: Whoever comes back is let in beyond the slots: clocks and whole seconds bring some together.
_MAX_WAITING = 1024
_MAX_PROMISES = 2048
_EARLY_S = 0.5
#: From then on a place kept is anybody's of the same user: some come back with another nonce.
_GRACE_S = 1.5
_LATE_S = 30.0
_WEIGHT = 0.25


@record
class Question:
    """All that the secure processor is told, and so all that an answer depends on."""

    report_data: bytes
    vmpl: int | None
    key_selection: int


class Job:
    """One request to the processor; ``waiters``: whoever gets its answer."""

    __slots__ = ("asked_s", "question", "running", "uid", "waiters")

    def __init__(self, question: Asked, uid: int, asked_s: float) -> None:
        self.question = question
        self.uid = uid
        self.asked_s = asked_s
        self.running = False
        self.waiters: list[object] = []


class Slots:
    """The waiting room. ``interval_s``: what one request takes at least, once many wait."""

    def __init__(self, *, interval_s: float, wait_s: float = WAIT_S) -> None:
        self._interval_s = interval_s
        self._wait_s = wait_s
        self._service_s = interval_s
        self._jobs: dict[Asked, Job] = {}
        self._waiting: dict[int, deque[Job]] = {}
        #: By user, nearly in the order of their times.
        self._promises: dict[int, dict[Asked, float]] = {}
        self._promised = 0
        self._last_uid = -1

    @property
    def service_s(self) -> float:
        """What one request takes now, about."""
        return max(self._service_s, self._interval_s)

    @property
    def slots(self) -> int:
        """How many requests may wait or run for those who come unannounced."""
        fitting = int(self._wait_s / self.service_s) if self.service_s > 0 else MAX_SLOTS
        return max(MIN_SLOTS, min(fitting, MAX_SLOTS))

    @property
    def busy(self) -> int:
        """How many wait or run."""
        return len(self._jobs)

    @property
    def promised(self) -> int:
        """How many were asked to come back, and have not yet."""
        return self._promised

    def ask(self, question: Asked, uid: int, waiter: object, *, now_s: float) -> Job | int:
        """The job that ``waiter`` waits for now, or after how many seconds to come back."""
        job = self._jobs.get(question)
        if job is not None:
            self._take(uid, question)
            job.waiters.append(waiter)
            return job
        self._forget(now_s)
        kept = self._kept(question, uid, now_s)
        if kept is None and not self._has_room(uid):
            return self._promise(question, uid, now_s)
        self._take(uid, kept or question)
        job = Job(question, uid, now_s)
        job.waiters.append(waiter)
        self._jobs[question] = job
        self._waiting.setdefault(uid, deque()).append(job)
        return job

    def next(self) -> Job | None:
        """The job whose turn it is, now running; None where nobody waits."""
        if not self._waiting:
            return None
        uid = next(iter(self._waiting))
        if ROOT in self._waiting and self._last_uid != ROOT:
            uid = ROOT
        queue = self._waiting.pop(uid)
        job = queue.popleft()
        if queue:
            # To the end: users take turns, whatever each of them has asked for.
            self._waiting[uid] = queue
        self._last_uid = uid
        job.running = True
        return job

    def done(self, job: Job, *, took_s: float) -> None:
        """``job`` has its answer; requests like it are asked anew from here on."""
        del self._jobs[job.question]
        self._service_s += _WEIGHT * (took_s - self._service_s)

    def leave(self, job: Job, waiter: object) -> None:
        """``waiter`` hung up; a job that nobody waits for is not begun."""
        if waiter in job.waiters:
            job.waiters.remove(waiter)
        if not job.waiters and not job.running and self._jobs.get(job.question) is job:
            self._drop(job)

    def overdue(self, limit_s: float, *, now_s: float) -> list[Job]:
        """Take out those who have waited longer than ``limit_s`` without a turn."""
        late = [
            job for job in self._jobs.values() if not job.running and now_s - job.asked_s > limit_s
        ]
        for job in late:
            self._drop(job)
        return late

    def _drop(self, job: Job) -> None:
        del self._jobs[job.question]
        queue = self._waiting[job.uid]
        queue.remove(job)
        if not queue:
            del self._waiting[job.uid]

    def _has_room(self, uid: int) -> bool:
        """Whether one who comes unannounced may wait here."""
        own = len(self._waiting.get(uid, ()))
        if uid == ROOT and own == 0:
            return True
        return len(self._jobs) < self.slots and own + self._owed(uid) < self._share(uid)

    def _share(self, uid: int) -> int:
        """How many of the slots one user may hold while others want some too."""
        users = {uid, *self._waiting, *self._promises}
        return max(1, self.slots // len(users))

    def _owed(self, uid: int) -> int:
        return len(self._promises.get(uid, ()))

    def _kept(self, question: Asked, uid: int, now_s: float) -> Asked | None:
        """Whose place ``question`` may have by now: its own, or one that nobody came for."""
        promises = self._promises.get(uid)
        if not promises or len(self._jobs) >= _MAX_WAITING:
            return None
        if promises.get(question, now_s + _LATE_S) <= now_s + _EARLY_S:
            return question
        first = next(iter(promises))
        return first if promises[first] + _GRACE_S < now_s else None

    def _promise(self, question: Asked, uid: int, now_s: float) -> int:
        """Seconds after which a place will be free, so that the slots stay busy meanwhile."""
        promises = self._promises.get(uid, {})
        if question in promises:
            # It came too early, and keeps its place.
            return _whole(max(1.0, promises[question] - now_s))
        users = len({uid, *self._waiting, *self._promises})
        share = self._share(uid)
        ahead = len(self._waiting.get(uid, ())) + self._owed(uid) - (share - 1)
        seconds = min(MAX_RETRY_S, _whole(max(1.0, self.service_s * users * max(1, ahead))))
        if self._promised < _MAX_PROMISES:
            self._promises.setdefault(uid, promises)[question] = now_s + seconds
            self._promised += 1
        return seconds

    def _forget(self, now_s: float) -> None:
        """Give up the places of those who did not come back."""
        for uid, promises in list(self._promises.items()):
            while promises:
                first = next(iter(promises))
                if promises[first] + _LATE_S >= now_s:
                    break
                self._take(uid, first)

    def _take(self, uid: int, question: Asked) -> None:
        """Give away the place kept for ``question``, where there is one."""
        promises = self._promises.get(uid)
        if promises is None or promises.pop(question, None) is None:
            return
        self._promised -= 1
        if not promises:
            del self._promises[uid]


def _whole(seconds: float) -> int:
    """``seconds``, rounded up."""
    return int(seconds) + (seconds > int(seconds))
