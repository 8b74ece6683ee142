# SPDX-License-Identifier: Apache-2.0
"""Disks that lie, lack, linger: each seen to end the boot with its own code."""

from __future__ import annotations

import json
import socket
import struct
import time

import pytest

from boot.machine import check_good, check_refused
from boot.variants import BLOCK_BYTES

#: Bit 30 of feature_incompat, which no erofs has used (fs/erofs/erofs_fs.h).
_UNKNOWN_FEATURE = 0x4000_0000


def late_block(image, forge):
    """The data block in the middle of /srv/late, which only the next init reads."""
    at = image.index(forge.late[:BLOCK_BYTES])
    assert at % BLOCK_BYTES == 0
    assert image[at : at + len(forge.late)] == forge.late
    return at // BLOCK_BYTES + len(forge.late) // BLOCK_BYTES // 2


def check_panicked(boot, token):
    """The next init ran until it met the change; the kernel stopped it right there."""
    assert boot.code == "verity-panic", f"{boot.result}\n{boot.console}"
    assert boot.status == 1
    assert f"@@ marker {token}" in boot.console
    assert f"@@ done {token}" not in boot.console
    assert boot.duration_s < 40


def test_wrong_root_hash(boot, token, variant):
    bundle = variant("small")
    verity = bundle.verity()
    wrong = verity["root_hash"][:-1] + ("0" if verity["root_hash"][-1] != "0" else "1")
    bundle.rebake(lambda tree: tree["volumes"][0]["verity"].update(root_hash=wrong))
    check_refused(boot(bundle), token, "verity-root-hash", stage="verity")


def test_flipped_bit_in_the_top_hash_block(boot, token, variant):
    bundle = variant("small")
    bundle.flip("root.img", bundle.tree_offset_bytes() + 5)
    check_refused(boot(bundle), token, "verity-root-hash", stage="verity")


def test_flipped_bit_in_a_leaf_read_at_boot(boot, token, variant):
    bundle = variant("full")
    assert bundle.verity()["data_blocks"] > 128  # so there are two levels
    # Unused bytes of a leaf count too: this one is in the first leaf, right behind the top.
    bundle.flip("root.img", bundle.tree_offset_bytes() + BLOCK_BYTES + 100)
    check_refused(boot(bundle), token, "verity-tree", stage="verity")


@pytest.mark.parametrize("place", ["first", "last"])
def test_flipped_bit_in_data_read_at_boot(boot, token, variant, place):
    bundle = variant("small")
    block = 0 if place == "first" else bundle.verity()["data_blocks"] - 1
    bundle.flip("root.img", block * BLOCK_BYTES + 2000)
    found = boot(bundle)
    check_refused(found, token, "verity-data", stage="verity")
    assert f"root: data block {block} " in found.console


def test_flipped_bit_in_data_read_later(forge, boot, token, variant):
    bundle = variant("full")
    block = late_block(bundle.read("root.img"), forge)
    bundle.flip("root.img", block * BLOCK_BYTES + 77)
    check_panicked(boot(bundle), token)


