# SPDX-License-Identifier: Apache-2.0
"""Evidence as the agent makes it: what is bound, in which order, for whom, and when not."""

import contextlib
import fcntl
import hashlib
import io
import json
import os
import threading
from types import SimpleNamespace

import pytest

import made_hcl
import made_report
from made_agent import Caller, FakeProvider, ask, make_log, running
from made_policy import policy
from made_quote import Ak, part
from troth.abi import snp_report, tpm_attest
from troth.attest import evidence as making
from troth.attest.client import AgentClient
from troth.cli import evidence as verb
from troth.cli.grammar import guest_verbs
from troth.documents import event_log_json, evidence, openapi
from troth.documents.policy import Attest, ExtendRule
from troth.documents.reference_values import LAUNCH_PLATFORMS, SIMULATED
from troth.errors import FormatError, HostError, ProviderError, UsageError
from troth.image import reference
from troth.measure import pcr, register
from troth.record import replace
from troth.registers import log_lock
from troth.registers.tpm import Quoted
from troth.verify import quote

NONCE = bytes(range(32))
ME = f"uid={os.getuid()} gid={os.getgid()} unit="


def quoted_of(nonce, pcrs):
    """What a TPM with ``pcrs`` would quote."""
    made = part(pcrs, nonce=nonce, ak=Ak())
    return Quoted(made.ak_public, made.attest, made.signature, dict(pcrs))


def bound(found):
    """What the report binds, and what it should."""
    name = b"" if found.tpm is None else tpm_attest.name(found.tpm.ak_public)
    return snp_report.parse(found.report).report_data, evidence.binding_of(found, ak_name=name)


def test_evidence_without_a_tpm(tmp_path):
    log, count = make_log(tmp_path)
    with running(tmp_path) as agent:
        found = AgentClient(str(agent.attest)).evidence(
            NONCE, user_data=b"u" * 4096, channel_sha256=b"c" * 32
        )
        (asked,) = agent.provider.asked
    carried, wanted = bound(found)
    assert carried == wanted == asked[0]
    assert asked[1:] == (None, 0)
    assert (found.nonce, found.user_data, found.channel_sha256) == (NONCE, b"u" * 4096, b"c" * 32)
    assert found.caller.startswith(ME)
    assert found.event_log == log.read_bytes()
    assert found.log_records == count
    events = event_log_json.parse(found.event_log)
    assert found.registers == (("software", register.replay(events)),)
    assert (found.tpm, found.service, found.platform_kind) == (None, None, "direct")


def test_evidence_with_a_quote(tmp_path):
    log, _count = make_log(tmp_path, tpm_kind="host", tpm_clock=[3, 1, 4000])
    replayed = {
        key: value
        for key, value in pcr.replay(event_log_json.parse(log.read_bytes())).items()
        if key[0] in ("sha256", "sha384")
    }
    nonces = []

    def quoter(nonce):
        nonces.append(nonce)
        # The log is locked meanwhile: what others add comes before it or after the quote.
        lock = tmp_path / "state" / log_lock.FILE_NAME
        with lock.open("rb") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return quoted_of(nonce, replayed)

    with running(tmp_path, snp="simulated", quoter_of=lambda _policy: quoter) as agent:
        found = AgentClient(str(agent.attest)).evidence(NONCE)
    assert nonces == [NONCE]
    assert found.platform_kind == "simulated"
    carried, wanted = bound(found)
    assert carried == wanted
    names = {name: value for name, value in found.registers if name != "software"}
    assert names == {f"{bank}:{index}": value for (bank, index), value in replayed.items()}
    judged = quote.judge(found.tpm, nonce=NONCE, replayed=replayed)
    # All but the platform's own proof of the key: the boot had written down the counters.
    assert [step.code for step in judged.steps if step.verdict != "pass"] == ["ak-in-tpm"]
    assert judged.pcrs == replayed


def test_each_caller_has_its_own(tmp_path):
    """Equal nonces with other user data, channel or caller are other questions."""
    make_log(tmp_path)
    with running(tmp_path) as agent:
        client = AgentClient(str(agent.attest))
        client.evidence(NONCE)
        client.evidence(NONCE, user_data=b"x")
        client.evidence(NONCE, channel_sha256=b"c" * 32)
        assert len({asked[0] for asked in agent.provider.asked}) == 3
    one = making.EvidenceQuestion(NONCE, b"", b"", "uid=0 gid=0 unit=-")
    assert one != replace(one, caller="uid=1 gid=1 unit=-")


