# SPDX-License-Identifier: Apache-2.0
"""The guest's verbs that ask the agent: measurements, its state, an event to add."""

import hashlib
import json
import os

import pytest

from made_agent import make_log, running
from troth.attest.client import AgentClient
from troth.cli import grammar, guest, guest_agent, measurements
from troth.documents.policy import Attest, ExtendRule
from troth.errors import HostError, ProviderError, UsageError

ME = Attest(group=os.getegid(), extend=(ExtendRule(os.getuid(), ""),))


@pytest.fixture
def agent(tmp_path):
    make_log(tmp_path)
    with running(tmp_path, attest=ME) as found:
        yield found


def lines(tmp_path):
    return [json.loads(line) for line in (tmp_path / "event-log.jsonl").read_text().splitlines()]


def register(rows):
    """docs/formats.md, "Software register"."""
    value = bytes(48)
    for row in rows:
        content = row["content"]
        data = bytes.fromhex(content["hex"]) if "hex" in content else content["text"].encode()
        inner = hashlib.sha384(content["type"].encode() + b"\0" + data).digest()
        value = hashlib.sha384(value + inner).digest()
    return value.hex()


def test_measurements_are_the_agents(agent, tmp_path, capsys):
    found = guest_agent.measurements(str(agent.attest))
    assert found.events == len(lines(tmp_path))
    assert found.software_register == register(lines(tmp_path))
    assert found.registers
    assert all(value.agrees is None for value in found.registers)
    assert measurements.run(as_json=True, found=found) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["software_register"] == register(lines(tmp_path))
    assert shown["tpm"] == "not used by this boot"


def test_its_state(agent):
    state = guest_agent.state(str(agent.attest))
    assert state == {"running": True, "provider": "", "log": "whole", "raw_report_data": "never"}


def test_nobody_there(tmp_path):
    path = str(tmp_path / "attest.sock")
    assert guest_agent.measurements(path) is None
    assert guest_agent.state(path) == {"running": False}
    with pytest.raises(HostError) as caught:
        AgentClient(path).extend("app.start", b"")
    assert caught.value.code == "no-agent"


@pytest.mark.parametrize("data", [b"", b"\x00\xff", bytes(1024)], ids=len)
def test_an_event(agent, tmp_path, capsys, data):
    (tmp_path / "event").write_bytes(data)
    words = ["--event", "app.start", f"--data={tmp_path}/event", "--socket", str(agent.attest)]
    assert guest_agent.main([*words, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    rows = lines(tmp_path)
    assert shown == {"recnum": len(rows) - 1, "software_register": register(rows)}
    text = rows[-1]["content"]["text"]
    assert text.startswith(f"uid={os.getuid()} gid={os.getegid()} unit=")
    assert text.endswith(f" event=app.start data={data.hex()}")


def test_who_may_not(tmp_path):
    make_log(tmp_path)
    (tmp_path / "event").write_bytes(b"x")
    with running(tmp_path) as found, pytest.raises(ProviderError) as caught:
        guest_agent.main(
            ["--event", "a", "--data", f"{tmp_path}/event", "--socket", str(found.attest)]
        )
    assert caught.value.code == "agent-refused"
    assert "[not-allowed]" in caught.value.message


def test_events_that_are_too_large(tmp_path):
    (tmp_path / "event").write_bytes(bytes(1025))
    for path in (tmp_path / "event", tmp_path / "absent", tmp_path):
        with pytest.raises(UsageError) as caught:
            guest_agent.main(["--event", "a", "--data", str(path)])
        assert caught.value.code == "event-file"


@pytest.mark.parametrize(
    "words",
    [
        [], ["--event", "a"], ["--data", "f"], ["--event"], ["--event", "a", "--data", "f", "x"],
        ["--event", "a", "--data", "f", "--json=1"], ["--even", "a", "--data", "f"],
    ],
    ids=str,
)  # fmt: skip
def test_odd_words(words):
    with pytest.raises(UsageError) as caught:
        guest_agent.parse(words)
    assert caught.value.code == "usage"


def test_the_grammar_has_the_same_options():
    (verb,) = [verb for verb in grammar.VERBS if verb.words == ("extend",)]
    names = {option.names[0] for option in verb.options}
    assert names == {*guest_agent.NAMES, "--json"}
    assert all(name in guest_agent.USAGE for name in names)
    assert {name[2:] for name in names} == set(guest_agent.Options.__match_args__)


def test_an_image_without_an_agent(monkeypatch, capsys):
    monkeypatch.setitem(guest._WHERE_PACKED, "extend", ("troth.cli.not_packed", "nobody may"))
    assert guest.main(["extend", "--event", "a", "--data", "f"]) == 3
    assert "[verb-not-packed]" in capsys.readouterr().err
