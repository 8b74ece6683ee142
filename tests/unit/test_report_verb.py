# SPDX-License-Identifier: Apache-2.0
"""``troth report``: the words, the answer's document, and the agent on a socket."""

import base64
import hashlib
import json
import socket
import struct
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz import agent_answer as fuzzed
from made_reports import report_of
from sev_guest_kernel import FakeReports
from troth.attest import choice, client, pacing
from troth.attest.provider_tsm import TsmProvider
from troth.cli import grammar, guest, guest_report, main, report
from troth.documents import report_answer
from troth.documents.report_answer import ReportAnswer
from troth.errors import FormatError, HostError, ProviderError, UsageError

NONCE = bytes(range(32))


def bound(nonce, user_data=b""):
    """REPORT_DATA of troth-report-v1, from its words in docs/formats.md."""
    fields = ((2, b"troth-report-v1"), (3, nonce), (12, user_data))
    body = b"".join(struct.pack("<BI", kind, len(value)) + value for kind, value in fields)
    return hashlib.sha512(body).digest()


def document(report_bytes=None, **changes):
    tree = {
        "schema": "troth-report-answer-v1",
        "provider": "configfs-tsm",
        "report": base64.b64encode(report_bytes or report_of(bound(NONCE))).decode(),
        "certificates": "",
        "binding": {"rule": "troth-report-v1", "nonce": NONCE.hex(), "user_data": ""},
    }
    return json.dumps(tree | changes).encode()


def response(body, *, status="200 OK", length=None, headers=""):
    size = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Length: {size}\r\n{headers}\r\n".encode() + body


class Agent:
    """A listener that gives one prepared answer to each connection and keeps what it heard."""

    def __init__(self, path, answers):
        self.heard = []
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(path)
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve, args=(answers,))
        self._thread.start()

    def _serve(self, answers):
        for answer in answers:
            peer, _ = self._socket.accept()
            with peer:
                heard = b""
                while b"\r\n\r\n" not in heard or not heard.endswith(b"}"):
                    heard += peer.recv(4096)
                self.heard.append(heard)
                peer.sendall(answer)

    def close(self):
        self._thread.join()
        self._socket.close()


@pytest.fixture
def agent(tmp_path):
    started = []

    def start(*answers):
        path = str(tmp_path / "agent.sock")
        started.append(Agent(path, answers))
        return path, started[-1].heard

    yield start
    for each in started:
        each.close()


@pytest.fixture
def direct(monkeypatch, tmp_path):
    """The kernel's model behind ``--provider``; returns what was asked for."""
    reports = FakeReports(floor=2, certificates=b"table")
    allowed = []

    def choose(names):
        allowed.append(names)
        return TsmProvider(reports)

    monkeypatch.setattr(choice, "choose", choose)
    state = str(tmp_path / "turn")
    monkeypatch.setattr(report, "Pacer", lambda: pacing.Pacer(state, interval_s=0))
    return reports, allowed


def run(*words):
    return main.main(["report", "--nonce", NONCE.hex(), *words])


# --- asked of the kernel -------------------------------------------------------------------


def test_a_binary_report(direct, capfdbinary):
    assert run() == 0
    assert capfdbinary.readouterr().out == report_of(bound(NONCE), vmpl=2)


def test_hex_into_a_file(direct, tmp_path):
    path = tmp_path / "report.hex"
    assert run("--format", "hex", "-o", str(path), "--vmpl", "3") == 0
    assert path.read_text() == report_of(bound(NONCE), vmpl=3).hex() + "\n"


