# SPDX-License-Identifier: Apache-2.0
"""`troth run --sim-snp`: the processor as part of a run, with a stand-in for QEMU."""

import hashlib
import json
import os
import re
import stat
import struct
import sys
from pathlib import Path

import pytest

from made_bundle_dir import make_bundle
from made_platform import other_platform, platform
from troth.abi import snp_report
from troth.cli.main import main
from troth.machine import simulated_platform
from troth.measure import simulated_launch
from troth.simulated import wire
from troth.verify.endorsing import chain, endorsements

ONE = b'{ "schema": "troth-instance-v1", "hostname": "one" }\n'
RULES = {"need": "optional", "hostname": True, "network": [], "brokers": [], "values": {}}
FAKE = Path(__file__).parent / "data" / "fake-qemu-sim"


@pytest.fixture
def fake_path(tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "qemu-system-x86_64"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} {FAKE} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    # Keys of their own take seconds; what is tested here is the run.
    made = iter((platform(), other_platform()))
    monkeypatch.setattr(simulated_platform, "_new", lambda: next(made))


@pytest.fixture
def bundle(tmp_path):
    return make_bundle(tmp_path / "bundle", snp="simulated", instance=RULES)


def run(bundle, tmp_path, *words):
    """(status, report) of a run."""
    console = tmp_path / "console"
    status = main(["run", str(bundle), "--sim-snp", "--console", str(console), *words])
    found = dict(re.findall(r"^(report|table) ([0-9a-f]+)\s*$", console.read_text(), re.MULTILINE))
    return status, snp_report.parse(bytes.fromhex(found["report"])), bytes.fromhex(found["table"])


def by_hand(*parts):
    data = b"troth-simulated-launch-v1\0"
    for part in parts:
        data += struct.pack("<Q", len(part)) + part
    return hashlib.sha384(data).digest()


def test_the_launch_digest():
    found = simulated_launch.digest(kernel=b"kern", initramfs=b"", cmdline=b"a=b c")
    assert found == by_hand(b"kern", b"", b"a=b c")
    assert found != simulated_launch.digest(kernel=b"ker", initramfs=b"n", cmdline=b"a=b c")
    assert found.hex() == (
        hashlib.sha384(
            bytes.fromhex("74726f74682d73696d756c617465642d6c61756e63682d763100")
            + bytes.fromhex("0400000000000000 6b65726e 0000000000000000 0500000000000000")
            + b"a=b c"
        ).hexdigest()
    )


@pytest.mark.usefixtures("fake_path")
def test_a_run_with_a_processor(tmp_path, bundle, capfd):
    status, report, table = run(bundle, tmp_path)
    assert status == 0
    assert report.report_data == b"n" * 64
    assert report.measurement == by_hand(b"k", b"i", b"fake=clean")
    assert report.host_data == bytes(32)
    assert (report.policy, report.version) == (0x30000, 5)
    said = capfd.readouterr().err
    assert report.measurement.hex() in said
    keys = tmp_path / "bundle.sim"
    assert str(keys) in said
    root = (keys / "root-sha256").read_text().strip()
    given = endorsements.read_directory(keys / "certs")
    judged = chain.chain(report, given, roots=[root], at=platform_time(), simulated=True)
    assert {step.code: step.verdict for step in judged.steps if step.verdict != "pass"} == {}
    assert len(table) == 4 * 4096
    # Nothing is put into the bundle, and nothing of the run stays.
    assert sorted(path.name for path in bundle.iterdir()) == sorted(
        ["vmlinuz", "initramfs", "cmdline", "root.img", "policy.json", "manifest.json"]
    )
    assert not list(tmp_path.glob("troth-run-*"))
    # The next run is of the same chip, and a launch of its own.
    _, again, _ = run(bundle, tmp_path)
    assert again.chip_id == report.chip_id
    assert again.report_id != report.report_id


def platform_time():
    from datetime import UTC, datetime

    return datetime.now(UTC)


@pytest.mark.usefixtures("fake_path")
def test_instance_and_command_line_are_in_the_report(tmp_path, bundle):
    instance, cmdline = tmp_path / "instance.json", tmp_path / "cmdline"
    instance.write_bytes(ONE)
    cmdline.write_bytes(b"fake=clean  other\xff\n")
    _, report, _ = run(bundle, tmp_path, "--instance", str(instance), "--cmdline", str(cmdline))
    assert report.host_data == hashlib.sha256(ONE).digest()
    assert report.measurement == by_hand(b"k", b"i", b"fake=clean  other\xff")


