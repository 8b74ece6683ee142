# SPDX-License-Identifier: Apache-2.0
"""The waiting room for reports, played through with a clock of its own.

The processor of these plays answers one question at a time; nobody is real.
"""

import heapq
import random

import pytest

from troth.attest.slots import MIN_SLOTS, ROOT, Job, Question, Slots

SERVICE_S = 2.0


def question(number, vmpl=None, key=0):
    return Question(number.to_bytes(64, "big"), vmpl, key)


def play(callers, *, service_s=SERVICE_S, seed=1, late_s=0.0):
    """Let ``callers`` (time, uid) ask and come back as told.

    Returns (uid, tries, end) of each, and (time, busy) whenever something happened.
    """
    chance = random.Random(seed)
    slots = Slots(interval_s=service_s)
    todo = [(time_s, number, uid, 1) for number, (time_s, uid) in enumerate(callers)]
    heapq.heapify(todo)
    ends_s, running = 0.0, None
    done, busy = [], []
    while todo or running is not None:
        if running is not None and (not todo or ends_s <= todo[0][0]):
            now_s = ends_s
            for number, uid, tries in running.waiters:
                done.append((uid, tries, now_s, number))
            slots.done(running, took_s=service_s)
            running = None
        else:
            now_s, number, uid, tries = heapq.heappop(todo)
            found = slots.ask(question(number), uid, (number, uid, tries), now_s=now_s)
            if isinstance(found, int):
                assert found >= 1
                again_s = now_s + found + chance.uniform(0, late_s)
                heapq.heappush(todo, (again_s, number, uid, tries + 1))
        if running is None and (running := slots.next()) is not None:
            ends_s = now_s + service_s
        busy.append((now_s, slots.busy))
    assert slots.busy == 0
    return done, busy


@pytest.mark.parametrize("late_s", [0.0, 1.5])
@pytest.mark.parametrize("count", [9, 64, 300])
def test_all_get_theirs_within_three_retries_while_eight_wait(count, late_s):
    done, busy = play([(0.01 * n, 1000) for n in range(count)], late_s=late_s)
    assert len(done) == count
    assert max(tries for _uid, tries, _end, _n in done) <= 4
    # Until the crowd is gone, the processor never idles and eight slots are taken.
    crowded = [held for now_s, held in busy if 1 < now_s < (count - 2 * MIN_SLOTS) * SERVICE_S]
    assert min(crowded, default=MIN_SLOTS) >= MIN_SLOTS - 1
    assert max(end for _uid, _tries, end, _n in done) <= count * SERVICE_S * 1.1 + 5


@pytest.mark.parametrize("service_s", [0.001, 0.05, 2.0])
def test_who_asks_on_and_on_takes_no_place_of_those_who_were_told_to_come_back(service_s):
    """Twice as many callers as slots, of one user; each asks anew as soon as it is served."""
    slots = Slots(interval_s=service_s)
    crowd, number = 2 * slots.slots, 0
    todo = [(0.0, caller, None, 1) for caller in range(crowd)]
    heapq.heapify(todo)
    running, ends_s, served, most = None, 0.0, 0, 0
    while served < 5 * crowd:
        if running is not None and (not todo or ends_s <= todo[0][0]):
            ((caller, tries),) = running.waiters
            served, most, now_s = served + 1, max(most, tries), ends_s
            slots.done(running, took_s=service_s)
            running = None
            heapq.heappush(todo, (now_s, caller, None, 1))
        else:
            now_s, caller, asked, tries = heapq.heappop(todo)
            if asked is None:
                asked, number = number, number + 1
            found = slots.ask(question(asked), 1000, (caller, tries), now_s=now_s)
            if isinstance(found, int):
                heapq.heappush(todo, (now_s + found, caller, asked, tries + 1))
        if running is None and (running := slots.next()) is not None:
            ends_s = now_s + service_s
    assert 1 < most <= 4


def test_who_comes_back_too_early_keeps_the_place():
    slots = Slots(interval_s=SERVICE_S)
    for n in range(slots.slots + 5):
        told = slots.ask(question(n), 1000, n, now_s=0.0)
    assert slots.promised == 5
    again = slots.ask(question(slots.slots + 4), 1000, "early", now_s=2.0)
    assert told - 2 == again
    assert slots.promised == 5
    assert isinstance(slots.ask(question(slots.slots + 4), 1000, "due", now_s=float(told)), Job)
    assert slots.promised == 4


