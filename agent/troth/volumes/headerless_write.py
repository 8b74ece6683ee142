# SPDX-License-Identifier: Apache-2.0
"""A new volume without a header, laid out on the host: its record, and the key of its data.

Serves ``troth volume format``. Only without tags: those are the kernel's to write, so a
guest makes such a volume itself (``volumes.headerless``). All randomness comes from the
caller. Must never be called with anything but the source key, from which every use has a
key of its own.

Source: ``docs/formats.md``, "Volume record" and "Keys of a volume".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.abi import volume_record
from troth.abi.volume_record import VolumeRecord
from troth.documents.policy_keys import HEADERLESS, SECTOR_BYTES, UNAUTHENTICATED
from troth.volumes import keys
from troth.volumes.laid_out import LaidOut

if TYPE_CHECKING:
    from collections.abc import Callable

GENERATION = 1
PROFILE = f"{HEADERLESS}/{UNAUTHENTICATED}/{SECTOR_BYTES}"
_FILE_SYSTEM = "ext4"
_SECTOR_BYTES = 512


def new(secret: bytes, *, uuid: str, random: Callable[[int], bytes]) -> LaidOut:
    """The volume ``uuid`` under the source key ``secret``, 32 to 64 bytes.

    ``random``: n -> n random bytes. Raises ``FormatError``: ``volume-secret``,
    ``volume-weak-key``.
    """
    record_key = keys.derive(secret, uuid=uuid, profile=PROFILE, role=keys.RECORD)
    nonce = random(volume_record.NONCE_BYTES)

    def head(room_bytes: int) -> bytes:
        value = VolumeRecord(
            uuid=bytes.fromhex(uuid.replace("-", "")),
            profile=PROFILE,
            generation=GENERATION,
            data_sectors=room_bytes // _SECTOR_BYTES,
            tcb=0,
            guest_svn=0,
            nonce=nonce,
        )
        slots = [bytes(volume_record.RECORD_BYTES)] * volume_record.SLOTS
        slots[volume_record.slot(GENERATION)] = volume_record.pack(value, record_key)
        return b"".join(slots)

    return LaidOut(
        head=head,
        data_offset_bytes=volume_record.DATA_OFFSET_BYTES,
        key=keys.derive(secret, uuid=uuid, profile=PROFILE, role=keys.XTS),
        sector_bytes=SECTOR_BYTES,
        file_system=_FILE_SYSTEM,
        file_system_uuid=uuid,
    )
