# SPDX-License-Identifier: Apache-2.0
"""Encrypted volumes in a guest: formatted, kept, found again, refused where they are not ours."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from boot.bundles import TROTH
from boot.machine import check_good, check_refused
from boot.test_evidence import verified

DISK_BYTES = 32 << 20
RECORD_BYTES = 4096
DATA_OFFSET_BYTES = 1 << 20
KEPT = "kept "


def blank(path: Path, size_bytes: int = DISK_BYTES) -> Path:
    with path.open("wb") as file:
        file.truncate(size_bytes)
    return path


def attached(disks: dict[str, Path]) -> list[str]:
    words = ["--sim-snp"]
    for serial, path in disks.items():
        words += ["--disk", f"{serial}={path}"]
    return words


def events(found, kind):
    records = [json.loads(line) for line in found.lines("file /run/troth/event-log.jsonl")]
    return [item for item in records if item["content"]["type"] == kind]


def contains(path: Path, words: bytes) -> bool:
    return words in path.read_bytes()


@pytest.fixture(scope="module")
def kept(forge, tmp_path_factory):
    """Disks that one boot has formatted and written to, and that boot."""
    from boot import machine

    place = tmp_path_factory.mktemp("sealed")
    disks = {name: blank(place / f"{name}.img") for name in ("data", "plain", "scratch")}
    found = machine.run(forge.bundle("sealed"), place, *attached(disks))
    yield disks, found
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def disks(kept, tmp_path):
    """Copies of them."""
    yield {name: Path(shutil.copy(path, tmp_path)) for name, path in kept[0].items()}
    for name in kept[0]:
        (tmp_path / f"{name}.img").unlink()


def test_the_first_boot_formats(kept, token):
    disks, found = kept
    check_good(found, token)
    assert found.stages.index("keys") + 1 == found.stages.index("volumes")
    for place in ("data", "plain", "scratch"):
        assert found.section(f"file /srv/{place}/kept") == "error ENOENT"
    mounts = {line.split()[1]: line.split() for line in found.lines("file /proc/mounts")}
    for place in ("/srv/data", "/srv/plain", "/srv/scratch"):
        assert mounts[place][2] == "ext4"
        assert {"rw", "nosuid", "nodev", "noexec"} <= set(mounts[place][3].split(","))
    # The key is in the kernel's tables, and in no keyring any more.
    assert "troth" not in found.section("file /proc/keys")
    # One process held keys, and it is gone: PID 1 and what serves the simulated processor stay.
    released = [item["content"]["text"] for item in events(found, "key-release")]
    assert released == [
        "file:data file:data data", "file:plain file:plain plain", "random random: scratch",
    ]  # fmt: skip
    named = [item["content"]["text"] for item in events(found, "volume-key")]
    policy = json.loads(events(found, "policy")[0]["content"]["text"])
    assert named == [
        f"cryptsetup:troth-{item['name']}:{item['uuid']}" for item in policy["encrypted"]
    ]
    # What the log comes to is what the TPM holds, keyed digests and all.
    shown = found.json("verb measurements")
    assert {item["agrees"] for item in shown["registers"]} == {True}
    for path in disks.values():
        assert not contains(path, token.encode())
        assert not contains(path, b"lost+found")


def test_a_verifier_reads_the_log(kept, forge, tmp_path):
    """Events of keys are no image's, and a verifier neither predicts nor trips over them."""
    text = kept[1].section("verb evidence")
    _overall, checks = verified(text.encode(), forge.bundle("sealed"), tmp_path)
    for name in ("event-log", "boot-events", "root-hash", "registers", "boot-chain-rooted"):
        assert checks[name]["verdict"] == "pass", checks[name]


def test_the_next_boot_finds_its_data(disks, boot, forge, kept, token):
    found = boot(forge.bundle("sealed"), *attached(disks))
    check_good(found, token)
    for place in ("data", "plain"):
        assert found.section(f"file /srv/{place}/kept") == f"{KEPT}{token}"
    # A volume for one boot is another one in the next.
    assert found.section("file /srv/scratch/kept") == "error ENOENT"
    before, after = (
        [item["digests"] for item in events(one, "volume-key")] for one in (kept[1], found)
    )
    assert before[:2] == after[:2]
    assert before[2] != after[2]


def test_a_volume_made_on_the_host(boot, forge, tmp_path, token):
    """``troth volume format`` leaves what a guest mounts as it is: nothing is formatted again."""
    bundle = forge.bundle("sealed")
    policy = json.loads((bundle / "policy.json").read_bytes())
    (uuid,) = [item["uuid"] for item in policy["encrypted"] if item["name"] == "plain"]
    disks = {name: tmp_path / f"{name}.img" for name in ("data", "plain", "scratch")}
    subprocess.run(
        [TROTH, "volume", "format", disks["plain"], "--integrity", "none", "--uuid", uuid,
         "--key-file", forge.base / "plain.key", "--size", "16M"],
        check=True,
    )  # fmt: skip
    head = disks["plain"].read_bytes()[: 2 * RECORD_BYTES]
    for name in ("data", "scratch"):
        blank(disks[name])
    found = boot(bundle, *attached(disks))
    check_good(found, token)
    mounts = {line.split()[1]: line.split() for line in found.lines("file /proc/mounts")}
    assert mounts["/srv/plain"][2] == "ext4"
    assert disks["plain"].read_bytes()[: 2 * RECORD_BYTES] == head
    check = [TROTH, "volume", "check", disks["plain"], "--integrity", "none", "--uuid", uuid]
    subprocess.run([*check, "--key-file", forge.base / "plain.key"], check=True)
    for path in disks.values():
        path.unlink()