def test_who_comes_back_with_another_nonce_has_a_place_that_nobody_came_for():
    slots = Slots(interval_s=SERVICE_S)
    for n in range(slots.slots + 1):
        told = slots.ask(question(n), 1000, n, now_s=0.0)
    assert slots.promised == 1
    # When it is due it is kept for whom it was promised to; a little later it is not.
    assert isinstance(slots.ask(question(98), 1000, "new", now_s=float(told)), int)
    assert isinstance(slots.ask(question(99), 1000, "new", now_s=told + 2.0), Job)


@pytest.mark.parametrize("service_s", [0.05, 0.5, 5.0])
def test_processors_of_other_speed(service_s):
    done, _busy = play([(0.001 * n, 1000) for n in range(200)], service_s=service_s, late_s=0.3)
    assert max(tries for _uid, tries, _end, _n in done) <= 4


def test_users_take_turns():
    """One user asks for a hundred reports, another for one a little later."""
    done, _busy = play([(0.0, 1000)] * 100 + [(1.0, 2000)])
    ends = {uid: end for uid, _tries, end, _n in done if uid == 2000}
    assert ends[2000] <= 30


def test_root_has_a_slot_whatever_others_hold():
    slots = Slots(interval_s=SERVICE_S)
    answers = [slots.ask(question(n), 1000, n, now_s=0.0) for n in range(40)]
    held = [item for item in answers if isinstance(item, Job)]
    assert len(held) == slots.slots >= MIN_SLOTS
    assert slots.next() is held[0]
    job = slots.ask(question(99), ROOT, "root", now_s=0.0)
    assert isinstance(job, Job)
    # One is kept for root, not any number; and root does not push others out for ever.
    assert isinstance(slots.ask(question(98), ROOT, "again", now_s=0.0), int)
    assert slots.next() is job
    assert slots.next() is held[1]


@pytest.mark.parametrize("other", [question(2), question(1, vmpl=1), question(1, key=1)])
def test_only_equal_questions_share(other):
    slots = Slots(interval_s=SERVICE_S)
    first = slots.ask(question(1), 1000, "a", now_s=0.0)
    assert slots.ask(question(1), 2000, "b", now_s=0.0) is first
    assert slots.ask(other, 1000, "c", now_s=0.0) is not first
    assert slots.next() is first
    # Under way it is still the answer to this question; afterwards it is not.
    assert slots.ask(question(1), 3000, "d", now_s=0.0) is first
    slots.done(first, took_s=1.0)
    assert first.waiters == ["a", "b", "d"]
    assert slots.ask(question(1), 1000, "e", now_s=0.0) is not first


def test_sharing_costs_no_slot():
    slots = Slots(interval_s=SERVICE_S)
    jobs = {id(slots.ask(question(1), 1000, n, now_s=0.0)) for n in range(1000)}
    assert len(jobs) == slots.busy == 1


def test_who_hangs_up_leaves_no_work():
    slots = Slots(interval_s=SERVICE_S)
    first = slots.ask(question(1), 1000, "a", now_s=0.0)
    slots.ask(question(1), 1000, "b", now_s=0.0)
    second = slots.ask(question(2), 1000, "c", now_s=0.0)
    slots.leave(first, "a")
    assert slots.busy == 2
    slots.leave(first, "b")
    slots.leave(first, "b")
    assert slots.next() is second
    slots.leave(second, "c")
    # It is under way: the processor cannot be called back.
    assert slots.busy == 1
    slots.done(second, took_s=1.0)
    assert slots.next() is None


def test_promises_that_nobody_keeps_lapse():
    slots = Slots(interval_s=SERVICE_S)
    for n in range(30):
        slots.ask(question(n), 1000, n, now_s=0.0)
    assert slots.promised > 0
    while (job := slots.next()) is not None:
        slots.done(job, took_s=SERVICE_S)
    assert isinstance(slots.ask(question(99), 2000, "x", now_s=500.0), Job)
    assert slots.promised == 0


def test_who_waits_too_long_is_taken_out():
    slots = Slots(interval_s=SERVICE_S)
    first = slots.ask(question(1), 1000, "a", now_s=0.0)
    late = slots.ask(question(2), 1000, "b", now_s=0.0)
    slots.ask(question(3), 2000, "c", now_s=50.0)
    assert slots.next() is first
    assert slots.overdue(60.0, now_s=61.0) == [late]
    assert slots.busy == 2


def test_those_who_do_not_wait_as_told_gain_nothing():
    """A user that hammers gets no more than its share, and others still get theirs."""
    slots = Slots(interval_s=SERVICE_S)
    for n in range(5000):
        slots.ask(question(n), 1000, n, now_s=n / 1000)
    assert slots.promised <= 2048
    assert slots.busy <= slots.slots + 5
    found = slots.ask(question(9999), 2000, "x", now_s=5.0)
    assert isinstance(found, Job) or found <= 2 * SERVICE_S
