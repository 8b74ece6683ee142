# SPDX-License-Identifier: Apache-2.0
"""The simulated platform behind its sockets: faults, commands, hostile relay, verifier."""

import contextlib
import hashlib
import json
import os
import shutil
import socket
import stat
import struct
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag

import hostile_relay as relay
from made_appraisal import with_line
from made_front import KEY, REPORT, Driver, Ended, Front, Refused, opened, report_request, sealed
from made_platform import other_platform, platform
from made_report import FIELDS
from troth.abi import cert_table, snp_report
from troth.cli.main import main
from troth.documents import binding
from troth.errors import FormatError, HostError, UsageError
from troth.record import replace
from troth.signing import certificates
from troth.simulated import control, faults, wire
from troth.simulated import pki as pkis
from troth.simulated.faults import KINDS, Faults
from troth.simulated.host import Host
from troth.simulated.launch import Launch
from troth.simulated.server import MAX_CONTROLLERS, Server
from troth.verify.endorsing import chain, endorsements

MEASUREMENT = bytes(range(48))
LAUNCH = Launch(measurement=MEASUREMENT)
NONCE = bytes(range(64, 128))


class Running:
    """A server in a thread, with clients for its sockets."""

    def __init__(self, host):
        self.host = host
        self.folder = Path(tempfile.mkdtemp(prefix="troth-sim-", dir="/tmp"))
        self.front_socket, self.control_socket = self.folder / "front", self.folder / "control"
        self.server = Server(
            host, front_socket=self.front_socket, control_socket=self.control_socket
        )
        self._stop = threading.Event()
        self._failed = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        try:
            self.server.serve(self._stop.is_set)
        except BaseException as error:
            self._failed.append(error)
            raise

    def close(self):
        self._stop.set()
        self._thread.join(10)
        self.server.close()
        assert not self._failed
        assert os.listdir(self.folder) == []
        shutil.rmtree(self.folder)

    def front(self, **more):
        return Front(self.front_socket, **more)

    def command(self, command, **fields):
        """What the control socket answers; must be ``ok``."""
        found = self.line(json.dumps({"command": command, **fields}).encode() + b"\n")
        assert found.pop("ok"), found
        return found

    def line(self, line):
        with socket.socket(socket.AF_UNIX) as control_:
            control_.settimeout(10)
            control_.connect(str(self.control_socket))
            control_.sendall(line)
            data = b""
            while not data.endswith(b"\n"):
                more = control_.recv(65536)
                assert more, "hung up"
                data += more
        return json.loads(data)


@pytest.fixture
def running():
    made = Running(Host(LAUNCH, platform(), other=other_platform))
    yield made
    made.close()


@pytest.fixture
def driver(running):
    with running.front() as front:
        yield Driver(front)


def data_of(report):
    offset, size = FIELDS["report_data"]
    return report[offset : offset + size]


def names(table):
    return [entry.name for entry in cert_table.parse(table)]


def test_report_certificates_and_key(running, driver):
    status, report, table = driver.report(NONCE)
    assert (status, len(report), data_of(report), table) == (0, 1184, NONCE, b"")
    status, report, table = driver.report(NONCE, pages=4)
    assert (status, data_of(report), len(table)) == (0, NONCE, 4 * 4096)
    assert names(table) == ["vcek", "ask", "ark"]
    assert driver.derived_key() == driver.derived_key()
    assert driver.count == 8
    counters = running.command("status")["counters"]
    assert counters == {
        "connections": 1,
        "connections-refused": 0,
        "frames": 5,
        "frames-broken": 0,
        "secrets": 1,
        "secrets-refused": 0,
        "requests": 3,
        "extended-requests": 1,
        "answers": 4,
        "firmware-errors": 0,
        "vmm-errors": 0,
        "faults": 0,
    }


