# SPDX-License-Identifier: Apache-2.0
"""The GUID partition table: its primary header and entries.

Serves PID 1, which finds disks by PARTUUID and PARTLABEL. The host writes this
table: it must never be used for more than finding, and names in it are made
printable because they reach the console. Imports nothing beyond ``struct`` and
``binascii``.

Source: UEFI specification 2.10, section 5.3.
"""

from __future__ import annotations

import binascii
import struct

from troth.errors import FormatError
from troth.record import record

MAX_TABLE_BYTES = 1 << 20
"""Sixty-four times the table every tool writes; more is refused unread."""

HEAD_BYTES = 2 * 4096 + 128 * 128
"""How much of a disk holds the table as tools write it, for either size of block."""

_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_ENTRY = struct.Struct("<16s16sQQQ72s")
_SIGNATURE = b"EFI PART"
_REVISION = 0x00010000
_UNUSED = bytes(16)


@record
class Header:
    """What the primary header says; the unit is the logical block of ``block_bytes``."""

    block_bytes: int
    disk_guid: str
    first_usable: int
    last_usable: int
    entries_lba: int
    entries: int
    entry_bytes: int
    entries_crc32: int

    @property
    def table_offset_bytes(self) -> int:
        """Where the entries begin on the disk."""
        return self.entries_lba * self.block_bytes

    @property
    def table_bytes(self) -> int:
        """Size of all entries, at most ``MAX_TABLE_BYTES``."""
        return self.entries * self.entry_bytes


@record
class Partition:
    """One partition in use.

    ``number``: from 1, as in the kernel's /dev/vda1; the GUIDs: lower case
    text; ``first_lba``, ``last_lba``: inclusive, logical blocks; ``name``: the
    PARTLABEL, unprintable characters shown as ``?``.
    """

    number: int
    type_guid: str
    unique_guid: str
    first_lba: int
    last_lba: int
    name: str


@record
class Table:
    """A whole table: its ``header`` and the ``partitions`` in use, by number."""

    header: Header
    partitions: tuple[Partition, ...]


def guid_text(data: bytes) -> str:
    """The text of the 16-byte GUID ``data``, whose first three groups are little-endian."""
    first, second, third = struct.unpack_from("<IHH", data)
    rest = data[8:16].hex()
    return f"{first:08x}-{second:04x}-{third:04x}-{rest[:4]}-{rest[4:]}"


