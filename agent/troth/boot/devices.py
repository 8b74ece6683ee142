# SPDX-License-Identifier: Apache-2.0
"""Stage 5: wait for the named disks. Names find a disk; only digests make it trusted.

The disk of an instance configuration is waited for with the others, within the
one deadline, where the launch names a configuration; stage instance reads it.
"""

from __future__ import annotations

import os
import time

from troth.documents.policy import INSTANCE_SERIAL
from troth.errors import FormatError, Refusal
from troth.linux import block
from troth.linux.uevent import Uevents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.boot.state import State
    from troth.linux.block import Disk

_HEAD_BYTES = 1 << 16


def run(state: State) -> None:
    """Fill ``state.disks``.

    Raises ``Refusal`` ``disk-missing``, ``disk-duplicate``, ``instance-missing``.
    """
    wanted = {volume.name: volume.device for volume in state.policy.volumes}
    # A verified volume inside an encrypted one has its name, and lies on the same disk.
    wanted |= {volume.name: volume.device for volume in state.policy.encrypted}
    if _names_instance(state):
        wanted[INSTANCE_SERIAL] = f"serial:{INSTANCE_SERIAL}"
    end_ns = time.monotonic_ns() + state.policy.fail.device_timeout_s * 1_000_000_000
    # Listening before the first look: an arrival in between is then not lost.
    uevents = Uevents()
    try:
        while True:
            seen = block.disks()
            found = {name: _matching(device, seen) for name, device in wanted.items()}
            if all(found.values()):
                break
            left_s = (end_ns - time.monotonic_ns()) / 1e9
            if left_s <= 0:
                raise _missing(wanted, found, seen)
            uevents.wait(left_s)
    finally:
        uevents.close()
    for name, disks in found.items():
        if len(disks) > 1:
            names = ", ".join(disk.name for disk in disks)
            raise Refusal("disk-duplicate", f"{wanted[name]} is on {len(disks)} disks: {names}")
        state.disks[name] = disks[0]


def _names_instance(state: State) -> bool:
    """Whether the policy takes an instance configuration and HOST_DATA names one."""
    own = state.own_report
    return state.policy.instance is not None and own is not None and any(own.host_data)


def _matching(device: str, seen: tuple[Disk, ...]) -> tuple[Disk, ...]:
    kind, _, value = device.partition(":")
    if kind == "serial":
        return tuple(disk for disk in seen if disk.serial == value)
    if kind in ("PARTUUID", "PARTLABEL"):
        return _partitions(kind, value, seen)
    return tuple(disk for disk in seen if _file_system_is(disk, kind, value))


def _partitions(kind: str, value: str, seen: tuple[Disk, ...]) -> tuple[Disk, ...]:
    from troth.abi import gpt

    found: list[Disk] = []
    for whole in seen:
        numbers = [disk for disk in seen if disk.parent == whole.name]
        if not numbers:
            continue
        try:
            table = gpt.parse(_read(whole, gpt.HEAD_BYTES))
        except (FormatError, OSError):
            # A table the kernel understood and we do not: it cannot name our disk.
            continue
        for entry in table.partitions:
            name = entry.unique_guid if kind == "PARTUUID" else entry.name
            wanted = value.lower() if kind == "PARTUUID" else value
            if name == wanted:
                found.extend(disk for disk in numbers if disk.partition == entry.number)
    return tuple(found)


def _file_system_is(disk: Disk, kind: str, value: str) -> bool:
    from troth.abi import filesystem_sb

    try:
        sb = filesystem_sb.identify(_read(disk, filesystem_sb.HEAD_BYTES))
    except (FormatError, OSError):
        return False
    return value == (sb.uuid if kind == "UUID" else sb.label)


def _read(disk: Disk, size_bytes: int) -> bytes:
    fd = os.open(disk.node, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(fd, size_bytes, 0)
    finally:
        os.close(fd)


def _missing(
    wanted: dict[str, str], found: dict[str, tuple[Disk, ...]], seen: tuple[Disk, ...]
) -> Refusal:
    from troth.linux import modules

    names = [name for name, disks in found.items() if not disks]
    absent = ", ".join(wanted[name] for name in names)
    saw = ", ".join(f"{disk.name} serial {disk.serial!r}" for disk in seen) or "no disk"
    undriven = modules.undriven()
    lacks = f"; no driver in the image for {', '.join(undriven[:4])}" if undriven else ""
    code = "instance-missing" if names == [INSTANCE_SERIAL] else "disk-missing"
    return Refusal(code, f"{absent} did not appear; saw {saw}{lacks}")