def test_json_holds_what_belongs_to_it(direct, capfdbinary):
    assert run("--format", "json", "--user-data", "C0FFEE", "--provider", "configfs-tsm") == 0
    tree = json.loads(capfdbinary.readouterr().out)
    assert base64.b64decode(tree["report"]) == report_of(bound(NONCE, b"\xc0\xff\xee"), vmpl=2)
    assert base64.b64decode(tree["certificates"]) == b"table"
    assert tree["binding"] == {
        "rule": "troth-report-v1",
        "nonce": NONCE.hex(),
        "user_data": "c0ffee",
    }
    assert direct[1] == [("configfs-tsm",)]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--nonce", "00" * 15], "nonce-length"),
        (["--nonce", "00" * 65], "nonce-length"),
        (["--nonce", "zz" * 16], "usage"),
        (["--nonce", "0 " * 16], "usage"),
        (["--nonce", "00" * 16, "--user-data", "0"], "usage"),
        (["--nonce", "00" * 16, "--socket", "/x", "--vmpl", "1"], "usage"),
        (["--nonce", "00" * 16, "--format", "pem"], "usage"),
        ([], "usage"),
    ],
)
def test_wrong_words(direct, capsys, words, code):
    assert main.main(["report", *words]) == 2
    assert f"[{code}]" in capsys.readouterr().err
    assert direct[0].made == []


def test_no_binary_on_a_terminal(direct, monkeypatch, capsys):
    monkeypatch.setattr(report.sys.stdout, "isatty", lambda: True, raising=False)
    with pytest.raises(UsageError) as caught:
        report.report(report.Options(NONCE.hex()))
    assert caught.value.code == "output-terminal"


def test_a_file_that_cannot_be_written(direct, tmp_path, capsys):
    assert run("-o", str(tmp_path / "none/file")) == 2
    assert "[output-file]" in capsys.readouterr().err


# --- inside the guest ----------------------------------------------------------------------


def test_the_guests_words_are_the_grammars():
    verb = next(verb for verb in grammar.VERBS if verb.words == ("report",))
    assert {option.names[0]: option.choices for option in verb.options} == guest_report.CHOICES
    assert all(name in guest_report.USAGE for name in guest_report.CHOICES if name != "--output")
    fields = [name[2:].replace("-", "_") for name in guest_report.CHOICES]
    assert list(report.Options.__slots__) == fields


def test_the_guests_verb(direct, capfdbinary):
    words = ["report", f"--nonce={NONCE.hex()}", "--format", "hex"]
    assert guest.main(words) == 0
    assert bytes.fromhex(capfdbinary.readouterr().out.decode()) == report_of(bound(NONCE), vmpl=2)


@pytest.mark.parametrize(
    "words",
    [[], ["--nonce"], ["nonce"], ["--nonce", "00", "--vmpl", "4"], ["--what", "x"], ["-n", "x"]],
)
def test_wrong_words_in_the_guest(words):
    with pytest.raises(UsageError) as caught:
        guest_report.parse(words)
    assert "usage: troth report" in caught.value.hint


def test_short_and_joined_words():
    found = guest_report.parse(["-o", "f", "--nonce=00", "--socket", "s"])
    assert (found.output, found.nonce, found.socket, found.vmpl) == ("f", "00", "s", None)


def test_an_image_without_the_verb(monkeypatch, capsys):
    monkeypatch.setitem(guest._WHERE_PACKED, "report", ("troth.cli.not_packed", "its reason"))
    assert guest.main(["report"]) == 3
    said = capsys.readouterr().err
    assert "[verb-not-packed]" in said
    assert "hint: its reason" in said


# --- the document --------------------------------------------------------------------------


def test_answer_round_trip():
    answer = ReportAnswer(report_of(bound(NONCE)), b"", "sev-guest", NONCE, b"x")
    assert report_answer.parse(report_answer.print_(answer)) == answer


def test_a_document_by_hand():
    assert report_answer.parse(document()) == ReportAnswer(
        report_of(bound(NONCE)), b"", "configfs-tsm", NONCE, b""
    )


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"report": "a"}, "report-answer"),
        ({"report": "YQ=="}, None),
        ({"certificates": "Y Q="}, "report-answer"),
        ({"binding": {"rule": "troth-report-v1", "nonce": "AA", "user_data": ""}}, "report-answer"),
        ({"binding": {"rule": "other", "nonce": "aa", "user_data": ""}}, "json-type"),
        ({"schema": "troth-report-answer-v2"}, "json-type"),
        ({"provider": "host"}, "json-type"),
        ({"more": 1}, "json-unknown"),
    ],
)
def test_documents_that_are_refused(changes, code):
    if code is None:
        assert report_answer.parse(document(**changes)).report == b"a"
        return
    with pytest.raises(FormatError) as caught:
        report_answer.parse(document(**changes), where="here")
    assert (caught.value.code, caught.value.where) == (code, "here")