def test_equal_questions_share_an_answer_and_busy_slots_say_later(tmp_path):
    make_log(tmp_path)
    provider = FakeProvider()
    provider.gate.clear()
    body = {"nonce": NONCE.hex()}
    with running(tmp_path, provider=provider, interval_s=20.0) as agent:
        with contextlib.ExitStack() as stack:
            waiting = [stack.enter_context(Caller(agent.attest)) for _ in range(3)]
            for caller in waiting:
                caller.send("POST", "/v1/evidence", body)
            others = [stack.enter_context(Caller(agent.attest)) for _ in range(20)]
            for number, caller in enumerate(others):
                caller.send("POST", "/v1/evidence", {"nonce": f"{number:02x}" * 16})
            # Eight slots at most where one report takes so long: the rest is told when.
            told = [caller.receive() for caller in others[8:]]
            assert {status for status, _, _ in told} == {429}
            assert all(int(fields["retry-after"]) > 0 for _, fields, _ in told)
            provider.gate.set()
            answers = [caller.receive() for caller in waiting]
        assert {status for status, _, _ in answers} == {200}
        assert len({body for _, _, body in answers}) == 1


def test_the_answer_is_what_openapi_says(tmp_path):
    make_log(tmp_path)
    with running(tmp_path) as agent:
        status, answer = ask(agent.attest, "POST", "/v1/evidence", {"nonce": NONCE.hex()})
    assert status == 200
    said = openapi.DOCUMENT["paths"]["/v1/evidence"]["post"]["responses"]["200"]
    schema = said["content"]["application/json"]["schema"]
    assert set(answer) == set(schema["properties"]) == set(schema["required"])


def test_an_event_of_an_application_is_in_the_next_evidence(tmp_path):
    make_log(tmp_path)
    rules = Attest(group=os.getegid(), extend=(ExtendRule(os.getuid(), ""),))
    with running(tmp_path, attest=rules) as agent:
        client = AgentClient(str(agent.attest))
        before = client.evidence(NONCE)
        client.extend("key-loaded", b"x")
        after = client.evidence(NONCE)
    assert after.log_records == before.log_records + 1
    assert after.registers != before.registers


@pytest.mark.parametrize("code", ["quote-unsteady", "quote-timeout", "tpm-command"])
def test_a_quote_that_fails_makes_no_evidence(tmp_path, code):
    make_log(tmp_path, tpm_kind="host")

    def quoter(_nonce):
        raise ProviderError(code, "no")

    with running(tmp_path, quoter_of=lambda _policy: quoter) as agent:
        status, answer = ask(agent.attest, "POST", "/v1/evidence", {"nonce": NONCE.hex()})
        assert (status, answer["code"]) == (502 if code != "quote-timeout" else 504, code)
        # No report without the quote that it was to bind.
        assert agent.provider.asked == []
        assert ask(agent.attest, "POST", "/v1/report", {"nonce": NONCE.hex()})[0] == 200


def test_a_broken_log_makes_no_evidence(tmp_path):
    log, _count = make_log(tmp_path)
    log.write_bytes(log.read_bytes()[:-40])
    with running(tmp_path) as agent:
        status, answer = ask(agent.attest, "POST", "/v1/evidence", {"nonce": NONCE.hex()})
        assert (status, answer["code"]) == (503, "log-broken")
        assert agent.provider.asked == []


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines[:-1],
        lambda lines: [*lines[:-1], lines[-1][:10]],
        lambda lines: [*lines, lines[-1]],
        lambda lines: [line.replace(b"quiet", b"quite") for line in lines],
        lambda lines: [],
    ],
    ids=["cut", "torn", "longer", "altered", "empty"],
)
def test_a_log_that_changes_below_the_agent(tmp_path, change):
    """It would replay, and show less than was measured."""
    log, _count = make_log(tmp_path)
    with running(tmp_path) as agent:
        assert ask(agent.attest, "POST", "/v1/evidence", {"nonce": NONCE.hex()})[0] == 200
        before = log.read_bytes()
        log.write_bytes(b"".join(change(before.splitlines(keepends=True))))
        if log.read_bytes() == before:
            pytest.skip("the change changes nothing of this log")
        status, answer = ask(agent.attest, "POST", "/v1/evidence", {"nonce": NONCE.hex()})
        assert (status, answer["code"]) == (503, "log-broken")
        assert ask(agent.attest, "GET", "/v1/info")[1]["log"] == "broken"
        assert ask(agent.attest, "GET", "/healthz")[0] == 503
        assert len(agent.provider.asked) == 1


