# SPDX-License-Identifier: Apache-2.0
"""The two disks that every row of the boot bench finds and verifies.

``root``: erofs with the marker init and 16 MB of ballast, so that its hash
tree has more than one level; ``data``: erofs with the probe file, mounted at
/srv/data. Each disk holds its file system, padded to 4096 bytes, and behind it
superblock and tree. Serves ``peers`` and ``run``; must stay the same bytes
from run to run, or rows of different days could not be compared.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

from troth.record import record

SALT = "5a" * 32
PEERS = Path(__file__).parents[2] / "qemu" / "peers"
BLOCK = 4096


@record
class Disk:
    """A verity disk: image ``path``, virtio ``serial``, where and what to mount."""

    path: Path
    serial: str
    mount: str
    hash_offset_bytes: int
    root_hash: str
    salt: str


@record
class Sealed:
    """An encrypted disk: image ``path``, ``serial``, where to mount, file that opens it.

    ``written``: whether a boot's writes stay, as they must where somebody counts them.
    """

    path: Path
    serial: str
    mount: str
    key: Path | None
    written: bool = False


def file_systems(work: Path) -> tuple[Path, Path]:
    """Make the two plain erofs images in ``work``: root and data."""
    root = work / "root"
    shutil.rmtree(root, ignore_errors=True)
    for name in (
        "sbin",
        "dev",
        "proc",
        "sys",
        "run",
        "tmp",
        "etc",
        "srv/data",
        "usr/lib",
        "var",
        "opt",
    ):
        (root / name).mkdir(parents=True)
    compile_static("marker.c", root / "sbin/init")
    # systemd refuses to switch into a tree without it
    (root / "etc/os-release").write_text('ID=bench\nNAME="troth bench"\n')
    (root / "ballast").write_bytes(hashlib.shake_256(b"troth bench").digest(16 << 20))
    data = work / "data"
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir()
    (data / "probe").write_text("troth bench probe\n")
    (data / "ballast").write_bytes(hashlib.shake_256(b"troth bench data").digest(4 << 20))
    return erofs(root, work / "root.erofs", 1), erofs(data, work / "data.erofs", 2)


def erofs(tree: Path, image: Path, number: int) -> Path:
    """Pack ``tree`` as an uncompressed, reproducible erofs ``image``."""
    image.unlink(missing_ok=True)
    uuid = f"00000000-0000-4000-8000-{number:012d}"
    command: list[str | Path] = [
        "mkfs.erofs",
        "--quiet",
        "--all-root",
        "-T0",
        f"-U{uuid}",
        image,
        tree,
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return image


def compile_static(source: str, target: Path) -> None:
    """Compile a C source of qemu/peers into a static, stripped program."""
    command: list[str | Path] = ["gcc", "-O2", "-static", "-s", "-o", target, PEERS / source]
    subprocess.run(command, check=True)


def by_veritysetup(work: Path) -> tuple[Disk, Disk]:
    """Both disks with a tree made by veritysetup, for runs without a troth row."""
    made = []
    for number, (image, mount) in enumerate(
        zip(file_systems(work), ("/", "/srv/data"), strict=True), 1
    ):
        disk = work / f"{image.stem}.img"
        shutil.copyfile(image, disk)
        offset = -(-disk.stat().st_size // BLOCK) * BLOCK
        with disk.open("r+b") as file:
            file.truncate(offset)
        said = subprocess.run(
            ["veritysetup", "format", f"--hash-offset={offset}", f"--salt={SALT}",
             f"--uuid=00000000-0000-4000-8000-{number + 100:012d}", disk, disk],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        root_hash = said.split("Root hash:")[1].split()[0]
        made.append(
            Disk(
                path=disk, serial=image.stem, mount=mount,
                hash_offset_bytes=offset, root_hash=root_hash, salt=SALT,
            )
        )  # fmt: skip
    return made[0], made[1]


def from_bundle(bundle: Path) -> tuple[Disk, ...]:
    """The verity disks of a bundle, root first: the peers verify exactly what troth verifies."""
    policy = json.loads((bundle / "policy.json").read_bytes())
    files = {
        item["serial"]: item["file"]
        for item in json.loads((bundle / "manifest.json").read_bytes())["disks"]
    }
    made = []
    for volume in policy["volumes"]:
        serial = volume["device"].removeprefix("serial:")
        verity = volume["verity"]
        made.append(
            Disk(
                path=bundle / files[serial], serial=serial, mount=volume["mount"],
                hash_offset_bytes=verity["superblock_block"] * verity["block_bytes"],
                root_hash=verity["root_hash"], salt=verity["salt"],
            )
        )  # fmt: skip
    return tuple(made)
