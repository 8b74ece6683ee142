# SPDX-License-Identifier: Apache-2.0
"""Copies of a bundle with one thing changed: what an attacker or an accident would do.

Nothing here is known to the product. manifest.json is brought in line with
every change, since ``troth run`` compares small files with it and would
otherwise stop before the guest can. A change of the policy goes through the
builder's own compiler, so that policy.json and its twin agree unless the test
wants them not to.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
import uuid
import zlib
from typing import TYPE_CHECKING

from troth.abi import cpio, verity_sb
from troth.documents import strict
from troth.image import policy_compile
from troth.image.hashing import verity_image
from troth.image.inputs import interpreter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_SECTOR_BYTES = 512
_FIRST_SECTOR = 2048
_TYPES = {stat.S_IFREG: "f", stat.S_IFDIR: "d", stat.S_IFLNK: "l"}
POLICY = "runtime/etc/troth/policy.json"
BLOCK_BYTES = 4096


class Variant:
    """A copy of the bundle ``origin`` at ``path``; files are shared until they are changed."""

    def __init__(self, origin: Path, path: Path) -> None:
        self.path = path
        path.mkdir()
        for file in origin.iterdir():
            os.link(file, path / file.name)

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        """Replace a file, and its row in the manifest."""
        (self.path / name).unlink(missing_ok=True)
        (self.path / name).write_bytes(data)
        manifest = json.loads(self.read("manifest.json"))
        rows = [row for row in manifest["artefacts"] if row["name"] != name]
        row = {"name": name, "size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        manifest["artefacts"] = [*rows, row]
        self._write_manifest(manifest)

    def _write_manifest(self, manifest: dict) -> None:
        path = self.path / "manifest.json"
        path.unlink()
        path.write_bytes(strict.pretty(manifest))

    def flip(self, name: str, offset_bytes: int, mask: int = 0x01) -> None:
        """Flip one bit."""
        data = bytearray(self.read(name))
        data[offset_bytes] ^= mask
        self.write(name, bytes(data))

    # The manifest

    def detach(self, serial: str) -> None:
        """Have ``troth run`` not attach a disk."""
        manifest = json.loads(self.read("manifest.json"))
        manifest["disks"] = [disk for disk in manifest["disks"] if disk["serial"] != serial]
        self._write_manifest(manifest)

    def set_vtpm(self, value: str) -> None:
        """What the manifest tells ``troth run``; the policy is ``rebake``'s."""
        manifest = json.loads(self.read("manifest.json"))
        manifest["vtpm"] = value
        self._write_manifest(manifest)

    # The initramfs

    def members(self) -> list[cpio.Member]:
        return list(cpio.parse(self.read("initramfs")))

    def pack(self, members: list[cpio.Member]) -> None:
        self.write("initramfs", cpio.write(members))

    def append(self, *members: cpio.Member) -> None:
        """A second archive behind the first, as a loader or a host would add."""
        self.write("initramfs", self.read("initramfs") + cpio.write(members))

    def drop(self, path: str) -> None:
        members = self.members()
        kept = [member for member in members if member.path != path]
        assert len(kept) == len(members) - 1, f"{path} is not in the initramfs"
        self.pack(kept)

    def replace(self, path: str, data: bytes) -> None:
        members = self.members()
        at = next(index for index, member in enumerate(members) if member.path == path)
        members[at] = cpio.Member(path, members[at].mode, data)
        self.pack(members)

    def replace_module(self, name: str, source: str) -> None:
        """Put other code in the place of a packed Python module."""
        ending = f"{name.replace('.', '/')}.pyc"
        path = next(member.path for member in self.members() if member.path.endswith(ending))
        target = interpreter.identify()
        (code,) = interpreter.compile_all(
            target, [(f"/{path.removeprefix('runtime/')}", source.encode())]
        )
        self.replace(path, code)

    # The policy

    @property
    def policy(self) -> dict:
        return json.loads(self.read("policy.json"))

    def rebake(self, change: Callable[[dict], object]) -> None:
        """Change the policy's tree and bake it anew, twin and command line with it."""
        tree = self.policy
        change(tree)
        data = strict.canonical(tree)
        members = self.members()
        names = [f"{_TYPES[stat.S_IFMT(item.mode)]} {item.path}" for item in members]
        self.replace(POLICY, data)
        self.replace_module("troth_baked", policy_compile.twin(data, names))
        self.write("policy.json", data)
        self.write("cmdline", tree["cmdline"]["text"].encode())

    # The images

    def verity(self, name: str = "root") -> dict:
        """Baked geometry of a volume."""
        return next(item for item in self.policy["volumes"] if item["name"] == name)["verity"]

    def tree_offset_bytes(self) -> int:
        """Where the root's hash tree begins: its top block, then the leaves."""
        return (self.verity()["superblock_block"] + 1) * BLOCK_BYTES

    def put_into_partition(self, label: str) -> None:
        """Wrap root.img into a disk with one GPT partition of that label."""
        self.write("root.img", gpt_disk(self.read("root.img"), label))

    def reformat(self, change: Callable[[bytearray], object]) -> None:
        """Change the root's file system, hash it anew and bake the new root hash."""
        verity = self.verity()
        size_bytes = verity["data_blocks"] * BLOCK_BYTES
        data = bytearray(self.read("root.img")[:size_bytes])
        change(data)
        self.write("root.img", bytes(data))
        image = self.path / "root.img"
        made = verity_image.format_image(
            image, image, salt=bytes.fromhex(verity["salt"]),
            uuid=bytes.fromhex(verity["uuid"].replace("-", "")), hash_offset_bytes=size_bytes,
            workers=1,
        )  # fmt: skip
        assert verity_sb.parse(image.read_bytes()[size_bytes:][:BLOCK_BYTES]) == made.superblock
        self.write("root.img", image.read_bytes())

        def set_hash(tree: dict) -> None:
            root = next(item for item in tree["volumes"] if item["name"] == "root")
            root["verity"]["root_hash"] = made.root_hash.hex()

        self.rebake(set_hash)


def gpt_disk(content: bytes, label: str) -> bytes:
    """A disk with protective MBR, GPT and one partition that holds ``content`` (UEFI 2.10, 5)."""
    sectors = len(content) // _SECTOR_BYTES
    last = _FIRST_SECTOR + sectors - 1
    backup = last + 33
    entry = uuid.UUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709").bytes_le
    entry += uuid.UUID("11111111-2222-4333-8444-555555555555").bytes_le
    entry += struct.pack("<QQQ", _FIRST_SECTOR, last, 0) + label.encode("utf-16-le").ljust(
        72, b"\0"
    )
    entries = entry.ljust(128 * 128, b"\0")

    def header(here: int, there: int, table: int) -> bytes:
        disk = uuid.UUID("99999999-2222-4333-8444-555555555555").bytes_le
        head = struct.pack(
            "<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, 0, 0, here, there, 34, last, disk,
            table, 128, 128, zlib.crc32(entries),
        )  # fmt: skip
        return head[:16] + struct.pack("<I", zlib.crc32(head)) + head[20:] + bytes(512 - 92)

    mbr = bytes(446) + struct.pack("<B3sB3sII", 0, b"\0\2\0", 0xEE, b"\xff" * 3, 1, backup)
    mbr = mbr.ljust(510, b"\0") + b"\x55\xaa"
    start = mbr + header(1, backup, 2) + entries
    end = entries + header(backup, 1, last + 1)
    return start.ljust(_FIRST_SECTOR * _SECTOR_BYTES, b"\0") + content + end
