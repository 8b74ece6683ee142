# SPDX-License-Identifier: Apache-2.0
"""The directory of ``--state``, also where somebody else put things there."""

import fcntl
import os

import pytest

from troth.cli import seen_guests
from troth.errors import FormatError, UsageError
from troth.verify import seen
from troth.verify.seen import Seen

GUEST = bytes(range(32))
SEEN = Seen(GUEST, 9, bytes(range(48)))
NAME = seen.file_name(GUEST)


def test_what_was_put_is_found(tmp_path):
    folder = str(tmp_path)
    assert seen_guests.find(folder, GUEST) is None
    seen_guests.put(folder, SEEN)
    assert seen_guests.find(folder, GUEST) == SEEN
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    longer = Seen(GUEST, 12, bytes(48))
    seen_guests.put(folder, longer)
    # Of two verifiers at once, the slower one saw less.
    seen_guests.put(folder, SEEN)
    assert seen_guests.find(folder, GUEST) == longer


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"[]", b"{}", b"9" * 5000, b"[" * 4096])
def test_garbage(tmp_path, data):
    (tmp_path / NAME).write_bytes(data)
    for go in (lambda: seen_guests.find(str(tmp_path), GUEST),
               lambda: seen_guests.put(str(tmp_path), SEEN)):  # fmt: skip
        with pytest.raises(FormatError):
            go()
    assert (tmp_path / NAME).read_bytes() == data


def _link(path):
    target = path.with_name("target")
    target.write_bytes(seen.print_(SEEN))
    path.symlink_to(target)


@pytest.mark.parametrize("make", [_link, os.mkfifo, os.mkdir], ids=["link", "pipe", "directory"])
def test_what_is_no_file(tmp_path, make):
    make(tmp_path / NAME)
    for go in (lambda: seen_guests.find(str(tmp_path), GUEST),
               lambda: seen_guests.put(str(tmp_path), SEEN)):  # fmt: skip
        with pytest.raises(UsageError) as caught:
            go()
        assert caught.value.code == "state-directory"


def test_nothing_is_written_through_a_link(tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    state = tmp_path / "state"
    state.mkdir()
    (state / f".{NAME}.{os.getpid()}").symlink_to(victim)
    seen_guests.put(str(state), SEEN)
    assert victim.read_bytes() == b"mine"
    assert seen_guests.find(str(state), GUEST) == SEEN


def test_a_directory_that_stays_locked(tmp_path, monkeypatch):
    monkeypatch.setattr(seen_guests, "TURN_S", 0.05)
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with pytest.raises(UsageError) as caught:
            seen_guests.put(str(tmp_path), SEEN)
    finally:
        os.close(fd)
    assert caught.value.code == "state-directory"
