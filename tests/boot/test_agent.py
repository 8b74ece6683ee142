# SPDX-License-Identifier: Apache-2.0
"""The agent in real guests: under systemd, in a root of another libc, and as PID 1's child.

Each guest is asked everything in one boot. Reports are checked as in ``test_simulated``, by
offsets and with ``cryptography``; logs are replayed by hand.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import socket
from base64 import b64decode

import pytest

from boot import agent_bundles
from boot.machine import check_good, check_refused
from boot.test_simulated import certificate, check_report
from boot.variants import Variant
from troth.documents import event_log_json, evidence
from troth.measure import pcr
from troth.verify import quote

NONCE = bytes.fromhex("00112233445566778899aabbccddeeff")


def bound(nonce):
    """REPORT_DATA of troth-report-v1, from its words in docs/formats.md."""
    fields = ((2, b"troth-report-v1"), (3, nonce), (12, b""))
    parts = [bytes([kind]) + len(part).to_bytes(4, "little") + part for kind, part in fields]
    return hashlib.sha512(b"".join(parts)).digest()


def answer(found, name):
    """(status, text) of the guest's question ``name``."""
    status, _, text = found.section(name).partition("\n")
    return status, text


def body(found, name, *, status="200"):
    code, text = answer(found, name)
    assert code == status, f"{name}: {code} {text}"
    return json.loads(text)


def refusal(found, name):
    """(status, code) of an answer that is an error."""
    code, text = answer(found, name)
    return int(code), json.loads(text)["code"]


def good_report(found, name, bundle):
    tree = body(found, name)
    check_report(b64decode(tree["report"]), certificate(bundle, "vcek"), report_data=bound(NONCE))
    return tree


def events(text):
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def replayed(rows):
    """The software register after ``rows``, from its words in docs/formats.md."""
    value = bytes(48)
    for row in rows:
        content = row["content"]
        data = bytes.fromhex(content["hex"]) if "hex" in content else content["text"].encode()
        kind = content["type"].encode()
        value = hashlib.sha384(value + hashlib.sha384(kind + b"\0" + data).digest()).digest()
    return value.hex()


class Host:
    """Gives the platform its commands when the guest says that it is time, and says so."""

    def __init__(self, place, steps):
        self.control, self.port = place / "control", place / "steps"
        self._steps = steps
        self._done = []
        self._socket = None

    @property
    def options(self):
        return ("--sim-snp", "--sim-control", self.control, "--port", f"test.steps={self.port}")

    def watch(self, console, _process):
        for name in re.findall(r"@@ step (\S+)\n", console)[len(self._done) :]:
            for tree in self._steps[name]:
                assert self._command(tree)["ok"], tree
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX)
                self._socket.connect(str(self.port))
            self._socket.sendall(b"go\n")
            self._done.append(name)
        return False

    def _command(self, tree):
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(30)
            control.connect(str(self.control))
            with control.makefile("rw") as lines:
                lines.write(json.dumps(tree) + "\n")
                lines.flush()
                return json.loads(lines.readline())

    def check(self):
        assert self._done == list(self._steps)
        self._socket.close()


def fault(kind, **words):
    return [{"command": "fault", "kind": kind, **words}]


@pytest.mark.skipif(shutil.which("mmdebstrap") is None, reason="needs mmdebstrap")
def test_under_systemd(forge, boot, token, tmp_path):
    """Debian 12: a unit with few rights, who may what, and back after a kill and after a hang."""
    bundle = agent_bundles.bundle(forge, "agent-systemd")
    host = Host(tmp_path, {"firmware-error": fault("firmware-error")})
    found = boot(bundle, *host.options, watch=host.watch, timeout_s=300)
    check_good_systemd(found, token)
    host.check()
    _check_unit(found)
    _check_answers(found, bundle, provider="configfs-tsm")
    _check_callers(found)
    _check_quote(found)
    _check_restarts(found, bundle)

    # A failed call takes the kernel's key: said once as what it was, then as what it left.
    assert refusal(found, "firmware-error") == (502, "provider-refused")
    assert refusal(found, "lost") == (503, "vmpck-lost")
    assert body(found, "health-lost", status="503")["reasons"] == ["vmpck-lost"]
    _, page = answer(found, "metrics")
    assert 'troth_provider_requests_total{outcome="vmpck-lost"} 1' in page.splitlines()
    resident = re.search(r"^process_resident_memory_bytes (\d+)$", page, re.MULTILINE)
    assert int(resident[1]) < 32 << 20