def test_flipped_bit_in_a_leaf_read_later(forge, boot, token, variant):
    bundle = variant("full")
    leaf = late_block(bundle.read("root.img"), forge) // 128
    leaves = -(-bundle.verity()["data_blocks"] // 128)
    assert 0 < leaf < leaves - 1  # no path that PID 1 reads goes through it
    bundle.flip("root.img", bundle.tree_offset_bytes() + (1 + leaf) * BLOCK_BYTES + 64 * 32)
    check_panicked(boot(bundle), token)


def test_unreadable_block_read_later(forge, boot, token, variant):
    """An error instead of data must not be survivable either, where the kernel can (6.12)."""
    bundle = variant("full")
    image = bundle.path / "root.img"
    sector = late_block(image.read_bytes(), forge) * BLOCK_BYTES // 512
    bundle.detach("root")
    found = boot(bundle, *failing_disk(image, sector))
    assert found.code in ("verity-panic", "kernel-panic"), f"{found.result}\n{found.console}"
    assert found.status == 1
    assert f"@@ done {token}" not in found.console
    assert found.duration_s < 40


def test_unreadable_block_at_boot(boot, token, variant):
    bundle = variant("small")
    image = bundle.path / "root.img"
    sector = bundle.tree_offset_bytes() // 512
    bundle.detach("root")
    found = boot(bundle, *failing_disk(image, sector))
    check_refused(found, token, "verity-read", stage="verity")


def failing_disk(image, sector, serial="root"):
    """Options for a disk that cannot read one sector."""
    drive = (
        "if=none,id=failing,format=raw,readonly=on,file.driver=blkdebug,"
        f"file.image.driver=file,file.image.filename={image},"
        f"file.inject-error.0.event=read_aio,file.inject-error.0.sector={sector},"
        "file.inject-error.0.iotype=read"
    )
    words = ["-drive", drive, "-device", "virtio-blk-pci,drive=failing,serial=" + serial]
    return [f"--qemu-arg={word}" for word in words]


def test_superblock_that_disagrees(boot, token, variant):
    bundle = variant("small")
    uuid_at = bundle.verity()["superblock_block"] * BLOCK_BYTES + 16
    bundle.flip("root.img", uuid_at)
    check_refused(boot(bundle), token, "verity-superblock", stage="verity")


def test_truncated_disk(boot, token, variant):
    bundle = variant("small")
    # The last hash block only: the smallest loss there is.
    bundle.write("root.img", bundle.read("root.img")[:-BLOCK_BYTES])
    check_refused(boot(bundle), token, "verity-short", stage="verity")


def test_missing_disk(boot, token, variant):
    bundle = variant("full")
    bundle.detach("models")
    bundle.rebake(lambda tree: tree["fail"].update(device_timeout_s=2))
    found = boot(bundle)
    check_refused(found, token, "disk-missing", stage="devices")
    # It says what it waited for, and what it saw instead.
    assert "serial:models did not appear; saw vda serial 'root'" in found.console


def test_two_disks_with_one_serial(boot, token, variant):
    bundle = variant("small")
    found = boot(bundle, "--disk", f"root={bundle.path / 'root.img'},ro")
    check_refused(found, token, "disk-duplicate", stage="devices")


def test_two_disks_with_one_uuid(boot, token, variant):
    bundle = variant("small")
    uuid = bundle.read("root.img")[1024 + 48 :][:16].hex()
    text = "-".join((uuid[:8], uuid[8:12], uuid[12:16], uuid[16:20], uuid[20:]))
    bundle.rebake(lambda tree: tree["volumes"][0].update(device=f"UUID:{text}"))
    found = boot(bundle, "--disk", f"other={bundle.path / 'root.img'},ro")
    check_refused(found, token, "disk-duplicate", stage="devices")


def test_disk_that_comes_late(boot, token, variant, tmp_path):
    """Plugged in while PID 1 waits for it: found, and the boot goes on."""
    bundle = variant("small")
    bundle.detach("root")
    image, monitor = bundle.path / "root.img", tmp_path / "qmp"
    words = [
        "-qmp", f"unix:{monitor},server=on,wait=off",
        "-device", "pcie-root-port,id=socket9,chassis=9",
        "-drive", f"if=none,id=late,format=raw,readonly=on,file={image}",
    ]  # fmt: skip

    def plug(console, _process):
        if "troth: stage tee ok" not in console:
            return False
        time.sleep(1)  # PID 1 has looked, and waits
        with socket.socket(socket.AF_UNIX) as qmp:
            qmp.connect(str(monitor))
            disk = {"driver": "virtio-blk-pci", "drive": "late", "serial": "root"}
            for command in (
                {"execute": "qmp_capabilities"},
                {"execute": "device_add", "arguments": {**disk, "bus": "socket9"}},
            ):
                qmp.sendall(json.dumps(command).encode())
                time.sleep(0.2)
        return True

    found = boot(bundle, *(f"--qemu-arg={word}" for word in words), watch=plug)
    check_good(found, token)
    waited = next(item["ms"] for item in found.result["stages"] if item["name"] == "devices")
    assert waited > 500


def test_slow_disk(boot, token, variant):
    """Fifty requests a second: slow, but within the deadline."""
    bundle = variant("small")
    options = _throttled("iops-total=50")
    check_good(boot(bundle, *options), token)


def test_disk_too_slow_for_the_deadline(boot, token, variant):
    bundle = variant("full")
    bundle.rebake(lambda tree: tree["fail"].update(deadline_s=5, device_timeout_s=4))
    found = boot(bundle, *_throttled("bps-total=8192"))
    assert found.code == "deadline", f"{found.result}\n{found.console}"
    stage = next(line for line in found.console.splitlines() if line.endswith("failed deadline"))
    check_refused(found, token, "deadline", stage=stage.split(" stage ")[1].split(" ")[0])


def _throttled(limit):
    return ["--qemu-arg=-set", f"--qemu-arg=drive.disk0.throttling.{limit}"]


def test_unsupported_file_system(boot, token, variant):
    """Verified, and yet nothing this kernel can mount."""
    bundle = variant("small")

    def from_the_future(data):
        compat, incompat = 1024 + 8, 1024 + 80
        (flags,) = struct.unpack_from("<I", data, compat)
        struct.pack_into("<I", data, compat, flags & ~1)  # without checksum
        (flags,) = struct.unpack_from("<I", data, incompat)
        struct.pack_into("<I", data, incompat, flags | _UNKNOWN_FEATURE)

    bundle.reformat(from_the_future)
    check_refused(boot(bundle), token, "fs-unsupported", stage="root")


def test_file_system_with_a_wrong_checksum(boot, token, variant):
    """Verified, so it was built like this; the kernel refuses it all the same."""
    bundle = variant("small")

    def damage(data):
        assert data[1024 + 8] & 1  # the superblock has a checksum
        data[1024 + 4] ^= 1

    bundle.reformat(damage)
    check_refused(boot(bundle), token, "root-mount", stage="root")


def test_volume_without_its_mount_point(boot, token, variant):
    bundle = variant("full")
    bundle.rebake(lambda tree: tree["volumes"][1].update(mount="/srv/nowhere"))
    check_refused(boot(bundle), token, "volume-mount", stage="root")


@pytest.mark.parametrize("action", ["reboot", "halt"])
def test_other_ends_of_a_refused_boot(boot, token, variant, action):
    """As the policy says; a machine that only halts is ended by troth run."""
    bundle = variant("small")
    bundle.rebake(lambda tree: tree["fail"].update(action=action))
    bundle.flip("root.img", 0)
    found = boot(bundle)
    check_refused(found, token, "verity-data", stage="verity")
    assert found.result["shutdown"] == {"reboot": "guest-reset", "halt": None}[action]


def test_volume_swapped_with_another_images(boot, token, variant):
    bundle = variant("full")
    bundle.write("volume-models.img", bundle.read("root.img"))
    found = boot(bundle)
    check_refused(found, token, "verity-root-hash", stage="verity")
    assert "troth: refused verity-root-hash: models: " in found.console
