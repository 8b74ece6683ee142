# SPDX-License-Identifier: Apache-2.0
"""A root that nobody else can read: verified as ever, inside an encrypted disk."""

import json

import pytest

from boot import luks2_disks
from boot.machine import check_good, check_refused
from boot.variants import BLOCK_BYTES, Variant

DATA_OFFSET_BYTES = {"luks2": 16 << 20, "headerless": 1 << 20}
REFUSED_KEY = {"luks2": "luks2-key", "headerless": "record-mac"}


@pytest.fixture(params=["luks2", "headerless"])
def form(request):
    return request.param


@pytest.fixture
def disk(forge, form, tmp_path):
    """The root of the bundle, encrypted as a person would do it; gone after the test."""
    bundle = forge.bundle(f"inside-{form}")
    path = tmp_path / "root.enc"
    said = luks2_disks.by_troth(
        path,
        key=forge.base / "data.key",
        uuid=luks2_disks.ids(bundle)["root"],
        content=bundle / "root.img",
        format_=form,
    )
    assert said["complete"] is True
    assert said["data_offset_bytes"] == DATA_OFFSET_BYTES[form]
    yield path
    path.unlink()


def attached(path):
    # The host's own word for it, besides the map's.
    return "--sim-snp", "--disk", f"root={path},ro"


def test_a_root_in_an_encrypted_disk(boot, disk, forge, form, token):
    before = disk.read_bytes()
    assert token.encode() in (forge.bundle(f"inside-{form}") / "root.img").read_bytes()
    assert token.encode() not in before
    found = boot(forge.bundle(f"inside-{form}"), *attached(disk))
    check_good(found, token)
    (root,) = [line.split() for line in found.lines("file /proc/mounts") if " / erofs " in line]
    # The second map: dm-verity above dm-crypt.
    assert root[0] == "/dev/dm-1"
    assert "ro" in root[3].split(",")
    assert disk.read_bytes() == before
    log = [json.loads(line) for line in found.lines("file /run/troth/event-log.jsonl")]
    said = [item["content"]["text"] for item in log if item["content"]["type"] == "key-release"]
    assert said == ["file:root file:root root"]


def tree_block(policy, number):
    """Where hash block ``number`` of the root's tree is, the top one being 0."""
    (root,) = policy["volumes"]
    return (root["verity"]["superblock_block"] + 1 + number) * BLOCK_BYTES


@pytest.mark.parametrize(
    ("place", "code"),
    [(lambda _policy: 0, "verity-data"), (lambda policy: tree_block(policy, 1), "verity-tree")],
    ids=["data", "tree"],
)
def test_a_bit_of_the_ciphertext(boot, code, disk, forge, form, place, token):
    """The cipher does not notice; the hash does, and nothing of it is mounted."""
    bundle = forge.bundle(f"inside-{form}")
    policy = json.loads((bundle / "policy.json").read_bytes())
    at = DATA_OFFSET_BYTES[form] + place(policy)
    with disk.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes((byte ^ 1,)))
    found = boot(bundle, *attached(disk))
    check_refused(found, token, code, stage="verity")


def test_another_key(boot, disk, forge, form, tmp_path, token):
    bundle = Variant(forge.bundle(f"inside-{form}"), tmp_path / "variant")
    bundle.replace("keys/root", bytes(range(32)))
    found = boot(bundle, *attached(disk))
    check_refused(found, token, "header-refused", stage="volumes", exact=REFUSED_KEY[form])