def _check_quote(found):
    """Made under the unit's restrictions; what it holds is judged as in test_evidence."""
    tree = evidence.parse(answer(found, "evidence")[1].encode())
    replayed = pcr.replay(event_log_json.parse(tree.event_log))
    judged = quote.judge(tree.tpm, nonce=NONCE, replayed=replayed)
    assert [step.code for step in judged.steps if step.verdict != "pass"] == ["ak-in-tpm"]


def check_good_systemd(found, token):
    assert found.status == 0, f"{found.result}\n{found.console}"
    assert f"@@ done {token}" in found.console


def _check_unit(found):
    assert found.section("state") == "running"
    assert found.section("failed") == ""
    unit = dict(line.split("=", 1) for line in found.lines("unit"))
    assert (unit["ActiveState"], unit["SubState"], unit["Type"]) == ("active", "running", "notify")
    assert unit["FragmentPath"] == "/run/systemd/system/troth-agent.service"
    assert (unit["DropInPaths"], unit["NRestarts"]) == ("", "0")
    exposure = re.search(r"Overall exposure level for troth-agent.service: ([0-9.]+)",
                         found.section("security"))  # fmt: skip
    assert float(exposure[1]) <= 3.0
    rights = dict(re.split(r":\s*", line, maxsplit=1) for line in found.lines("rights"))
    assert rights["Uid"].split() == ["0"] * 4
    # CAP_CHOWN is bit 0.
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert int(rights[name], 16) == 1, name
    assert (rights["NoNewPrivs"], rights["Seccomp"]) == ("1", "2")
    assert found.lines("list-sockets") == [
        "/run/troth 755 0 0",
        "/run/troth/attest.sock 660 0 900",
        "/run/troth/control.sock 600 0 0",
    ]


def _check_answers(found, bundle, *, provider):
    info = body(found, "info")
    assert (info["snp"], info["log"], info["raw_report_data"]) == ("simulated", "whole", "root")
    assert info["caller"]["uid"] == 0
    assert body(found, "health") == {"reasons": [], "status": "ok"}
    measured = body(found, "measurements")
    assert measured["log"] == "whole"
    assert measured["registers"]
    assert all(row["replayed"] == row["observed"] for row in measured["registers"])
    assert good_report(found, "report", bundle)["provider"] == provider


def _check_callers(found):
    """Who may is the policy's: user 1000, in this unit, and with the group."""
    assert found.json("verb-status")["agent"]["running"] is True
    report = found.json("verb-report")
    assert report["binding"]["nonce"] == NONCE.hex()
    assert "[not-allowed]: uid=0 gid=0 unit=agent-check.service" in found.section("verb-refused")
    assert body(found, "extend")["recnum"] == 8
    assert found.section("status /run/troth/bin/troth extend") == "0"
    assert "event 9; software register " in found.section("run /run/troth/bin/troth extend")
    assert refusal(found, "extend-other-user") == (403, "not-allowed")
    assert refusal(found, "extend-other-unit") == (403, "not-allowed")
    assert "unit=other.scope" in answer(found, "extend-other-unit")[1]
    assert found.section("no-group") == "error EACCES"
    said = [row["content"]["text"] for row in events(found.section("log-before"))[8:]]
    who = "uid=1000 gid=900 unit=agent-check.service"
    assert said == [
        f"{who} event=app.start data=00ff",
        f"{who} event=app.go data={b'hello'.hex()}",
    ]


def _check_restarts(found, bundle):
    """Killed, and stopped until the watchdog ends it: another one replays the log and says so."""
    before, after = events(found.section("log-before")), events(answer(found, "log-after-kill")[1])
    assert after[:-1] == before
    assert after[-1]["content"] == {"type": "agent-restarted", "text": f"events={len(before)}"}
    good_report(found, "report-after-kill", bundle)
    assert body(found, "health-after-kill")["status"] == "ok"
    assert found.section("restarts") == "1"
    assert body(found, "health-after-stop")["status"] == "ok"
    watchdog = dict(line.split("=", 1) for line in found.lines("watchdog"))
    assert watchdog["NRestarts"] == "1"
    assert "Watchdog timeout" in found.section("journal")
    # Restarted by hand for the shorter limit, then by the watchdog.
    last = events(found.section("last-log"))
    assert [row["content"]["type"] for row in last[len(after) :]] == ["agent-restarted"] * 2
    assert found.section("state-after") == "running"


