# SPDX-License-Identifier: Apache-2.0
"""A TPM that the policy requires and that is not there, or goes away."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from pathlib import Path

import psutil
import pytest

from boot.machine import check_refused
from troth.boot import modules


def test_required_and_absent(forge, boot, token):
    found = boot(forge.bundle("full"), "--no-tpm")
    check_refused(found, token, "tpm-missing", stage="tee")
    # A refusal that no TPM has recorded does not pass for a measured one.
    assert "troth: the refusal could not be measured: the policy requires a TPM" in found.console


def test_killed_before_its_last_command(forge, boot, token):
    """The workload, which is being hashed at that moment, would be the next event.

    A TPM that is there and silent cannot be shown this way: QEMU asks swtpm with
    its own lock held, so that the whole machine stands still.
    """

    def kill(console, process):
        if "troth: stage verity ok" not in console:
            return False
        (tpm,) = [child for child in process.children() if child.name() == "swtpm"]
        with contextlib.suppress(psutil.NoSuchProcess):
            tpm.kill()
        return True

    found = boot(forge.bundle("full"), watch=kill)
    check_refused(found, token, "tpm-lost", stage="workload", within_s=60)


def test_extended_before_pid_1(boot, token, variant):
    """An owned PCR that somebody has used would make every later value inexplicable."""
    bundle = variant("full")
    source = Path(modules.__file__).read_text("utf-8").replace("def run(", "def load(")
    bundle.replace_module("troth.boot.modules", source + _EXTEND_FIRST)
    check_refused(boot(bundle), token, "tpm-used", stage="tee")


_EXTEND_FIRST = """
def run(state):
    load(state)
    from troth.linux.tpm import TpmDevice
    from troth.registers.tpm_raw import Tpm
    device = TpmDevice("/dev/tpm0", timeout_s=10.0)
    Tpm(device).extend(15, (("sha256", bytes(32)),))
    device.close()
"""


def test_only_sha1(forge, boot, token, tmp_path):
    if shutil.which("swtpm_setup") is None:
        pytest.skip("needs swtpm_setup (package swtpm-tools) to allocate the banks of a TPM")
    state = tmp_path / "state"
    state.mkdir()
    subprocess.run(
        ["swtpm_setup", "--tpm2", "--tpmstate", state, "--pcr-banks", "sha1"],
        check=True, capture_output=True,
    )  # fmt: skip
    found = boot(forge.bundle("full"), "--tpm-state", state)
    check_refused(found, token, "tpm-bank", stage="tee")
