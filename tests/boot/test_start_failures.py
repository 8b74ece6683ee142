# SPDX-License-Identifier: Apache-2.0
"""What was measured at launch and what runs must be one: command line, rootfs, policy, modules."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from boot.machine import check_refused
from boot.variants import POLICY
from troth.abi.cpio import Member
from troth.documents import event_log_json
from troth.linux import kmsg
from troth.measure import pcr


@pytest.mark.parametrize(
    ("change", "code", "stage"),
    [
        ((" quiet", " quiet stray=1"), "cmdline-unlisted", "policy"),
        ((" quiet", " quiet single"), "cmdline-unlisted", "policy"),
        ((" quiet", " quiet quiet"), "cmdline-repeated", "policy"),
        ((" quiet", " quiet oops=panic"), "cmdline-repeated", "policy"),
        (("panic=-1", "panic=30"), "cmdline-differs", "policy"),
        (("app.mode=blue", "app.mode=red"), "cmdline-value", "policy"),
        ((" quiet", " quiet PYTHONPATH=/evil"), "cmdline-environment", "mounts"),
        ((" quiet", " quiet PYTHONINSPECT=1"), "cmdline-environment", "mounts"),
        ((" quiet", " quiet LD_PRELOAD=/evil.so"), "cmdline-environment", "mounts"),
        ((" quiet", " quiet LD_LIBRARY_PATH=/proc/self/fd"), "cmdline-environment", "mounts"),
    ],
    ids=lambda value: value[1].strip() if isinstance(value, tuple) else None,
)
def test_command_line(forge, boot, token, tmp_path, change, code, stage):
    bundle = forge.bundle("full")
    text = (bundle / "cmdline").read_text()
    assert text.count(change[0]) == 1
    file = tmp_path / "cmdline"
    file.write_text(text.replace(*change))
    check_refused(boot(bundle, "--cmdline", file), token, code, stage=stage)


def test_file_that_the_manifest_does_not_know(boot, token, variant):
    bundle = variant("small")
    bundle.append(
        Member(".extra", stat.S_IFDIR | 0o755),
        Member(".extra/x", stat.S_IFREG | 0o644, b"credential"),
    )
    found = boot(bundle)
    check_refused(found, token, "rootfs-unexpected", stage="policy")
    assert "'.extra'" in found.console


def test_file_in_the_place_of_a_directory(boot, token, variant):
    """The kernel lets the later archive win: the name is known, its type is not."""
    bundle = variant("small")
    bundle.append(Member("sysroot", stat.S_IFLNK | 0o777, b"/run"))
    check_refused(boot(bundle), token, "rootfs-unexpected", stage="policy")


def test_policy_without_its_twin(boot, token, variant):
    bundle = variant("small")
    tree = bundle.policy
    tree["image"]["svn"] = 99
    bundle.replace(POLICY, json.dumps(tree, sort_keys=True, separators=(",", ":")).encode())
    check_refused(boot(bundle), token, "policy-differs", stage="policy")


@pytest.mark.parametrize("module", ["dm-verity", "erofs", "virtio_blk"])
def test_missing_module(boot, token, variant, module):
    bundle = variant("small")
    bundle.drop(f"modules/{module}.ko")
    found = boot(bundle)
    check_refused(found, token, "module-missing", stage="modules")
    assert f"{module}.ko" in found.console


def test_missing_dependency_of_a_module(boot, token, variant):
    """Left out of the list as well, so that the kernel meets an unresolved symbol."""
    bundle = variant("small")
    bundle.drop("modules/dm-bufio.ko")
    bundle.rebake(lambda tree: tree["kernel"]["modules"].remove("dm-bufio"))
    check_refused(boot(bundle), token, "module-missing", stage="modules")


def test_damaged_module(boot, token, variant):
    """Its signature no longer fits; under lockdown=none the kernel would only complain."""
    bundle = variant("small")
    (data,) = [item.data for item in bundle.members() if item.path == "modules/erofs.ko"]
    bundle.replace("modules/erofs.ko", data[:4096])
    check_refused(boot(bundle), token, "module-refused", stage="modules")


def test_kernel_of_another_release(forge, boot, token, variant):
    bundle = variant("small")
    bundle.write("vmlinuz", (forge.bundle("old") / "vmlinuz").read_bytes())
    check_refused(boot(bundle), token, "kernel-differs", stage="modules")


#: Shows log and PCRs at the very end, then really switches off.
_SHOW_AND_END = """
import os
from troth.linux import syscalls
def end(action):
    out = open("/dev/console", "wb", buffering=0)
    out.write(b"\\n@@ log\\n" + open("/run/troth/event-log.jsonl", "rb").read() + b"@@ pcrs\\n")
    for index in (11, 14, 15):
        with open("/sys/class/tpm/tpm0/pcr-sha256/%d" % index, "rb") as file:
            out.write(b"%d " % index + file.read())
    out.write(b"@@ end\\n")
    syscalls.reboot(0x4321FEDC)
