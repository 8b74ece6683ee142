# SPDX-License-Identifier: Apache-2.0
"""Volumes without a header: parameters from the measured policy, one record to know them by.

Serves the key worker. The first 8 KiB are read once. A record is believed when
its MAC holds under a key of this volume, and is current when it is the one that
the broker committed last; where nobody counts, the newest one is taken and
whoever asks is told that freshness was not checked. Everything is refused before
dm-crypt exists. A new record goes into the other slot, so that a power cut
between writing and committing leaves the committed one (SECURITY S9, S10).

Must never format because a disk looks blank, unless the policy says so.
"""

from __future__ import annotations

import os

from troth.abi import volume_record
from troth.abi.hashes import sha256
from troth.abi.volume_record import DATA_OFFSET_BYTES, HEAD_BYTES, RECORD_BYTES, VolumeRecord
from troth.documents.policy_keys import AES_GCM, FORMAT, UNAUTHENTICATED
from troth.errors import FormatError
from troth.record import record
from troth.volumes import crypt, filling, keys
from troth.volumes.crypt import Place
from troth.volumes.opened import Opened
from troth.volumes.release import FORMATTING, IN_USE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.documents.policy_keys import Encrypted
    from troth.linux.block import Disk
    from troth.linux.dm import Control
    from troth.volumes.release import Release

_SECTOR_BYTES = 512
OFFSET_SECTORS = DATA_OFFSET_BYTES // _SECTOR_BYTES


@record
class Current:
    """``record``: the one to open by; None for a volume that is to be formatted.

    ``slot``: where it stands. The next one goes into the other, wherever a host put this one.
    """

    record: VolumeRecord | None
    slot: int = 0


def place_of(volume: Encrypted, disk: Disk, *, mode: str = crypt.JOURNALED) -> Place:
    """Where the data of ``volume`` lie on ``disk``."""
    return Place(
        name=volume.map_name,
        uuid=volume.uuid.replace("-", ""),
        disk=disk,
        offset_sectors=OFFSET_SECTORS,
        integrity=volume.integrity,
        mode=mode,
        readonly=not volume.file_system,
    )


