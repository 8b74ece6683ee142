# SPDX-License-Identifier: Apache-2.0
"""The encrypted disks that the rows of ``volumes`` open, and what they are made from.

The LUKS2 disk is made once and holds an ext4 with the probe file: troth and its peers open the
same bytes. Its key-slot can be given a dearer derivation, by cryptsetup. Must never need a
device mapper of this machine.
"""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import disks as disk_images
from disks import Sealed
from rows import TROTH

from troth.record import record
from troth.volumes import keys

if TYPE_CHECKING:
    from pathlib import Path

UUID = "5a5a5a5a-0b0a-4908-8706-050403020100"
SERIAL, MOUNT = "data", "/srv/data"
DISK_BYTES = 64 << 20
_CONTENT_BYTES = 32 << 20
_PROFILE = "luks2/none/4096"


@record
class Sources:
    """``root``, ``root_alone``: erofs images with and without a place for a volume to be proved;
    ``key``: the source key's file; ``luks2``: the disk; ``passphrase``: file that opens it.
    """

    root: Path
    root_alone: Path
    key: Path
    luks2: Path
    passphrase: Path


def sources(work: Path) -> Sources:
    """All of it, in ``work``."""
    root, _data = disk_images.file_systems(work)
    alone = work / "root-alone"
    shutil.copytree(work / "root", alone)
    (alone / "etc/no-volume").touch()
    key, passphrase = work / "data.key", work / "passphrase"
    key.write_bytes(bytes(range(32)))
    passphrase.write_bytes(keys.passphrase(key.read_bytes(), uuid=UUID, profile=_PROFILE))
    content = work / "data.ext4"
    with content.open("wb") as file:
        file.truncate(_CONTENT_BYTES)
    subprocess.run(
        ["mkfs.ext4", "-q", "-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0",
         "-d", work / "data", content],
        check=True,
    )  # fmt: skip
    luks2 = work / "luks2.img"
    subprocess.run(
        [TROTH, "volume", "format", luks2, "--format", "luks2", "--key-file", key,
         "--integrity", "none", "--uuid", UUID, "--content", content],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return Sources(
        root=root,
        root_alone=disk_images.erofs(alone, work / "root-alone.erofs", 3),
        key=key,
        luks2=luks2,
        passphrase=passphrase,
    )


def luks2(found: Sources) -> Sealed:
    """The LUKS2 disk, for peers: opened by its passphrase."""
    return Sealed(path=found.luks2, serial=SERIAL, mount=MOUNT, key=found.passphrase)


def derived_by(found: Sources, name: str, words: tuple[str, ...]) -> Sealed:
    """A copy of the LUKS2 disk whose key-slot has the derivation that ``words`` tell cryptsetup."""
    made = found.luks2.with_name(f"luks2-{name}.img")
    shutil.copyfile(found.luks2, made)
    if words:
        subprocess.run(
            ["cryptsetup", "luksConvertKey", "--batch-mode", "--key-file", found.passphrase,
             *words, made],
            check=True,
        )  # fmt: skip
    return Sealed(path=made, serial=SERIAL, mount=MOUNT, key=found.passphrase)


def blank(path: Path, size_bytes: int = DISK_BYTES) -> Path:
    """A disk of zeros."""
    with path.open("wb") as file:
        file.truncate(size_bytes)
    return path
