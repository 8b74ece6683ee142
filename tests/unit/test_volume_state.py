# SPDX-License-Identifier: Apache-2.0
"""The life of a volume: one release a guest, formats and commits that nobody can undo."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from troth.keybroker import volume_state as vs
from troth.keybroker.volume_state import Guest, Release, Volume
from troth.record import replace

A, B = Guest(b"a" * 32, b"k" * 32), Guest(b"b" * 32, b"l" * 32)
D1, D2 = "11" * 32, "22" * 32


def test_new_formatting_in_use():
    first = vs.release(Volume(), A, None, 100)
    assert (first.code, first.volume.state, first.over) == (vs.RELEASED, vs.FORMATTING, b"")
    assert first.volume.until == 100 + vs.FORMAT_S
    done = vs.commit(first.volume, A, 1, D1, 150)
    assert (done.code, done.volume.state, done.volume.generation) == (vs.COMMITTED, vs.IN_USE, 1)
    assert done.volume.record == D1
    again = vs.commit(done.volume, A, 1, D1, 151)
    assert (again.code, again.volume) == (vs.COMMITTED_ALREADY, done.volume)
    # Another record under a number that is taken, and a number that leaves one out.
    assert vs.commit(done.volume, A, 1, D2, 151).code == vs.WRONG_GENERATION
    assert vs.commit(done.volume, A, 3, D2, 151).code == vs.WRONG_GENERATION
    later = vs.release(done.volume, B, None, 151 + vs.LEASE_S)
    assert (later.code, later.over) == (vs.RELEASED, A.report_id)
    assert (later.volume.state, later.volume.generation, later.volume.taken_over) == (
        "in-use",
        1,
        1,
    )
    # Who lost the volume can commit no more, and not the same again either.
    assert vs.commit(later.volume, A, 2, D2, 300).code == vs.NOT_HOLDER
    assert vs.commit(later.volume, A, 1, D1, 300).code == vs.NOT_HOLDER
    # What A committed is not B's to repeat.
    assert vs.commit(later.volume, B, 1, D1, 300).code == vs.WRONG_GENERATION


def test_format_again_only_after_the_deadline():
    taken = vs.release(Volume(format_s=50), A, None, 100).volume
    assert vs.release(taken, B, None, 149).code == vs.BEING_FORMATTED
    over = vs.release(taken, B, None, 150)
    assert (over.code, over.volume.state, over.over) == (vs.RELEASED, vs.FORMATTING, A.report_id)
    assert vs.commit(over.volume, A, 1, D1, 151).code == vs.NOT_HOLDER


def test_late_commit_counts_while_nobody_else_came():
    taken = vs.release(Volume(format_s=50), A, None, 100).volume
    assert vs.commit(taken, A, 1, D1, 10_000).code == vs.COMMITTED


def test_lease():
    held = vs.release(Volume(state=vs.IN_USE, lease_s=10), A, None, 100).volume
    assert vs.release(held, B, None, 109).code == vs.LEASED
    assert vs.release(held, B, None, 110).code == vs.RELEASED


def test_repeat_is_for_the_same_key_for_a_while():
    held = vs.release(Volume(state=vs.IN_USE), A, None, 100).volume
    earlier = Release(A.key_sha256, 100)
    same = vs.release(held, A, earlier, 100 + vs.REPEAT_S)
    assert (same.code, same.volume) == (vs.REPEATED, held)
    assert vs.release(held, A, earlier, 101 + vs.REPEAT_S).code == vs.ALREADY
    assert vs.release(held, A, earlier, 99).code == vs.ALREADY
    other = replace(A, key_sha256=B.key_sha256)
    assert vs.release(held, other, earlier, 101).code == vs.ALREADY
    # Neither after a commit, which answered it, nor after a take-over.
    done = vs.commit(held, A, 1, D1, 101).volume
    assert vs.release(done, A, earlier, 102).code == vs.ALREADY
    over = vs.release(replace(held, until=101), B, None, 102).volume
    assert vs.release(over, A, earlier, 103).code == vs.ALREADY


def test_end_of_the_boot():
    held = vs.release(Volume(), A, None, 100).volume
    over = replace(A, finished=True)
    assert vs.release(held, over, None, 101).code == vs.FINISHED
    assert vs.release(held, over, Release(A.key_sha256, 100), 101).code == vs.FINISHED
    assert vs.commit(held, over, 1, D1, 101).code == vs.FINISHED


@pytest.mark.parametrize("state", vs.STATES)
def test_commit_needs_the_key_first(state):
    assert vs.commit(Volume(state=state), A, 1, D1, 5).code == vs.NOT_HOLDER


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["release", "commit", "finish"]),
        st.integers(0, 3),  # guest
        st.integers(0, 1),  # its key
        st.integers(0, 2),  # generation, above the volume's
        st.sampled_from([D1, D2]),
        st.integers(0, 80),  # seconds that pass
    ),
    max_size=40,
)


@settings(max_examples=150)
@given(
    STEPS, st.sampled_from([Volume(lease_s=30, format_s=50), Volume(state=vs.IN_USE, lease_s=0)])
)
def test_whatever_guests_do(steps, volume):
    now, releases, finished = 1000, {}, set()
    for what, who, key, ahead, digest, passes in steps:
        now += passes
        report_id = bytes([who]) * 32
        guest = Guest(report_id, bytes([key]) * 32, finished=report_id in finished)
        if what == "finish":
            finished.add(report_id)
            continue
        if what == "release":
            earlier = releases.get(report_id)
            found = vs.release(volume, guest, earlier, now)
            if found.code == vs.RELEASED:
                assert earlier is None, "released twice"
                releases[report_id] = Release(guest.key_sha256, now)
                assert volume.holder in (b"", report_id) or now >= volume.until
                assert found.volume.holder == report_id
                assert found.volume.state != vs.NEW
            elif found.code == vs.REPEATED:
                assert earlier.key_sha256 == guest.key_sha256
                assert now - earlier.at <= vs.REPEAT_S
        else:
            found = vs.commit(volume, guest, volume.generation + ahead, digest, now)
            if found.code == vs.COMMITTED:
                assert ahead == 1
                assert volume.holder == report_id
                assert report_id in releases
        if guest.finished:
            assert not found.good
        if found.code not in (vs.RELEASED, vs.COMMITTED):
            assert found.volume == volume
        # Generations go up by one, states forward, and a format never follows a commit.
        assert found.volume.generation - volume.generation in (0, 1)
        assert vs.STATES.index(found.volume.state) >= vs.STATES.index(volume.state)
        assert (found.volume.generation == 0) or found.volume.state == vs.IN_USE
        volume = found.volume


def test_a_lease_of_a_clock_that_was_ahead():
    """It ends a lease after the clock is right again, and not in years."""
    ahead = 10**9
    held = vs.release(Volume(state=vs.IN_USE, lease_s=10), A, None, ahead).volume
    assert vs.held_s(held, 100) == 10
    first = vs.release(held, B, None, 100)
    assert (first.code, first.volume) == (vs.LEASED, replace(held, until=110))
    assert vs.release(first.volume, B, None, 109).code == vs.LEASED
    assert vs.release(first.volume, B, None, 110).code == vs.RELEASED
    taken = vs.release(Volume(format_s=50), A, None, ahead).volume
    first = vs.release(taken, B, None, 100)
    assert (first.code, first.volume.until) == (vs.BEING_FORMATTED, 150)
    assert vs.release(first.volume, B, None, 150).code == vs.RELEASED
    # One that was set back by a little ends no lease before its time.
    held = vs.release(Volume(state=vs.IN_USE, lease_s=10), A, None, 100).volume
    assert vs.release(held, B, None, 98).code == vs.LEASED