def read_head(disk: Disk) -> bytes:
    """The two slots, read once."""
    fd = os.open(disk.node, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(fd, HEAD_BYTES, 0)
    finally:
        os.close(fd)


def judge(volume: Encrypted, released: Release, head: bytes) -> Current:
    """Which record of ``head`` the volume is opened by.

    Raises ``FormatError``: ``record-blank``, ``record-volume`` (it is another volume),
    ``record-mac`` (another key made it, or it was changed), ``record-profile``,
    ``record-rolled-back`` (older than what the broker committed), ``record-size``,
    ``record-form``.
    """
    if len(head) != HEAD_BYTES:
        raise FormatError("record-size", f"{volume.name}: the disk ends after {len(head)} bytes")
    if released.state == FORMATTING:
        require_writable(volume)
        return Current(None)
    slots = [head[at : at + RECORD_BYTES] for at in range(0, HEAD_BYTES, RECORD_BYTES)]
    if all(volume_record.is_blank(data) for data in slots):
        if released.state != IN_USE and volume.blank == FORMAT:
            return Current(None)
        raise FormatError("record-blank", f"{volume.name}: the disk holds no record")
    if released.tracked and released.digest:
        for slot, data in enumerate(slots):
            if sha256(data).hexdigest() == released.digest:
                return Current(_checked(volume, released, data), slot)
        newest = _newest(volume, released, slots).record
        shown = "no record" if newest is None else f"generation {newest.generation}"
        raise FormatError(
            "record-rolled-back",
            f"{volume.name}: {shown} is on disk, and the record that was committed is of"
            f" generation {released.generation}",
        )
    # Nobody counts, or nothing was committed yet: the volume was made elsewhere.
    return _newest(volume, released, slots)


def require_writable(volume: Encrypted) -> None:
    """Refuse to format what a verified image lies in: ``FormatError`` ``volume-not-made``."""
    if not volume.file_system:
        raise FormatError(
            "volume-not-made", f"{volume.name}: it holds an image, and the broker says it is new"
        )


def _newest(volume: Encrypted, released: Release, slots: list[bytes]) -> Current:
    """The valid record of the highest generation; the first one's error where none is valid."""
    found: Current | None = None
    newest, first = 0, None
    for slot, data in enumerate(slots):
        if volume_record.is_blank(data):
            continue
        try:
            one = _checked(volume, released, data)
        except FormatError as error:
            first = first or error
            continue
        if one.generation > newest:
            found, newest = Current(one, slot), one.generation
    if found is not None:
        return found
    if first is None:
        raise FormatError("record-blank", f"{volume.name}: the disk holds no record")
    raise first


def _checked(volume: Encrypted, released: Release, data: bytes) -> VolumeRecord:
    own = bytes.fromhex(volume.uuid.replace("-", ""))
    shown = volume_record.claims(data)
    if shown and shown != own:
        raise FormatError("record-volume", f"{volume.name}: the disk is of volume {shown.hex()}")
    try:
        found = volume_record.check(data, _key(volume, released, keys.RECORD))
    except FormatError as error:
        raise FormatError(error.code, f"{volume.name}: {error.message}") from None
    if found.profile != volume.profile or found.uuid != own:
        raise FormatError(
            "record-profile",
            f"{volume.name}: made as {found.profile}, and the policy says {volume.profile}",
        )
    return found


def open_(control: Control, volume: Encrypted, disk: Disk, released: Release) -> Opened:
    """Judge, then map; format where that is due. Further raises as ``crypt.open_``, ``mkfs.make``.

    ``FormatError`` ``volume-small`` for a disk without room.
    """
    head = read_head(disk)
    judged = judge(volume, released, head)
    current = judged.record
    place = place_of(volume, disk)
    if current is None:
        return _format(control, volume, place, released)
    if place.cipher.tag_bytes:
        sectors = crypt.provided_sectors(place)
    else:
        sectors = crypt.plain_sectors(place)
    if sectors < current.data_sectors:
        raise FormatError(
            "record-profile",
            f"{volume.name}: {sectors} sectors on disk, {current.data_sectors} when it was made",
        )
    key = data_key(volume, released)
    made = crypt.open_(control, place, sectors=current.data_sectors, key=key)
    if not released.tracked:
        return Opened(made, key)
    if place.readonly:
        if released.digest:
            # What is only read has no next generation: its content is that of the measured hash.
            return Opened(made, key)
        # It was made elsewhere: from now on this record and no other.
        data = head[judged.slot * RECORD_BYTES :][:RECORD_BYTES]
        return Opened(made, key, released.generation + 1, sha256(data).hexdigest())
    # Committed before anything is written to the volume: until then its data are the old ones.
    number, digest = _write_record(
        volume, place, released, sectors=current.data_sectors, slot=1 - judged.slot
    )
    return Opened(made, key, number, digest)


def ephemeral(control: Control, volume: Encrypted, disk: Disk, released: Release) -> Opened:
    """A volume for this boot alone: no record, and no journal, since no reboot will need one."""
    place = place_of(volume, disk, mode=crypt.DIRECT)
    key = data_key(volume, released)
    return Opened(filling.fill(control, place, volume, key)[0], key)


def data_key(volume: Encrypted, released: Release) -> bytes:
    """The key that dm-crypt gets: for AES-XTS with HMAC both, one behind the other."""
    if volume.integrity == AES_GCM:
        return _key(volume, released, keys.GCM)
    key = _key(volume, released, keys.XTS)
    if volume.integrity != UNAUTHENTICATED:
        key += _key(volume, released, keys.HMAC)
    return key


def _key(volume: Encrypted, released: Release, role: str) -> bytes:
    return keys.derive(bytes(released.key), uuid=volume.uuid, profile=volume.profile, role=role)


def _format(control: Control, volume: Encrypted, place: Place, released: Release) -> Opened:
    """The record comes last, so a format that was cut off leaves a disk without one."""
    filling.write(place.disk, 0, bytes(HEAD_BYTES))
    key = data_key(volume, released)
    made, sectors = filling.fill(control, place, volume, key)
    number, digest = _write_record(
        volume, place, released, sectors=sectors, slot=volume_record.slot(released.generation + 1)
    )
    return Opened(made, key, number, digest)


def _write_record(
    volume: Encrypted, place: Place, released: Release, *, sectors: int, slot: int
) -> tuple[int, str]:
    """The next record in ``slot``, on the disk when this returns: (generation, SHA-256)."""
    number = released.generation + 1
    value = VolumeRecord(
        uuid=bytes.fromhex(place.uuid),
        profile=volume.profile,
        generation=number,
        data_sectors=sectors,
        tcb=released.tcb or 0,
        guest_svn=released.guest_svn or 0,
        nonce=os.urandom(volume_record.NONCE_BYTES),
    )
    data = volume_record.pack(value, _key(volume, released, keys.RECORD))
    filling.write(place.disk, slot * RECORD_BYTES, data)
    return number, sha256(data).hexdigest()