def test_a_log_that_stays_locked(tmp_path, monkeypatch):
    make_log(tmp_path)
    monkeypatch.setattr(log_lock, "TIMEOUT_S", 0.1)
    lock = tmp_path / "state" / log_lock.FILE_NAME
    with running(tmp_path) as agent, lock.open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        status, answer = ask(agent.attest, "POST", "/v1/evidence", {"nonce": NONCE.hex()})
        assert (status, answer["code"]) == (503, "log-busy")


def test_whoever_can_read_the_log_cannot_keep_evidence_from_others(tmp_path, monkeypatch):
    """The log has mode 0644, and a lock on it is anybody's."""
    log, _count = make_log(tmp_path)
    monkeypatch.setattr(log_lock, "TIMEOUT_S", 0.1)
    rules = Attest(group=os.getegid(), extend=(ExtendRule(os.getuid(), ""),))
    with running(tmp_path, attest=rules) as agent, open(log, "rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        client = AgentClient(str(agent.attest))
        client.extend("key-loaded", b"x")
        assert client.evidence(NONCE).log_records == _count + 1
        lock = tmp_path / "state" / log_lock.FILE_NAME
        assert lock.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ({"snp": "required"}, "direct"),
        ({"snp": "simulated"}, "simulated"),
        ({"snp": "required", "vtpm": "required", "vtpm_kind": "svsm"}, "svsm"),
        ({"snp": "required", "vtpm": "none", "vtpm_kind": "svsm"}, "direct"),
        ({"snp": "required", "vtpm": "required", "vtpm_kind": "paravisor"}, "azure-paravisor"),
        ({"snp": "simulated", "vtpm": "required", "vtpm_kind": "paravisor"}, "simulated"),
    ],
)
def test_platform_kinds(words, kind):
    assert making.platform_kind(replace(policy(), **words)) == kind


def test_quotes_only_where_the_policy_asks():
    assert making.quoter_of(policy()) is None
    wanted = replace(policy(), attest=Attest(quote=True))
    assert callable(making.quoter_of(wanted))


class Lies:
    """An agent that answers ``document`` whatever it is asked."""

    def __init__(self, path, document):
        import socket

        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(path)
        self.socket.listen()
        self.document = document
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                peer, _ = self.socket.accept()
            except OSError:
                return
            with peer:
                peer.recv(65536)
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(self.document)}\r\n\r\n"
                peer.sendall(head.encode() + self.document)


def test_the_client_compares(tmp_path):
    make_log(tmp_path)
    with running(tmp_path) as agent:
        good = AgentClient(str(agent.attest)).evidence(NONCE)
    for number, (document, error) in enumerate(
        [
            (evidence.print_(replace(good, caller="uid=9 gid=9 unit=-")), ProviderError),
            (evidence.print_(replace(good, event_log=b"")), ProviderError),
            (evidence.print_(replace(good, nonce=bytes(32))), ProviderError),
            (evidence.print_(replace(good, user_data=b"x")), ProviderError),
            (b"{}", FormatError),
        ]
    ):
        path = str(tmp_path / f"lies{number}")
        liar = Lies(path, document)
        with pytest.raises(error) as caught:
            AgentClient(path).evidence(NONCE)
        liar.socket.close()
        if error is ProviderError:
            assert caught.value.code == "provider-mismatch"


def _of_a_service(good, kind, place):
    """``good`` as a guest of ``kind`` sends it; ``place`` gives (service data, REPORT_DATA)."""
    found = replace(good, platform_kind=kind)
    bound = evidence.binding_of(found, ak_name=b"")
    data, report_data = place(bound)
    report = made_report.report(report_data=report_data)
    if kind == "azure-paravisor":
        data = made_hcl.blob(data, report)
    return replace(found, report=report, service=evidence.ServicePart(data, b""))