@pytest.mark.usefixtures("fake_path")
def test_the_control_socket_is_there_while_it_runs(tmp_path, bundle, monkeypatch):
    control = tmp_path / "control"
    seen = []
    start = simulated_platform.SimulatedPlatform.start

    def watched(self, folder):
        server = start(self, folder)
        seen.append(stat.S_IMODE(control.stat().st_mode))
        return server

    monkeypatch.setattr(simulated_platform.SimulatedPlatform, "start", watched)
    assert run(bundle, tmp_path, "--sim-control", str(control))[0] == 0
    assert seen == [0o600]
    assert not control.exists()


def test_the_command_line_of_qemu(tmp_path, bundle, capsys, monkeypatch):
    monkeypatch.setattr(simulated_platform, "_new", lambda: pytest.fail("keys for a dry run"))
    instance = tmp_path / "i,1"
    instance.write_bytes(ONE)
    words = ["run", str(bundle), "--dry-run", "--sim-snp", "--port", f"agent={tmp_path}/s"]
    assert main([*words, "--instance", str(instance)]) == 0
    line = capsys.readouterr().out
    assert "path=/tmp/troth-run/sim-snp,server=off" in line
    assert f"name={wire.PORT}" in line
    assert f"path={tmp_path}/s,server=on,wait=off" in line
    assert f"file.filename={tmp_path}/i,,1,readonly=on" in line
    assert "serial=instance" in line
    assert not (tmp_path / "bundle.sim").exists()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--instance", "/nonexistent"], "instance-file"),
        (["--instance", "/dev/null"], "instance-file"),
        (["--instance", "/dev/zero"], "instance-file"),
        (["--instance", "/etc/hostname", "--disk", "instance=/dev/null"], "disk-file"),
        (["--instance", "/etc/hostname", "--disk", "instance=/etc/hostname"], "usage"),
        (["--sim-control", "/etc/hostname"], "port-socket"),
        (["--port", "troth.sim-snp=/nonexistent/x"], "usage"),
    ],
)
def test_usage_errors(bundle, capsys, words, code):
    assert main(["run", str(bundle), "--dry-run", "--sim-snp", *words]) == 2
    assert f"[{code}]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"{", 1, "json-syntax"),
        (b'{"schema":"troth-instance-v1","hostname":"ONE"}', 1, "instance-form"),
        (b'{"schema":"troth-instance-v1","values":{"a":"b"}}', 1, "instance-policy"),
        (b" " * 65537, 2, "instance-file"),
    ],
)
def test_what_the_guest_would_refuse_is_not_started(tmp_path, bundle, capsys, data, status, code):
    instance = tmp_path / "instance.json"
    instance.write_bytes(data)
    words = ["run", str(bundle), "--dry-run", "--sim-snp", "--instance", str(instance)]
    assert main(words) == status
    said = capsys.readouterr().err
    assert f"[{code}]" in said
    assert str(instance) in said


def test_an_image_that_takes_no_instance_configuration(tmp_path, capsys):
    folder = make_bundle(tmp_path / "b", snp="simulated")
    instance = tmp_path / "instance.json"
    instance.write_bytes(ONE)
    assert main(["run", str(folder), "--dry-run", "--sim-snp", "--instance", str(instance)]) == 2
    assert "[instance-refused]" in capsys.readouterr().err


@pytest.mark.parametrize("snp", ["none", "required"])
def test_only_simulated_bundles_have_it(tmp_path, capsys, snp):
    folder = make_bundle(tmp_path / "b", snp=snp)
    assert main(["run", str(folder), "--dry-run", "--sim-snp"]) == 2
    assert "[sim-snp]" in capsys.readouterr().err


@pytest.mark.usefixtures("fake_path")
def test_keys_that_cannot_be_used_end_the_run_before_it_starts(tmp_path, bundle, capfd):
    keys = tmp_path / "bundle.sim"
    keys.mkdir()
    assert main(["run", str(bundle), "--sim-snp"]) == 3
    assert "[sim-pki-directory]" in capfd.readouterr().err
    (keys / "chip.json").write_text("{}")
    assert main(["run", str(bundle), "--sim-snp", "--json"]) == 1
    assert "[sim-pki]" in capfd.readouterr().err
    assert json.loads((bundle / "manifest.json").read_bytes())["snp"] == "simulated"
    assert not list(tmp_path.glob("troth-run-*"))


def test_names_agree():
    from troth.machine import runner

    assert runner.SIMULATED_PORT == wire.PORT == simulated_platform.PORT
    assert simulated_platform.keys_beside(Path("/a/b/../c")) == Path("/a/c.sim")