QUESTION = json.dumps({"nonce": NONCE.hex()})
RAW = bytes(range(64))
EXTEND = json.dumps({"event": "app.start", "data": "00ff"})
#: What the init of the foreign root does.
FOREIGN = [
    "/sbin/init", "wait", "20", "list", "/run/troth", "proc", "mountinfo", "proc", "status",
    "ask", "info", "GET", "/v1/info", "-", "ask", "health", "GET", "/healthz", "-",
    "ask", "measurements", "GET", "/v1/measurements", "-",
    "ask", "report", "POST", "/v1/report", QUESTION,
    "as", "1000", "900", "ask", "extend", "POST", "/v1/extend", EXTEND,
    "run", "/run/troth/bin/troth", "measurements", "--json", ";",
    "as", "1001", "900", "ask", "extend-other-user", "POST", "/v1/extend", EXTEND,
    "as", "1000", "901", "ask", "no-group", "GET", "/healthz", "-", "as", "0", "0",
    "ask", "log", "GET", "/v1/event-log", "-",
    "run", "/run/troth/bin/troth", "status", "--json", ";",
    "ask", "raw-refused", "POST", "/v1/raw-report", json.dumps({"report_data": RAW.hex()}),
    "socket", "/run/troth/control.sock",
    "ask", "raw", "POST", "/v1/raw-report", json.dumps({"report_data": RAW.hex()}),
    "socket", "/run/troth/attest.sock",
    "step", "status", "ask", "status", "POST", "/v1/report", QUESTION,
    "ask", "status-health", "GET", "/healthz", "-",
    "step", "wrong-nonce", "ask", "wrong-nonce", "POST", "/v1/report", QUESTION,
    "step", "busy", "ask", "busy", "POST", "/v1/report", QUESTION,
    "ask", "busy-health", "GET", "/healthz", "-",
    # No answer for a minute; the agent has one for everybody else.
    "step", "dropped", "behind", "hung", "POST", "/v1/report", QUESTION, "sleep", "2",
    "ask", "hung-measurements", "GET", "/v1/measurements", "-",
    "as", "1000", "900", "ask", "hung-extend", "POST", "/v1/extend", EXTEND, "as", "0", "0",
    "ask", "hung-metrics", "GET", "/metrics", "-", "join",
    "ask", "lost", "POST", "/v1/report", QUESTION,
    "ask", "lost-health", "GET", "/healthz", "-",
    "run", "/run/troth/bin/troth", "report", "--nonce", NONCE.hex(), "--format", "json", ";",
    "off",
]  # fmt: skip