def parse_header(
    block: bytes, *, disk_blocks: int | None = None, block_bytes: int = 512, where: str = ""
) -> Header:
    """The primary header in ``block``, the logical block 1 of a disk.

    ``disk_blocks``: the disk's size; where it is not given, the table may claim more.
    Raises ``FormatError``: ``gpt-magic`` where there is no table, ``gpt-short``,
    ``gpt-header``, ``gpt-checksum``, ``gpt-bounds``.
    """
    if block[:8] != _SIGNATURE:
        raise FormatError("gpt-magic", "there is no GUID partition table here", where=where)
    if len(block) < _HEADER.size:
        raise FormatError("gpt-short", "the partition table header is cut off", where=where)
    (
        _,
        revision,
        header_bytes,
        crc32,
        reserved,
        my_lba,
        _alternate_lba,
        first_usable,
        last_usable,
        disk_guid,
        entries_lba,
        entries,
        entry_bytes,
        entries_crc32,
    ) = _HEADER.unpack_from(block)
    # The specification lets the header be as large as its block, and reserves the rest of it.
    if revision != _REVISION or not _HEADER.size <= header_bytes <= min(block_bytes, len(block)):
        raise FormatError(
            "gpt-header",
            f"header revision {revision:#x} of {header_bytes} bytes is not known",
            where=where,
        )
    summed = block[:16] + bytes(4) + block[20:header_bytes]
    if binascii.crc32(summed) != crc32:
        raise FormatError("gpt-checksum", "the header's checksum is wrong", where=where)
    power_of_two = entry_bytes & (entry_bytes - 1) == 0
    if reserved or my_lba != 1 or entry_bytes < _ENTRY.size or not power_of_two:
        raise FormatError(
            "gpt-header",
            f"header of block {my_lba} with entries of {entry_bytes} bytes is not a primary one",
            where=where,
        )
    if not 1 <= entries * entry_bytes <= MAX_TABLE_BYTES:
        raise FormatError(
            "gpt-bounds",
            f"{entries} entries of {entry_bytes} bytes: a table has 1 to {MAX_TABLE_BYTES} bytes",
            where=where,
        )
    table_blocks = -(-entries * entry_bytes // block_bytes)
    if not 2 <= entries_lba <= entries_lba + table_blocks <= first_usable <= last_usable:
        raise FormatError("gpt-bounds", "table and usable blocks are out of order", where=where)
    if disk_blocks is not None and last_usable >= disk_blocks:
        raise FormatError(
            "gpt-bounds",
            f"the last usable block {last_usable} is beyond the disk's {disk_blocks} blocks",
            where=where,
        )
    return Header(
        block_bytes=block_bytes,
        disk_guid=guid_text(disk_guid),
        first_usable=first_usable,
        last_usable=last_usable,
        entries_lba=entries_lba,
        entries=entries,
        entry_bytes=entry_bytes,
        entries_crc32=entries_crc32,
    )


def parse_entries(header: Header, table: bytes, *, where: str = "") -> tuple[Partition, ...]:
    """The partitions in ``table``, the ``header.table_bytes`` bytes at its offset, by number.

    Raises ``FormatError``: ``gpt-short``, ``gpt-checksum``, ``gpt-bounds``,
    ``gpt-overlap``, ``gpt-duplicate`` (two of one unique GUID).
    """
    if len(table) < header.table_bytes:
        raise FormatError("gpt-short", "the partition table is cut off", where=where)
    table = table[: header.table_bytes]
    if binascii.crc32(table) != header.entries_crc32:
        raise FormatError("gpt-checksum", "the partition table's checksum is wrong", where=where)
    found: list[Partition] = []
    for index in range(header.entries):
        type_guid, unique_guid, first_lba, last_lba, _attributes, name = _ENTRY.unpack_from(
            table, index * header.entry_bytes
        )
        if type_guid == _UNUSED:
            continue
        if not header.first_usable <= first_lba <= last_lba <= header.last_usable:
            raise FormatError(
                "gpt-bounds",
                f"partition {index + 1} has blocks {first_lba} to {last_lba},"
                f" usable are {header.first_usable} to {header.last_usable}",
                where=where,
            )
        found.append(
            Partition(
                number=index + 1,
                type_guid=guid_text(type_guid),
                unique_guid=guid_text(unique_guid),
                first_lba=first_lba,
                last_lba=last_lba,
                name=_name(name),
            )
        )
    by_place = sorted(found, key=lambda partition: partition.first_lba)
    for index in range(1, len(by_place)):
        before, after = by_place[index - 1], by_place[index]
        if after.first_lba <= before.last_lba:
            raise FormatError(
                "gpt-overlap",
                f"partitions {before.number} and {after.number} overlap",
                where=where,
            )
    if len({partition.unique_guid for partition in found}) != len(found):
        raise FormatError("gpt-duplicate", "two partitions have one unique GUID", where=where)
    return tuple(found)


def parse(
    data: bytes,
    *,
    disk_blocks: int | None = None,
    block_bytes: int | None = None,
    where: str = "",
) -> Table:
    """The table of a disk that begins with ``data``, ``HEAD_BYTES`` or more of it.

    ``block_bytes``: of the disk; not given, the header's place tells whether it
    is 512 or 4096. Raises as ``parse_header`` and ``parse_entries``.
    """
    if block_bytes is None:
        block_bytes = 4096 if data[4096 : 4096 + len(_SIGNATURE)] == _SIGNATURE else 512
        if data[512 : 512 + len(_SIGNATURE)] == _SIGNATURE:
            block_bytes = 512
    header = parse_header(
        data[block_bytes : 2 * block_bytes],
        disk_blocks=disk_blocks,
        block_bytes=block_bytes,
        where=where,
    )
    start = header.table_offset_bytes
    table = data[start : start + header.table_bytes]
    return Table(header, parse_entries(header, table, where=where))


def _name(data: bytes) -> str:
    # "utf-16" with a byte order mark is decoded inside the interpreter; "utf-16-le" would
    # import a codec module into PID 1.
    text = (b"\xff\xfe" + data).decode("utf-16", "replace").partition("\0")[0]
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else "?" for letter in text)