# --- asked of the agent --------------------------------------------------------------------


def test_the_agent_is_asked(agent, capfdbinary):
    path, heard = agent(response(document()))
    assert run("--socket", path) == 0
    assert capfdbinary.readouterr().out == report_of(bound(NONCE))
    head, _, body = heard[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/report HTTP/1.1\r\nHost: troth\r\n")
    assert json.loads(body) == {"nonce": NONCE.hex()}


def test_a_busy_agent_is_asked_again(agent, monkeypatch):
    waited = []
    monkeypatch.setattr(client.time, "sleep", waited.append)
    busy = [
        response(b"", status="429 Too Many Requests", headers=f"Retry-After: {after}\r\n")
        for after in ("2", "soon", "9999")
    ]
    path, _ = agent(*busy, response(document()))
    assert client.AgentClient(path).report(NONCE).nonce == NONCE
    assert waited == [2, 1, 30]


def test_an_agent_that_stays_busy(agent, monkeypatch):
    monkeypatch.setattr(client.time, "sleep", lambda _: None)
    path, heard = agent(*[response(b"", status="429 Too Many Requests")] * 4)
    with pytest.raises(ProviderError) as caught:
        client.AgentClient(path).report(NONCE)
    assert (caught.value.code, len(heard)) == ("agent-busy", 4)


def test_an_agent_that_refuses(agent):
    body = json.dumps({"code": "vmpck-lost", "message": "gone \x1b[2J"}).encode()
    path, _ = agent(response(body, status="503 Service Unavailable"), response(b"?", status="400"))
    for words in (r"503 \[vmpck-lost\]: gone \?\[2J", "answered 400$"):
        with pytest.raises(ProviderError, match=words) as caught:
            client.AgentClient(path).report(NONCE)
        assert caught.value.code == "agent-refused"


@pytest.mark.parametrize(
    "answer",
    [
        document(bytes(range(1, 33)) * 37),
        document(report_of(bytes(64))),
        document(binding={"rule": "troth-report-v1", "nonce": "aa", "user_data": ""}),
        document(report_of(bound(bytes(32)))),
    ],
)
def test_a_report_bound_to_something_else(agent, answer):
    path, _ = agent(response(answer))
    with pytest.raises((ProviderError, FormatError)) as caught:
        client.AgentClient(path).report(NONCE)
    assert caught.value.code in ("provider-mismatch", "snp-report-version")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n{}",
        b"HTTP/1.1 20x OK\r\nContent-Length: 0\r\n\r\n",
        response(b"{}", length=3),
        response(b"{}", length=1),
        response(b"", length="1e3"),
        response(b"", length=1 << 40),
        response(b"", headers="Content-Length: 0\r\n"),
        response(b"", headers="Transfer-Encoding: chunked\r\n"),
        response(b"", headers="no colon\r\n"),
        "HTTP/1.1 200 Ö\r\n\r\n".encode(),
        b"HTTP/1.1 200 OK\r\n" + b"a" * 20000,
    ],
)
def test_answers_that_are_no_http(agent, answer):
    path, _ = agent(answer)
    with pytest.raises(FormatError) as caught:
        client.AgentClient(path).report(NONCE)
    assert caught.value.code == "agent-answer"
    assert caught.value.where == path


def test_nobody_there(tmp_path):
    for path in (str(tmp_path / "none"), "x" * 200, "a\0b"):
        with pytest.raises(HostError) as caught:
            client.AgentClient(path).report(NONCE)
        assert caught.value.code == "no-agent"


def test_an_agent_that_says_nothing(tmp_path):
    path = str(tmp_path / "silent")
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(path)
        silent.listen()
        with pytest.raises(ProviderError) as caught:
            client.AgentClient(path, timeout_s=0.05).report(NONCE)
    assert caught.value.code == "agent-timeout"


@given(st.binary(max_size=200))
def test_random_documents(data):
    fuzzed.fuzz(data)
