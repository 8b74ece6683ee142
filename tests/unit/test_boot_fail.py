# SPDX-License-Identifier: Apache-2.0
"""The end of a refused boot: what the host reads, what is measured, who goes first.

Nothing here may reach the machine that runs the tests: power is a recorder.
"""

import _thread
import os
import signal
import sys
import time
import types

import pytest

from made_policy import policy
from troth.boot import fail, keys
from troth.boot.state import State
from troth.documents import event_log_json
from troth.documents.policy import Fail
from troth.errors import FormatError, Refusal, VeiledRefusal
from troth.linux import kmsg
from troth.machine import console
from troth.record import replace
from troth.registers.log import EventLog

SECRET = "generation 3 is on disk"
VEIL = "the details stay in the guest"


class EndedError(BaseException):
    """The machine is off."""


@pytest.fixture
def ended(monkeypatch, tmp_path):
    """Makes a state and takes what is said: (state, lines of the log, last lines)."""

    def end(_action):
        raise EndedError

    lines, last = [], []
    monkeypatch.setattr(
        fail, "power", types.SimpleNamespace(end=end, force=lambda: last.append("forced"))
    )
    monkeypatch.setattr(fail, "_force_later", lambda: None)
    monkeypatch.setattr(fail, "_ending", _thread.allocate_lock())
    monkeypatch.setattr(kmsg, "last_line", last.append)

    def make(detail):
        state = State({}, [], time.monotonic_ns())
        state.policy = replace(policy(), fail=Fail("halt", detail, 60, 10))
        state.stage = "keys"
        state.log = EventLog(str(tmp_path / "log"), tpm=None, banks=("sha256",))
        state.kmsg = types.SimpleNamespace(say=lines.append)
        return state

    make.lines, make.last, make.log = lines, last, tmp_path / "log"
    return make


def refuse(state, *words, **named):
    with pytest.raises(EndedError):
        fail.refuse(state, *words, **named)


def test_an_exact_code_stays_in_the_guest(ended):
    refuse(ended("public"), "key-refused", SECRET, exact="record-rolled-back")
    assert ended.lines == ["troth: stage keys failed key-refused"]
    assert ended.last == [f"troth: refused key-refused: {VEIL}"]
    events = event_log_json.parse(ended.log.read_bytes())
    # What is measured is read by others too: the public code alone.
    assert [event.content for event in events[:1]] == [b"refused:key-refused"]
    shown = "".join((*ended.lines, *ended.last)).encode() + ended.log.read_bytes()
    assert b"rolled" not in shown
    assert SECRET.encode() not in shown


def test_an_exact_code_for_whoever_asked_for_it(ended):
    refuse(ended("console"), "key-refused", SECRET, exact="record-rolled-back")
    assert ended.lines == ["troth: stage keys failed key-refused record-rolled-back"]
    assert ended.last == [f"troth: refused key-refused: record-rolled-back: {SECRET}"]
    events = event_log_json.parse(ended.log.read_bytes())
    assert events[0].content == b"refused:key-refused"


@pytest.mark.parametrize("detail", ["public", "console"])
def test_a_public_code_is_said_with_its_sentence(ended, detail):
    refuse(ended(detail), "disk-missing", "serial:data did not appear")
    assert ended.lines == ["troth: stage keys failed disk-missing"]
    assert ended.last == ["troth: refused disk-missing: serial:data did not appear"]


def test_an_exact_code_before_there_is_a_policy(ended):
    state = ended("console")
    del state.policy
    state.kmsg = types.SimpleNamespace(say=ended.lines.append)
    # Without a policy the machine is powered off, and a thread is there to see to it.
    refuse(state, "key-refused", SECRET, exact="record-mac")
    assert ended.last == [f"troth: refused key-refused: {VEIL}"]


@pytest.mark.parametrize("public", keys.PUBLIC)
@pytest.mark.parametrize("detail", ["public", "console"])
def test_the_host_understands_each(ended, public, detail):
    refuse(ended(detail), public, SECRET, exact="record-mac")
    parser = console.Parser()
    text = "".join(f"[    1.000000] {line}\r\n" for line in ended.lines) + ended.last[0] + "\r\n"
    stage, refused = parser.feed(text.encode())
    assert (stage.name, stage.code) == ("keys", public)
    assert refused.code == public


def test_whoever_holds_keys_goes_first(ended):
    """Before the refusal is said or measured: whatever hangs later, the memory is gone."""
    state = ended("public")
    pid = os.posix_spawn(
        sys.executable, (sys.executable, "-ISBc", "import time; time.sleep(60)"), {}
    )
    # One that has ended already: no process has a number beyond the kernel's limit.
    state.workers += [(1 << 22) + 1, pid]
    state.kmsg = types.SimpleNamespace(
        say=lambda _line: os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    )
    refuse(state, "key-refused", SECRET, exact="record-mac")
    _pid, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.parametrize(
    ("error", "exact"),
    [
        (VeiledRefusal("key-refused", "kbs-denied", SECRET), "kbs-denied"),
        (Refusal("disk-missing", SECRET), ""),
        (FormatError("record-mac", SECRET), ""),
    ],
)
def test_what_init_hands_over(error, exact, monkeypatch, ended):
    """``boot.init`` takes the exact code from whatever error has one."""
    sys.modules.setdefault("troth_baked", types.ModuleType("troth_baked"))
    monkeypatch.setattr(sys.modules["troth_baked"], "POLICY", {}, raising=False)
    from troth.boot import init

    said = []

    def refuse_(_state, code, sentence, *, exact=""):
        said.append((code, sentence, exact))

    def raise_(_tree):
        raise error

    monkeypatch.setattr(init, "from_tree", raise_)
    monkeypatch.setattr(fail, "refuse", refuse_)
    init.main({})
    assert said == [(error.code, SECRET, exact)]
