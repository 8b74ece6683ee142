# SPDX-License-Identifier: Apache-2.0
"""Faults of host and processor while a guest runs, as ``troth report`` meets them in the guest.

What the guest cannot see, a signature or a foreign chain, it hands on, and the
verifier outside refuses it: both ends are looked at here. Faults that other tests
show in a guest (death, stale and altered answers, busy hosts, no answer) are not
repeated.
"""

from __future__ import annotations

import json
import re
import subprocess
from base64 import b64decode
from pathlib import Path

import pytest

from boot.bundles import TROTH, compile_guest
from boot.test_agent import Host, fault
from boot.variants import Variant

NONCE = "00112233445566778899aabbccddeeff"
MANIFEST = """
[image]
name = "faults"
kernel = {kernel}
compression = "none"
[root]
source = "root"
overlay = "none"
[tee]
snp = "simulated"
vtpm = "none"
"""
#: step -> (provider, the host's commands, code of the error or "" where a report comes)
STEPS = {
    "none": ("configfs-tsm", [{"command": "status"}], ""),
    "delayed": ("sev-guest", fault("delayed", value=1500), ""),
    "certificates-none": ("sev-guest", fault("certificates-none"), ""),
    "certificates-cut": ("sev-guest", fault("certificates-cut"), ""),
    "certificates-short": ("sev-guest", fault("certificates-short"), "provider-certificates"),
    "other-chain": ("sev-guest", fault("other-chain"), ""),
    "bad-signature": ("configfs-tsm", fault("bad-signature"), ""),
    "wrong-vmpl": ("configfs-tsm", fault("wrong-vmpl"), "provider-mismatch"),
    "short-report": ("sev-guest", fault("short-report"), "provider-size"),
    "status": ("sev-guest", fault("status", value=0x27), "provider-refused"),
    # From here on the driver has destroyed its key.
    "vmm-error": ("sev-guest", fault("vmm-error"), "provider-refused"),
    "lost": ("sev-guest", [{"command": "status"}], "vmpck-lost"),
    "lost-too": ("configfs-tsm", [{"command": "status"}], "vmpck-lost"),
}


@pytest.fixture(scope="module")
def bundle(forge):
    place = forge.base / "faults"
    with forge._locked("faults"):
        if not (place / "bundle").exists():
            (place / "root/sbin").mkdir(parents=True)
            compile_guest("agent", place / "root/sbin/init", forge.token)
            manifest = place / "troth.toml"
            manifest.write_text(MANIFEST.replace("{kernel}", forge._kernel("6.12")))
            subprocess.run([TROTH, "build", manifest, "-o", place / "bundle"], check=True)
    return place / "bundle"


def words():
    yield "/sbin/init"
    for name, (provider, _commands, _code) in STEPS.items():
        yield from ("step", name, "run", "/run/troth/bin/troth", "report", "--nonce", NONCE)
        yield from ("--format", "json", "--provider", provider, ";")
    yield "off"


def test_faults_in_a_running_guest(bundle, boot, token, tmp_path):
    changed = Variant(bundle, tmp_path / "variant")
    changed.rebake(lambda tree: tree["handover"].update(argv=list(words())))
    host = Host(tmp_path, {name: commands for name, (_, commands, _) in STEPS.items()})
    found = boot(changed, *host.options, watch=host.watch, timeout_s=240)
    assert f"@@ done {token}" in found.console, found.console
    host.check()
    said = dict(re.findall(r"@@ step (\S+)\n(.*?)(?=@@ step|@@ done)", found.console, re.DOTALL))
    answers = {}
    for name, (_provider, _commands, code) in STEPS.items():
        status = re.search(r"@@ status \S+ report\n(\d+)", said[name])
        assert status, said[name]
        if code:
            assert f"[{code}]" in said[name], said[name]
            assert status[1] != "0"
        else:
            assert status[1] == "0", said[name]
            answers[name] = json.loads(
                re.search(r"^\{.*?^\}", said[name], re.MULTILINE | re.DOTALL)[0]
            )
    _outside(answers, Path(f"{changed.path}.sim"), tmp_path)


def _outside(answers, platform, tmp_path):
    """What the verifier makes of each answer, with the platform's own certificates."""
    # The device gives the buffer's whole pages.
    certificates = {
        name: b64decode(answer["certificates"]).rstrip(b"\0") for name, answer in answers.items()
    }
    whole = certificates["none"]
    assert whole
    assert certificates["delayed"] == whole
    assert certificates["certificates-none"] == b""
    assert 0 < len(certificates["certificates-cut"]) < len(whole)
    assert certificates["other-chain"] not in (b"", whole)
    policy = tmp_path / "policy.toml"
    subprocess.run(
        [TROTH, "verify", "init-policy", "--permissive", "--simulated", "-o", policy], check=True
    )
    root = (platform / "root-sha256").read_text().strip()
    text, count = re.subn(
        r"^trusted_roots = .*$",
        f'trusted_roots = ["{root}"]',
        policy.read_text(),
        flags=re.MULTILINE,
    )
    assert count == 1
    policy.write_text(text)
    wrong = {}
    for name, answer in answers.items():
        report = tmp_path / f"{name}.bin"
        report.write_bytes(b64decode(answer["report"]))
        ran = subprocess.run(
            [TROTH, "verify", "report", report, "--certs", platform / "certs", "--policy", policy,
             "--nonce", NONCE, "--accept-simulated", "--json"],
            capture_output=True, check=False,
        )  # fmt: skip
        checks = json.loads(ran.stdout)["checks"]
        wrong[name] = {check["code"] for check in checks if check["verdict"] == "fail"}
        assert (ran.returncode == 0) == (not wrong[name])
    # A foreign chip's report fits neither the certificate of this one nor its key.
    assert wrong.pop("other-chain") >= {"report-signature"}
    assert wrong.pop("bad-signature") == {"report-signature"}
    assert not any(wrong.values()), wrong
