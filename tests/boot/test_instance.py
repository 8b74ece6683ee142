# SPDX-License-Identifier: Apache-2.0
"""Guests that are told who they are: the file that the launch names, and nothing else.

The files' digests are made here, by hashlib; HOST_DATA of hostile launches is set
at the processor, apart from what ``troth run --instance`` would do.
"""

from __future__ import annotations

import hashlib
import json
import subprocess

import pytest

from boot.bundles import TROTH
from boot.expected import event_names, events
from boot.machine import check_good, check_refused
from boot.test_disk_failures import failing_disk
from boot.test_simulated import commands

#: Its length is no multiple of a sector, and its layout is not the canonical one.
FILE = b"""{
  "schema": "troth-instance-v1",
  "hostname": "shop-7.example",
  "network": {"method": "static", "address": "192.0.2.10/24", "router": "192.0.2.1"},
  "brokers": {"keys": ["broker.example:8443", "[2001:db8::7]:8443"]},
  "values": {"region": "eu", "owner": "Zo\xc3\xab"}
}
"""
SMALL = b'{"schema":"troth-instance-v1","hostname":"small"}'


def digest(data):
    return hashlib.sha256(data).digest()


def launch(host_data):
    """The command that gives the launch its HOST_DATA."""
    return {"command": "launch", "host_data": host_data.hex()}


def test_the_file_that_the_launch_names(forge, boot, token, tmp_path):
    bundle = forge.bundle("instance")
    path = tmp_path / "shop.json"
    path.write_bytes(FILE)
    found = boot(bundle, "--sim-snp", "--instance", path)
    check_good(found, token)
    assert found.stages == ["mounts", "policy", "modules", "tee", "devices", "instance", "verity",
                            "root", "workload", "handover"]  # fmt: skip
    assert event_names(found) == ["policy", "cmdline", "verity", "phase", "instance", "workload",
                                  "phase", "cap:14", "cap:15"]  # fmt: skip
    (event,) = [one for one in events(found) if one.kind == "instance"]
    assert (event.pcr, event.content) == (14, digest(FILE))
    assert found.lines("file /proc/sys/kernel/hostname") == ["shop-7.example"]
    assert found.section("file /run/troth/instance.json").encode() + b"\n" == FILE
    assert found.json("verb status")["host_data"] == digest(FILE).hex()
    _check_registers(found, bundle, path)
    _check_replay(found, bundle, path, tmp_path)


def _check_registers(found, bundle, path):
    """What the verb predicted from bundle and file alone is what the kernel reads of the TPM."""
    words = [TROTH, "pcr", "predict", bundle, "--instance", path, "--json"]
    cases = json.loads(subprocess.run(words, check=True, capture_output=True).stdout)
    cmdline = found.section("file /proc/cmdline")
    (case,) = [one for one in cases if one["cmdline"] == cmdline]
    rows = [line.split(" ") for line in found.lines("pcrs")]
    wanted = {
        (bank, int(index)): value
        for bank, values in case["pcrs"].items()
        for index, value in values.items()
    }
    assert len(wanted) == 12
    assert {(bank, int(index)): value.lower() for bank, index, value in rows} == wanted
    assert found.json("verb measurements")["software_register"] == case["software"]


def _check_replay(found, bundle, path, tmp_path):
    log = tmp_path / "log"
    log.write_text(found.section("file /run/troth/event-log.jsonl") + "\n")
    words = [TROTH, "pcr", "replay", log, "--against", bundle]
    assert subprocess.run(words, capture_output=True, check=False).returncode == 0
    assert (
        subprocess.run([*words, "--instance", path], capture_output=True, check=False).returncode
        == 0
    )
    other = tmp_path / "other.json"
    other.write_bytes(SMALL)
    assert (
        subprocess.run([*words, "--instance", other], capture_output=True, check=False).returncode
        == 1
    )


def test_without_volumes_and_supervised(forge, boot, token, tmp_path):
    """Kernel 6.1; the disk of the configuration is the only one."""
    path = tmp_path / "small.json"
    path.write_bytes(SMALL)
    found = boot(forge.bundle("instance-supervised"), "--sim-snp", "--instance", path)
    check_good(found, token)
    assert found.stages == ["mounts", "policy", "modules", "tee", "devices", "instance", "handover"]
    assert "instance" in event_names(found)


