# SPDX-License-Identifier: Apache-2.0
"""troth stays PID 1: rights, reaping, signals, and an end in order and in time."""

from __future__ import annotations

from boot.expected import at_handover, event_names, events
from boot.machine import check_good
from troth.measure import pcr

GRACE_S = 2


def status(boot):
    rows = [line.split(":", 1) for line in boot.lines("file /proc/self/status")]
    return {key: value.strip() for key, value in rows}


def check_rights(boot, *, user, group):
    """No user rights, no capability in any set, no way to gain one, nothing blocked."""
    own = status(boot)
    assert own["Uid"].split() == [str(user)] * 4
    assert own["Gid"].split() == [str(group)] * 4
    assert own["Groups"] == ""
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(own[name], 16) == 0, name
    assert own["NoNewPrivs"] == "1"
    assert int(own["SigBlk"], 16) == int(own["SigIgn"], 16) == int(own["SigCgt"], 16) == 0
    assert f"uid {user} gid {group} groups 0 kill1 EPERM" in boot.section("identity")
    # A user namespace would come with every capability inside it.
    assert boot.section("identity").endswith(" userns ENOSPC")
    pid = boot.section("identity").split(" ")[1]
    assert f"pid {pid} sid {pid} " in boot.section("identity")
    assert sorted(boot.lines("list /proc/self/fd")) == ["0", "1", "2", "3"]
    writes = boot.pairs("writes")
    for path in ("/tmp/written", "/dev/shm/written"):
        assert writes[path] == "ok", path
    for path in (
        "/written", "/etc/written", "/run/written", "/run/troth/event-log.jsonl",
        "/proc/sysrq-trigger", "/dev/kmsg", "/runtime/bin/troth", "/app/written",
        "/opt/app/written",
    ):  # fmt: skip
        assert writes[path] in ("EACCES", "EROFS", "EPERM", "ENOENT"), path


def test_all_in_the_initramfs(forge, boot, token):
    """No disk, no TPM, a storm of orphans; good when the workload ends with 0."""
    bundle = forge.bundle("supervised")
    found = boot(bundle, "--no-tpm")
    check_good(found, token)
    assert found.stages == ["mounts", "policy", "modules", "tee", "workload", "handover"]
    assert found.result["workload_exit"] == 0
    assert "troth: workload exited 0" in found.console
    assert found.lines("argv") == ["/app/run", "report", "storm", "2000", "exit", "0"]
    check_rights(found, user=65534, group=65534)
    assert found.section("file /proc/1/cmdline") != ""
    assert event_names(found) == [
        "tpm-absent", "policy", "cmdline", "phase", "workload", "phase", "cap:14", "cap:15",
    ]  # fmt: skip
    assert found.section("storm") == "made 2000\nzombies 0"
    # What only the boot needed is gone.
    assert not {"init", "modules"} & set(found.lines("list /"))
    assert found.section("file /proc/sys/kernel/sysrq") == "0"


def test_with_a_root_and_children_that_stay(forge, boot, token):
    """Status 7 is reported; what is left is asked to end, then ended within the grace time."""
    bundle = forge.bundle("supervised-root")
    found = boot(bundle)
    assert found.result["outcome"] == "workload", f"{found.result}\n{found.console}"
    assert (found.status, found.code, found.result["workload_exit"]) == (1, "workload-exited", 7)
    assert "troth: workload exited 7" in found.console
    assert f"@@ marker {token}" in found.console
    check_rights(found, user=1000, group=1001)
    # SIGTERM reached the one that listens; the deaf one ended too, or nothing would have.
    assert f"@@ polite {token}" in found.console
    assert found.result["shutdown"] == "guest-shutdown"
    assert found.duration_s < 40
    # The overlay covers only the two paths that were asked for.
    rows = [line.split(" ") for line in found.lines("file /proc/mounts")]
    overlays = {row[1] for row in rows if row[2] == "overlay"}
    assert overlays == {"/etc", "/var"}
    assert next(row for row in rows if row[1] == "/")[2] == "erofs"
    assert found.section("list /modules") == "error ENOENT"


def test_signals_reach_the_workload(boot, token, variant):
    """Run as root here, since only PID 1's own user may signal it."""
    bundle = variant("supervised")

    def change(tree):
        tree["handover"]["argv"] = ["/app/run", "signals", "exit", "0"]
        tree["handover"].update(user=0, group=0)

    bundle.rebake(change)
    found = boot(bundle)
    check_good(found, token)
    assert found.lines("signals") == [
        "1 came-back", "10 came-back", "12 came-back", "28 came-back", "30 came-as-term",
    ]  # fmt: skip


def test_workload_that_will_not_stop(boot, token, variant):
    """Asked to stop, it ignores SIGTERM and keeps PID 1 busy: killed after the grace time."""
    bundle = variant("supervised")

    def change(tree):
        tree["handover"]["argv"] = ["/app/run", "deaf"]
        tree["handover"].update(user=0, group=0, grace_s=GRACE_S)

    bundle.rebake(change)
    found = boot(bundle)
    assert "@@ deaf 0" in found.console
    assert (found.status, found.code) == (1, "workload-exited"), f"{found.result}\n{found.console}"
    assert found.result["workload_exit"] == 128 + 9
    assert found.result["shutdown"] == "guest-shutdown"
    assert found.duration_s < 40


def test_predicted_registers_with_a_tpm(forge, boot, token):
    """A supervised image is measured like any other; its policy makes the TPM optional."""
    bundle = forge.bundle("supervised")
    found = boot(bundle)
    check_good(found, token)
    predicted = at_handover(bundle, (bundle / "cmdline").read_text(), "present")
    values = pcr.replay(events(found))
    assert {(bank, index, value.hex()) for (bank, index), value in values.items()} == {
        *predicted.pcrs
    }
    boot_state = found.json("file /run/troth/state/boot.json")
    assert boot_state["software_register"] == predicted.software
    assert boot_state["tpm_kind"] == "host"


def test_workload_that_cannot_be_started(boot, token, variant):
    """An executable file that is no program: said, reported as 127, and switched off."""
    bundle = variant("supervised-root")
    bundle.rebake(lambda tree: tree["handover"].update(argv=["/sbin/garbage"]))
    found = boot(bundle)
    assert (found.status, found.code) == (1, "workload-exited"), f"{found.result}\n{found.console}"
    assert found.result["workload_exit"] == 127
    assert "troth: cannot start /sbin/garbage: Exec format error" in found.console
    assert token not in found.console
