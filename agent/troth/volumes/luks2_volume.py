# SPDX-License-Identifier: Apache-2.0
"""A LUKS2 volume in a guest: judged by the measured profile, opened from one copy in memory.

Serves the key worker. Where a broker keeps count, what it commits is the SHA-256
of the whole area that is judged, so that an old header with a revoked slot, or
another one under the same key, is refused before it is parsed. The broker's word
alone makes a new one. Must never read the header twice, and never write over one
that is there unless the volume is said to be new (SECURITY S10; facts of the
attacks in docs/volumes.md).
"""

from __future__ import annotations

import os

from troth.abi import keyed_digest
from troth.abi.hashes import sha256
from troth.documents.policy_keys import SECTOR_BYTES
from troth.documents.volume_profile import VolumeProfile
from troth.errors import FormatError
from troth.volumes import crypt, filling, header_area, keys, luks2_open, luks2_profile, luks2_write
from troth.volumes.crypt import Place
from troth.volumes.headerless import require_writable
from troth.volumes.opened import Opened
from troth.volumes.release import FORMATTING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.documents.policy_keys import Encrypted
    from troth.linux.block import Disk
    from troth.linux.dm import Control
    from troth.volumes.release import Release

_SECTOR_BYTES = 512
_GENERATION = 1


def open_(control: Control, volume: Encrypted, disk: Disk, released: Release) -> Opened:
    """The readable volume; made first where the broker says that it is new.

    Raises ``FormatError`` ``luks2-*``, ``luks2-rolled-back`` for a header that is not the
    committed one, ``volume-map``; ``OSError`` of the kernel.
    """
    profile = VolumeProfile(integrity=volume.integrity, sector_bytes=SECTOR_BYTES, uuid=volume.uuid)
    passphrase = keys.passphrase(bytes(released.key), uuid=volume.uuid, profile=volume.profile)
    if released.state == FORMATTING:
        require_writable(volume)
        return _format(control, volume, disk, profile, passphrase)
    area = header_area.read_file(disk.node)
    digest = sha256(area).hexdigest()
    if released.tracked and released.digest and not keyed_digest.equal(digest, released.digest):
        raise FormatError(
            "luks2-rolled-back", f"{volume.name}: the header is not the one that was committed"
        )
    accepted = luks2_profile.require(area, profile, memory_bytes=_memory_bytes())
    key = bytes(luks2_open.unlock(accepted, area, passphrase))
    table = luks2_open.table(accepted)
    place = _place(volume, disk, accepted.segment.offset_bytes)
    if place.cipher.tag_bytes:
        sectors = crypt.provided_sectors(place)
    else:
        sectors = table.sectors(disk.sectors * _SECTOR_BYTES)
    made = crypt.open_(control, place, sectors=sectors, key=key)
    if released.tracked and not released.digest:
        # It was made elsewhere: from now on this header and no other.
        return Opened(made, key, released.generation + 1, digest)
    return Opened(made, key)


def _place(volume: Encrypted, disk: Disk, offset_bytes: int) -> Place:
    return Place(
        name=volume.map_name,
        uuid=volume.uuid.replace("-", ""),
        disk=disk,
        offset_sectors=offset_bytes // _SECTOR_BYTES,
        integrity=volume.integrity,
        readonly=not volume.file_system,
    )


def _format(
    control: Control, volume: Encrypted, disk: Disk, profile: VolumeProfile, passphrase: bytes
) -> Opened:
    """The header comes last, as a record does: a format that was cut off leaves none."""
    written = luks2_write.new(profile, passphrase, random=os.urandom)
    area = written.head.ljust(header_area.AREA_BYTES, b"\0")
    filling.write(disk, 0, bytes(header_area.AREA_BYTES))
    place = _place(volume, disk, written.data_offset_bytes)
    key = bytes(written.volume_key)
    made, _sectors = filling.fill(control, place, volume, key)
    filling.write(disk, 0, area)
    return Opened(made, key, _GENERATION, sha256(area).hexdigest())


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