def _svsm(bound):
    return b"manifest", hashlib.sha512(bound + b"manifest").digest()


def _paravisor(bound):
    body = made_hcl.claims(bound)
    return body, made_hcl.bound(body)


@pytest.mark.parametrize(("kind", "place"), [("svsm", _svsm), ("azure-paravisor", _paravisor)])
def test_the_client_compares_below_a_service_too(tmp_path, kind, place):
    make_log(tmp_path)
    with running(tmp_path) as agent:
        good = AgentClient(str(agent.attest)).evidence(NONCE)
    right = _of_a_service(good, kind, place)
    other = _of_a_service(replace(good, caller="uid=9 gid=9 unit=-"), kind, place)
    plain = replace(good, platform_kind=kind)
    bare = made_report.report(report_data=evidence.binding_of(plain, ak_name=b""))
    for number, (found, accepted) in enumerate(
        [
            (right, True),
            (replace(right, caller="uid=9 gid=9 unit=-"), False),
            (replace(right, report=other.report), False),
            (replace(right, service=other.service), kind == "svsm"),
            (replace(right, service=None), False),
            # Where a guest without a service has it.
            (replace(right, report=bare), False),
        ]
    ):
        path = str(tmp_path / f"says{number}")
        liar = Lies(path, evidence.print_(found))
        if accepted:
            assert AgentClient(path).evidence(NONCE) == found
        else:
            with pytest.raises(ProviderError) as caught:
                AgentClient(path).evidence(NONCE)
            assert caught.value.code == "provider-mismatch"
        liar.socket.close()


def test_kinds_are_those_of_the_launch_values_that_images_are_built_with():
    """What the agent claims is what a verifier finds at the launch digest of the same image."""
    real, simulated = policy(snp="required", vtpm="none"), policy(snp="simulated", vtpm="none")
    assert making.platform_kind(real) == reference.platform(real) == "direct"
    assert making.platform_kind(simulated) == reference.platform(simulated) == SIMULATED
    assert {"direct", SIMULATED} <= set(LAUNCH_PLATFORMS)
    hosts = policy(snp="required", vtpm="required")
    assert making.platform_kind(hosts) == reference.platform(hosts) == "direct"


# --- troth evidence -------------------------------------------------------------------------


def test_the_verb(tmp_path, monkeypatch):
    make_log(tmp_path)
    target = tmp_path / "evidence.json"
    with running(tmp_path) as agent:
        words = ["--nonce", NONCE.hex(), f"--socket={agent.attest}", "--user-data", "00ff",
                 "--channel-key-sha256", "ab" * 32]  # fmt: skip
        assert verb.main([*words, "-o", str(target)]) == 0
        found = evidence.parse(target.read_bytes())
        assert (found.nonce, found.user_data) == (NONCE, b"\x00\xff")
        assert found.channel_sha256 == b"\xab" * 32
        out = io.BytesIO()
        monkeypatch.setattr("sys.stdout", SimpleNamespace(buffer=out, flush=lambda: None))
        assert verb.main(words) == 0
        assert json.loads(out.getvalue())["schema"] == "troth-evidence-v1"


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--nonce"],
        ["--nonce", "zz"],
        ["--nonce", "0"],
        ["--nonce", NONCE.hex(), "--what", "x"],
        ["--nonce", NONCE.hex(), "--channel-key-sha256", "ab" * 31],
        ["--nonce", NONCE.hex(), "extra"],
    ],
)
def test_wrong_words(words):
    with pytest.raises(UsageError) as caught:
        verb.main(words)
    assert caught.value.code == "usage"


def test_no_agent(tmp_path):
    with pytest.raises(UsageError) as short:
        verb.main(["--nonce", "00" * 15, "--socket", str(tmp_path / "none")])
    assert short.value.code == "nonce-length"
    with pytest.raises(HostError) as caught:
        verb.main(["--nonce", NONCE.hex(), "--socket", str(tmp_path / "none")])
    assert caught.value.code == "no-agent"


def test_the_guests_words_are_those_of_the_grammar():
    said = {name for option in guest_verbs.EVIDENCE.options for name in option.names}
    assert said == {*verb.NAMES, "-o"}
    fields = {name[2:].replace("-", "_") for name in verb.NAMES}
    assert set(verb.Options.__slots__) == fields
