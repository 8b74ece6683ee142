# SPDX-License-Identifier: Apache-2.0
"""Reports by a paravisor's TPM: against a model that lies, and against swtpm."""

import json
import os
import shutil
import socket
import struct
import subprocess
import time
from pathlib import Path

import pytest

import made_hcl
import made_report
from model_tpm import DEFINE, OWNER_RW, READ, WRITE, WRITTEN, ModelTpm
from troth.abi import hcl, snp_report
from troth.attest import choice, pacing, provider_azure
from troth.attest.client import AgentClient
from troth.attest.provider_azure import AzureProvider
from troth.cli import report
from troth.documents import binding, hcl_claims, report_answer
from troth.documents.report_answer import ReportAnswer
from troth.errors import HostError, ProviderError

VECTORS = Path(os.environ.get("TROTH_VECTORS", Path(__file__).parents[3] / "shared/vectors"))
DATA = bytes(range(64))
REPORT, USER = 0x01400001, 0x01400002


class Paravisor(ModelTpm):
    """Makes its report anew when it is read, ``late`` reads after the user data changed."""

    def __init__(self, *, late=0, made=None, user=True, **options):
        indices = {REPORT: [OWNER_RW | WRITTEN, made_hcl.blob(made_hcl.claims())]}
        if user:
            indices[USER] = [OWNER_RW | WRITTEN, bytes(64)]
        super().__init__(indices, **options)
        self.late = late
        self.make = made or (lambda data: made_hcl.blob(made_hcl.claims(data)))
        self.on = self.renew

    def renew(self, code, index):
        if code == READ and index == REPORT and USER in self.indices:
            if self.late <= 0:
                self.indices[REPORT][1] = self.make(self.indices[USER][1])
            self.late -= 1


class Clock:
    def __init__(self):
        self.now_s = 0.0
        self.slept = []

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now_s += seconds

    def monotonic(self):
        return self.now_s


def azure(tpm, clock=None):
    clock = clock or Clock()
    return AzureProvider(
        "/dev/tpmrm0", open_device=lambda _n: tpm, sleep=clock.sleep, monotonic=clock.monotonic
    )


def code_of(function, *arguments, kind=ProviderError, **options):
    with pytest.raises(kind) as caught:
        function(*arguments, **options)
    return caught.value.code


# --- what works ------------------------------------------------------------------------------


def test_a_fresh_report():
    tpm = Paravisor()
    answer = azure(tpm).report(DATA)
    assert tpm.indices[USER][1] == DATA
    body = made_hcl.claims(DATA)
    assert answer.report == made_report.report(report_data=made_hcl.bound(body))
    assert answer.manifest == made_hcl.blob(body)
    assert (answer.certificates, answer.provider) == (b"", "azure-vtpm")
    assert tpm.closed == 1


def test_the_user_datas_index_is_made_where_it_is_missing():
    tpm = Paravisor(user=False)
    assert azure(tpm).report(DATA, vmpl=0).provider == "azure-vtpm"
    assert tpm.indices[USER] == [OWNER_RW | WRITTEN, DATA]
    assert tpm.commands.count(DEFINE) == 1
    azure(tpm).report(bytes(64))
    assert tpm.commands.count(DEFINE) == 1


def test_a_slow_paravisor_is_waited_for():
    tpm, clock = Paravisor(late=12), Clock()
    azure(tpm, clock).report(DATA)
    assert 0 < sum(clock.slept) < provider_azure.FRESH_WITHIN_S


def test_a_report_that_changes_while_it_is_read_is_read_again():
    # The first half is of the old report, the second of the new one.
    tpm = Paravisor(late=1, buffer_bytes=1300)
    assert azure(tpm).report(DATA).manifest == made_hcl.blob(made_hcl.claims(DATA))


# --- what is refused -------------------------------------------------------------------------


def test_requests_that_no_paravisor_answers():
    tpm = Paravisor()
    assert code_of(azure(tpm).report, bytes(63)) == "provider-request"
    assert code_of(azure(tpm).report, DATA, vmpl=1) == "provider-request"
    assert code_of(azure(tpm).report, DATA, vmpl=4) == "provider-request"
    assert code_of(azure(tpm).report, DATA, key_selection=2) == "provider-request"
    assert tpm.commands == []


