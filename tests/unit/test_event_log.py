# SPDX-License-Identifier: Apache-2.0
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from troth.abi.hashes import digest
from troth.documents import event_log, event_log_json
from troth.documents.event_log import Event
from troth.errors import FormatError, Refusal
from troth.measure import pcr, register
from troth.registers.log import EventLog


def make(number: int, content: bytes, banks: tuple[str, ...] = ("sha256", "sha384")) -> Event:
    return Event(number, 14, "policy", content, pcr.event_digests(banks, content))


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_lines_read_back(contents: list[bytes]) -> None:
    events = tuple(make(number, content) for number, content in enumerate(contents))
    text = b"".join(event_log.line(event) for event in events)
    assert event_log_json.parse(text) == events


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126)))
def test_quote_is_json(text: str) -> None:
    assert json.loads(event_log.quote(text)) == text


@given(st.binary(max_size=400))
def test_arbitrary_logs_are_refused_with_a_type(data: bytes) -> None:
    try:
        event_log_json.parse(data)
    except FormatError:
        return
    assert not data.strip()


def test_each_flipped_bit_of_a_log_is_noticed() -> None:
    events = (make(0, b"one"), make(1, b"\xfftwo"))
    text = b"".join(event_log.line(event) for event in events)
    for place in range(len(text)):
        changed = bytearray(text)
        changed[place] ^= 1
        try:
            found = event_log_json.parse(bytes(changed))
        except FormatError:
            continue
        # What still parses must say so: another PCR, type or spelling, never another content.
        assert found != events
        assert [event.content for event in found] == [b"one", b"\xfftwo"]


@pytest.mark.parametrize(
    ("edit", "code"),
    [
        (lambda line: line.replace(b'"recnum":0', b'"recnum":1'), "log-number"),
        (lambda line: line.replace(b'"text":"one"', b'"text":"two"'), "log-digest"),
        (lambda line: line.replace(b'"text":"one"', b'"hex":"6f6e65"'), "log-content"),
        (lambda line: line.replace(b'"pcr":14', b'"pcr":14,"pcr":15'), "json-duplicate"),
        (lambda line: line.replace(b'"pcr":14', b'"pcr":14,"extra":1'), "json-unknown"),
        (lambda line: line.replace(b'"pcr":14', b'"pcr":24'), "json-type"),
        (lambda line: line[:-1], "log-size"),
    ],
)
def test_refusals(edit, code: str) -> None:
    line = event_log.line(make(0, b"one"))
    with pytest.raises(FormatError) as caught:
        event_log_json.parse(edit(line))
    assert caught.value.code == code


class FakeTpm:
    """Obeys the rules of PCRs; can lose extends."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, int], bytes] = {}
        self.deaf = False

    def extend(self, index: int, digests: tuple[tuple[str, bytes], ...]) -> None:
        if self.deaf:
            return
        for bank, value in digests:
            old = self.values.get((bank, index), bytes(len(value)))
            self.values[bank, index] = pcr.extend(bank, old, value)

    def read(self, banks: tuple[str, ...], pcrs: tuple[int, ...]) -> dict[tuple[str, int], bytes]:
        return {
            (bank, index): self.values.get((bank, index), bytes(len(digest(bank, b""))))
            for bank in banks
            for index in pcrs
        }


def test_log_and_registers_agree(tmp_path) -> None:
    tpm = FakeTpm()
    path = tmp_path / "log"
    log = EventLog(str(path), tpm=tpm, banks=("sha1", "sha256"))
    log.adopt((11, 14, 15))
    log.measure("policy", b"{}")
    log.measure("phase", b"enter-initrd")
    log.measure("cap", b"troth:cap", pcr_index=15)
    log.confirm()
    events = event_log_json.parse(path.read_bytes())
    assert pcr.replay(events) == tpm.values
    assert register.replay(events) == log.register
    assert [event.number for event in events] == [0, 1, 2]


def test_a_lost_extend_is_noticed(tmp_path) -> None:
    tpm = FakeTpm()
    log = EventLog(str(tmp_path / "log"), tpm=tpm, banks=("sha256",))
    log.measure("policy", b"{}")
    tpm.deaf = True
    log.measure("cmdline", b"x")
    tpm.deaf = False
    log.measure("workload", bytes(32))
    with pytest.raises(Refusal) as caught:
        log.confirm()
    assert caught.value.code == "tpm-mismatch"


def test_registers_used_before_are_refused(tmp_path) -> None:
    tpm = FakeTpm()
    tpm.extend(14, (("sha256", bytes(32)),))
    log = EventLog(str(tmp_path / "log"), tpm=tpm, banks=("sha256",))
    with pytest.raises(Refusal) as caught:
        log.adopt((11, 14, 15))
    assert caught.value.code == "tpm-used"
