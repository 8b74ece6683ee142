# SPDX-License-Identifier: Apache-2.0
"""The examples, made from nothing, built and booted as their README says."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import shutil
import socket
import ssl
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from boot import machine
from boot.bundles import TROTH
from troth.documents import binding, reference_values_json

REPOSITORY = Path(__file__).parents[2]
NONCE = "5a" * 32


@pytest.fixture
def rooted(tmp_path):
    """Makes the root of one example in a copy of examples/; its directory."""
    copy = tmp_path / "examples"

    def make(name: str) -> Path:
        kept = shutil.ignore_patterns("rootfs", "rootfs.tar", "models", "troth.lock")
        shutil.copytree(REPOSITORY / "examples", copy, ignore=kept)
        subprocess.run([copy / name / "make-root"], check=True)
        return copy / name

    yield make
    shutil.rmtree(copy, ignore_errors=True)


@pytest.fixture
def made(rooted, tmp_path):
    """Makes and builds one example; its bundle."""
    bundle = tmp_path / "bundle"

    def make(name: str) -> Path:
        subprocess.run([TROTH, "build", rooted(name) / "troth.toml", "-o", bundle], check=True)
        return bundle

    yield make
    shutil.rmtree(bundle, ignore_errors=True)


def told(found: machine.Boot) -> dict[str, str]:
    """Lines ``demo-check KEY REST`` of the console."""
    lines = [
        line[line.index("demo-check ") :].split(" ", 2)
        for line in found.said.splitlines()
        if "demo-check " in line
    ]
    return {words[1]: words[2] for words in lines if len(words) == 3}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def over_tls(port: int, path: str, seen: dict) -> bytes:
    """What the service answers; the certificate that it shows goes into ``seen``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    caller = http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=context)
    with contextlib.closing(caller):
        caller.request("GET", path)
        seen["certificate"] = caller.sock.getpeercert(binary_form=True)
        answer = caller.getresponse()
        assert answer.status == 200, answer.read()
        return answer.read()


def powered_off(bundle: Path, place: Path) -> Path:
    """The command line with the example's one variable set."""
    text = (bundle / "cmdline").read_text()
    assert "demo.check=off" in text
    path = place / "cmdline"
    path.write_text(text.replace("demo.check=off", "demo.check=poweroff"))
    return path


def check_predicted(found: dict, bundle: Path, cmdline: str) -> None:
    values = reference_values_json.parse((bundle / "reference-values.json").read_bytes())
    (case,) = [one for one in values.cases if (one.cmdline, one.tpm) == (cmdline, "present")]
    assert found["software_register"] == case.handover.software
    observed = {(row["bank"], row["pcr"]): row["observed"] for row in found["registers"]}
    assert observed == {(bank, index): value for bank, index, value in case.handover.pcrs}


@pytest.mark.skipif(shutil.which("mmdebstrap") is None, reason="needs mmdebstrap")
def test_service_under_systemd_and_a_host_that_offers_things(made, tmp_path):
    """Debian's systemd reaches `running`, and takes no order from SMBIOS or fw_cfg (S12)."""
    bundle = made("service")
    cmdline = powered_off(bundle, tmp_path)
    port, tls_port = free_port(), free_port()
    answers, evidence = [], {}

    def ask(console, _process):
        """The guest switches itself off once it has answered somebody."""
        if "demo-check end" not in console:
            return False
        try:
            evidence.update(json.loads(over_tls(tls_port, f"/evidence?nonce={NONCE}", evidence)))
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as answer:
                answers.append(json.load(answer))
        except OSError:
            # Started, and not listening yet.
            return False
        return True

    found = machine.run(
        bundle,
        tmp_path,
        "--sim-snp",
        "--forward", f"{port}:8080",
        "--forward", f"{tls_port}:8443",
        "--cmdline", cmdline,
        "--qemu-arg=-smbios",
        "--qemu-arg=type=11,value=io.systemd.credential:sysusers.extra=evil",
        "--qemu-arg=-fw_cfg",
        "--qemu-arg=name=opt/io.systemd.credentials/sysusers.extra,string=evil",
        timeout_s=300,
        watch=ask,
    )  # fmt: skip
    assert found.status == 0, f"{found.result}\n{found.console}"
    (facts,) = answers
    assert facts["root"]["type"] == "overlay"
    assert facts["model"]["mount"]["source"].startswith("/dev/dm-")
    says = told(found)
    assert says["state"] == "running"
    assert "failed" not in says
    assert says["root"].split()[2] == "overlay"
    assert says["models"].split()[1].startswith("/dev/dm-")
    assert "ro" in says["workload"].split()[-1].split(",")
    assert says["credentials"] == "0"
    assert json.loads(says["info"])["caller"]["unit"] == "check.service"
    nonce, report = says["report"].split()
    wanted = binding.report_binding(bytes.fromhex(nonce))
    assert bytes.fromhex(report)[0x50:0x90] == wanted
    assert evidence["nonce"] == NONCE
    assert evidence["caller"].endswith(" unit=app.service")
    shown = x509.load_der_x509_certificate(evidence["certificate"]).public_key()
    spki = shown.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert evidence["channel_key_sha256"] == hashlib.sha256(spki).hexdigest()
    check_predicted(json.loads(says["measurements"]), bundle, cmdline.read_text())