def hardware(data, **fields):
    body = made_hcl.claims(data)
    report = made_report.report(**({"report_data": made_hcl.bound(body)} | fields))
    return made_hcl.blob(body, report)


LIES = {
    "old": (lambda data: made_hcl.blob(made_hcl.claims()), "provider-stale"),
    "other": (lambda data: made_hcl.blob(made_hcl.claims(data[::-1])), "provider-stale"),
    "none": (
        lambda data: made_hcl.blob(json.dumps({"keys": []}).encode()),
        "provider-stale",
    ),
    "unbound": (lambda data: hardware(data, report_data=DATA), "provider-mismatch"),
    "tail": (
        lambda data: hardware(data, report_data=made_hcl.bound(made_hcl.claims(data))[:63] + b"\1"),
        "provider-mismatch",
    ),
    "vmpl": (lambda data: hardware(data, vmpl=2), "provider-mismatch"),
    "zeros": (lambda data: made_hcl.blob(made_hcl.claims(data), bytes(1184)), "provider-empty"),
    "version": (lambda data: hardware(data, version=77), "snp-report-version"),
    "tdx": (lambda data: made_hcl.blob(made_hcl.claims(data), report_type=4), "provider-mismatch"),
    "vbs": (lambda data: made_hcl.blob(made_hcl.claims(data), report_type=1), "provider-mismatch"),
    "magic": (lambda data: b"X" + hardware(data)[1:], "hcl-magic"),
    "header": (lambda data: made_hcl.blob(made_hcl.claims(data), version=9), "hcl-version"),
    "hash": (lambda data: made_hcl.blob(b"{}", b"\1" * 1184, hash_type=9), "hcl-hash"),
    "length": (
        lambda data: hardware(data)[:1216] + b"\xff" * 4 + hardware(data)[1220:],
        "hcl-bounds",
    ),
    "json": (lambda data: made_hcl.blob(b"{", b"\1" * 1184), "json-syntax"),
    "claims": (
        lambda data: made_hcl.blob(made_hcl.claims(data, **{"user-data": "zz"})),
        "hcl-claims",
    ),
    "empty": (lambda data: bytes(2000), "hcl-magic"),
}


@pytest.mark.parametrize(("made", "code"), LIES.values(), ids=LIES)
def test_lies(made, code):
    tpm, clock = Paravisor(made=made), Clock()
    assert code_of(azure(tpm, clock).report, DATA) == code
    assert sum(clock.slept) <= provider_azure.FRESH_WITHIN_S + 1
    assert tpm.closed == 1


def test_another_writer():
    tpm = Paravisor()

    def steal(code, index):
        if code == READ and index == REPORT:
            tpm.indices[USER][1] = b"\7" * 64

    tpm.on = steal
    clock = Clock()
    assert code_of(azure(tpm, clock).report, DATA) == "provider-conflict"
    assert clock.slept == []


REPORT_INDICES = {
    "missing": None,
    "never written": [OWNER_RW, bytes(2000)],
    "a counter": [OWNER_RW | WRITTEN | 1 << 4, bytes(2000)],
    "short": [OWNER_RW | WRITTEN, bytes(1184)],
    "long": [OWNER_RW | WRITTEN, bytes(16385)],
}


@pytest.mark.parametrize("index", REPORT_INDICES.values(), ids=REPORT_INDICES)
def test_indices_that_hold_no_report(index):
    tpm = Paravisor()
    del tpm.indices[REPORT]
    if index is not None:
        tpm.indices[REPORT] = index
    assert code_of(azure(tpm).report, DATA) == "provider-index"
    assert code_of(azure(tpm).probe) == "provider-index"
    assert {READ, WRITE, DEFINE}.isdisjoint(tpm.commands)
    assert tpm.closed == 2


USER_INDICES = {
    "short": ([OWNER_RW, bytes(63)], "provider-index"),
    "long": ([OWNER_RW, bytes(65)], "provider-index"),
    "extends": ([OWNER_RW | 4 << 4, bytes(64)], "provider-index"),
    "locked": ([OWNER_RW | 1 << 11, bytes(64)], "provider-index"),
    "by policy": ([1 << 3 | 1 << 19, bytes(64)], "provider-tpm"),
}