def test_a_certificate_buffer_that_is_too_small(driver):
    needed = -(-len(platform().table()) // 4096)
    assert needed == 2
    for pages in (0, 1):
        with pytest.raises(Refused) as caught:
            driver.report(pages=pages)
        assert (caught.value.firmware, caught.value.vmm, caught.value.needed) == (0, 1, needed)
    # No firmware was asked: the number is not used, and the same page is good for a plain request.
    assert driver.report(pages=needed)[0] == 0


def test_requests_before_the_page_of_secrets(running):
    with running.front() as front:
        with pytest.raises(Refused) as caught:
            front.request(sealed(bytes(32), 1, REPORT, report_request()))
        assert (caught.value.firmware, caught.value.vmm) == (2, 0)
        assert Driver(front).report()[0] == 0


def test_the_page_of_secrets_is_given_once(running):
    with running.front() as front:
        page = front.secrets()
        with pytest.raises(Ended):
            front.secrets()
    with running.front() as front, pytest.raises(Ended):
        front.secrets()
    running.command("allow-secrets")
    with running.front() as front:
        assert front.secrets() == page
        # The count goes on: it is the same launch.
        assert Driver(front, secrets=page).report()[0] == 0
    assert running.command("status")["counters"]["secrets-refused"] == 2


@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 32,
        struct.pack("<IIQQQ", 0x31505354, 4, 1, 0, 0),
        struct.pack("<IIQQQ", 0x31505354, 0x81, 1, 0, 0),
        struct.pack("<IIQQQ", 0x31505354, 3, 1, 17, 0),
        struct.pack("<IIQQQ", 0x31505354, 1, 1, 1, 0),
    ],
)
def test_what_is_no_frame_ends_the_connection(running, data):
    with running.front() as front:
        front.socket.sendall(data)
        with pytest.raises(Ended):
            front.exactly(1)
    with running.front() as front:
        assert Driver(front).report()[0] == 0
    assert running.command("status")["counters"]["frames-broken"] == 1


@pytest.mark.parametrize("step", [0, 2, -1])
def test_frames_out_of_their_count_end_the_connection(running, step):
    with running.front() as front:
        front.secrets()
        front.sequence += step - 1
        with pytest.raises(Ended):
            front.ask(2, bytes(4096))


def test_a_front_that_sends_byte_by_byte_and_reads_late(running):
    with running.front() as front:
        page = front.secrets()
        key = page[0x20:0x40]
        frame = struct.pack("<IIQQQ", 0x31505354, 3, 2, 4, 0)
        frame += sealed(key, 1, REPORT, report_request(NONCE))
        # The next frame comes right behind: it is not looked at before the first is answered.
        frame += struct.pack("<IIQQQ", 0x31505354, 2, 3, 0, 0)
        frame += sealed(key, 3, REPORT, report_request(NONCE))
        for at in range(64):
            front.socket.sendall(frame[at : at + 1])
        front.socket.sendall(frame[64:])
        time.sleep(0.05)
        for kind, pages in ((0x83, 5), (0x82, 1)):
            head = struct.unpack("<IIQQQ", front.exactly(32))
            assert (head[1], head[3]) == (kind, 0)
            front.exactly(4096 * pages)


def test_one_front_at_a_time(running, driver):
    with running.front() as second, pytest.raises(Ended):
        second.secrets()
    assert driver.report()[0] == 0
    driver.front.close()
    running.command("allow-secrets")
    deadline = time.monotonic() + 5
    while True:
        try:
            with running.front() as third:
                third.secrets()
            break
        except Ended:
            assert time.monotonic() < deadline
    assert running.command("status")["counters"]["connections-refused"] >= 1


def test_sockets_are_the_owners(running):
    for path in (running.front_socket, running.control_socket):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_sockets_in_use_are_left_alone(running, tmp_path):
    host = Host(LAUNCH, platform())
    for control_socket in (running.control_socket, Path("/dev/null/x"), tmp_path / ("x" * 200)):
        with pytest.raises(HostError) as caught:
            Server(host, front_socket=running.folder / "other", control_socket=control_socket)
        assert caught.value.code == "sim-socket"
        assert not (running.folder / "other").exists()
    assert running.command("status")["launched"] is False
    stale = running.folder / "stale"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(stale))
    dead.close()
    Server(host, front_socket=stale).close()
    assert not stale.exists()


