# SPDX-License-Identifier: Apache-2.0
"""The agent's server over real sockets: what callers get, what they cannot do to each other."""

import base64
import json
import os
import re
import select
import socket
import subprocess
import sys
import threading
import time

import pytest

from made_agent import LIMIT_S, Caller, FakeProvider, ask, make_log, running, settings_of
from other_user import need_another_user
from troth.attest import connection, endpoints
from troth.attest import server as server_module
from troth.attest.agent import Agent
from troth.attest.client import AgentClient
from troth.documents import event_log_json, openapi
from troth.documents.binding import report_binding
from troth.documents.policy import Attest, ExtendRule
from troth.errors import HostError, ProviderError
from troth.measure import register
from troth.record import replace

NONCE = "00112233445566778899aabbccddeeff"


@pytest.fixture
def quiet(tmp_path):
    with running(tmp_path) as found:
        yield found


# --- endpoints ------------------------------------------------------------------------------


def test_a_report_for_a_nonce(quiet):
    status, answer = ask(quiet.attest, "POST", "/v1/report", {"nonce": NONCE})
    assert status == 200
    wanted = report_binding(bytes.fromhex(NONCE))
    assert base64.b64decode(answer["report"])[0x50:0x90] == wanted
    assert answer["binding"] == {"rule": "troth-report-v1", "nonce": NONCE, "user_data": ""}
    assert answer["provider"] == "sev-guest"
    assert quiet.provider.asked == [(wanted, None, 0)]


def test_the_projects_own_client(quiet):
    answer = AgentClient(str(quiet.attest)).report(b"n" * 32, user_data=b"u" * 4096)
    assert answer.report[0x50:0x90] == report_binding(b"n" * 32, b"u" * 4096)