@pytest.mark.parametrize(("index", "code"), USER_INDICES.values(), ids=USER_INDICES)
def test_a_users_index_of_another_form_is_left_alone(index, code):
    tpm = Paravisor()
    tpm.indices[USER] = list(index)
    assert code_of(azure(tpm).report, DATA) == code
    assert tpm.indices[USER] == index


@pytest.mark.parametrize("code", [READ, WRITE, DEFINE, 0x169, 0x17A])
@pytest.mark.parametrize(
    "answer",
    [TimeoutError("late"), struct.pack(">HII", 0x8001, 10, 0x101), b"\x80", bytes(4096)],
    ids=["late", "refused", "cut", "zeros"],
)
def test_a_tpm_that_fails(code, answer):
    tpm = Paravisor(user=code != DEFINE)
    tpm.answers[code] = answer
    assert code_of(azure(tpm).report, DATA) == "provider-tpm"
    assert tpm.closed == 1


def test_no_tpm_and_too_many(monkeypatch):
    for names in ((), ("tpm0", "tpm1")):
        monkeypatch.setattr(provider_azure.tpm_device, "present", lambda names=names: names)
        assert code_of(AzureProvider().report, DATA, kind=HostError) == "provider-device"
    monkeypatch.setattr(provider_azure.tpm_device, "present", lambda: ("tpm3",))
    assert provider_azure.device_node() == "/dev/tpmrm3"


def test_a_tpm_that_cannot_be_opened(tmp_path):
    found = AzureProvider(str(tmp_path / "none"))
    assert code_of(found.probe, kind=HostError) == "provider-device"


# --- choice ----------------------------------------------------------------------------------


def test_the_policy_decides_which_way_is_asked(monkeypatch, tmp_path):
    assert choice.allowed_by("paravisor") == ("azure-vtpm",)
    assert choice.allowed_by("svsm") == choice.allowed_by("host") == ("configfs-tsm", "sev-guest")
    node = tmp_path / "sev-guest"
    node.touch()
    monkeypatch.setattr(AzureProvider, "probe", lambda self: None)
    nowhere = str(tmp_path / "none")
    everything = {"reports": nowhere, "node": str(node)}
    assert choice.choose(choice.allowed_by("paravisor"), **everything).name == "azure-vtpm"
    assert choice.choose(choice.allowed_by("host"), **everything).name == "sev-guest"
    found = choice.choose(reports=nowhere, node=nowhere)
    assert found.name == "azure-vtpm"


def test_a_paravisor_that_is_not_there_is_not_replaced(monkeypatch, tmp_path):
    node = tmp_path / "sev-guest"
    node.touch()
    monkeypatch.setattr(provider_azure.tpm_device, "present", lambda: ())
    with pytest.raises(HostError) as caught:
        choice.choose(("azure-vtpm",), node=str(node))
    assert caught.value.code == "no-provider"
    assert "0 TPMs" in caught.value.message
    assert "sev-guest is not allowed" in caught.value.message


# --- a real TPM, and a genuine report --------------------------------------------------------


class SocketTpm:
    """A TPM behind a unix socket, one command at a time."""

    def __init__(self, path):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(10)
        self._socket.connect(path)

    def transmit(self, command):
        self._socket.sendall(command)
        return self._socket.recv(4096)

    def close(self):
        self._socket.close()


@pytest.fixture
def swtpm(tmp_path):
    if shutil.which("swtpm") is None:
        pytest.skip("no swtpm")
    path = tmp_path / "tpm"
    process = subprocess.Popen(
        ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={tmp_path}", "--server",
         f"type=unixio,path={path}", "--ctrl", f"type=unixio,path={path}.ctrl", "--flags",
         "not-need-init,startup-clear"],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(200):
            if path.exists():
                break
            time.sleep(0.02)
        yield str(path)
    finally:
        process.terminate()
        process.wait(timeout=10)


def tool(path, *words, **options):
    return subprocess.run(
        [*words, "-T", f"swtpm:path={path}"], check=True, capture_output=True, timeout=30, **options
    ).stdout


