# SPDX-License-Identifier: Apache-2.0
"""Encrypted volumes made to order: policies, released keys, disks that are files, a device mapper.

The device mapper here does what the kernel's does as far as tables go: it takes
them, gives them back, formats dm-integrity's superblock over a zeroed area, and
refuses what it is told to refuse. It encrypts nothing.
"""

import errno
import struct
from hashlib import sha256

from troth.abi import volume_record
from troth.documents.policy_keys import Broker, Encrypted
from troth.linux.dm import Map
from troth.record import record, replace
from troth.volumes import keys
from troth.volumes.release import IN_USE, Release

UUID = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"
OTHER_UUID = "1b4e28ba-2fa1-11d2-883f-0016d3cca428"
SECRET = bytes(range(40, 72))

VOLUME = Encrypted(
    name="data",
    device="serial:data",
    mount="/var/lib/app",
    file_system="ext4",
    format="headerless",
    integrity="hmac",
    key="kbs:///default/disk-key/data",
    uuid=UUID,
    blank="refuse",
    executable=False,
)
BROKER = Broker(
    name="keys",
    protocol="troth",
    addresses=("10.0.2.2:8443",),
    spki=("ab" * 32,),
    ca=(),
    server_name="",
    spiffe_id="",
    not_before=0,
    trust_domain="",
)
RELEASED = Release(bytearray(SECRET), "broker keys", IN_USE)


@record
class FileDisk:
    """A disk whose node is a file; ``number`` is how tables name it."""

    name: str
    node: str
    sectors: int
    number: str = "254:16"


def disk(path, *, sectors=4096 * 9, head=b""):
    """A disk of ``sectors`` at ``path`` that begins with ``head``."""
    with open(path, "wb") as file:
        file.truncate(sectors * 512)
        file.write(head)
    return FileDisk(name=path.name, node=str(path), sectors=sectors)


def packed(
    *, volume=VOLUME, generation=1, sectors=8192, nonce=b"\1" * 32, secret=SECRET, **changes
):
    """The bytes of a record of ``volume``, as a guest that has its key writes them."""
    key = keys.derive(secret, uuid=volume.uuid, profile=volume.profile, role=keys.RECORD)
    value = volume_record.VolumeRecord(
        uuid=bytes.fromhex(volume.uuid.replace("-", "")),
        profile=volume.profile,
        generation=generation,
        data_sectors=sectors,
        tcb=0,
        guest_svn=0,
        nonce=nonce,
    )
    return volume_record.pack(replace(value, **changes), key)


def head_of(*records):
    """The first 8 KiB of a disk with ``records`` in their slots: (generation, bytes)."""
    slots = [bytes(volume_record.RECORD_BYTES)] * volume_record.SLOTS
    for generation, data in records:
        slots[volume_record.slot(generation)] = data
    return b"".join(slots)


def committed(data, generation, *, state=IN_USE, secret=SECRET):
    """What a broker releases that has committed the record ``data``."""
    return Release(
        bytearray(secret),
        "broker keys",
        state,
        tracked=True,
        generation=generation,
        digest=sha256(data).hexdigest(),
    )


def superblock(*, tag, provided, log2_block=3):
    """dm-integrity's superblock as its kernel writes it."""
    fields = (b"integrt\0", 4, 15, tag, 1, provided, 8, log2_block, 12, b"\0\0", 0)
    return struct.pack("<8sBbHIQIBB2sQ", *fields)


class Mapper:
    """Instead of ``troth.linux.dm.Control``. ``live``: name -> what was created, in order.

    ``refuse``: names that the kernel takes no table for; ``on_disk``: the disk whose area
    dm-integrity formats; ``directory``: where the nodes of maps are files. ``calls``:
    (what, name) in order; ``made``: name, uuid, targets, readonly of all there ever were.
    """

    def __init__(self, *, refuse=(), on_disk=None, directory=None):
        self.refuse, self.on_disk, self.directory = set(refuse), on_disk, directory
        self.live, self.calls, self.made = {}, [], []

    def create(self, name, *, uuid, targets, readonly):
        self.calls.append(("create", name))
        if name in self.live:
            raise OSError(errno.EBUSY, "Device or resource busy")
        if name in self.refuse:
            raise OSError(errno.EINVAL, "Invalid argument")
        target = targets[0]
        if target.kind == "integrity" and self.on_disk is not None:
            self._format(target)
        self.live[name] = (uuid, targets, readonly)
        self.made.append((name, uuid, targets, readonly))
        if self.directory is None:
            return Map(name, len(self.made))
        return FileMap(name, len(self.made), self.directory)

    def _format(self, target):
        offset, tag = (int(word) for word in target.text.split()[1:3])
        with open(self.on_disk.node, "r+b") as file:
            file.seek(offset * 512)
            if any(file.read(4096)):
                return
            room = (self.on_disk.sectors - offset) * 7 // 8 // 8 * 8
            file.seek(offset * 512)
            file.write(superblock(tag=tag, provided=room))

    def table(self, name):
        self.calls.append(("table", name))
        return self.live[name][1]

    def remove(self, name):
        self.calls.append(("remove", name))
        if f"{name.removesuffix('-dif')}" in set(self.live) - {name}:
            # dm-crypt lies on it.
            raise OSError(errno.EBUSY, "Device or resource busy")
        del self.live[name]

    @staticmethod
    def number(made):
        return f"253:{made.minor}"


class FileMap:
    """A map whose node is a file in a directory."""

    def __init__(self, name, minor, directory):
        self.name, self.minor = name, minor
        self.node = str(directory / f"dm-{minor}")
        with open(self.node, "wb"):
            pass
