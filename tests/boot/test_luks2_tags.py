# SPDX-License-Identifier: Apache-2.0
"""LUKS2 over dm-integrity: made by cryptsetup in a guest of its own, opened by ours, and back."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from boot import luks2_disks, machine
from boot.bundles import SOURCES, TROTH
from boot.machine import check_good, check_refused

DISK_BYTES = 48 << 20
DATA_OFFSET_BYTES = 16 << 20
PROGRAMS = ("/usr/sbin/cryptsetup", "/usr/sbin/mke2fs")
MANIFEST = """
[image]
name = "cryptsetup"
kernel = {kernel}
compression = "none"
load = ["dm-crypt", "dm-integrity", "authenc", "xts", "algif_skcipher", "ext4"]
[root]
source = "root"
overlay = "none"
[tee]
snp = "none"
vtpm = "none"
"""


def libraries(program):
    """What the loader takes for ``program``, itself among them."""
    said = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    words = [line.split() for line in said.splitlines()]
    return {word for line in words for word in line if word.startswith("/")}


@pytest.fixture(scope="module")
def uuid(forge):
    return luks2_disks.ids(forge.bundle("luks2-tags"))["data"]


@pytest.fixture(scope="module")
def cryptsetup(forge, uuid):
    """A bundle whose init is cryptsetup's user."""
    if not all(Path(name).exists() for name in PROGRAMS):
        pytest.skip("cryptsetup is missing (apt install cryptsetup-bin)")
    place = forge.base / "cryptsetup"
    with forge._locked("cryptsetup"):
        if not (place / "bundle").exists():
            root = place / "root"
            for directory in ("sbin", "etc", "usr/sbin"):
                (root / directory).mkdir(parents=True)
            subprocess.run(
                ["gcc", "-D_GNU_SOURCE", f'-DTOKEN="{forge.token}"', f'-DUUID="{uuid}"', "-static",
                 "-O1", "-w", "-s", "-o", root / "sbin/init", SOURCES / "cryptsetup.c"],
                check=True,
            )  # fmt: skip
            for name in {path for program in PROGRAMS for path in libraries(program)} | {*PROGRAMS}:
                target = root / name.lstrip("/")
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(os.path.realpath(name), target)
            secret = luks2_disks.passphrase(forge.base / "data.key", uuid, "luks2/hmac/4096")
            (root / "etc/pass").write_bytes(secret)
            manifest = place / "troth.toml"
            manifest.write_text(MANIFEST.format(kernel=forge._kernel("6.12")))
            subprocess.run([TROTH, "build", manifest, "-o", place / "bundle"], check=True)
    return place / "bundle"


@pytest.fixture(scope="module")
def made(cryptsetup, tmp_path_factory):
    """A disk that cryptsetup has formatted and written to, and that boot."""
    place = tmp_path_factory.mktemp("tags")
    disk = place / "data.img"
    with disk.open("wb") as file:
        file.truncate(DISK_BYTES)
    found = machine.run(cryptsetup, place, "--disk", f"data={disk}", "--memory", "768M")
    yield disk, found
    shutil.rmtree(place, ignore_errors=True)


def test_there_and_back(boot, cryptsetup, forge, made, token):
    """Both find what the other has written, tags and all, and neither changes the header."""
    disk, found = made
    check_good(found, token)
    assert found.section("file /run/mnt/kept") == "error ENOENT"
    before = luks2_disks.area_of(disk)
    ours = boot(forge.bundle("luks2-tags"), "--sim-snp", "--disk", f"data={disk}")
    check_good(ours, token)
    assert ours.section("file /srv/data/kept") == f"cryptsetup {token}"
    assert luks2_disks.area_of(disk) == before
    again = boot(cryptsetup, "--disk", f"data={disk}", "--memory", "768M")
    check_good(again, token)
    assert again.lines("file /run/mnt/kept") == [f"cryptsetup {token}", f"kept {token}"]
    assert token.encode() not in disk.read_bytes()


@pytest.fixture
def disk(made, tmp_path):
    path = Path(shutil.copy(made[0], tmp_path))
    yield path
    path.unlink()


def test_a_superblock_that_was_taken_away(boot, disk, forge, made, token):
    check_good(made[1], token)
    with disk.open("r+b") as file:
        file.seek(DATA_OFFSET_BYTES)
        file.write(bytes(4096))
    found = boot(forge.bundle("luks2-tags"), "--sim-snp", "--disk", f"data={disk}")
    check_refused(found, token, "header-refused", stage="volumes", exact="integrity-superblock")


def test_changed_data_are_not_read(boot, disk, forge, made, token):
    check_good(made[1], token)
    with disk.open("r+b") as file:
        for at in range(DATA_OFFSET_BYTES + 4096, DISK_BYTES, 4096):
            file.seek(at)
            file.write(b"\xa5")
    found = boot(forge.bundle("luks2-tags"), "--sim-snp", "--disk", f"data={disk}")
    check_refused(found, token, "volume-mount", stage="root")