def test_every_kind_of_fault_is_documented_and_described(running):
    told = running.command("fault-kinds")["kinds"]
    assert list(told) == sorted(KINDS)
    page = (Path(__file__).parents[2] / "docs" / "simulated.md").read_text("utf-8")
    for name, kind in KINDS.items():
        assert f"| `{name}` |" in page
        assert told[name] == {"does": kind.does, "value": kind.value}
    for command in control.COMMANDS:
        assert f"`{command}`" in page


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_counts_of_faults(kind):
    pending = Faults()
    fault = pending.set(kind, count=3)
    assert pending.pending() == (fault,)
    assert [pending.take(kind) is not None for _ in range(5)] == [True] * 3 + [False] * 2
    pending.set(kind, count=3)
    pending.set(kind, count=0)
    assert pending.pending() == ()
    pending.set(kind)
    pending.clear()
    assert pending.take(kind) is None
    for wrong in (
        {"count": -1},
        {"count": faults.MAX_COUNT + 1},
        {"value": KINDS[kind].maximum + 1},
    ):
        with pytest.raises(UsageError) as caught:
            pending.set(kind, **wrong)
        assert caught.value.code == "sim-fault"
    if not KINDS[kind].value:
        with pytest.raises(UsageError):
            pending.set(kind, value=0)
    with pytest.raises(UsageError):
        pending.set(kind + "s")


@pytest.mark.parametrize("pages", [None, 4])
@pytest.mark.parametrize(
    ("kind", "value", "firmware", "vmm"),
    [
        ("firmware-error", None, 0x16, 0),
        ("firmware-error", 0x27, 0x27, 0),
        ("vmm-error", None, 0, 0x80000000),
        ("vmm-error", 1, 0, 1),
        ("vmm-busy", None, 0, 2),
    ],
)
def test_errors_of_firmware_and_host(running, driver, kind, value, firmware, vmm, pages):
    running.command("fault", kind=kind, count=2, **({} if value is None else {"value": value}))
    for _ in range(2):
        with pytest.raises(Refused) as caught:
            driver.report(pages=pages)
        assert (caught.value.firmware, caught.value.vmm, caught.value.needed) == (firmware, vmm, 0)
    # The very same request is good afterwards: nothing has advanced.
    assert driver.report(pages=pages)[0] == 0
    assert running.command("status")["counters"]["faults"] == 2


def test_short_certificate_buffers(running, driver):
    running.command("fault", kind="certificates-short", count=1)
    with pytest.raises(Refused) as caught:
        driver.report(pages=4)
    assert (caught.value.vmm, caught.value.needed) == (1, 5)
    running.command("fault", kind="certificates-short", value=1000)
    assert driver.report()[0] == 0  # asks for no certificates
    with pytest.raises(Refused) as caught:
        driver.report(pages=4)
    assert (caught.value.vmm, caught.value.needed) == (1, 1000)
    assert driver.report(pages=4)[0] == 0


def test_tables(running, driver):
    running.command("fault", kind="certificates-none")
    assert driver.report(pages=4)[2] == bytes(4 * 4096)
    running.command("fault", kind="certificates-cut")
    entries = cert_table.parse(driver.report(pages=4)[2])
    whole = [certificates.load(entry.blob).subject_cn for entry in entries[:2]]
    assert whole == ["SEV-VCEK", "SEV-Genoa"]
    assert entries[2].blob != platform().root
    assert certificates.issue_problem(*[certificates.load(entries[2].blob)] * 2) != ""
    assert names(driver.report(pages=4)[2]) == ["vcek", "ask", "ark"]


def test_a_lying_processor(running, driver):
    running.command("fault", kind="wrong-nonce")
    assert data_of(driver.report(NONCE)[1]) == bytes(byte ^ 0xFF for byte in NONCE)
    running.command("fault", kind="wrong-vmpl", value=2)
    assert snp_report.parse(driver.report(NONCE)[1]).vmpl == 2
    running.command("fault", kind="status", value=0x27)
    assert driver.report()[:2] == (0x27, b"")
    running.command("fault", kind="short-report", value=1000)
    status, report, _ = driver.report()
    assert (status, len(report)) == (0, 1000)
    # Only reports use these up.
    running.command("fault", kind="bad-signature")
    driver.derived_key()
    assert running.command("status")["faults"] == [
        {"kind": "bad-signature", "count": 1, "value": 0}
    ]
    good, bad = (driver.report(NONCE)[1] for _ in range(2))
    assert good[:672] == bad[:672]
    assert good[672:] != bad[672:]
    assert data_of(driver.report(NONCE)[1]) == NONCE


def test_answers_that_are_not_this_ones(running, driver):
    running.command("fault", kind="stale-answer")
    assert driver.report()[0] == 0  # there is no earlier one yet
    with pytest.raises(AssertionError):
        driver.report(NONCE)