def test_curl(quiet):
    try:
        done = subprocess.run(
            ["curl", "-sS", "--unix-socket", quiet.attest, "-d",
             json.dumps({"nonce": NONCE, "user_data": "ab" * 4096}), "http://localhost/v1/report"],
            capture_output=True, timeout=LIMIT_S, check=True,
        )  # fmt: skip
    except FileNotFoundError:
        pytest.skip("curl is not installed")
    assert json.loads(done.stdout)["binding"]["user_data"] == "ab" * 4096


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/nothing", None, 404, "request-path"),
        ("GET", "/v1/report/", None, 404, "request-path"),
        ("GET", "//v1/info", None, 404, "request-path"),
        ("GET", "/v1/%69nfo", None, 404, "request-path"),
        ("GET", "/v1/info?x", None, 400, "request-query"),
        ("GET", "/v1/info", b"x", 400, "request-body"),
        ("GET", "/v1/report", None, 405, "request-method"),
        ("HEAD", "/v1/info", None, 405, "request-method"),
        ("POST", "/v1/info", {}, 405, "request-method"),
        ("POST", "/v1/report", None, 411, "request-length"),
        ("POST", "/v1/report", b"", 400, "json-syntax"),
        ("POST", "/v1/report", b"{", 400, "json-syntax"),
        ("POST", "/v1/report", b"\xff", 400, "json-syntax"),
        ("POST", "/v1/report", b"[" * 60000, 400, "json-syntax"),
        ("POST", "/v1/report", b"9" * 60000, 400, "json-syntax"),
        ("POST", "/v1/report", b'{"nonce":"00","nonce":"00"}', 400, "json-duplicate"),
        ("POST", "/v1/report", [], 400, "json-type"),
        ("POST", "/v1/report", {}, 400, "json-missing"),
        ("POST", "/v1/report", {"nonce": 1}, 400, "json-type"),
        ("POST", "/v1/report", {"nonce": NONCE, "x": 1}, 400, "json-unknown"),
        ("POST", "/v1/report", {"nonce": NONCE, "report_data": "00" * 64}, 400, "json-unknown"),
        ("POST", "/v1/report", {"nonce": "zz" * 16}, 400, "request-field"),
        ("POST", "/v1/report", {"nonce": NONCE + "0"}, 400, "request-field"),
        ("POST", "/v1/report", {"nonce": "00 " * 16}, 400, "request-field"),
        ("POST", "/v1/report", {"nonce": "00" * 15}, 400, "nonce-length"),
        ("POST", "/v1/report", {"nonce": "00" * 65}, 400, "nonce-length"),
        ("POST", "/v1/report", {"nonce": NONCE, "user_data": "0" * 8194}, 400, "request-field"),
        ("POST", "/v1/raw-report", {"report_data": "00" * 64}, 403, "not-allowed"),
        ("POST", "/v1/evidence", {"nonce": NONCE}, 503, "no-event-log"),
        ("POST", "/v1/evidence", {"nonce": "00" * 15}, 400, "nonce-length"),
        (
            "POST",
            "/v1/evidence",
            {"nonce": NONCE, "channel_key_sha256": "00" * 31},
            400,
            "request-field",
        ),
        (
            "POST",
            "/v1/evidence",
            {"nonce": NONCE, "channel_key_sha256": "00" * 33},
            400,
            "request-field",
        ),
        ("POST", "/v1/evidence", {"nonce": NONCE, "user_data": "0" * 8194}, 400, "request-field"),
        ("POST", "/v1/evidence", {"nonce": NONCE, "caller": "uid=0"}, 400, "json-unknown"),
        ("POST", "/v1/extend", {"event": "a", "data": ""}, 403, "not-allowed"),
        ("POST", "/v1/shutdown", {}, 404, "request-path"),
        ("GET", "/v1/event-log", None, 503, "no-event-log"),
        ("GET", "/v1/measurements", None, 503, "no-event-log"),
    ],
)
def test_refusals(tmp_path_factory, shared, method, path, body, status, code):
    with Caller(shared.attest) as caller:
        found = caller.ask(method, path, body)
        assert (found[0], found[1]["code"]) == (status, code)
        assert set(found[1]) <= {"code", "message", "hint"}
        # The connection lives on: the request was understood, and refused.
        assert caller.ask("GET", "/healthz")[0] == 200
    assert shared.provider.asked == []


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with running(tmp_path_factory.mktemp("agent")) as found:
        yield found


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"nonsense\r\n\r\n", 400, "http-request-line"),
        (b"POST /v1/report HTTP/1.1\r\nHost: a\r\nContent-Length: 65537\r\n\r\n" + bytes(65537),
         413, "http-body-size"),
        (b"POST /v1/report HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999\r\n\r\n" + bytes(9**6),
         413, "http-body-size"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
         501, "http-transfer-coding"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 20000, 431, "http-head-size"),
    ],
)  # fmt: skip
def test_what_is_no_request_ends_the_connection(shared, data, status, code):
    with Caller(shared.attest) as caller:
        found, fields, body = caller.raw(data).receive()
        assert (found, json.loads(body)["code"]) == (status, code)
        assert fields["connection"] == "close"
        assert caller.is_closed()


@pytest.mark.parametrize(
    ("media", "status"),
    [
        ("application/json", 200),
        ("Application/JSON; charset=UTF-8", 200),
        ("application/x-www-form-urlencoded", 200),
        ("text/plain", 415),
        ("application/json; charset=latin-1", 415),
        ("multipart/form-data; boundary=x", 415),
    ],
)
def test_media_types(quiet, media, status):
    fields = (f"Content-Type: {media}",)
    found, _answer = ask(quiet.attest, "POST", "/v1/report", {"nonce": NONCE}, fields=fields)
    assert found == status


def test_a_path_names_its_methods(shared):
    with Caller(shared.attest) as caller:
        _status, fields, _body = caller.send("GET", "/v1/report").receive()
    assert fields["allow"] == "POST"


def test_info_says_who_asks(quiet):
    status, found = ask(quiet.attest, "GET", "/v1/info")
    assert status == 200
    assert (found["image"], found["svn"], found["policy_sha256"]) == ("demo", 1, "ab" * 32)
    assert (found["snp"], found["raw_report_data"], found["log"]) == ("required", "never", "none")
    caller = found["caller"]
    assert (caller["uid"], caller["pid"]) == (os.getuid(), os.getpid())
    assert caller["rights"] == []


