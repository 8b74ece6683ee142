# SPDX-License-Identifier: Apache-2.0
"""Every check of a disk without a header, for whoever wants to see them all.

Serves ``troth volume check``. A guest stops at the first refusal and opens by the newest
record that holds, or by the committed one (``volumes.headerless``); so does the verdict
here, while the checks of both slots are shown. Without the source key a record's MAC
cannot be checked, and then nothing is proved. Must never write.

Source: ``docs/formats.md``, "Volume record".
"""

from __future__ import annotations

import os
from hashlib import sha256
from typing import TYPE_CHECKING

from troth.abi import integrity_sb, volume_record
from troth.abi.volume_record import DATA_OFFSET_BYTES, HEAD_BYTES, RECORD_BYTES, VolumeRecord
from troth.documents.policy_keys import HEADERLESS, SECTOR_BYTES
from troth.errors import FormatError
from troth.record import record
from troth.volumes import keys
from troth.volumes.crypt import CIPHERS
from troth.volumes.luks2_rules import Check

if TYPE_CHECKING:
    from collections.abc import Iterator

_SECTOR_BYTES = 512


@record
class Disk:
    """What was read of it, once: ``head``, the slots; ``superblock``, dm-integrity's place."""

    head: bytes
    superblock: bytes
    size_bytes: int

    @property
    def has_record(self) -> bool:
        """Whether it shows a record, of whatever volume."""
        return any(
            volume_record.claims(self.head[at : at + RECORD_BYTES])
            for at in range(0, HEAD_BYTES, RECORD_BYTES)
        )


def read(path: str) -> Disk:
    """What is looked at of the file or device at ``path``. ``OSError``."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return Disk(
            head=os.pread(fd, HEAD_BYTES, 0),
            superblock=os.pread(fd, integrity_sb.AREA_BYTES, DATA_OFFSET_BYTES),
            size_bytes=os.lseek(fd, 0, os.SEEK_END),
        )
    finally:
        os.close(fd)


@record
class Expected:
    """What the policy says: ``integrity``; ``uuid``, "" for any; ``digest``: SHA-256 (hex) of
    the record that a broker committed, "" where nobody counts.
    """  # noqa: D205 - the fields are the summary

    integrity: str
    uuid: str = ""
    digest: str = ""

    @property
    def profile(self) -> str:
        """The text in record and keys."""
        return f"{HEADERLESS}/{self.integrity}/{SECTOR_BYTES}"


@record
class SlotCheck:
    """``slot``: 0 or 1, -1 for what concerns the disk."""

    slot: int
    check: Check


@record
class Judged:
    """``slot``: the one that a guest would open by, -1 for none; with ``record`` and SHA-256."""

    checks: tuple[SlotCheck, ...]
    slot: int = -1
    record: VolumeRecord | None = None
    digest: str = ""

    @property
    def code(self) -> str:
        """Of the first refusal where no slot is left, else ""."""
        # Where one slot is good, nobody asks for the other.
        asked = [item for item in self.checks if item.slot < 0 or self.slot < 0]
        return next((item.check.code for item in asked if not item.check.passed), "")


def judge(disk: Disk, expected: Expected, secret: bytes = b"") -> Judged:
    """All checks of ``disk``; ``secret``: the source key, b"" where it is not at hand.

    Raises ``FormatError``: ``volume-secret``, ``volume-weak-key``.
    """
    whole = len(disk.head) == HEAD_BYTES
    found = [
        SlotCheck(
            -1,
            Check("record-size", whole, f"{HEAD_BYTES} bytes or more", f"{disk.size_bytes} bytes"),
        )
    ]
    if not whole:
        return Judged(tuple(found))
    slots = [disk.head[at : at + RECORD_BYTES] for at in range(0, HEAD_BYTES, RECORD_BYTES)]
    used = [number for number, data in enumerate(slots) if not volume_record.is_blank(data)]
    seen = " and ".join(f"slot {number}" for number in used) or "two blank slots"
    found.append(SlotCheck(-1, Check("record-blank", bool(used), "one record or two", seen)))
    room, tags = _room(disk, expected)
    best = Judged(())
    for number in used:
        data = slots[number]
        checks = list(_slot(data, expected, secret, room))
        found += [SlotCheck(number, item) for item in checks]
        if not all(item.passed for item in checks):
            continue
        one = volume_record.shown(data)
        if best.record is None or one.generation > best.record.generation:
            best = Judged((), number, one, sha256(data).hexdigest())
    found += [SlotCheck(-1, item) for item in tags]
    return Judged(tuple(found), best.slot, best.record, best.digest)


def _slot(data: bytes, expected: Expected, secret: bytes, room: int) -> Iterator[Check]:
    """In the order in which a guest makes them."""
    if expected.digest:
        seen = sha256(data).hexdigest()
        yield Check(
            "record-rolled-back",
            seen == expected.digest,
            f"the committed record {expected.digest}",
            seen,
        )
    shown = volume_record.claims(data)
    uuid = expected.uuid or _text(shown)
    if shown:
        wanted = f"volume {expected.uuid}" if expected.uuid else "any volume"
        yield Check("record-volume", _text(shown) == uuid, wanted, _text(shown))
    if secret:
        key = keys.derive(secret, uuid=uuid, profile=expected.profile, role=keys.RECORD)
        yield _tried(data, key)
    try:
        value = volume_record.shown(data)
    except FormatError as error:
        yield Check(error.code, False, "a record of version 1", error.message)
        return
    yield Check("record-form", True, "a record of version 1", f"generation {value.generation}")
    passed = value.profile == expected.profile
    yield Check("record-profile", passed, expected.profile, value.profile)
    yield Check(
        "record-profile",
        value.data_sectors <= room,
        f"room for {value.data_sectors} sectors of data",
        f"{room} sectors",
    )


def _tried(data: bytes, key: bytes) -> Check:
    wanted = "a MAC that holds under this key"
    try:
        volume_record.check(data, key)
    except FormatError as error:
        if error.code == "record-mac":
            return Check("record-mac", False, wanted, "it does not hold")
    return Check("record-mac", True, wanted, "it holds")


def _room(disk: Disk, expected: Expected) -> tuple[int, list[Check]]:
    """Sectors of data that the disk has room for, and what was looked at to know it."""
    on_disk = max(0, disk.size_bytes - DATA_OFFSET_BYTES) // SECTOR_BYTES * SECTOR_BYTES
    on_disk //= _SECTOR_BYTES
    tag_bytes = CIPHERS[expected.integrity].tag_bytes
    if not tag_bytes:
        return on_disk, []
    wanted = f"dm-integrity with {tag_bytes} bytes beside each {SECTOR_BYTES}"
    try:
        found = integrity_sb.parse(disk.superblock)
    except FormatError as error:
        return on_disk, [Check(error.code, False, wanted, error.message)]
    fits = found.provided_sectors <= on_disk
    passed = (found.tag_bytes, found.block_bytes) == (tag_bytes, SECTOR_BYTES) and fits
    seen = f"{found.tag_bytes} beside each {found.block_bytes}, {found.provided_sectors} sectors"
    return found.provided_sectors, [Check("integrity-superblock", passed, wanted, seen)]


def _text(uuid: bytes) -> str:
    """As it is written: 8-4-4-4-12."""
    digits = uuid.hex()
    parts = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
    return "-".join(parts) if digits else ""
