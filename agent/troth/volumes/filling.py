# SPDX-License-Identifier: Apache-2.0
"""Fresh data for a volume: tags for every sector, and an empty file system.

Serves the formats, in the key worker. What makes a disk a volume of ours, its
record or header, is written by them, and last. Must never be asked to unless the
broker, or the measured policy, says that the volume is new.
"""

from __future__ import annotations

import os

from troth.errors import FormatError
from troth.volumes import crypt, mkfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.documents.policy_keys import Encrypted
    from troth.linux.block import Disk
    from troth.linux.dm import Control, Map
    from troth.volumes.crypt import Place

_SECTOR_BYTES = 512


def fill(control: Control, place: Place, volume: Encrypted, key: bytes) -> tuple[Map, int]:
    """A map over ``place`` with an empty file system on it, and its sectors.

    Raises ``FormatError`` ``volume-small``, ``volume-mkfs``, and as ``crypt.open_``.
    """
    least = place.offset_sectors + mkfs.LEAST_BYTES // _SECTOR_BYTES
    if place.disk.sectors < least:
        raise FormatError(
            "volume-small", f"{volume.name}: {place.disk.sectors} sectors, at least {least} needed"
        )
    if place.cipher.tag_bytes:
        sectors = crypt.make_integrity(control, place)
    else:
        sectors = crypt.plain_sectors(place)
    made = crypt.open_(control, place, sectors=sectors, key=key)
    if place.cipher.tag_bytes:
        # A sector that was never written has no tag, and cannot be read.
        mkfs.zero(made.node, sectors * _SECTOR_BYTES)
    mkfs.make(made.node, volume.file_system, uuid=volume.uuid)
    return made, sectors


def write(disk: Disk, offset: int, data: bytes) -> None:
    """``data`` at ``offset`` of ``disk``, on it when this returns; ``volume-small`` else."""
    fd = os.open(disk.node, os.O_RDWR | os.O_CLOEXEC)
    try:
        if os.pwrite(fd, data, offset) != len(data):
            raise FormatError("volume-small", f"{disk.name} ends before byte {offset + len(data)}")
        os.fsync(fd)
    finally:
        os.close(fd)
