# SPDX-License-Identifier: Apache-2.0
"""Boots that go well: one guest each, looked at from many sides."""

from __future__ import annotations

import pytest

from boot.expected import check_registers, event_names
from boot.machine import check_good

STAGES = ["mounts", "policy", "modules", "tee", "devices", "verity", "root", "workload", "handover"]
TIGHT = {"nosuid", "nodev", "noexec"}


def mounts(boot):
    """Mount point -> (type, options) of the last mount there."""
    rows = [line.split(" ") for line in boot.lines("file /proc/mounts")]
    return {row[1]: (row[2], set(row[3].split(","))) for row in rows}


def status(boot):
    rows = [line.split(":", 1) for line in boot.lines("file /proc/self/status")]
    return {key: value.strip() for key, value in rows}


@pytest.mark.parametrize(("name", "release"), [("full", "6.12."), ("old", "6.1.")])
def test_verified_measured_boot(forge, boot, token, name, release):
    bundle = forge.bundle(name)
    found = boot(bundle)
    check_good(found, token)
    assert found.stages == STAGES
    assert found.result["handover"] == "/sbin/init"
    assert found.section("file /proc/sys/kernel/osrelease").startswith(release)

    # What was predicted is what the TPM holds, read twice.
    cmdline = (bundle / "cmdline").read_text()
    assert found.section("file /proc/cmdline") == cmdline
    check_registers(found, bundle, cmdline=cmdline)
    assert event_names(found) == [
        "policy", "cmdline", "verity", "verity", "phase", "workload", "phase", "cap:14", "cap:15",
    ]  # fmt: skip

    # The next init starts as any init: no arguments, a small environment, nothing blocked.
    assert found.lines("argv") == ["/sbin/init"]
    assert {line.split("=")[0] for line in found.lines("environ")} == {"HOME", "TERM", "PATH"}
    own = status(found)
    assert own["Pid"] == "1"
    assert own["SigBlk"] == own["SigIgn"] == own["SigCgt"] == "0" * 16
    # 0 to 2 are the console, 3 reads the directory itself.
    assert sorted(found.lines("list /proc/self/fd")) == ["0", "1", "2", "3"]

    # The kernel is closed.
    assert found.section("file /proc/sys/kernel/sysrq") == "0"
    assert found.section("file /proc/sys/kernel/kexec_load_disabled") == "1"
    assert found.section("file /proc/sys/kernel/panic_on_oops") == "1"
    assert found.section("file /proc/sys/kernel/core_pattern") == "|/bin/false"
    assert "[integrity]" in found.section("file /sys/kernel/security/lockdown")
    assert found.pairs("writes")["/dev/mem"] == "EPERM"

    # The verified root with its overlay, the workload pinned, the volume, the runtime.
    table = mounts(found)
    assert table["/"][0] == "overlay"
    for path, kind in (("/opt/app", "erofs"), ("/srv/models", "erofs")):
        assert table[path][0] == kind
        assert "ro" in table[path][1]
    for path in ("/proc", "/sys", "/run", "/sys/kernel/security"):
        assert table[path][1] >= TIGHT, path
    assert table["/run/troth/runtime"][1] >= {"ro", "nosuid", "nodev"}
    assert "noexec" not in table["/run/troth/runtime"][1]
    writes = found.pairs("writes")
    for path in ("/written", "/etc/written", "/var/written", "/run/written"):
        assert writes[path] == "ok", path
    for path in (
        "/opt/app/written", "/opt/app/config", "/srv/models/written",
        "/run/troth/runtime/written", "/run/troth/bin/written", "/run/troth/runtime/bin/troth",
    ):  # fmt: skip
        assert writes[path] == "EROFS", path
    assert found.section("file /srv/models/weights") == "weights of the model"
    assert found.section("file /etc/hostname") == "marked"
    # Nothing of the initramfs shows in the new root.
    root = set(found.lines("list /"))
    assert root == {
        "dev", "etc", "opt", "proc", "run", "sbin", "srv", "sys", "tmp", "var",
    }  # fmt: skip
    assert sorted(found.lines("list /run/troth")) == ["bin", "event-log.jsonl", "runtime", "state"]
    assert found.lines("list /run/systemd") == ["error ENOENT"]

    # All of the files, through dm-verity.
    for path, data in (("/opt/app/bulk", forge.bulk), ("/srv/late", forge.late)):
        assert found.section(f"sum {path}") == f"{len(data)} {sum(data)} ok"

    shown = found.json("verb status")
    assert (shown["image"], shown["svn"], shown["tpm_kind"]) == (name, 3, "host")
    assert shown["events"] == 9
    assert [stage for stage, _ in shown["stages"]] == STAGES[:-1]