@pytest.mark.parametrize("value", [None, 0, 0x34, 200])
def test_altered_answers(running, driver, value):
    running.command("fault", kind="altered-answer", **({} if value is None else {"value": value}))
    with pytest.raises((InvalidTag, AssertionError)):
        driver.report(NONCE)


def test_an_answer_that_never_comes_is_counted(running):
    with running.front() as front:
        driver = Driver(front)
        running.command("fault", kind="dropped")
        front.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            driver.report()
        front.socket.settimeout(10)
        # The processor has done its part: the same page again is refused, never sealed anew.
        with pytest.raises(Refused) as caught:
            driver.report()
        assert caught.value.firmware == 0x0B
        assert running.command("status")["messages"] == [2, 0, 0, 0]


def test_a_late_answer(running, driver):
    running.command("fault", kind="delayed", value=700)
    began = time.monotonic()
    assert driver.report(NONCE, pages=4)[0] == 0
    assert 0.68 < time.monotonic() - began < 10
    began = time.monotonic()
    assert driver.report(NONCE)[0] == 0
    assert time.monotonic() - began < 0.65


def test_others_are_served_while_an_answer_is_late(running, driver):
    running.command("fault", kind="delayed", value=60_000)
    page = sealed(driver.key, 1, REPORT, report_request())
    driver.front.sequence += 1
    driver.front.socket.sendall(struct.pack("<IIQQQ", 0x31505354, 2, 2, 0, 0) + page)
    deadline = time.monotonic() + 5
    while running.command("status")["counters"]["answers"] == 0:
        assert time.monotonic() < deadline
    driver.front.close()  # gone before its answer is due; the server is closed with it held back


def test_death(running, driver):
    running.command("fault", kind="death")
    with pytest.raises(Ended):
        driver.report()
    with running.front() as front:
        assert Driver(front, secrets=driver.secrets_page).report()[0] == 0


def test_another_chain(running, driver):
    running.command("fault", kind="other-chain")
    driver.derived_key()
    _, report, table = driver.report(NONCE, pages=4)
    other = other_platform()
    assert [entry.blob for entry in cert_table.parse(table)] == [
        other.vcek.certificate,
        other.vcek.issuer,
        other.root,
    ]
    judged = judge(report, table, root=other.root_sha256)
    assert held(judged)
    assert not held(judge(report, table, root=platform().root_sha256))
    _, report, table = driver.report(NONCE, pages=4)
    assert held(judge(report, table, root=platform().root_sha256))


def test_there_is_no_other_chain_where_none_is_made():
    host = Host(LAUNCH, platform())
    with pytest.raises(UsageError) as caught:
        host.set_fault("other-chain", count=1, value=None)
    assert caught.value.code == "sim-fault"


def held(judged):
    """Whether every step passed, but for what a host's table has no list for and VLEKs no chip."""
    optional = ("certificate-revocation", "certificate-chip")
    return all(
        step.verdict == "pass" or (step.verdict == "not-checked" and step.code in optional)
        for step in judged.steps
    )


def judge(report, table, *, root, simulated=True):
    given = endorsements.collect((entry.name, entry.blob) for entry in cert_table.parse(table))
    return chain.chain(
        snp_report.parse(report),
        given,
        roots=[root],
        at=datetime.now(UTC),
        simulated=simulated,
    )


@pytest.mark.parametrize("line", ["Milan", "Genoa", "Turin"])
@pytest.mark.parametrize("version", [2, 3, 4, 5])
@pytest.mark.parametrize("vlek", [False, True])
def test_the_verifier_takes_every_kind_of_report(line, version, vlek):
    pki = platform(line, vlek=True)
    host = Host(replace(LAUNCH, report_version=version, vlek=vlek), pki)
    page = host.answer(wire.Frame(wire.Head(1, 1), b"")).data[32:]
    asked = sealed(page[0x20:0x40], 1, REPORT, report_request(NONCE))
    answer = host.answer(wire.Frame(wire.Head(3, 2, 4), asked)).data
    report = opened(page[0x20:0x40], answer[32:4128], sequence=2, kind=6)[32:1216]
    table = answer[4128:]
    judged = judge(report, table, root=pki.root_sha256)
    failed = {step.code: step for step in judged.steps if step.verdict == "fail"}
    assert not failed
    assert held(judged)
    assert judged.simulated
    assert judged.signer == ("vlek" if vlek else "vcek")
    # A verifier of genuine platforms refuses the same chain, pinned or not.
    real = judge(report, table, root=pki.root_sha256, simulated=False)
    assert [step.code for step in real.steps if step.verdict == "fail"] == ["certificate-platform"]