def test_an_image_without_snp_gives_no_report(tmp_path):
    with running(tmp_path, snp="none") as found:
        status, answer = ask(found.attest, "POST", "/v1/report", {"nonce": NONCE})
        assert (status, answer["code"]) == (503, "no-provider")
        assert found.provider.asked == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ProviderError("provider-refused", "no"), 502),
        (ProviderError("provider-timeout", "late"), 504),
        (ProviderError("vmpck-lost", "gone"), 503),
        (HostError("no-provider", "nothing"), 503),
        (OSError(5, "x"), 503),
    ],
)
def test_a_provider_that_fails(tmp_path, error, status):
    with running(tmp_path, provider=FakeProvider(error=error)) as found:
        assert ask(found.attest, "POST", "/v1/report", {"nonce": NONCE})[0] == status
        code = getattr(error, "code", "agent-io")
        assert ask(found.attest, "GET", "/healthz") == (
            503, {"status": "degraded", "reasons": [code]},
        )  # fmt: skip
        found.provider.error = None
        assert ask(found.attest, "POST", "/v1/report", {"nonce": NONCE})[0] == 200
        assert ask(found.attest, "GET", "/healthz")[0] == 200


def test_metrics_are_prometheus_text(quiet):
    ask(quiet.attest, "POST", "/v1/report", {"nonce": NONCE})
    ask(quiet.attest, "GET", "/none")
    with Caller(quiet.attest) as caller:
        status, fields, body = caller.send("GET", "/metrics").receive()
    assert (status, fields["content-type"].split(";")[0]) == (200, "text/plain")
    seen = {}
    for line in body.decode().splitlines():
        if line.startswith("#"):
            assert re.fullmatch(r"# (HELP|TYPE) [a-z_]+ .+", line)
            continue
        found = re.fullmatch(r'([a-z_]+)(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? ([0-9.e+-]+)', line)
        assert found, line
        seen[found[1] + (found[2] or "")] = float(found[4])
    assert seen['troth_agent_requests_total{path="/v1/report",status="200"}'] == 1
    assert seen['troth_agent_requests_total{path="other",status="404"}'] == 1
    assert seen['troth_provider_requests_total{outcome="ok"}'] == 1
    assert seen["troth_agent_connections"] == 1
    assert seen["process_resident_memory_bytes"] > 1 << 20
    assert NONCE not in body.decode()


def test_routes_and_openapi_agree(quiet):
    status, served = ask(quiet.attest, "GET", "/v1/openapi.json")
    assert status == 200
    assert served == openapi.DOCUMENT
    described = {
        (method.upper(), path) for path, item in served["paths"].items() for method in item
    }
    assert described == {(route.method, route.path) for route in endpoints.ROUTES}

    def references(tree):
        if isinstance(tree, dict):
            yield from ([tree["$ref"]] if "$ref" in tree else [])
            for item in tree.values():
                yield from references(item)
        elif isinstance(tree, list):
            for item in tree:
                yield from references(item)

    for reference in references(served):
        node = served
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


@pytest.mark.parametrize(
    ("path", "body"), [("/v1/info", None), ("/healthz", None), ("/v1/report", {"nonce": NONCE})]
)
def test_answers_have_the_fields_that_openapi_says(quiet, path, body):
    method = "get" if body is None else "post"
    _status, answer = ask(quiet.attest, method.upper(), path, body)
    said = openapi.DOCUMENT["paths"][path][method]["responses"]["200"]["content"]

    def same(schema, value):
        if schema.get("type") == "object":
            assert set(value) == set(schema["properties"]) == set(schema["required"])
            for key, inner in schema["properties"].items():
                same(inner, value[key])
        if "enum" in schema:
            assert value in schema["enum"]

    same(said["application/json"]["schema"], answer)


# --- rights ---------------------------------------------------------------------------------


def test_sockets_have_their_modes(tmp_path):
    with running(tmp_path, attest=Attest(group=os.getegid())) as found:
        assert found.attest.stat().st_mode & 0o777 == 0o660
        assert found.control.stat().st_mode & 0o777 == 0o600
        assert found.attest.stat().st_gid == os.getegid()
        assert found.attest.parent.stat().st_mode & 0o777 == 0o755