def test_optional_and_not_named(forge, boot, token):
    found = boot(forge.bundle("instance-supervised"), "--sim-snp")
    check_good(found, token)
    assert "instance" not in event_names(found)


def test_an_image_that_takes_none(forge, boot, token, tmp_path):
    """HOST_DATA and a disk of that name decide nothing."""
    disk = tmp_path / "disk"
    disk.write_bytes(FILE)
    control = tmp_path / "control"
    with commands(control, launch(digest(FILE))):
        found = boot(
            forge.bundle("simulated"), "--sim-snp", "--sim-control", control, "--disk",
            f"instance={disk},ro",
        )  # fmt: skip
    check_good(found, token)
    assert "instance" not in found.stages
    assert found.json("file /run/troth/state/boot.json")["host_data"] == digest(FILE).hex()


LARGE = SMALL + b" " * 65536
FOREIGN = b'{"schema":"troth-instance-v1","brokers":{"mine":["192.0.2.1:1"]}}'
FORGED = b'{"schema":"troth-instance-v1","x\\ntroth: refused other: no\\n":1}'


@pytest.mark.parametrize(
    ("disks", "host_data", "code", "stage", "words"),
    [
        ([FILE], bytes(32), "instance-missing", "instance", "HOST_DATA of this launch is zero"),
        ([], digest(FILE), "instance-missing", "devices", "serial:instance did not appear"),
        ([FILE], digest(SMALL), "instance-digest", "instance", digest(SMALL).hex()),
        ([FILE + b" "], digest(FILE), "instance-digest", "instance", digest(FILE).hex()),
        ([FILE + bytes(99) + b"x"], digest(FILE), "instance-digest", "instance", "SHA-256"),
        ([LARGE], digest(LARGE), "instance-size", "instance", "more than 65536 bytes"),
        ([bytes(4096)], digest(b""), "instance-size", "instance", "it is empty"),
        ([b"{"], digest(b"{"), "instance-format", "instance", "json-syntax: "),
        ([FORGED], digest(FORGED), "instance-format", "instance", "json-unknown: "),
        ([FOREIGN], digest(FOREIGN), "instance-policy", "instance", "no broker 'mine'"),
        ([FILE, FILE], digest(FILE), "disk-duplicate", "devices", "serial:instance is on 2 disks"),
    ],
    ids=["unnamed", "absent", "other", "longer", "behind", "large", "empty", "syntax", "forged",
         "foreign", "twice"],
)  # fmt: skip
def test_refused(forge, boot, token, tmp_path, disks, host_data, code, stage, words):
    options = []
    for number, data in enumerate(disks):
        disk = tmp_path / f"disk-{number}"
        disk.write_bytes(data)
        options += ["--disk", f"instance={disk},ro"]
    control = tmp_path / "control"
    with commands(control, launch(host_data)):
        found = boot(forge.bundle("instance"), "--sim-snp", "--sim-control", control, *options)
    check_refused(found, token, code, stage=stage)
    assert words in found.console.replace("\r", "").split(f"troth: refused {code}: ")[1]
    assert "verity" not in found.stages


def test_a_disk_that_cannot_be_read(forge, boot, token, tmp_path):
    disk = tmp_path / "disk"
    disk.write_bytes(FILE.ljust(4096, b"\0"))
    control = tmp_path / "control"
    with commands(control, launch(digest(FILE))):
        found = boot(
            forge.bundle("instance"), "--sim-snp", "--sim-control", control,
            *failing_disk(disk, 0, "instance"),
        )  # fmt: skip
    check_refused(found, token, "instance-read", stage="instance")


def test_optional_and_forgotten(forge, boot, token, tmp_path):
    """A disk is there, and the launch names none: somebody has made a mistake."""
    disk = tmp_path / "disk"
    disk.write_bytes(SMALL)
    found = boot(forge.bundle("instance-supervised"), "--sim-snp", "--disk", f"instance={disk},ro")
    check_refused(found, token, "instance-digest", stage="instance")