@pytest.mark.skipif(shutil.which("tpm2_nvdefine") is None, reason="no tpm2-tools")
def test_against_swtpm(swtpm, tmp_path):
    """tpm2-tools plays the paravisor: it defines the index, and writes what a read would renew."""
    body = made_hcl.claims(DATA)
    blob = made_hcl.blob(body, pad=2048)
    attributes = "ownerread|ownerwrite|authread"
    tool(swtpm, "tpm2_nvdefine", "-C", "o", "-s", "2048", "-a", attributes, "0x01400001")
    assert code_of(azure(SocketTpm(swtpm)).probe) == "provider-index"
    tool(swtpm, "tpm2_nvwrite", "-C", "o", "-i", "-", "0x01400001", input=blob)

    azure(SocketTpm(swtpm)).probe()
    answer = azure(SocketTpm(swtpm)).report(DATA)
    assert answer.manifest == blob
    assert answer.report == made_report.report(report_data=made_hcl.bound(body))
    assert tool(swtpm, "tpm2_nvread", "-C", "o", "0x01400002") == DATA
    said = tool(swtpm, "tpm2_nvreadpublic", "0x01400002").decode()
    assert "size: 64" in said
    assert "friendly: ownerwrite|ownerread|written" in said

    # What stood there before is not fresh.
    assert code_of(azure(SocketTpm(swtpm)).report, DATA[::-1]) == "provider-stale"


def test_a_genuine_report_of_the_boot_is_not_fresh():
    path = VECTORS / "azure/hcl-report.bin"
    if not path.exists():
        pytest.skip(f"no vectors at {path} (set TROTH_VECTORS)")
    genuine = path.read_bytes()
    tpm = Paravisor(made=lambda data: genuine)
    tpm.indices[REPORT][1] = genuine
    assert code_of(azure(tpm).report, DATA) == "provider-stale"
    # Nobody wrote user data on that machine: zeros are what it has.
    answer = azure(tpm).report(bytes(64))
    assert answer.manifest == genuine
    assert answer.report == genuine[32:1216]
    found = hcl.parse(answer.manifest)
    assert snp_report.parse(answer.report).report_data == found.report_data
    assert hcl_claims.parse(found.claims).key("HCLAkPub") is not None


# --- what troth report gives -----------------------------------------------------------------


def test_troth_report_gives_the_paravisors_whole_report(monkeypatch, tmp_path, capsysbinary):
    nonce = bytes(range(32))
    bound = binding.report_binding(nonce)
    monkeypatch.setattr(choice, "choose", lambda _names: azure(Paravisor()))
    pacer = pacing.Pacer(str(tmp_path / "turn"), interval_s=0)
    monkeypatch.setattr(report, "Pacer", lambda: pacer)
    words = {"nonce": nonce.hex(), "provider": "azure-vtpm"}
    report.report(report.Options(**words, format="hex"))
    expected = made_hcl.blob(made_hcl.claims(bound))
    assert capsysbinary.readouterr().out == expected.hex().encode() + b"\n"
    report.report(report.Options(**words, format="json"))
    answer = report_answer.parse(capsysbinary.readouterr().out)
    assert answer.service == expected
    assert answer.report == expected[32:1216]
    assert answer.provider == "azure-vtpm"
    assert hcl_claims.bound_user_data(answer.service, answer.report) == bound


def test_whose_user_data_count():
    body = made_hcl.claims(DATA)
    raw = made_report.report(report_data=made_hcl.bound(body))
    good = made_hcl.blob(body, raw)
    assert hcl_claims.bound_user_data(good, raw) == DATA
    for service, hardware in (
        (made_hcl.blob(made_hcl.claims(DATA[::-1]), raw), raw),
        (good, made_report.report(report_data=made_hcl.bound(body), vmpl=1)),
        (made_hcl.blob(body, raw, report_type=4), raw),
    ):
        assert hcl_claims.bound_user_data(service, hardware) == b""


@pytest.mark.parametrize("lie", ["", "other", "unbound"])
def test_the_agents_answer_is_compared_with_what_was_asked(monkeypatch, lie):
    nonce = bytes(range(32))
    bound = binding.report_binding(nonce)
    body = made_hcl.claims(bound[::-1] if lie == "other" else bound)
    raw = made_report.report(report_data=bound if lie == "unbound" else made_hcl.bound(body))
    made = ReportAnswer(raw, b"", "azure-vtpm", nonce, b"", made_hcl.blob(body, raw))
    monkeypatch.setattr(AgentClient, "_post", lambda self, path, asked: report_answer.print_(made))
    client = AgentClient("/nowhere")
    if lie:
        assert code_of(client.report, nonce) == "provider-mismatch"
    else:
        assert client.report(nonce) == made
