# SPDX-License-Identifier: Apache-2.0
"""The event log after the boot: what is added, what is noticed, what a restart says."""

import fcntl
import json
import os

import pytest

from made_agent import make_log
from troth.documents import event_log_json
from troth.errors import HostError, UsageError
from troth.measure import pcr, register
from troth.registers import log_lock, runtime
from troth.registers.runtime import RuntimeLog


@pytest.fixture
def made(tmp_path):
    path, count = make_log(tmp_path)
    opened = []

    def opening():
        opened.append(RuntimeLog(str(path), state_directory=str(tmp_path / "state")))
        return opened[-1]

    yield path, count, opening
    for log in opened:
        log.close()


def test_events_are_added_and_replay(made):
    path, count, opening = made
    log = opening()
    assert (log.broken, log.restarted, log.count) == ("", False, count)
    before = event_log_json.parse(path.read_bytes())
    assert log.extend(1000, b"uid=1000 gid=1 unit=- event=a data=") == count
    assert log.extend(1000, b"uid=1000 gid=1 unit=- event=b data=") == count + 1
    events = event_log_json.parse(path.read_bytes())
    assert events[:count] == before
    assert [event.kind for event in events[count:]] == ["application"] * 2
    assert log.register == register.replay(events)
    assert log.size_bytes == path.stat().st_size
    # What the boot owns is as it was.
    old, new = pcr.replay(before), pcr.replay(events)
    assert {key: new[key] for key in old} == old
    assert {index for _bank, index in new} - {index for _bank, index in old} == {23}


def test_a_restart_is_said_and_its_counts_go_on(made):
    path, count, opening = made
    first = opening()
    first.save()
    first.extend(7, b"uid=7 gid=7 unit=- event=a data=")
    second = opening()
    assert (second.broken, second.restarted) == ("", True)
    second.restarted_event()
    last = event_log_json.parse(path.read_bytes())[-1]
    assert (last.kind, last.pcr) == ("agent-restarted", 23)
    assert last.content == f"events={count + 1}".encode()
    assert second._of_user == {7: 1}
    third = opening()
    assert (third.broken, third.count) == ("", count + 2)


def test_a_log_that_is_shorter_than_it_was(made):
    path, _count, opening = made
    log = opening()
    log.extend(7, b"uid=7 gid=7 unit=- event=a data=")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    again = opening()
    assert "had" in again.broken
    with pytest.raises(HostError) as caught:
        again.extend(7, b"uid=7 x")
    assert caught.value.code == "log-broken"
    assert path.read_bytes() == b"".join(lines[:-1])


def test_a_log_shorter_than_the_boot_left_it(made):
    path, _count, opening = made
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    assert opening().broken


def test_a_log_rewritten_within_its_length(made):
    path, _count, opening = made
    opening().save()
    lines = path.read_bytes().splitlines(keepends=True)
    other = json.loads(lines[1])
    other["content"] = {"type": "cmdline", "text": "other"}
    digests = dict(pcr.event_digests(("sha256", "sha384"), b"other"))
    for entry in other["digests"]:
        entry["digest"] = digests[entry["hashAlg"]].hex()
    lines[1] = json.dumps(other, separators=(",", ":")).encode() + b"\n"
    path.write_bytes(b"".join(lines))
    assert "not those" in opening().broken


def test_a_foreign_writer_is_noticed(made):
    path, _count, opening = made
    log = opening()
    with path.open("ab") as file:
        file.write(b"x\n")
    for _ in range(2):
        with pytest.raises(HostError) as caught:
            log.extend(7, b"uid=7 x")
        assert caught.value.code == "log-broken"
    assert path.read_bytes().endswith(b"x\n")


def test_state_that_is_no_state(made, tmp_path):
    _path, _count, opening = made
    (tmp_path / "state" / "agent.json").write_text("[]")
    assert opening().broken
    (tmp_path / "state" / "agent.json").write_text('{"events":-1,"software_register":"00"}')
    assert opening().broken


def test_quota(made, monkeypatch):
    _path, count, opening = made
    monkeypatch.setattr(runtime, "MAX_EVENTS_A_USER", 2)
    log = opening()
    log.extend(7, b"uid=7 x")
    log.extend(7, b"uid=7 x")
    for again in (log, opening()):
        with pytest.raises(UsageError) as caught:
            again.extend(7, b"uid=7 x")
        assert caught.value.code == "extend-quota"
    assert opening().extend(8, b"uid=8 x") == count + 2


def test_a_lock_that_somebody_keeps(made, monkeypatch):
    path, count, opening = made
    monkeypatch.setattr(log_lock, "TIMEOUT_S", 0.05)
    log = opening()
    log.extend(7, b"uid=7 x")
    count += 1
    with (path.parent / "state" / log_lock.FILE_NAME).open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(HostError) as caught:
            log.extend(7, b"uid=7 x")
    assert caught.value.code == "log-busy"
    assert log.extend(7, b"uid=7 x") == count


def test_a_tpm_that_is_lost_takes_the_event_with_it(made, tmp_path, monkeypatch):
    path, count, opening = made
    boot = json.loads((tmp_path / "state" / "boot.json").read_text()) | {"tpm_kind": "host"}
    (tmp_path / "state" / "boot.json").write_text(json.dumps(boot))
    monkeypatch.setattr(runtime.tpm_device, "present", lambda: ())
    log = opening()
    assert log.tpm_used
    before = path.read_bytes()
    with pytest.raises(HostError) as caught:
        log.extend(7, b"uid=7 x")
    assert caught.value.code == "register-tpm"
    assert (path.read_bytes(), log.count) == (before, count)


def test_no_log(tmp_path):
    with pytest.raises(HostError) as caught:
        RuntimeLog(str(tmp_path / "none"), state_directory=str(tmp_path))
    assert caught.value.code == "no-event-log"
    os.symlink("/etc/passwd", tmp_path / "link")
    with pytest.raises(HostError):
        RuntimeLog(str(tmp_path / "link"), state_directory=str(tmp_path))
