# SPDX-License-Identifier: Apache-2.0
"""Stage 9: verified maps from baked geometry.

PID 1 first reads the tree path of the first and the last block itself and
checks it against the baked root hash. A disk that is wrong from the start is
thus refused with its own code; what the kernel meets later is its panic
(panic_on_corruption), which ``troth run`` reports as ``verity-panic``.
"""

from __future__ import annotations

import os

from troth.abi import dm, verity_sb
from troth.abi.hashes import BANKS
from troth.errors import FormatError, Refusal
from troth.linux import block
from troth.linux.dm import Control
from troth.measure import verity_geometry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.boot.state import State
    from troth.documents.policy import Verity, Volume
    from troth.linux.block import Disk
    from troth.linux.dm import Map


def run(state: State) -> None:
    """Make the maps; raise ``Refusal`` ``verity-*``."""
    control = Control()
    try:
        for volume in state.policy.volumes:
            disk = state.disks[volume.name]
            below = state.opened.get(volume.name)
            if below is not None:
                disk = block.of_map(below.minor)
            check_path(volume, disk)
            state.maps[volume.name] = _map(control, volume, disk)
    finally:
        control.close()


def check_path(volume: Volume, disk: Disk) -> None:
    """Read superblock and tree paths of the first and last block (SECURITY S34).

    Raises ``Refusal``: ``verity-short``, ``verity-root-hash``,
    ``verity-tree``, ``verity-data``, ``verity-superblock``, ``verity-read``.
    """
    verity = volume.verity
    size = verity.block_bytes
    digest_bytes = BANKS[verity.algorithm][1]
    tree = verity_geometry.geometry(
        verity.data_blocks, digest_bytes=digest_bytes, hash_block_bytes=size
    )
    tree_start = verity.superblock_block + 1
    needed = (tree_start + tree.tree_blocks) * (size // dm.SECTOR_BYTES)
    if disk.sectors < needed:
        raise Refusal(
            "verity-short", f"{volume.name}: {disk.sectors} sectors on disk, {needed} needed"
        )
    fd = os.open(disk.node, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for block in sorted({0, verity.data_blocks - 1}):
            _check_block(fd, volume, block=block, tree=tree, tree_start=tree_start)
        _check_superblock(fd, volume)
    except OSError as error:
        raise Refusal("verity-read", f"{volume.name}: {error.strerror}") from error
    finally:
        os.close(fd)


def _check_block(
    fd: int, volume: Volume, *, block: int, tree: verity_geometry.Geometry, tree_start: int
) -> None:
    verity = volume.verity
    hash_function, digest_bytes = BANKS[verity.algorithm]
    salt = bytes.fromhex(verity.salt)
    expected = bytes.fromhex(verity.root_hash)
    code = "verity-root-hash"
    for step in tree.path(block):
        place = tree_start + step.block
        data = _read(fd, place, verity)
        if hash_function(salt + data).digest() != expected:
            raise Refusal(code, f"{volume.name}: hash block {place} is not what was built")
        expected = data[step.offset_bytes : step.offset_bytes + digest_bytes]
        code = "verity-tree"
    data = _read(fd, block, verity)
    if hash_function(salt + data).digest() != expected:
        # Without a tree the block's digest is the root hash itself.
        code = "verity-data" if tree.tree_blocks else "verity-root-hash"
        raise Refusal(code, f"{volume.name}: data block {block} is not what was built")


def _read(fd: int, block: int, verity: Verity) -> bytes:
    data = os.pread(fd, verity.block_bytes, block * verity.block_bytes)
    if len(data) != verity.block_bytes:
        raise Refusal("verity-short", f"block {block} ends after {len(data)} bytes")
    return data


def _check_superblock(fd: int, volume: Volume) -> None:
    """The superblock decides nothing; one that disagrees is a sign of the wrong disk."""
    verity = volume.verity
    try:
        found = verity_sb.parse(_read(fd, verity.superblock_block, verity))
    except FormatError as error:
        raise Refusal("verity-superblock", f"{volume.name}: {error.message}") from None
    baked = verity_sb.Superblock(
        uuid=bytes.fromhex(verity.uuid.replace("-", "")),
        algorithm=verity.algorithm,
        data_blocks=verity.data_blocks,
        salt=bytes.fromhex(verity.salt),
        data_block_bytes=verity.block_bytes,
        hash_block_bytes=verity.block_bytes,
    )
    if found != baked:
        raise Refusal(
            "verity-superblock", f"{volume.name}: the superblock disagrees with the policy"
        )


def _map(control: Control, volume: Volume, disk: Disk) -> Map:
    verity = volume.verity
    sectors = verity.data_blocks * (verity.block_bytes // dm.SECTOR_BYTES)
    words = [
        "1",
        disk.number,
        disk.number,
        str(verity.block_bytes),
        str(verity.block_bytes),
        str(verity.data_blocks),
        str(verity.superblock_block + 1),
        verity.algorithm,
        verity.root_hash,
        verity.salt or "-",
        str(len(verity.options)),
        *verity.options,
    ]
    target = dm.Target(0, sectors, "verity", " ".join(words))
    name = f"troth-{volume.name}"
    uuid = f"CRYPT-VERITY-{verity.uuid.replace('-', '')}-{name}"
    try:
        made = control.create(name, uuid=uuid, targets=(target,), readonly=True)
        status = control.status(name)
    except OSError as error:
        raise Refusal("verity-map", f"{volume.name}: {error.strerror}") from error
    if len(status) != 1 or status[0].text.split()[:1] != ["V"]:
        raise Refusal("verity-map", f"{volume.name}: the kernel does not call the map verified")
    with open(f"/sys/block/dm-{made.minor}/ro", "rb", buffering=0) as file:
        if file.read(2).strip() != b"1":
            raise Refusal("verity-map", f"{volume.name}: the map is writable")
    return made