def verify(tmp_path, capsys, report, *lines, nonce, more=()):
    """Status and result under the strict policy of `init-policy --simulated` with ``lines``."""
    kept = tmp_path / "b.sim"
    pkis.kept_in(kept, platform)
    (tmp_path / "report.bin").write_bytes(report)
    policy = tmp_path / "policy.toml"
    if not policy.exists():
        assert main(["verify", "init-policy", "--simulated", "-o", str(policy)]) == 0
    text = policy.read_text()
    for line in (f'trusted_roots = ["{(kept / "root-sha256").read_text().strip()}"]', *lines):
        text = with_line(text, line)
    policy.write_text(text)
    capsys.readouterr()
    words = ["verify", "report", str(tmp_path / "report.bin"), "--certs", str(kept / "certs")]
    status = main([*words, "--policy", str(policy), "--nonce", nonce.hex(), "--json", *more])
    return status, json.loads(capsys.readouterr().out)


LINES = (
    f'[launch] measurements = ["{MEASUREMENT.hex()}"]',
    "[guest_policy] smt = true",  # the customary policy 0x30000 permits it
)


def test_troth_verify_report_says_pass_simulated(running, tmp_path, capsys, driver):
    """A strict policy, the platform's own root and what it kept beside the bundle."""
    nonce = b"n" * 32
    report = driver.report(binding.report_binding(nonce, b""))[1]
    status, result = verify(tmp_path, capsys, report, *LINES, nonce=nonce)
    bad = {
        check["code"]: check["observed"]
        for check in result["checks"]
        if check["verdict"] == "fail" or (check["required"] and check["verdict"] != "pass")
    }
    assert bad == {}
    assert (result["overall"], result["platform"], status) == ("pass-simulated", "simulated", 1)
    more = ("--accept-simulated",)
    assert verify(tmp_path, capsys, report, nonce=nonce, more=more)[0] == 0
    assert verify(tmp_path, capsys, report, nonce=b"m" * 32, more=more)[1]["overall"] == "fail"
    for kind in ("bad-signature", "wrong-nonce", "wrong-vmpl", "other-chain"):
        running.command("fault", kind=kind)
        report = driver.report(binding.report_binding(nonce, b""))[1]
        status, result = verify(tmp_path, capsys, report, nonce=nonce, more=more)
        assert (status, result["overall"]) == (1, "fail")
    genuine = [*LINES, 'platform = "real"']
    report = driver.report(binding.report_binding(nonce, b""))[1]
    status, result = verify(tmp_path, capsys, report, *genuine, nonce=nonce, more=more)
    assert (status, result["overall"]) == (1, "fail")
    failed = [check["code"] for check in result["checks"] if check["verdict"] == "fail"]
    assert "certificate-platform" in failed


def test_flipped_bytes_of_a_report_are_refused(driver):
    _, report, table = driver.report(NONCE, pages=4)
    for at in range(0, 816, 17):
        changed = report[:at] + bytes((report[at] ^ 0x10,)) + report[at + 1 :]
        try:
            judged = judge(changed, table, root=platform().root_sha256)
        except FormatError as error:
            assert error.code == "snp-report-version"
            continue
        assert not held(judged)


# --- the control socket


