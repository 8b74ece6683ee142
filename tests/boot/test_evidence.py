# SPDX-License-Identifier: Apache-2.0
"""Evidence made in a guest with a vTPM: report, quote, log and caller hold together outside.

The binding is computed here from its words in docs/formats.md, the report's signature is
checked with ``cryptography``, the quote by tpm2-tools where they are installed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import struct
import subprocess
from base64 import b64decode
from pathlib import Path

import pytest

from boot.bundles import TROTH, compile_guest
from boot.test_simulated import certificate, check_report
from troth.abi import tpm_attest
from troth.documents import event_log_json, evidence
from troth.measure import pcr
from troth.verify import quote

NONCE = bytes(range(32))
CHANNEL = hashlib.sha256(b"a channel's key").digest()
_QUESTION = json.dumps(
    {"nonce": NONCE.hex(), "user_data": "c0ffee", "channel_key_sha256": CHANNEL.hex()}
)
_WORDS = [
    "/app/run", "wait", "20",
    "ask", "evidence", "POST", "/v1/evidence", _QUESTION,
    "ask", "extend", "POST", "/v1/extend", '{"event":"app.start","data":"00ff"}',
    "ask", "short", "POST", "/v1/evidence", '{"nonce":"00"}',
    "run", "/run/troth/bin/troth", "evidence", "--nonce", NONCE.hex(), ";",
    "ask", "metrics", "GET", "/metrics", "-",
    "step", "take-tpm", "ask", "without-tpm", "POST", "/v1/evidence", _QUESTION,
    "ask", "report", "POST", "/v1/report", json.dumps({"nonce": NONCE.hex()}),
    "ask", "health", "GET", "/healthz", "-",
    "exit", "0",
]  # fmt: skip
_MANIFEST = """
[image]
name = "evidence"
kernel = KERNEL
compression = "none"
[handover]
supervise = WORDS
group = 900
grace_s = 5
[initramfs]
files = "app"
[tee]
snp = "simulated"
vtpm = "required"
[attest]
group = 900
quote = true
extend = [{ user = 65534 }]
""".replace("WORDS", json.dumps(_WORDS))


@pytest.fixture
def bundle(forge):
    pytest.importorskip("tpm2_pytss", reason="an image that quotes packs tpm2-pytss")
    place = forge.base / "evidence"
    with forge._locked("evidence"):
        if not (place / "bundle").exists():
            (place / "app").mkdir(parents=True)
            compile_guest("agent", place / "app/run", forge.token)
            manifest = place / "troth.toml"
            manifest.write_text(_MANIFEST.replace("KERNEL", forge._kernel("6.12")))
            subprocess.run([TROTH, "build", manifest, "-o", place / "bundle"], check=True)
    return place / "bundle"


def field(kind, value):
    return struct.pack("<BI", kind, len(value)) + value


def bound(tree):
    """REPORT_DATA of troth-evidence-v1, from its words in docs/formats.md."""
    tpm = {name: b64decode(tree["tpm"][name]) for name in ("ak_public", "attest", "signature")}
    registers = {row["name"]: bytes.fromhex(row["value"]) for row in tree["registers"]}
    counters = tree["tpm"]["counters"]
    if counters is not None:
        registers["tpm-counters"] = struct.pack(
            "<IIQ", counters["reset_count"], counters["restart_count"], counters["clock_ms"]
        )
    listed = b"".join(
        struct.pack("<I", len(part)) + part
        for name, value in sorted(registers.items())
        for part in (name.encode(), value)
    )
    log = b64decode(tree["event_log"])
    return hashlib.sha512(
        field(1, b"\x01\0\0\0")
        + field(2, b"troth-evidence-v1")
        + field(3, bytes.fromhex(tree["nonce"]))
        + field(4, tree["platform_kind"].encode())
        + field(5, bytes.fromhex(tree["channel_key_sha256"]))
        + field(6, b"\x00\x0b" + hashlib.sha256(tpm["ak_public"]).digest())
        + field(7, hashlib.sha256(tpm["attest"] + tpm["signature"]).digest())
        + field(8, listed)
        + field(9, hashlib.sha384(log).digest())
        + field(10, struct.pack("<Q", log.count(b"\n")))
        + field(11, tree["caller"].encode())
        + field(12, bytes.fromhex(tree["user_data"]))
    ).digest()


def check_evidence(tree, bundle):
    """Everything in ``tree`` belongs together; the records of its log."""
    assert (tree["schema"], tree["platform_kind"]) == ("troth-evidence-v1", "simulated")
    assert bytes.fromhex(tree["nonce"]) == NONCE
    assert tree["caller"] == "uid=65534 gid=900 unit=-"
    check_report(b64decode(tree["report"]), certificate(bundle, "vcek"), report_data=bound(tree))
    found = evidence.parse(json.dumps(tree).encode())
    events = event_log_json.parse(found.event_log)
    replayed = pcr.replay(events)
    judged = quote.judge(found.tpm, nonce=NONCE, replayed=replayed)
    verdicts = {step.code: step.verdict for step in judged.steps}
    assert "fail" not in verdicts.values(), judged.steps
    # Nothing but the platform can say that this key is in its TPM, and here nothing does.
    assert [code for code, verdict in verdicts.items() if verdict != "pass"] == ["ak-in-tpm"]
    assert {index for _bank, index in judged.pcrs} == {*range(16), 23}
    registers = dict(found.registers)
    for (bank, index), value in judged.pcrs.items():
        assert registers[f"{bank}:{index}"] == value
    check_by_tpm2_tools(found)
    return events


def check_by_tpm2_tools(found):
    if shutil.which("tpm2_checkquote") is None:
        return
    area = found.tpm.ak_public
    name = tpm_attest.name(area)
    qualifying = hashlib.sha256(
        field(2, b"troth-quote-v1") + field(3, NONCE) + field(6, name)
    ).hexdigest()
    read = {
        "-u": struct.pack(">H", len(area)) + area,
        "-m": found.tpm.attest,
        "-s": found.tpm.signature,
    }
    ends, words = [], ["tpm2_checkquote", "-g", "sha256", "-q", qualifying]
    for option, data in read.items():
        fd = os.memfd_create(option)
        os.write(fd, data)
        ends.append(fd)
        words += [option, f"/proc/self/fd/{fd}"]
    try:
        subprocess.run(words, check=True, pass_fds=ends, capture_output=True, timeout=30)
    finally:
        for fd in ends:
            os.close(fd)


class Host:
    """Takes the TPM away when the guest says that it is time."""

    def __init__(self, port):
        self.options = ("--port", f"test.steps={port}")
        self._port = port
        self._socket = None

    def watch(self, console, process):
        if self._socket is None and "@@ step take-tpm\n" in console:
            (tpm,) = [child for child in process.children() if child.name() == "swtpm"]
            tpm.kill()
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.connect(str(self._port))
            self._socket.sendall(b"go\n")
        return False

    def close(self):
        assert self._socket is not None
        self._socket.close()


def verified(data, bundle, place, *words):
    """What ``troth verify evidence`` finds, by a strict policy for this simulated platform."""
    key, reference, policy = place / "vendor.pem", place / "reference.json", place / "policy.toml"
    if not policy.exists():
        subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True)
        public = subprocess.run(
            ["openssl", "pkey", "-in", key, "-pubout"], check=True, capture_output=True, text=True
        ).stdout.splitlines()
        subprocess.run(
            [TROTH, "reference", "sign", bundle, "--key", key, "--valid-days", "30",
             "-o", reference],
            check=True,
        )  # fmt: skip
        subprocess.run(
            [TROTH, "verify", "init-policy", "--simulated", "--accept-unprotected-acpi",
             "-o", policy],
            check=True,
        )  # fmt: skip
        values = json.loads((bundle / "reference-values.json").read_text())
        text = policy.read_text()
        for line, found in (
            ("trusted_roots", [Path(f"{bundle}.sim/root-sha256").read_text().strip()]),
            ("measurements", [launch["digest"] for launch in values["launch"]]),
            ("public_keys", ["".join(public[1:-1])]),
        ):
            assert text.count(f"\n{line} = []") == 1
            text = text.replace(f"\n{line} = []", f"\n{line} = {json.dumps(found)}")
        policy.write_text(text.replace("\nsmt = false\nmigrate_ma", "\nsmt = true\nmigrate_ma"))
    (place / "evidence.json").write_bytes(data)
    done = subprocess.run(
        [TROTH, "verify", "evidence", place / "evidence.json", "--reference", reference,
         "--policy", policy, "--certs", f"{bundle}.sim/certs", "--nonce", NONCE.hex(),
         "--accept-simulated", "--json", *words],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    tree = json.loads(done.stdout)
    return tree["overall"], {check["code"]: check for check in tree["checks"]}


def check_verdict(text, bundle, place):
    """The verifier's own word, with what belongs to it, and with one thing changed."""
    words = ("--user-data", "c0ffee", "--channel-key", CHANNEL.hex())
    overall, checks = verified(text.encode(), bundle, place, *words)
    odd = {code: check for code, check in checks.items() if check["verdict"] == "fail"}
    assert overall == "pass-simulated", odd or checks
    assert not odd
    for code in quote.CODES:
        assert checks[code]["verdict"] == ("not-checked" if code == quote.IN_TPM else "pass")
    tree = json.loads(text)
    tree["caller"] = "uid=0 gid=0 unit=-"
    overall, checks = verified(json.dumps(tree).encode(), bundle, place, *words)
    assert (overall, checks["report-data"]["verdict"]) == ("fail", "fail")
    overall, _checks = verified(text.encode(), bundle, place, "--user-data", "c0ffef", *words[2:])
    assert overall == "fail"