def swap(disks, _variant):
    disks["data"], disks["plain"] = disks["plain"], disks["data"]


def erase(disks, variant):
    blank(disks["data"])
    variant.rebake(lambda tree: tree["encrypted"][0].update(blank="refuse"))


def another_key(_disks, variant):
    variant.replace("keys/data", bytes(range(32)))


def another_profile(_disks, variant):
    variant.rebake(lambda tree: tree["encrypted"][0].update(integrity="none"))


def alter_record(disks, _variant):
    with disks["data"].open("r+b") as file:
        # Generation 1 lies in the second slot.
        file.seek(RECORD_BYTES + 100)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes((byte[0] ^ 1,)))


def cut_off(disks, _variant):
    os.truncate(disks["data"], DISK_BYTES // 2)


def no_integrity_superblock(disks, _variant):
    with disks["data"].open("r+b") as file:
        file.seek(DATA_OFFSET_BYTES)
        file.write(bytes(4096))


def change_data(disks, _variant):
    """Every block of the authenticated data, as a host that wants to be sure would."""
    with disks["data"].open("r+b") as file:
        for at in range(DATA_OFFSET_BYTES + 4096, DISK_BYTES, 4096):
            file.seek(at)
            file.write(b"\xa5")


def no_key(_disks, variant):
    variant.replace("keys/data", b"short")


def too_small(disks, _variant):
    blank(disks["data"], 4 << 20)


@pytest.mark.parametrize(
    ("attack", "stage", "code", "exact"),
    [
        (swap, "volumes", "header-refused", "record-volume"),
        (erase, "volumes", "header-refused", "record-blank"),
        (another_key, "volumes", "header-refused", "record-mac"),
        (another_profile, "volumes", "header-refused", "record-mac"),
        (alter_record, "volumes", "header-refused", "record-mac"),
        (cut_off, "volumes", "header-refused", "integrity-superblock"),
        (no_integrity_superblock, "volumes", "header-refused", "integrity-superblock"),
        (no_key, "keys", "key-refused", "key-packed"),
        (too_small, "volumes", "volume-refused", "volume-small"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_refused(attack, stage, code, exact, disks, variant, boot, token):
    altered = variant("sealed")
    attack(disks, altered)
    found = boot(altered, *attached(disks))
    check_refused(found, token, code, stage=stage, exact=exact)


def test_changed_data_are_not_read(disks, boot, forge, token):
    """The file system's own blocks have tags that do not hold: it is not mounted."""
    change_data(disks, None)
    found = boot(forge.bundle("sealed"), *attached(disks))
    check_refused(found, token, "volume-mount", stage="root")


def test_the_console_tells_no_difference(disks, variant, boot, token):
    """Without detail, every failure of a stage is the same line (SECURITY S41)."""
    public = variant("sealed")
    public.rebake(lambda tree: tree["fail"].update(detail="public"))
    lines = []
    for attack in (alter_record, swap):
        attack(disks, public)
        found = boot(public, *attached(disks))
        check_refused(found, token, "header-refused", stage="volumes")
        lines.append([line for line in found.console.splitlines() if "refused" in line])
    assert (
        lines[0][-1]
        == lines[1][-1]
        == ("troth: refused header-refused: the details stay in the guest")
    )
    assert [len(one) for one in lines] == [2, 2]


def test_the_overlay_lasts(boot, forge, tmp_path, token):
    """The writable layer on a volume whose key the processor derives; the workload is pinned."""
    disks = {"upper": blank(tmp_path / "upper.img")}
    first = boot(forge.bundle("sealed-upper"), *attached(disks))
    check_good(first, token)
    assert first.section("file /etc/state") == "error ENOENT"
    assert "/etc/state ok" in first.console
    assert "/opt/app/written EROFS" in first.console
    again = boot(forge.bundle("sealed-upper"), *attached(disks))
    check_good(again, token)
    assert again.section("file /etc/state") == "x"
    assert again.lines("file /var/kept")[0] == f"{KEPT}{token}"
    assert not contains(disks["upper"], token.encode())
    # In the third boot root goes round the mounts, and the fourth hears of it.
    check_good(boot(forge.bundle("sealed-upper"), *attached(disks)), token)
    found = boot(forge.bundle("sealed-upper"), *attached(disks))
    check_refused(found, token, "workload-shadowed", stage="workload")
    disks["upper"].unlink()