def test_the_launch_can_be_changed_until_it_is_made(running):
    host_data = hashlib.sha256(b"instance").hexdigest()
    shown = running.command(
        "launch",
        host_data=host_data,
        policy="0xb0000",
        guest_svn=3,
        report_version=3,
        guest_vmpl=2,
        mask_chip_id=True,
        current_firmware="1.58.1",
        launch_mit_vector="0xffffffffffffffff",
    )
    assert shown["launch"]["host_data"] == host_data
    assert shown["launch"]["policy"] == "0xb0000"
    with running.front() as front:
        driver = Driver(front, number=2)
        assert not any(driver.secrets_page[0x20:0x60])
        parsed = snp_report.parse(driver.report(vmpl=2)[1])
        assert parsed.host_data.hex() == host_data
        assert (parsed.policy, parsed.guest_svn, parsed.version) == (0xB0000, 3, 3)
        assert parsed.chip_id == bytes(64)
        assert str(parsed.current_firmware) == "1.58.1"
        assert running.command("launch") == shown  # showing it is always possible
        refused = running.line(b'{"command":"launch","host_data":"' + b"00" * 32 + b'"}\n')
        assert (refused["ok"], refused["code"]) == (False, "sim-launched")
        assert running.command("launch") == shown
    # What is shown can be given back.
    fresh = Host(LAUNCH, platform())
    line = json.dumps({"command": "launch", **shown["launch"]}).encode()
    assert json.loads(control.answer(line, fresh))["launch"] == shown["launch"]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"\n", "json-syntax"),
        (b"{}\n", "json-missing"),
        (b"[]\n", "json-type"),
        (b'{"command":1}\n', "json-type"),
        (b'{"command":"reboot"}\n', "json-type"),
        (b'{"command":"status","more":1}\n', "json-unknown"),
        (b'{"command":"clear-faults","more":1}\n', "json-unknown"),
        (b'{"command":"fault"}\n', "json-missing"),
        (b'{"command":"fault","kind":"no-such"}\n', "sim-fault"),
        (b'{"command":"fault","kind":"death","count":-1}\n', "json-type"),
        (b'{"command":"fault","kind":"death","count":1000001}\n', "sim-fault"),
        (b'{"command":"fault","kind":"death","value":1}\n', "sim-fault"),
        (b'{"command":"fault","kind":"death","kind":"death"}\n', "json-duplicate"),
        (b'{"command":"launch","host_data":"00"}\n', "json-type"),
        (b'{"command":"launch","hostdata":"00"}\n', "json-unknown"),
        (b'{"command":"launch","policy":"x"}\n', "sim-control"),
        (b'{"command":"launch","policy":"0x"}\n', "sim-control"),
        (b'{"command":"launch","policy":0}\n', "snp-policy-bit-17"),
        (b'{"command":"launch","guest_svn":4294967296}\n', "sim-launch"),
        (b'{"command":"launch","report_version":6}\n', "sim-launch"),
        (b'{"command":"launch","guest_vmpl":4}\n', "json-type"),
        (b'{"command":"launch","current_firmware":"1.2"}\n', "sim-control"),
        (b'{"command":"launch","current_firmware":"1.2.999"}\n', "sim-launch"),
        (b'{"command":"launch","committed_tcb":"ffffffffffffffff"}\n', "sim-launch"),
        (b'{"command":"launch","vlek":true}\n', "sim-launch"),
        (b'{"command":"launch","tsc_factor":4294967296}\n', "sim-launch"),
        (b"\xff\xfe\n", "json-syntax"),
        (b"[" * 5000 + b"\n", "json-syntax"),
    ],
)
def test_commands_that_are_wrong_change_nothing(running, line, code):
    before = running.command("launch")
    found = running.line(line)
    assert (found["ok"], found["code"]) == (False, code)
    assert running.command("launch") == before
    assert running.command("status")["faults"] == []


def test_what_status_shows(running, driver):
    running.command("fault", kind="vmm-busy", count=7)
    found = running.command("status")
    assert found["launched"] is True
    assert found["root_sha256"] == platform().root_sha256
    assert found["faults"] == [{"kind": "vmm-busy", "count": 7, "value": 0}]
    running.command("clear-faults")
    assert running.command("status")["faults"] == []
    parsed = snp_report.parse(driver.report()[1])
    assert running.command("status")["report_id"] == parsed.report_id.hex()
    shown = json.dumps([found, running.command("launch")])
    page = driver.secrets_page
    secrets = [page[0x20 + 32 * at :][:32] for at in range(4)] + [platform().chip.secret]
    assert not [key for key in secrets if key.hex() in shown]


def test_lines_that_are_too_long_or_never_end(running):
    with socket.socket(socket.AF_UNIX) as control_:
        control_.settimeout(10)
        control_.connect(str(running.control_socket))
        with contextlib.suppress(ConnectionError):
            control_.sendall(b"x" * (1 << 20))
        with contextlib.suppress(ConnectionError):
            assert control_.recv(1) == b""
    assert running.command("status")["launched"] is False


