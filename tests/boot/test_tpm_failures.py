# SPDX-License-Identifier: Apache-2.0
"""A TPM that the policy requires and that is not there, or goes away."""

from __future__ import annotations

import contextlib

import psutil

from boot.machine import check_refused


def test_required_and_absent(forge, boot, token):
    check_refused(boot(forge.bundle("full"), "--no-tpm"), token, "tpm-missing", stage="tee")


def test_killed_before_its_last_command(forge, boot, token):
    """The workload, which is being hashed at that moment, would be the next event."""

    def kill(console, process):
        if "troth: stage verity ok" not in console:
            return False
        (tpm,) = [child for child in process.children() if child.name() == "swtpm"]
        with contextlib.suppress(psutil.NoSuchProcess):
            tpm.kill()
        return True

    found = boot(forge.bundle("full"), watch=kill)
    check_refused(found, token, "tpm-lost", stage="workload", within_s=60)
