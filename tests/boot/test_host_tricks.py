# SPDX-License-Identifier: Apache-2.0
"""What a host offers beside disks: a TPM nobody asked for or of another kind, firmware, no seed."""

from __future__ import annotations

from pathlib import Path

from boot.expected import check_registers
from boot.machine import check_good, check_refused
from troth.boot import modules

_ZERO = {"sha1": "0" * 40, "sha256": "0" * 64, "sha384": "0" * 96, "sha512": "0" * 128}


def test_a_tpm_that_the_policy_leaves_alone(boot, forge, token, tmp_path):
    """Attached, driven by the kernel, and neither opened nor judged (``vtpm = "none"``)."""
    bundle = forge.bundle("small")
    socket = tmp_path / "tpm"
    found = boot(
        bundle,
        "--qemu-arg=-chardev", f"--qemu-arg=socket,id=mine,path={socket}",
        "--qemu-arg=-tpmdev", "--qemu-arg=emulator,id=mine,chardev=mine",
        "--qemu-arg=-device", "--qemu-arg=tpm-crb,tpmdev=mine",
        beside=["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={tmp_path}",
                "--ctrl", f"type=unixio,path={socket}", "--flags", "startup-clear"],
    )  # fmt: skip
    check_good(found, token)
    cmdline = (bundle / "cmdline").read_text()
    check_registers(found, bundle, cmdline=cmdline, tpm="unused")
    assert found.json("verb measurements")["tpm"] == "not used by this boot"
    rows = [line.split(" ") for line in found.lines("pcrs")]
    assert len(rows) >= 3
    assert all(value.lower() == _ZERO[bank] for bank, _index, value in rows)


_DEFINE_PARAVISOR_INDEX = """
def run(state):
    load(state)
    from troth.linux.tpm import TpmDevice
    device = TpmDevice("/dev/tpm0", timeout_s=10.0)
    public = bytes.fromhex("01400001 000b 02060006 0000 0008")
    body = (bytes.fromhex("40000001 00000009 40000009 0000 00 0000 0000")
            + len(public).to_bytes(2, "big") + public)
    size = (10 + len(body)).to_bytes(4, "big")
    answer = device.transmit(bytes.fromhex("8002") + size + bytes.fromhex("0000012a") + body)
    device.close()
    if answer[6:10] != bytes(4):
        raise RuntimeError("NV_DefineSpace: " + answer.hex())
"""


def test_a_tpm_of_another_kind(boot, token, variant):
    """An NV index where a paravisor keeps its report, under a policy that expects a host's TPM."""
    bundle = variant("full")
    source = Path(modules.__file__).read_text("utf-8").replace("def run(", "def load(")
    bundle.replace_module("troth.boot.modules", source + _DEFINE_PARAVISOR_INDEX)
    found = boot(bundle)
    check_refused(found, token, "tpm-kind", stage="tee")
    assert "could not be measured" not in found.console


def test_a_machine_without_a_seed(boot, forge, token):
    """Without rdrand the interpreter itself does not start: closed before the first line."""
    found = boot(forge.bundle("small"), "--qemu-arg=-cpu", "--qemu-arg=max,rdrand=off,rdseed=off")
    assert (found.status, found.code) == (1, "kernel-panic"), found.console
    assert token not in found.console
    assert found.duration_s < 40