def test_several_commands_in_one_go_and_in_pieces(running):
    with socket.socket(socket.AF_UNIX) as control_:
        control_.settimeout(10)
        control_.connect(str(running.control_socket))
        control_.sendall(b'{"command":"status"}\n' * 100 + b'{"comm')
        time.sleep(0.02)
        control_.sendall(b'and":"status"}\n')
        data = b""
        while data.count(b"\n") < 101:
            data += control_.recv(65536)
    assert all(json.loads(line)["ok"] for line in data.splitlines())


def test_only_so_many_command_at_once(running):
    held = [socket.socket(socket.AF_UNIX) for _ in range(MAX_CONTROLLERS + 2)]
    try:
        for one in held:
            one.settimeout(10)
            one.connect(str(running.control_socket))
        for one in held[:MAX_CONTROLLERS]:
            one.sendall(b'{"command":"status"}\n')
            assert one.recv(65536).startswith(b"{")
        for one in held[MAX_CONTROLLERS:]:
            assert one.recv(1) == b""
    finally:
        for one in held:
            one.close()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            assert running.command("status")["launched"] is False
            break
        except (AssertionError, ConnectionError):
            continue
    else:
        pytest.fail("places are not given free")


# --- a hostile relay between front and processor


@pytest.fixture
def relayed(running):
    def start(*plan):
        path = running.folder / "relay"
        started = relay.HostileRelay(path, running.front_socket, plan)
        front = Front(path)
        made.append((started, front))
        return Driver(front)

    made = []
    yield start
    for started, front in made:
        front.close()
        started.close()
        (running.folder / "relay").unlink()


def test_an_honest_relay(relayed):
    driver = relayed()
    assert driver.report(NONCE, pages=4)[0] == 0
    assert driver.report(NONCE)[0] == 0


@pytest.mark.parametrize(
    ("plan", "seen"),
    [
        (relay.REPLAY_ANSWER, AssertionError),
        (relay.SWAP, AssertionError),
        (relay.ALTER_ANSWER, InvalidTag),
        (relay.ALTER_HEADER, AssertionError),
        (relay.ZERO_ANSWER, AssertionError),
        (relay.DROP_REQUEST, TimeoutError),
        (relay.DROP_ANSWER, TimeoutError),
        (relay.CUT, Ended),
    ],
)
def test_a_hostile_relay_is_seen(relayed, plan, seen):
    driver = relayed(relay.PASS, plan)
    assert driver.report(bytes(64))[0] == 0
    if seen is TimeoutError:
        driver.front.socket.settimeout(0.3)
    with pytest.raises(seen):
        driver.report(NONCE)


def test_requests_that_a_relay_changes_or_repeats(running, relayed):
    driver = relayed(relay.PASS, relay.ALTER_REQUEST, relay.PASS, relay.REPEAT_REQUEST)
    assert driver.report()[0] == 0
    with pytest.raises(Refused) as caught:
        driver.report(NONCE)
    assert caught.value.firmware == 0x0B
    assert driver.report(NONCE)[0] == 0
    with pytest.raises(Refused) as caught:
        driver.report(NONCE)
    assert caught.value.firmware == 0x0B
    # It was answered once; the answer was withheld. Nothing more can be had under that number.
    assert running.command("status")["messages"] == [6, 0, 0, 0]


def test_an_error_forged_into_a_success(running, relayed):
    driver = relayed(relay.PASS, relay.FORGE_OK)
    assert driver.report()[0] == 0
    running.command("fault", kind="firmware-error")
    with pytest.raises(AssertionError):
        driver.report(NONCE)


def test_noise_from_a_relay(relayed):
    driver = relayed(relay.NOISE)
    with pytest.raises(AssertionError):
        driver.report()


def test_a_key_request_after_everything(running, driver):
    """A guest that only ever keeps to the rules is served to the end."""
    for kind in sorted(set(KINDS) - {"death", "dropped", "altered-answer", "stale-answer"}):
        value = {"value": 5} if kind == "delayed" else {}
        running.command("fault", kind=kind, **value)
    good = 0
    for _ in range(12):
        try:
            status, report, _ = driver.report(NONCE, pages=4)
        except Refused:
            continue
        good += status == 0 and len(report) == 1184
    assert good >= 6
    assert running.command("status")["faults"] == []
    assert driver.exchange(KEY, bytes(32))[0][:4] == bytes(4)