def test_root_alone_commands(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root")
    attest = Attest(group=0, raw_report_data="root")
    with running(tmp_path, attest=attest) as found:
        body = {"report_data": "5a" * 64, "vmpl": 2, "key": "vlek"}
        assert ask(found.attest, "POST", "/v1/raw-report", body)[0] == 403
        status, answer = ask(found.control, "POST", "/v1/raw-report", body)
        assert (status, answer["report_data"]) == (200, "5a" * 64)
        assert found.provider.asked == [(b"\x5a" * 64, 2, 2)]
        assert ask(found.control, "POST", "/v1/reload") == (200, {"status": "reloaded"})
        assert ask(found.control, "GET", "/v1/info")[1]["caller"]["rights"] == ["raw", "control"]
        assert ask(found.control, "POST", "/v1/shutdown")[0] == 202


def test_raw_report_data_for_the_group(tmp_path):
    attest = Attest(group=os.getegid(), raw_report_data="group")
    with running(tmp_path, attest=attest) as found:
        assert ask(found.attest, "POST", "/v1/raw-report", {"report_data": "5a" * 64})[0] == 200
        for bad in (
            {"report_data": "5a" * 63},
            {"report_data": "5a" * 65},
            {"report_data": "5a" * 64, "vmpl": 4},
            {"report_data": "5a" * 64, "key": "x"},
        ):
            assert ask(found.attest, "POST", "/v1/raw-report", bad)[0] == 400  # fmt: skip
        assert len(found.provider.asked) == 1


CHILD = """
import os, socket, sys
uid, path = int(sys.argv[1]), sys.argv[2]
os.setgroups([]); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)
with socket.socket(socket.AF_UNIX) as peer:
    try:
        peer.connect(path)
    except PermissionError:
        print("barred"); raise SystemExit
    peer.sendall(b"GET /v1/info HTTP/1.0\\r\\n\\r\\n")
    data = b""
    while part := peer.recv(65536):
        data += part
print(data.decode())
"""


def as_user(uid, path):
    return subprocess.run(
        [sys.executable, "-ISB", "-c", CHILD, str(uid), str(path)],
        capture_output=True, text=True, timeout=LIMIT_S, check=True,
    ).stdout  # fmt: skip


def test_other_users(tmp_path):
    need_another_user()
    for folder in (tmp_path, *tmp_path.parents[:3]):  # with workers, pytest makes one more
        if folder.name.startswith(("popen-", "pytest-", tmp_path.name)):
            folder.chmod(0o755)
    attest = Attest(group=4242, extend=(ExtendRule(4242, ""),))
    with running(tmp_path, attest=attest) as found:
        assert as_user(4241, found.attest) == "barred\n"
        assert as_user(4242, found.control) == "barred\n"
        said = json.loads(as_user(4242, found.attest).partition("\n\n")[2])
        assert (said["caller"]["uid"], said["caller"]["rights"]) == (4242, ["extend"])


# --- the log --------------------------------------------------------------------------------


def test_log_and_events(tmp_path):
    log, count = make_log(tmp_path)
    me = ExtendRule(os.getuid(), "")
    with running(tmp_path, attest=Attest(group=os.getegid(), extend=(me,))) as found:
        with Caller(found.attest) as caller:
            _status, fields, body = caller.send("GET", "/v1/event-log").receive()
        assert (fields["troth-log"], body) == ("whole", log.read_bytes())
        event = {"event": "key-loaded", "data": "c0ffee"}
        status, answer = ask(found.attest, "POST", "/v1/extend", event)
        assert (status, answer["recnum"]) == (200, count)
        events = event_log_json.parse(log.read_bytes())
        assert answer["software_register"] == register.replay(events).hex()
        last = events[-1]
        assert (last.kind, last.pcr) == ("application", 23)
        assert last.content.startswith(f"uid={os.getuid()} gid={os.getgid()} unit=".encode())
        assert last.content.endswith(b" event=key-loaded data=c0ffee")
        _status, measured = ask(found.attest, "GET", "/v1/measurements")
        assert (measured["events"], measured["log"]) == (count + 1, "whole")
        assert measured["software_register"] == answer["software_register"]
        wrong = [(event, "") for event in ("", "A", "a b", "a\n", "a" * 65)] + [("a", "00" * 1025)]
        for event, data in wrong:
            bad = {"event": event, "data": data}
            assert ask(found.attest, "POST", "/v1/extend", bad)[1]["code"] == "request-field"
        assert len(event_log_json.parse(log.read_bytes())) == count + 1


# --- callers that behave badly --------------------------------------------------------------


def test_requests_sent_ahead_are_answered_in_order(quiet):
    with Caller(quiet.attest) as caller:
        for _ in range(30):
            caller.send("GET", "/v1/info").send("POST", "/v1/report", {"nonce": NONCE})
        caller.send("GET", "/healthz", fields=("Connection: close",))
        for _ in range(30):
            assert "caller" in json.loads(caller.receive()[2])
            assert "report" in json.loads(caller.receive()[2])
        _status, fields, body = caller.receive()
        assert (fields["connection"], json.loads(body)["status"]) == ("close", "ok")
        assert caller.is_closed()


def test_a_caller_that_sends_on_is_not_read(tmp_path):
    """While one answer is due, more bytes stop in the socket, not in the agent's memory."""
    with running(tmp_path) as found:
        found.provider.gate.clear()
        with Caller(found.attest) as caller:
            caller.send("POST", "/v1/report", {"nonce": NONCE})
            caller.sock.setblocking(False)
            sent = 0
            while select.select([], [caller.sock], [], 0.1)[1]:
                sent += caller.sock.send(bytes(65536))
                assert sent < 16 << 20
            found.provider.gate.set()
            caller.sock.settimeout(LIMIT_S)
            assert caller.receive()[0] == 200


def test_slow_callers_are_told_and_closed(tmp_path, monkeypatch):
    monkeypatch.setattr(connection, "REQUEST_S", 1.0)
    monkeypatch.setattr(connection, "IDLE_S", 1.0)
    monkeypatch.setattr(server_module, "_TICK_S", 0.05)
    with running(tmp_path) as found:
        with (
            Caller(found.attest) as silent,
            Caller(found.attest) as slow,
            Caller(found.attest) as idle,
        ):
            slow.raw(b"POST /v1/report HTTP/1.1\r\nHost: a\r\nContent-Length: 999\r\n\r\n{")
            assert idle.ask("GET", "/healthz")[0] == 200
            # A byte now and then buys no time: the whole request is due.
            begun = time.monotonic()
            status = None
            while time.monotonic() < begun + LIMIT_S:
                ready, _, _ = select.select([slow.sock], [], [], 0.05)
                if ready:
                    status, _fields, body = slow.receive()
                    break
                slow.raw(b" ")
            assert (status, json.loads(body)["code"]) == (408, "request-timeout")
            assert silent.is_closed()
            assert idle.is_closed()
        assert ask(found.attest, "GET", "/healthz")[0] == 200


def test_who_does_not_read_is_closed(tmp_path, monkeypatch):
    monkeypatch.setattr(connection, "WRITE_S", 0.2)
    monkeypatch.setattr(server_module, "_TICK_S", 0.05)
    make_log(tmp_path)
    with running(tmp_path) as found:
        with Caller(found.attest) as greedy:
            greedy.sock.setblocking(False)
            wait_until(lambda: is_refused(greedy))
        assert ask(found.attest, "GET", "/healthz")[0] == 200


def is_refused(caller):
    """Whether the agent has closed the connection on a caller that only sends."""
    try:
        caller.send("GET", "/v1/openapi.json")
    except BlockingIOError:
        return False
    except (BrokenPipeError, ConnectionResetError):
        return True
    return False


def test_half_closed_and_vanished_callers(tmp_path):
    with running(tmp_path) as found:
        with Caller(found.attest) as half:
            half.send("POST", "/v1/report", {"nonce": NONCE})
            half.sock.shutdown(socket.SHUT_WR)
            assert half.receive()[0] == 200
            assert half.is_closed()
        with Caller(found.attest) as half:
            half.raw(b"GET /v1/in")
            half.sock.shutdown(socket.SHUT_WR)
            assert half.is_closed()
        found.provider.gate.clear()
        with Caller(found.attest) as first:
            first.send("POST", "/v1/report", {"nonce": NONCE})
            for number in range(5):
                with Caller(found.attest) as gone:
                    gone.send("POST", "/v1/report", {"nonce": f"{number:032x}"})
                    time.sleep(0.01)
            wait_until(lambda: found.agent.server.count == 1)
            found.provider.gate.set()
            assert first.receive()[0] == 200
            assert first.ask("GET", "/healthz")[0] == 200
        # Nobody waited for them any more: the processor was not bothered.
        assert len(found.provider.asked) == 2


def wait_until(true):
    deadline = time.monotonic() + LIMIT_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# --- many -----------------------------------------------------------------------------------


def test_equal_questions_share_an_answer_and_no_others(tmp_path):
    with running(tmp_path) as found:
        found.provider.gate.clear()
        bodies = [{"nonce": NONCE}] * 5 + [
            {"nonce": NONCE, "user_data": "00"},
            {"nonce": "ff" * 16},
        ]
        callers = [Caller(found.attest) for _ in bodies]
        for caller, body in zip(callers, bodies, strict=True):
            caller.send("POST", "/v1/report", body)
        wait_until(lambda: found.agent._reports.slots.busy == 3)
        time.sleep(0.05)
        found.provider.gate.set()
        answers = [json.loads(caller.receive()[2]) for caller in callers]
        assert len(found.provider.asked) == 3
        for body, answer in zip(bodies, answers, strict=True):
            user_data = bytes.fromhex(body.get("user_data", ""))
            wanted = report_binding(bytes.fromhex(body["nonce"]), user_data)
            assert base64.b64decode(answer["report"])[0x50:0x90] == wanted
        # And never one from before.
        assert callers[0].ask("POST", "/v1/report", {"nonce": NONCE})[0] == 200
        assert len(found.provider.asked) == 4
        for caller in callers:
            caller.sock.close()


def test_a_thousand_connections(tmp_path):
    with running(tmp_path) as found:
        callers = [Caller(found.attest) for _ in range(1000)]
        try:
            for number, caller in enumerate(callers):
                caller.send("POST", "/v1/report", {"nonce": f"{number:032x}"})
            statuses = [caller.receive()[0] for caller in callers]
        finally:
            for caller in callers:
                caller.sock.close()
        # A provider this quick answers them all; none is lost either way.
        assert set(statuses) <= {200, 429}
        assert statuses.count(200) >= 256
        assert found.provider.most_at_once == 1
        wait_until(lambda: found.agent.server.count == 0)


def test_every_caller_succeeds_within_three_retries(tmp_path):
    """A slow processor and more callers than it has room for: all get theirs in time."""
    takes_s, callers = 0.05, 40
    provider = FakeProvider(takes_s)
    with running(tmp_path, provider=provider) as found:
        # Room for eight, as where a request takes two seconds.
        found.agent._reports.slots._wait_s = 8.5 * takes_s
        found.agent._reports.slots._service_s = takes_s
        tries = []

        def call(number):
            for attempt in range(1, 5):
                with Caller(found.attest) as caller:
                    body = {"nonce": f"{number:032x}"}
                    status, fields, _body = caller.send("POST", "/v1/report", body).receive()
                if status == 200:
                    tries.append(attempt)
                    return
                assert status == 429
                time.sleep(int(fields["retry-after"]))

        threads = [threading.Thread(target=call, args=(n,)) for n in range(callers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT_S)
        assert len(tries) == callers
        assert max(tries) > 1, "nobody was turned away: the test shows nothing"
        assert provider.most_at_once == 1


def test_nothing_grows(tmp_path):
    with running(tmp_path) as found:

        def descriptors():
            return len(os.listdir("/proc/self/fd"))

        def some(count):
            for _ in range(count):
                ask(found.attest, "GET", "/healthz")
            with Caller(found.attest) as caller:
                for number in range(count):
                    assert caller.ask("POST", "/v1/report", {"nonce": f"{number:032x}"})[0] == 200

        some(50)
        wait_until(lambda: found.agent.server.count == 0)
        before = descriptors()
        some(1000)
        wait_until(lambda: found.agent.server.count == 0)
        assert descriptors() == before
        assert not found.agent.server._of_user
        assert found.agent._reports.slots.busy == 0


def test_connections_are_bounded_and_the_rest_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(server_module, "ROOT_CONNECTIONS", 2)
    with running(tmp_path) as found:
        # Whoever looked whether the agent is up has gone.
        wait_until(lambda: found.agent.server.count == 0)
        found.agent.server._max_connections = 10
        callers = [Caller(found.attest) for _ in range(10)]
        with Caller(found.attest) as caller:
            status, fields, body = caller.receive()
        assert (status, fields["retry-after"]) == (429, "1")
        assert json.loads(body)["code"] == "too-many-requests"
        callers[0].sock.close()
        wait_until(lambda: found.agent.server.count == 9)
        assert ask(found.attest, "GET", "/healthz")[0] == 200
        for caller in callers:
            caller.sock.close()


# --- the agent as a whole -------------------------------------------------------------------


def test_a_second_agent_is_refused_and_the_first_serves_on(tmp_path):
    with running(tmp_path) as first:
        second = replace(first.agent._settings)
        with pytest.raises(HostError) as caught:
            Agent(second, {}).run()
        assert caught.value.code == "agent-running"
        assert ask(first.attest, "GET", "/healthz")[0] == 200


def test_what_is_no_socket_is_left_alone(tmp_path):
    with running(tmp_path) as found:
        pass
    found.attest.write_text("somebody's")
    agent = Agent(settings_of(tmp_path, FakeProvider()), {})
    with pytest.raises(HostError) as caught:
        agent.run()
    assert caught.value.code == "agent-io"
    assert found.attest.read_text() == "somebody's"
    assert [path.name for path in found.attest.parent.iterdir()] == ["attest.sock"]


def test_a_directory_of_others_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(0o777)
    with pytest.raises(HostError) as caught:
        Agent(settings_of(tmp_path, FakeProvider()), {}).run()
    assert caught.value.code == "agent-directory"


def test_the_manager_hears(tmp_path, monkeypatch):
    monkeypatch.setattr(server_module, "_TICK_S", 0.05)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(LIMIT_S)
        environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "30000"}
        with running(tmp_path, environ=environ):
            assert manager.recv(99) == b"READY=1"
            assert manager.recv(99) == b"WATCHDOG=1"
        while (heard := manager.recv(99)) != b"STOPPING=1":
            assert heard == b"WATCHDOG=1"


MAIN = """
import sys, time
sys.path[:0] = {paths!r}
from pathlib import Path
from made_agent import FakeProvider
from made_policy import policy
from troth.attest import agent
from troth.attest.agent import Settings
from troth.attest.pacing import Pacer
place = sys.argv[1]
agent.serve(Settings(policy(snp="required"), "00" * 32, directory=place, choose=FakeProvider,
                     log=place + "/none", pacer=Pacer(place + ".turn", interval_s=0.0)))
"""


def test_the_program_ends_on_sigterm(tmp_path):
    paths = [path for path in sys.path if path]
    place = tmp_path / "run"
    program = subprocess.Popen(
        [sys.executable, "-c", MAIN.format(paths=paths), str(place)], stderr=subprocess.PIPE
    )
    try:
        wait_until(lambda: (place / "attest.sock").exists() or program.poll() is not None)
        assert ask(place / "attest.sock", "POST", "/v1/report", {"nonce": NONCE})[0] == 200
        program.send_signal(1)
        assert ask(place / "attest.sock", "GET", "/healthz")[0] == 200
        program.terminate()
        assert program.wait(LIMIT_S) == 0
        assert list(place.iterdir()) == []
    finally:
        program.kill()
        program.communicate()
