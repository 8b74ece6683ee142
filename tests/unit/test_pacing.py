# SPDX-License-Identifier: Apache-2.0
"""Turns of requests, on a clock that the test moves."""

import fcntl
import math
import os
import threading

import pytest

from troth.attest.pacing import Pacer
from troth.errors import HostError, ProviderError


class Clock:
    """Time that passes only where somebody sleeps."""

    def __init__(self, now_s=1000.0):
        self.now_s = now_s

    def __call__(self):
        return self.now_s

    def sleep(self, seconds):
        assert seconds > 0
        self.now_s += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def pacer(tmp_path, clock):
    return Pacer(str(tmp_path / "turn"), clock=clock, sleep=clock.sleep)


def test_the_first_request_does_not_wait(pacer, clock):
    assert pacer.run(lambda: "report", timeout_s=0) == "report"
    assert clock.now_s == 1000


def test_two_seconds_from_the_end_to_the_next_beginning(pacer, clock, tmp_path):
    began = []

    def work():
        began.append(clock.now_s)
        clock.now_s += 0.5

    for _ in range(3):
        pacer.run(work, timeout_s=10)
    assert began == pytest.approx([1000, 1002.5, 1005])
    # Another process shares the file, not the object.
    Pacer(str(tmp_path / "turn"), clock=clock, sleep=clock.sleep).run(work, timeout_s=10)
    assert began[-1] == pytest.approx(1007.5)


def test_a_turn_that_comes_too_late_is_not_waited_for(pacer, clock):
    pacer.run(lambda: None, timeout_s=0)
    before = clock.now_s
    with pytest.raises(ProviderError) as caught:
        pacer.run(lambda: None, timeout_s=1.9)
    assert (caught.value.code, clock.now_s) == ("provider-busy", before)
    assert "2 s" in caught.value.hint
    pacer.run(lambda: None, timeout_s=2.1)


def test_a_failed_request_counts(pacer, clock):
    with pytest.raises(ZeroDivisionError):
        pacer.run(lambda: 1 // 0, timeout_s=0)
    pacer.run(lambda: None, timeout_s=5)
    assert clock.now_s == pytest.approx(1002)


def test_after_a_long_time_nobody_waits(pacer, clock):
    pacer.run(lambda: None, timeout_s=0)
    clock.now_s += 3600
    pacer.run(lambda: None, timeout_s=0)
    assert clock.now_s == 4600


@pytest.mark.parametrize("text", ["nonsense", "nan", "inf", "-inf", "1e300", "5000", "\udcff"])
def test_a_file_of_nonsense_never_costs_more_than_one_interval(pacer, clock, tmp_path, text):
    (tmp_path / "turn").write_bytes(text.encode("utf-8", "surrogateescape"))
    pacer.run(lambda: None, timeout_s=5)
    assert math.isclose(clock.now_s, 1002) or (text == "-inf" and clock.now_s == 1000)


def test_one_at_a_time(pacer, clock, tmp_path):
    fd = os.open(tmp_path / "turn", os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with pytest.raises(ProviderError) as caught:
        pacer.run(lambda: None, timeout_s=1)
    assert caught.value.code == "provider-busy"
    assert 1000.9 < clock.now_s <= 1001
    os.close(fd)
    pacer.run(lambda: None, timeout_s=0)


def test_threads_take_turns(tmp_path):
    under_way, most = [], []

    def work():
        under_way.append(1)
        most.append(len(under_way))
        under_way.pop()

    def run():
        Pacer(str(tmp_path / "turn"), interval_s=0).run(work, timeout_s=10)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]


def test_a_file_that_cannot_be_opened(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("none/turn", "link"):
        with pytest.raises(HostError) as caught:
            Pacer(str(tmp_path / name)).run(lambda: None, timeout_s=0)
        assert caught.value.code == "provider-turn"
    assert not (tmp_path / "elsewhere").exists()