def force():
    pass
"""


def test_stage_that_raises_and_what_is_measured_of_it(boot, token, variant):
    """Any exception ends the boot; the refusal and the caps are in log and TPM (S25)."""
    bundle = variant("full")
    bundle.replace_module("troth.boot.root", "def run(state):\n    raise ValueError('made to')\n")
    bundle.replace_module("troth.linux.power", _SHOW_AND_END)
    found = boot(bundle)
    check_refused(found, token, "stage-raised", stage="root")
    assert "refused stage-raised: ValueError: made to (" in found.console
    events = event_log_json.parse(found.section("log").encode() + b"\n")
    assert [(event.kind, event.content) for event in events][-4:] == [
        ("refused", b"refused:stage-raised"), ("phase", b"leave-initrd"),
        ("cap", b"troth:cap"), ("cap", b"troth:cap"),
    ]  # fmt: skip
    values = pcr.replay(events)
    assert found.pairs("pcrs") == {
        str(index): values["sha256", index].hex().upper() for index in (11, 14, 15)
    }


def test_exception_without_text_from_the_interpreter(boot, token, variant):
    """SystemExit and a recursion without end are no way out either."""
    bundle = variant("small")
    bundle.replace_module("troth.boot.root", "import sys\ndef run(state):\n    sys.exit(0)\n")
    check_refused(boot(bundle), token, "stage-raised", stage="root")


def test_workload_that_is_not_in_the_root(boot, token, variant):
    bundle = variant("full")
    bundle.rebake(lambda tree: tree.update(workload=["/opt/gone"]))
    check_refused(boot(bundle), token, "workload-missing", stage="workload")


def test_initramfs_that_is_cut_off(boot, token, variant):
    """The kernel itself gives up: no code of ours, but no boot either."""
    bundle = variant("small")
    bundle.write("initramfs", bundle.read("initramfs")[:100_000])
    found = boot(bundle)
    assert (found.status, found.code) == (1, "kernel-panic"), f"{found.result}\n{found.console}"
    assert token not in found.console
    assert found.duration_s < 40


#: A console that never drains: what writes the last line waits for ever.
_STUCK = """
import time
def last_line(text):
    time.sleep(10000)
"""


def test_console_that_never_drains(boot, token, variant):
    """The host owns the console: it cannot keep a refused machine alive by not reading it."""
    bundle = variant("small")
    source = Path(kmsg.__file__).read_text("utf-8")
    bundle.replace_module("troth.linux.kmsg", source + _STUCK)
    bundle.flip("root.img", 0)
    found = boot(bundle)
    assert (found.status, found.code) == (1, "verity-data"), f"{found.result}\n{found.console}"
    assert found.result["shutdown"] == "guest-reset"
    assert token not in found.console
    assert found.duration_s < 60