def test_ovmf_and_a_host_that_offers_things(forge, boot, token, tmp_path):
    """OVMF's own command line; an allowed variable value; credentials and a cidata disk (S12)."""
    bundle = forge.bundle("full")
    cmdline = (bundle / "cmdline").read_text().replace("app.mode=blue", "app.mode=green")
    file = tmp_path / "cmdline"
    file.write_text(cmdline)
    cidata = tmp_path / "cidata.img"
    cidata.write_bytes(b"\0" * 0x8000 + b"\x01CD001" + b"\0" * 0x8000)
    found = boot(
        bundle,
        "--firmware", "ovmf", "--cmdline", file, "--disk", f"cidata={cidata},ro",
        "--qemu-arg=-smbios",
        "--qemu-arg=type=11,value=io.systemd.credential:login.issue=evil",
        "--qemu-arg=-fw_cfg",
        "--qemu-arg=name=opt/io.systemd.credentials/login.issue,string=evil",
    )  # fmt: skip
    check_good(found, token)
    seen = cmdline + " initrd=initrd"
    assert found.section("file /proc/cmdline") == seen
    check_registers(found, bundle, cmdline=seen)
    assert found.section("list /sys/firmware/dmi") == ""
    assert mounts(found)["/sys/firmware/dmi"][0] == "tmpfs"
    # The EFI variable SystemdOptions would be a second command line.
    assert found.section("list /sys/firmware/efi") == ""
    assert mounts(found)["/sys/firmware/efi"][0] == "tmpfs"
    assert found.lines("list /sys/firmware/qemu_fw_cfg") == ["error ENOENT"]
    assert found.lines("list /run/credentials") == ["error ENOENT"]
    assert not {"qemu_fw_cfg", "efivarfs"} & {
        line.split(" ")[0] for line in found.lines("file /proc/modules")
    }
    assert "evil" not in found.console


def test_no_overlay_no_tpm(forge, boot, token):
    """The smallest policy: a read-only root, and a TPM nobody asked for stays closed."""
    bundle = forge.bundle("small")
    found = boot(bundle, "--cpus", "2")
    check_good(found, token)
    assert found.stages == [name for name in STAGES if name != "workload"]
    check_registers(found, bundle, cmdline=(bundle / "cmdline").read_text(), tpm="unused")
    assert found.section("file /proc/sys/kernel/modules_disabled") == "1"
    kind, options = mounts(found)["/"]
    assert kind == "erofs"
    assert {"ro", "nodev"} <= options
    writes = found.pairs("writes")
    for path in ("/written", "/etc/written", "/var/written", "/opt/app/written"):
        assert writes[path] == "EROFS", path
    assert writes["/run/written"] == "ok"


def test_found_by_partition_label(boot, token, variant, tmp_path):
    """The root is a partition, found by its label; its size is the partition's."""
    bundle = variant("small")
    bundle.put_into_partition("troth-root")
    bundle.rebake(lambda tree: tree["volumes"][0].update(device="PARTLABEL:troth-root"))
    found = boot(bundle)
    check_good(found, token)


def test_optional_tpm_that_is_absent(boot, token, variant):
    bundle = variant("full")
    bundle.rebake(lambda tree: tree["tee"].update(vtpm="optional"))
    bundle.set_vtpm("optional")
    found = boot(bundle, "--no-tpm")
    check_good(found, token)
    assert event_names(found)[:2] == ["tpm-absent", "policy"]
    assert found.json("verb measurements")["tpm"] == "not used by this boot"
    assert found.json("verb status")["tpm_kind"] == ""


@pytest.mark.parametrize("file_system", ["squashfs", "ext4"])
def test_other_file_systems(forge, boot, token, file_system):
    """With an overlay above them, from an initramfs packed with zstd."""
    found = boot(forge.bundle(file_system))
    check_good(found, token)
    assert mounts(found)["/"][0] == "overlay"
    assert f"{file_system} " in found.section("file /proc/modules") or file_system == "ext4"
    assert found.section("file /etc/hostname") == "marked"
    assert found.pairs("writes")["/etc/written"] == "ok"


def test_ready_image_is_measured_as_predicted(forge, boot, token):
    """The build read owners, modes and contents out of the image; the guest mounts it."""
    bundle = forge.bundle("ready")
    found = boot(bundle)
    check_good(found, token)
    check_registers(found, bundle, cmdline=(bundle / "cmdline").read_text())
    assert "workload" in event_names(found)


def test_kernel_that_is_locked_down_already(boot, token, variant):
    """By its own command line, or by Secure Boot: as good as locked down by PID 1."""
    bundle = variant("small")
    bundle.rebake(
        lambda tree: tree["cmdline"].update(
            text=tree["cmdline"]["text"] + " lockdown=confidentiality"
        )
    )
    found = boot(bundle)
    check_good(found, token)
    assert "[confidentiality]" in found.section("file /sys/kernel/security/lockdown")
