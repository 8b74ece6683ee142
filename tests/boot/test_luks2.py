# SPDX-License-Identifier: Apache-2.0
"""LUKS2 volumes in a guest: opened as the policy says, never as the header says."""

import shutil
from pathlib import Path

import pytest

from boot import luks2_disks, machine
from boot.luks2_disks import AREA_BYTES, changed, put, second_copy_of
from boot.machine import check_good, check_refused
from boot.nbd_disk import NbdDisk

KEPT = "kept "
PBKDF2 = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"]
ARGON2ID = ["--pbkdf", "argon2id", "--pbkdf-force-iterations", "4", "--pbkdf-memory", "32768",
            "--pbkdf-parallel", "1"]  # fmt: skip
MOST = (1 << 32) - 1


def attached(disks: dict[str, Path]) -> list[str]:
    words = ["--sim-snp"]
    for serial, path in disks.items():
        words += ["--disk", f"{serial}={path}"]
    return words


@pytest.fixture(scope="module")
def ids(forge):
    return luks2_disks.ids(forge.bundle("luks2"))


@pytest.fixture(scope="module")
def key(forge):
    return {name: forge.base / f"{name}.key" for name in ("data", "plain")}


@pytest.fixture(scope="module")
def kept(forge, ids, key, tmp_path_factory):
    """Ours and cryptsetup's (Argon2id), after one boot that wrote to them, and that boot."""
    if not shutil.which("cryptsetup"):
        pytest.skip("cryptsetup is missing (apt install cryptsetup-bin)")
    place = tmp_path_factory.mktemp("luks2")
    content = luks2_disks.file_system(place / "ext4")
    disks = {name: place / f"{name}.img" for name in ("data", "plain")}
    luks2_disks.by_troth(disks["data"], key=key["data"], uuid=ids["data"], content=content)
    luks2_disks.by_cryptsetup(
        disks["plain"], key=key["plain"], uuid=ids["plain"], content=content, kdf=ARGON2ID
    )
    before = {name: luks2_disks.area_of(path) for name, path in disks.items()}
    found = machine.run(forge.bundle("luks2"), place, *attached(disks), "--memory", "768M")
    yield disks, found, before
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def disks(kept, tmp_path):
    """Copies of them."""
    yield {name: Path(shutil.copy(path, tmp_path)) for name, path in kept[0].items()}
    for name in kept[0]:
        (tmp_path / f"{name}.img").unlink()


def test_opened(kept, ids, key, token):
    disks, found, before = kept
    check_good(found, token)
    mounts = {line.split()[1]: line.split() for line in found.lines("file /proc/mounts")}
    for place in ("/srv/data", "/srv/plain"):
        assert found.section(f"file {place}/kept") == "error ENOENT"
        assert mounts[place][2] == "ext4"
    for name, path in disks.items():
        # Nothing repaired or counted up the header: it is still cryptsetup's to open.
        assert luks2_disks.area_of(path) == before[name]
        assert luks2_disks.cryptsetup_opens(path, key=key[name], uuid=ids[name])
        # What the guest's kernel wrote is read back by the formula that cryptsetup's table has:
        # plain64 in units of 512 bytes, sectors of 4096, from 16 MiB.
        assert token.encode() not in path.read_bytes()
        assert f"{KEPT}{token}".encode() in luks2_disks.data(path, key=key[name], uuid=ids[name])


def test_data_are_found_again(boot, disks, forge, ids, key, token, tmp_path):
    """The second boot; ``plain`` has another header by then: PBKDF2, over the same data."""
    content = tmp_path / "content"
    content.write_bytes(luks2_disks.data(disks["plain"], key=key["plain"], uuid=ids["plain"]))
    luks2_disks.by_cryptsetup(
        disks["plain"], key=key["plain"], uuid=ids["plain"], content=content, kdf=PBKDF2
    )
    content.unlink()
    found = boot(forge.bundle("luks2"), *attached(disks))
    check_good(found, token)
    for place in ("data", "plain"):
        assert found.section(f"file /srv/{place}/kept") == f"{KEPT}{token}"


def null_segment(tree):
    tree["segments"]["0"]["encryption"] = "cipher_null-ecb"


def null_keyslot(tree):
    tree["keyslots"]["0"]["area"]["encryption"] = "cipher_null-ecb"


def argon2_bomb(tree):
    kdf = tree["keyslots"]["0"]["kdf"]
    for name in ("hash", "iterations"):
        kdf.pop(name)
    kdf.update(type="argon2id", time=4, memory=4 << 20, cpus=4)


def pbkdf2_bomb(tree):
    tree["keyslots"]["0"]["kdf"]["iterations"] = MOST


def digest_bomb(tree):
    tree["digests"]["0"]["iterations"] = MOST


def area_redirect(tree):
    """Into the data, where the host may have put what it likes."""
    tree["keyslots"]["0"]["area"]["offset"] = str(16 << 20)


