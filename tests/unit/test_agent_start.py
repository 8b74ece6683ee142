# SPDX-License-Identifier: Apache-2.0
"""How PID 1 starts the agent: systemd's unit, and the keeper of a child of its own."""

import configparser
import os
import signal
import socket
from pathlib import Path

import pytest

from made_policy import policy
from troth.boot import agent
from troth.documents import stages
from troth.documents.policy import Attest, ExtendRule
from troth.errors import Refusal
from troth.record import replace

REPOSITORY = Path(__file__).parents[2]
UNIT = REPOSITORY / "systemd/troth-agent.service"


@pytest.mark.parametrize(
    ("changes", "has_agent"),
    [
        ({"snp": "none"}, False),
        ({"snp": "required"}, True),
        ({"snp": "simulated"}, True),
        ({"snp": "none", "attest": Attest(group=900)}, True),
        ({"snp": "none", "attest": Attest(extend=(ExtendRule(1000, ""),))}, True),
        # Without reports there is nothing raw to ask for.
        ({"snp": "none", "attest": Attest(raw_report_data="root")}, False),
    ],
)
def test_which_images_have_one(changes, has_agent):
    changed = replace(policy(overlay="none"), **changes)
    assert stages.has_agent(changed) == has_agent


# --- systemd --------------------------------------------------------------------------------


@pytest.fixture
def places(tmp_path, monkeypatch):
    (tmp_path / "etc/troth").mkdir(parents=True)
    (tmp_path / "etc/troth/troth-agent.service").write_bytes(UNIT.read_bytes())
    units = tmp_path / "units"
    units.mkdir()
    monkeypatch.setattr(agent, "RUNTIME", str(tmp_path))
    monkeypatch.setattr(agent, "UNITS", str(units))
    monkeypatch.setattr(agent, "TURN", str(tmp_path / "turn"))
    return tmp_path


def test_the_unit_and_its_link(places):
    agent.prepare(manager="systemd")
    units = places / "units"
    assert (units / "troth-agent.service").read_bytes() == UNIT.read_bytes()
    link = units / "multi-user.target.wants/troth-agent.service"
    assert link.is_symlink()
    assert link.resolve() == units / "troth-agent.service"
    assert (places / "turn").stat().st_mode & 0o777 == 0o600


def test_without_systemd_there_is_no_unit(places):
    agent.prepare(manager="none")
    assert not any((places / "units").iterdir())
    assert (places / "turn").exists()


def test_something_else_at_its_place(places):
    (places / "units/troth-agent.service").symlink_to("/dev/null")
    with pytest.raises(Refusal) as caught:
        agent.prepare(manager="systemd")
    assert caught.value.code == "agent-start"


def test_every_line_of_the_unit_is_explained():
    """docs/agent.md has a row for each key of the unit file."""
    reader = configparser.RawConfigParser(strict=False, comment_prefixes=("#",))
    reader.optionxform = str
    reader.read_string(UNIT.read_text())
    keys = {key for section in reader.sections() for key in reader[section]}
    page = (REPOSITORY / "docs/agent.md").read_text()
    missing = [key for key in sorted(keys) if f"`{key}=" not in page]
    assert missing == []


# --- a child of PID 1 -----------------------------------------------------------------------


class Machine:
    """Processes and a clock that the test moves."""

    def __init__(self, place, monkeypatch):
        self.now_s = 100.0
        self.started, self.killed, self.said = [], [], []
        self.place = place
        self.on_start = lambda: None
        monkeypatch.setattr(agent, "NOTIFY", str(place / "notify"))
        monkeypatch.setattr(agent, "start", self.start)
        monkeypatch.setattr(agent.time, "monotonic", lambda: self.now_s)
        monkeypatch.setattr(agent.os, "kill", lambda *words: self.killed.append(words))
        self.keeper = agent.Keeper(self.said.append)

    def start(self, environ):
        self.started.append(environ)
        self.on_start()
        return 1000 + len(self.started)

    def say(self, words):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(words, str(self.place / "notify"))


@pytest.fixture
def machine(tmp_path, monkeypatch):
    made = Machine(tmp_path, monkeypatch)
    yield made
    made.keeper._socket.close()


def test_the_workload_waits_until_it_serves(machine):
    machine.on_start = lambda: machine.say(b"READY=1")
    machine.keeper.start()
    assert machine.said == []
    assert machine.started == [
        {"NOTIFY_SOCKET": f"{machine.place}/notify", "WATCHDOG_USEC": "30000000"}
    ]
    assert os.stat(machine.place / "notify").st_mode & 0o777 == 0o600


def test_it_does_not_wait_for_ever(machine, monkeypatch):
    monkeypatch.setattr(agent, "READY_S", 0.0)
    machine.keeper.start()
    assert machine.said == ["troth: the agent is not ready yet"]


def test_restarts_are_paced(machine):
    keeper = machine.keeper
    machine.on_start = lambda: machine.say(b"READY=1")
    keeper.start()
    for number, delay_s in enumerate((1, 2, 4, 8, 16, 30, 30), start=1):
        keeper.ended(9, 0)  # another child
        keeper.ended(1000 + number, 137)
        assert machine.said.pop() == (
            f"troth: the agent ended with 137, starts again in {delay_s} s"
        )
        assert keeper.wait_s == pytest.approx(delay_s)
        machine.now_s += delay_s - 0.5
        keeper.look()
        assert len(machine.started) == number
        machine.now_s += 0.5
        keeper.look()
        assert len(machine.started) == number + 1
    machine.now_s += 61
    keeper.ended(1000 + len(machine.started), 1)
    assert "again in 1 s" in machine.said.pop()


def test_silence_ends_it(machine):
    keeper = machine.keeper
    machine.on_start = lambda: machine.say(b"READY=1")
    keeper.start()
    for _ in range(5):
        machine.now_s += 20
        machine.say(b"WATCHDOG=1")
        keeper.look()
    assert machine.killed == []
    machine.now_s += 31
    keeper.look()
    assert machine.killed == [(1001, signal.SIGKILL)]
    # Once, not at each look.
    keeper.look()
    assert len(machine.killed) == 1


def test_pid1_sleeps_while_all_is_well(machine):
    machine.on_start = lambda: machine.say(b"READY=1")
    machine.keeper.start()
    assert machine.keeper.wait_s == 10.0
