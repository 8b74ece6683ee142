# SPDX-License-Identifier: Apache-2.0
"""Block devices as sysfs shows them. The host chooses all of it: used to find, not to trust."""

from __future__ import annotations

import os

from troth.record import record

BASE = "/sys/class/block"


@record
class Disk:
    """One whole disk or partition.

    ``name``: kernel name (``vda1``); ``serial``: of the whole disk, "" where
    it has none; ``parent``: the whole disk's name, "" for a whole disk;
    ``partition``: number, 0 for a whole disk; ``sectors``: of 512 bytes;
    ``number``: "major:minor".
    """

    name: str
    serial: str
    parent: str
    partition: int
    sectors: int
    number: str

    @property
    def node(self) -> str:
        """The device node devtmpfs made."""
        return "/dev/" + self.name.replace("!", "/")


def _read(path: str) -> str:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(512).decode("ascii", "replace").strip().strip("\0")
    except OSError:
        return ""


def _serial(name: str) -> str:
    # virtio-blk has it at the disk, NVMe and SCSI at the device behind it.
    return _read(f"{BASE}/{name}/serial") or _read(f"{BASE}/{name}/device/serial")


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def of_map(minor: int) -> Disk:
    """The device-mapper map ``minor`` as a disk that something else can lie on."""
    name = f"dm-{minor}"
    return Disk(
        name=name,
        serial="",
        parent="",
        partition=0,
        sectors=_number(_read(f"{BASE}/{name}/size")),
        number=_read(f"{BASE}/{name}/dev"),
    )


def disks() -> tuple[Disk, ...]:
    """All block devices but RAM disks, loops and device-mapper maps, sorted by name."""
    found = []
    for name in sorted(os.listdir(BASE)):
        if name.startswith(("loop", "ram", "dm-", "zram", "md")):
            continue
        partition = _number(_read(f"{BASE}/{name}/partition"))
        parent = ""
        if partition:
            try:
                # The link's target ends in .../<disk>/<partition>.
                parent = os.readlink(f"{BASE}/{name}").split("/")[-2]
            except OSError:
                # Unplugged since it was listed.
                continue
        found.append(
            Disk(
                name=name,
                serial="" if partition else _serial(name),
                parent=parent,
                partition=partition,
                sectors=_number(_read(f"{BASE}/{name}/size")),
                number=_read(f"{BASE}/{name}/dev"),
            )
        )
    return tuple(found)