def token_added(tree):
    tree["tokens"]["0"] = {"type": "luks2-keyring", "keyslots": ["0"], "key_description": "host"}


def second_segment(tree):
    first = tree["segments"]["0"]
    tree["segments"]["1"] = {**first, "offset": str(24 << 20)}


@pytest.mark.parametrize(
    ("change", "exact"),
    [
        (null_segment, "luks2-cipher-null"),
        (null_keyslot, "luks2-cipher-null"),
        (argon2_bomb, "luks2-kdf-cost"),
        (pbkdf2_bomb, "luks2-kdf-cost"),
        (digest_bomb, "luks2-digest-cost"),
        (area_redirect, "luks2-keyslot-area"),
        (token_added, "luks2-tokens"),
        (second_segment, "luks2-segments"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_header_that_says_something_else(boot, change, exact, disks, forge, token):
    put(disks["data"], changed(luks2_disks.area_of(disks["data"]), change))
    found = boot(forge.bundle("luks2"), *attached(disks))
    check_closed(found, token, exact)


def check_closed(found, token, exact):
    """Refused at once: no derivation of those that were asked for ends in minutes."""
    check_refused(found, token, "header-refused", stage="volumes", exact=exact)
    assert "volumes" not in found.stages


def altered_copy(disks, at):
    area = bytearray(luks2_disks.area_of(disks["data"]))
    area[at + 5000] ^= 1
    put(disks["data"], bytes(area))


def first_copy(disks, **_named):
    altered_copy(disks, 0)


def copies_that_differ(disks, **_named):
    area = luks2_disks.area_of(disks["data"])
    put(disks["data"], second_copy_of(area, null_segment))


def another_volume(disks, *, key, tmp_path, **_named):
    """The right key, under the id of a volume that the policy does not name."""
    other = tmp_path / "other"
    content = luks2_disks.file_system(tmp_path / "ext4")
    uuid = "0c5f4a3e-7b11-4f7e-9d59-3f6f5d0f2a10"
    luks2_disks.by_troth(other, key=key["data"], uuid=uuid, content=content)
    other.replace(disks["data"])


def another_key(disks, *, ids, key, tmp_path, **_named):
    """Whoever knows the volume's id, and not its key, puts a volume of his own there."""
    other = tmp_path / "other"
    content = luks2_disks.file_system(tmp_path / "ext4")
    luks2_disks.by_troth(other, key=key["plain"], uuid=ids["data"], content=content)
    other.replace(disks["data"])


@pytest.mark.parametrize(
    ("attack", "exact"),
    [
        (first_copy, "luks2-primary"),
        (copies_that_differ, "luks2-copies"),
        (another_volume, "luks2-uuid"),
        (another_key, "luks2-key"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_another_header(attack, exact, boot, disks, forge, ids, key, tmp_path, token):
    attack(disks, ids=ids, key=key, tmp_path=tmp_path)
    found = boot(forge.bundle("luks2"), *attached(disks))
    check_closed(found, token, exact)


@pytest.fixture
def lying(disks, tmp_path):
    """``data`` behind a host that answers the header's second reader with a null cipher."""
    good = luks2_disks.area_of(disks["data"])
    evil = changed(good, null_segment)
    made = []

    def start(*, from_the_start):
        served = [from_the_start]

        def answer(offset, data):
            if offset >= AREA_BYTES:
                return data
            found = (evil if served[0] else good)[offset : offset + len(data)]
            # Whoever has come as far as the key-slot's end has read the header.
            if offset + len(data) == AREA_BYTES:
                served[0] = True
            return found + data[len(found) :]

        disk = NbdDisk(disks["data"], tmp_path / "nbd", answer)
        made.append(disk)
        return disk

    yield start
    for disk in made:
        disk.close()


@pytest.mark.parametrize("from_the_start", [False, True])
def test_a_header_that_changes_between_two_reads(
    boot, disks, forge, from_the_start, lying, tmp_path, token
):
    """What is judged is what is used, because there is no second read."""
    disk = lying(from_the_start=from_the_start)
    drive = "if=none,id=lying,format=raw,file.driver=nbd,file.server.type=unix,"
    drive += f"file.server.path={tmp_path / 'nbd'}"
    found = boot(
        forge.bundle("luks2"),
        "--sim-snp", "--disk", f"plain={disks['plain']}",
        "--qemu-arg=-drive", f"--qemu-arg={drive}",
        "--qemu-arg=-device", "--qemu-arg=virtio-blk-pci,drive=lying,serial=data",
    )  # fmt: skip
    if from_the_start:
        check_closed(found, token, "luks2-cipher-null")
        return
    check_good(found, token)
    assert found.section("file /srv/data/kept") == f"{KEPT}{token}"
    counts = [0] * (AREA_BYTES // 4096)
    for offset, size in disk.reads:
        for block in range(offset // 4096, min(offset + size, AREA_BYTES) // 4096):
            counts[block] += 1
    # Behind the first block, which is read for a partition table too.
    assert set(counts[1:]) == {1}
