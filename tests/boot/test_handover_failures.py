# SPDX-License-Identifier: Apache-2.0
"""A next init that is missing, or that the kernel will not run."""

from __future__ import annotations

import pytest

from boot.machine import check_refused


@pytest.mark.parametrize("path", ["/sbin/absent", "/sbin/unexecutable", "/opt", "/etc/hostname"])
def test_missing_init(boot, token, variant, path):
    bundle = variant("small") if path == "/opt" else variant("full")
    bundle.rebake(lambda tree: tree["handover"].update(argv=[path]) or tree.update(workload=[]))
    check_refused(boot(bundle), token, "init-missing", stage="handover")


@pytest.mark.parametrize("path", ["/sbin/scripted", "/sbin/garbage"])
def test_init_that_the_kernel_refuses(boot, token, variant, path):
    """A script without its interpreter, and a file that is no program."""
    bundle = variant("full")
    bundle.rebake(lambda tree: tree["handover"].update(argv=[path]) or tree.update(workload=[]))
    found = boot(bundle)
    assert found.code == "init-refused", f"{found.result}\n{found.console}"
    assert found.result["outcome"] == "refused"
    assert found.status == 1
    assert token not in found.console
    # After the caps nothing is measured any more (S29).
    assert "could not be measured: the registers are capped already" in found.console
    assert found.duration_s < 40