@pytest.mark.skipif(shutil.which("musl-gcc") is None, reason="needs musl-gcc")
def test_in_a_root_of_another_libc(forge, boot, token, tmp_path):
    """Musl, no Python, nothing of glibc that works: a child of the next init all the same."""
    bundle = agent_bundles.bundle(forge, "agent-foreign")
    changed = Variant(bundle, tmp_path / "variant")
    changed.rebake(lambda tree: tree["handover"].update(argv=FOREIGN))
    host = Host(
        tmp_path,
        {
            "status": fault("status"),
            "wrong-nonce": fault("wrong-nonce"),
            "busy": fault("vmm-busy"),
            "dropped": fault("dropped"),
        },
    )
    found = boot(changed, *host.options, watch=host.watch, timeout_s=240)
    check_good(found, token)
    host.check()

    # Its own root and mounts: what is the next init's is not there, and not kept busy.
    rows = [line.split(" ") for line in found.lines("proc mountinfo") if " - " in line]
    mounted = {row[4]: row for row in rows}
    assert mounted["/"][3] == "/runtime"
    assert not [row for row in rows if "erofs" in row]
    assert mounted["/sys"][5].startswith("ro,")
    assert "subset=pid" in mounted["/proc"][-1].split(",")
    assert set(mounted) == {
        "/", "/proc", "/sys", "/sys/kernel/config", "/dev", "/dev/null", "/dev/kmsg",
        "/dev/sev-guest", "/run", "/run/troth", "/run/troth-report.turn",
    }  # fmt: skip
    status = dict(re.split(r":\s*", line, maxsplit=1) for line in found.lines("proc status"))
    assert status["PPid"] == "1"
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert int(status[name], 16) == 1, name
    assert status["NoNewPrivs"] == "1"
    assert {"attest.sock", "control.sock"} <= set(found.lines("list /run/troth"))

    info = body(found, "info")
    assert (info["snp"], info["log"], info["caller"]["rights"]) == ("simulated", "whole", [])
    assert body(found, "measurements")["tpm"] == "not used by this boot"
    good_report(found, "report", changed.path)
    raw = body(found, "raw")
    check_report(b64decode(raw["report"]), certificate(changed.path, "vcek"), report_data=RAW)
    assert refusal(found, "raw-refused") == (403, "not-allowed")
    assert refusal(found, "extend-other-user") == (403, "not-allowed")
    assert found.section("no-group") in ("error EACCES", "error Permission denied")
    rows = events(answer(found, "log")[1])
    assert body(found, "extend")["software_register"] == replayed(rows)
    assert rows[-1]["content"]["text"] == "uid=1000 gid=900 unit=- event=app.start data=00ff"
    # A verb of a user with the group, and one of root.
    measured = json.loads(found.section("run /run/troth/bin/troth measurements"))
    assert (measured["events"], measured["software_register"]) == (len(rows), replayed(rows))
    shown = json.loads(found.section("run /run/troth/bin/troth status"))
    assert shown["agent"]["provider"] == "configfs-tsm"

    assert refusal(found, "status") == (502, "provider-refused")
    assert body(found, "status-health", status="503")["reasons"] == ["provider-refused"]
    assert refusal(found, "wrong-nonce") == (502, "provider-mismatch")
    good_report(found, "busy", changed.path)
    assert body(found, "busy-health")["status"] == "ok"
    assert body(found, "hung-measurements")["events"] == len(rows)
    assert body(found, "hung-extend")["recnum"] == len(rows)
    assert "troth_agent_reports_waiting 1" in answer(found, "hung-metrics")[1].splitlines()
    assert refusal(found, "hung") == (504, "provider-timeout")
    assert refusal(found, "lost") == (503, "vmpck-lost")
    assert body(found, "lost-health", status="503")["reasons"] == ["vmpck-lost"]
    assert "[agent-refused]" in found.section("run /run/troth/bin/troth report")
    assert "[vmpck-lost]" in found.section("run /run/troth/bin/troth report")


def test_supervised(forge, boot, token, tmp_path):
    """Kernel 6.1, nothing but the initramfs: PID 1 starts it, and starts it again."""
    bundle = agent_bundles.bundle(forge, "agent-supervised")
    changed = Variant(bundle, tmp_path / "variant")
    changed.rebake(lambda tree: tree["handover"].update(user=0, group=0))
    host = Host(tmp_path, {"death": fault("death")})
    found = boot(changed, *host.options, watch=host.watch, timeout_s=240)
    assert found.status == 0, f"{found.result}\n{found.console}"
    assert f"@@ done {token}" in found.console
    host.check()

    # It served before the workload was started.
    assert {"attest.sock", "control.sock"} <= set(found.lines("list /run/troth"))
    _check_answers(found, changed.path, provider="configfs-tsm")
    assert refusal(found, "raw") == (403, "not-allowed")
    recnum = body(found, "extend")["recnum"]
    rows = events(answer(found, "log")[1])
    assert [row["content"]["type"] for row in rows[recnum:]] == ["application", "agent-restarted"]
    good_report(found, "report-again", changed.path)
    assert body(found, "health-again")["status"] == "ok"
    for words in (
        "troth: the agent ended with 137, starts again in 1 s",
        "troth: the agent gave no sign of life for 30 s",
        "troth: the agent ended with 137, starts again in 2 s",
        "troth: workload exited 0",
    ):
        assert words in found.console
    assert refusal(found, "death") == (502, "provider-refused")
    assert refusal(found, "lost") == (503, "vmpck-lost")
    rows = events(answer(found, "log-at-end")[1])
    assert [row["content"]["type"] for row in rows[recnum:]] == [
        "application", "agent-restarted", "agent-restarted",
    ]  # fmt: skip


def test_snp_is_demanded_and_not_there(forge, boot, token):
    """Plain QEMU, and nothing of the simulated platform in the image that could help (S23)."""
    bundle = agent_bundles.bundle(forge, "agent-required")
    packed = [row["path"] for row in json.loads((bundle / "manifest.json").read_bytes())["packed"]]
    assert not [path for path in packed if re.search(r"simulated|cuse|fuse|algif|front", path)]
    assert "modules/sev-guest.ko" in packed
    found = boot(bundle, "--qemu-arg=-device", "--qemu-arg=virtio-serial-pci")
    check_refused(found, token, "snp-missing", stage="tee")
