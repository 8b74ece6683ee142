# SPDX-License-Identifier: Apache-2.0
"""Disks with a LUKS2 header for guests: by ``troth volume format``, by cryptsetup, and altered."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

from boot.bundles import TROTH
from made_luks2 import metadata, packed
from troth.abi import luks2
from troth.ciphers import xts
from troth.documents.volume_profile import VolumeProfile
from troth.record import replace
from troth.volumes import header_area, keys, luks2_open, luks2_profile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FILE_SYSTEM_BYTES = 16 << 20
DISK_BYTES = 32 << 20
AREA_BYTES = header_area.AREA_BYTES
SECTOR_BYTES = 4096
PROFILE = "luks2/none/4096"


def ids(bundle: Path) -> dict[str, str]:
    """Name to UUID of the encrypted volumes."""
    policy = json.loads((bundle / "policy.json").read_bytes())
    return {item["name"]: item["uuid"] for item in policy["encrypted"]}


def file_system(path: Path) -> Path:
    """An ext4 that nothing has been written to, in blocks of the map's sectors."""
    with path.open("wb") as file:
        file.truncate(FILE_SYSTEM_BYTES)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", path], check=True)
    return path


def by_troth(path: Path, *, key: Path, uuid: str, content: Path, format_: str = "luks2") -> dict:
    """A volume of ours with ``content`` in it, and what was said of it."""
    done = subprocess.run(
        [TROTH, "volume", "format", path, "--format", format_, "--integrity", "none", "--uuid",
         uuid, "--key-file", key, "--content", content, "--json"],
        check=True, stdout=subprocess.PIPE,
    )  # fmt: skip
    return json.loads(done.stdout)


def passphrase(key: Path, uuid: str, profile: str = PROFILE) -> bytes:
    return keys.passphrase(key.read_bytes(), uuid=uuid, profile=profile)


def by_cryptsetup(path: Path, *, key: Path, uuid: str, content: Path, kdf: list[str]) -> None:
    """cryptsetup's own header under our passphrase; the content is encrypted here."""
    with path.open("wb") as file:
        file.truncate(DISK_BYTES)
    subprocess.run(
        ["cryptsetup", "luksFormat", "--type", "luks2", "--batch-mode", "--uuid", uuid, "--cipher",
         "aes-xts-plain64", "--key-size", "512", "--sector-size", "4096", *kdf, "--key-file", "-",
         path],
        input=passphrase(key, uuid), check=True,
    )  # fmt: skip
    volume_key, offset_bytes = opened(path, key=key, uuid=uuid)
    stored = xts.encrypt(volume_key, content.read_bytes(), sector_bytes=SECTOR_BYTES)
    with path.open("r+b") as file:
        file.seek(offset_bytes)
        file.write(stored)


def opened(path: Path, *, key: Path, uuid: str) -> tuple[bytes, int]:
    """Volume key and where data begin, of a header that the strict profile accepts."""
    area = header_area.read_file(str(path))
    profile = VolumeProfile(integrity="none", uuid=uuid)
    accepted = luks2_profile.require(area, profile, memory_bytes=8 << 30)
    found = luks2_open.unlock(accepted, area, passphrase(key, uuid))
    return bytes(found), accepted.segment.offset_bytes


def data(path: Path, *, key: Path, uuid: str) -> bytes:
    """What is in the volume, decrypted as dm-crypt's plain64 in sectors of 4096 bytes."""
    volume_key, offset_bytes = opened(path, key=key, uuid=uuid)
    stored = path.read_bytes()[offset_bytes:]
    return xts.decrypt(volume_key, stored, sector_bytes=SECTOR_BYTES)


def cryptsetup_opens(path: Path, *, key: Path, uuid: str) -> bool:
    """Whether cryptsetup takes header and passphrase."""
    done = subprocess.run(
        ["cryptsetup", "open", "--test-passphrase", "--type", "luks2", "--key-file", "-", path],
        input=passphrase(key, uuid), check=False,
    )  # fmt: skip
    return done.returncode == 0


def area_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(AREA_BYTES)


def put(path: Path, area: bytes) -> None:
    with path.open("r+b") as file:
        file.write(area)


def changed(area: bytes, change: Callable[[dict], object]) -> bytes:
    """``area`` with other metadata in both copies, checksums right."""
    tree = metadata(area)
    change(tree)
    return packed(area, tree)


def second_copy_of(area: bytes, change: Callable[[dict], object]) -> bytes:
    """``area`` whose second copy alone says something else, its checksum right and newer."""
    copy = luks2.parse(area, offset_bytes=16384)
    tree = json.loads(copy.metadata)
    change(tree)
    header = replace(copy.header, seqid=copy.header.seqid + 1)
    other = luks2.pack(luks2.Copy(header, json.dumps(tree).encode()), secondary=True)
    return area[:16384] + other + area[32768:]