def test_evidence_of_a_guest(bundle, boot, token, tmp_path):
    """Made in the guest over its socket and by its verb; checked here. Then the TPM goes."""
    host = Host(tmp_path / "steps")
    found = boot(bundle, "--sim-snp", *host.options, watch=host.watch, timeout_s=200)
    host.close()
    assert found.status == 0, f"{found.result}\n{found.console}"
    assert f"@@ done {token}" in found.console

    status, _, text = found.section("evidence").partition("\n")
    assert status == "200", text
    tree = json.loads(text)
    assert (tree["user_data"], tree["channel_key_sha256"]) == ("c0ffee", CHANNEL.hex())
    before = check_evidence(tree, bundle)
    check_verdict(text, bundle, tmp_path)

    (line,) = [line for line in found.said.splitlines() if line.startswith('{"caller"')][-1:]
    tree = json.loads(line)
    assert (tree["user_data"], tree["channel_key_sha256"]) == ("", "")
    after = check_evidence(tree, bundle)

    # What the application added is in the log, and in the register that was quoted.
    assert after[: len(before)] == before
    assert [event.kind for event in after[len(before) :]] == ["application"]
    assert found.section("short").startswith("400")

    # The library lived in another process: the agent stays as small as it was.
    page = found.section("metrics")
    (resident,) = [
        line for line in page.splitlines() if line.startswith("process_resident_memory_bytes ")
    ]
    assert float(resident.split(" ")[1]) < 32 << 20

    # Without its TPM a guest gives no evidence that looks like evidence, and reports go on.
    status, _, text = found.section("without-tpm").partition("\n")
    assert (status, json.loads(text)["code"]) == ("502", "tpm-command")
    assert found.section("report").startswith("200")
    assert found.section("health").startswith("200")