def test_all_in_the_initramfs(made, tmp_path):
    bundle = made("initramfs-only")
    found = machine.run(bundle, tmp_path, "--cmdline", powered_off(bundle, tmp_path))
    assert found.status == 0, f"{found.result}\n{found.console}"
    service = json.loads(told(found)["service"])
    assert service["uid"] == 65534
    assert found.result["workload_exit"] == 0


def test_foreign_root(made, tmp_path):
    """No Python and no libc in the root: the verbs bring their own."""
    bundle = made("foreign-root")
    found = machine.run(bundle, tmp_path)
    assert found.status == 0, f"{found.result}\n{found.console}"
    cmdline = (bundle / "cmdline").read_text()
    check_predicted(json.loads(told(found)["measurements"]), bundle, cmdline)


def test_encrypted(rooted, tmp_path):
    """The demonstration as it is, and what it leaves, looked at from outside."""
    example = rooted("encrypted")
    out = tmp_path / "out"
    demo = [sys.executable, example.parent / "demo_encrypted.py", example, out]
    done = subprocess.run(demo, stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, done.stdout
    # Three boots that reached the program, which found one note more each time.
    for number, version in ((1, "1"), (2, "1"), (3, "2")):
        shown = (out / f"boot-{number}.txt").read_text("utf-8", "replace")
        assert "troth: handover /sbin/init" in shown
        assert f"demo-check version {version}" in shown
        assert f"demo-check found {number - 1}" in shown
        assert shown.count("demo-check note the spare key") == number - 1
    # Two that did not, each refused where it should be.
    for name, code in (
        ("rolled-back", "header-refused: record-rolled-back"),
        ("withdrawn", "key-refused: broker-refused"),
    ):
        shown = (out / f"{name}.txt").read_text("utf-8", "replace")
        assert f"troth: refused {code}: " in shown
        assert "demo-check" not in shown
        assert "troth: handover" not in shown
    listed = json.loads(
        subprocess.run(
            [TROTH, "keybroker", "list", "--db", out / "broker", "--json"],
            stdout=subprocess.PIPE, check=True,
        ).stdout
    )  # fmt: skip
    assert [(one["svn"], one["state"]) for one in listed["classes"]] == [
        (1, "retired"), (2, "active"),
    ]  # fmt: skip
    (volume,) = [one["volume"] for one in listed["resources"]]
    assert (volume["state"], volume["generation"], volume["taken_over"]) == ("in-use", 3, 3)
    # One release a guest, the one whose disk was refused included; three came to an end.
    assert (listed["releases"], listed["boots_finished"]) == (4, 3)
    audit = [json.loads(line) for line in (out / "broker/audit.jsonl").read_text().splitlines()]
    released = [one for one in audit if one["code"] == "released"]
    assert [one["svn"] for one in released] == [1, 1, 1, 2]
    assert len({one["report_id"] for one in released}) == 4
    assert [one["code"] for one in audit if one["code"].startswith("class-")] == [
        "class-not-active"
    ]
    disk = (out / "notes.img").read_bytes()
    assert len(disk) == 32 << 20
    for words in (b"spare key", b"lost+found", b"6a2b1c0e"):
        assert words not in disk
    shutil.rmtree(out)
