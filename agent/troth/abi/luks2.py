# SPDX-License-Identifier: Apache-2.0
"""The binary headers of LUKS2: two copies of 4096 bytes, big-endian, each with a JSON area.

Serves the guest, which judges a header before it opens a volume, and the host, which
writes and checks them. Works on one copy of the header area in memory, so that nobody
can change it between two looks. The checksum is a plain hash: it finds accidents, no
attacker. What the JSON says is not this module's: ``troth.documents.luks2_metadata``.

Source: LUKS2 On-Disk Format Specification 1.1, section 2; cryptsetup,
``lib/luks2/luks2.h`` ``struct luks2_hdr_disk`` and ``luks2_disk_metadata.c``.
"""

from __future__ import annotations

import struct

from troth.abi.hashes import sha256
from troth.errors import FormatError
from troth.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

BINARY_BYTES = 4096
SALT_BYTES = 64
PRIMARY_MAGIC = b"LUKS\xba\xbe"
SECONDARY_MAGIC = b"SKUL\xba\xbe"
VERSION = 2
CHECKSUM = "sha256"
"""The only algorithm that cryptsetup writes."""
HEADER_SIZES = tuple(16384 << shift for shift in range(9))
"""Sizes that one copy, binary header and JSON area, may have in bytes: 16 KiB to 4 MiB."""

# magic, version, hdr_size, seqid, label, checksum_alg, salt, uuid, subsystem, hdr_offset,
# padding, csum
_LAYOUT = struct.Struct(">6sHQQ48s32s64s40s48sQ184s64s")
_CHECKSUM_OFFSET = 448
_TEXT_BYTES = {"label": 48, "checksum_alg": 32, "uuid": 40, "subsystem": 48}
_MAX_SEQID = 2**64 - 1


@record
class Header:
    """What a binary header says.

    ``size_bytes``: of one copy with its JSON area; ``seqid``: one more with each
    write; ``salt``: 64 bytes, different in each copy; ``uuid``, ``label``,
    ``subsystem``: text as it stands there.
    """

    size_bytes: int
    seqid: int
    uuid: str
    salt: bytes
    label: str = ""
    subsystem: str = ""
    checksum: str = CHECKSUM


@record
class Copy:
    """One whole copy: its ``header``, and ``metadata``, the JSON text without the zeros after."""

    header: Header
    metadata: bytes


@record
class Place:
    """One of the two places for a copy: ``offset_bytes``, and what is there or why nothing is."""

    offset_bytes: int
    copy: Copy | None
    error: FormatError | None


if TYPE_CHECKING:
    Pair: TypeAlias = tuple[Place, Place]


def parse(area: bytes, *, offset_bytes: int = 0, where: str = "") -> Copy:
    """The copy at ``offset_bytes`` of ``area``: the primary one at 0, else the secondary.

    Every unused byte must be zero. Raises ``FormatError``: ``luks2-short``,
    ``luks2-magic``, ``luks2-version``, ``luks2-size``, ``luks2-offset``,
    ``luks2-text``, ``luks2-checksum-kind``, ``luks2-padding``, ``luks2-checksum``,
    ``luks2-tail``.
    """
    binary = area[offset_bytes : offset_bytes + BINARY_BYTES]
    if len(binary) < BINARY_BYTES:
        raise FormatError(
            "luks2-short",
            f"a LUKS2 header has at least {BINARY_BYTES} bytes, here are {len(binary)}",
            where=where,
        )
    (
        magic,
        version,
        size_bytes,
        seqid,
        label,
        checksum_kind,
        salt,
        uuid,
        subsystem,
        own_offset,
        padding,
        checksum,
    ) = _LAYOUT.unpack_from(binary)
    if magic != (SECONDARY_MAGIC if offset_bytes else PRIMARY_MAGIC):
        raise FormatError("luks2-magic", "there is no LUKS2 header here", where=where)
    if version != VERSION:
        raise FormatError(
            "luks2-version", f"LUKS version {version} is not known, only 2 is", where=where
        )
    if size_bytes not in HEADER_SIZES:
        raise FormatError(
            "luks2-size", f"a LUKS2 header cannot have {size_bytes} bytes", where=where
        )
    if own_offset != offset_bytes or (offset_bytes and offset_bytes != size_bytes):
        raise FormatError(
            "luks2-offset",
            f"the header at {offset_bytes} says that it is at {own_offset},"
            f" and that it has {size_bytes} bytes",
            where=where,
        )
    if len(area) < offset_bytes + size_bytes:
        raise FormatError(
            "luks2-short",
            f"the header ends at {offset_bytes + size_bytes}, here are {len(area)} bytes",
            where=where,
        )
    kind = _text(checksum_kind, "checksum_alg", where)
    if kind != CHECKSUM:
        raise FormatError(
            "luks2-checksum-kind",
            f"the checksum {kind!r} is not known, only {CHECKSUM} is",
            where=where,
        )
    if any(padding) or any(checksum[32:]) or any(binary[_LAYOUT.size :]):
        raise FormatError(
            "luks2-padding", "unused bytes of the binary header are not zero", where=where
        )
    json_area = area[offset_bytes + BINARY_BYTES : offset_bytes + size_bytes]
    if _checksum(binary, json_area) != checksum[:32]:
        raise FormatError(
            "luks2-checksum", "the header's checksum is not that of its bytes", where=where
        )
    metadata = json_area.rstrip(b"\0")
    if not metadata.startswith(b"{") or b"\0" in metadata:
        raise FormatError(
            "luks2-tail", "the JSON area is not one text with zeros behind it", where=where
        )
    header = Header(
        size_bytes=size_bytes,
        seqid=seqid,
        uuid=_text(uuid, "uuid", where),
        salt=salt,
        label=_text(label, "label", where),
        subsystem=_text(subsystem, "subsystem", where),
        checksum=kind,
    )
    return Copy(header, metadata)


def pack(copy: Copy, *, secondary: bool) -> bytes:
    """The ``header.size_bytes`` bytes of ``copy``, with its checksum.

    Raises ``FormatError``: ``luks2-size``, ``luks2-seqid``, ``luks2-salt``,
    ``luks2-text``, ``luks2-checksum-kind``, ``luks2-tail``, ``luks2-room``.
    """
    header = copy.header
    if header.size_bytes not in HEADER_SIZES:
        raise FormatError("luks2-size", f"a LUKS2 header cannot have {header.size_bytes} bytes")
    if not 0 <= header.seqid <= _MAX_SEQID:
        raise FormatError("luks2-seqid", f"the sequence number {header.seqid} has no 64 bits")
    if len(header.salt) != SALT_BYTES:
        raise FormatError(
            "luks2-salt", f"a header's salt has {SALT_BYTES} bytes, not {len(header.salt)}"
        )
    if header.checksum != CHECKSUM:
        raise FormatError("luks2-checksum-kind", f"the checksum {header.checksum!r} is not known")
    if not copy.metadata.startswith(b"{") or b"\0" in copy.metadata:
        raise FormatError("luks2-tail", "the metadata are no JSON object, or hold a NUL")
    room = header.size_bytes - BINARY_BYTES
    if len(copy.metadata) > room:
        raise FormatError(
            "luks2-room", f"{len(copy.metadata)} bytes of metadata, where {room} have room"
        )
    binary = bytearray(BINARY_BYTES)
    _LAYOUT.pack_into(
        binary,
        0,
        SECONDARY_MAGIC if secondary else PRIMARY_MAGIC,
        VERSION,
        header.size_bytes,
        header.seqid,
        _field(header.label, "label"),
        _field(header.checksum, "checksum_alg"),
        header.salt,
        _field(header.uuid, "uuid"),
        _field(header.subsystem, "subsystem"),
        header.size_bytes if secondary else 0,
        b"",
        b"",
    )
    json_area = copy.metadata.ljust(room, b"\0")
    binary[_CHECKSUM_OFFSET : _CHECKSUM_OFFSET + 32] = _checksum(bytes(binary), json_area)
    return bytes(binary) + json_area


def pair(area: bytes, *, where: str = "") -> Pair:
    """Both places for a copy in ``area``, primary first; never raises for what is there.

    The secondary stands behind the primary, whose size says where that is. With no
    primary it is searched for wherever one can be, as cryptsetup does.
    """
    primary = _place(area, 0, where)
    if primary.copy is not None:
        return primary, _place(area, primary.copy.header.size_bytes, where)
    for offset_bytes in HEADER_SIZES:
        secondary = _place(area, offset_bytes, where)
        if secondary.copy is not None:
            return primary, secondary
    return primary, _place(area, HEADER_SIZES[0], where)


def selected(places: Pair) -> Copy | None:
    """The copy that cryptsetup would take: the one with the higher sequence number.

    It would then rewrite the other. troth looks at it to say what a header holds,
    and opens nothing by it alone.
    """
    first, second = places[0].copy, places[1].copy
    if first is None or second is None:
        return first or second
    return second if second.header.seqid > first.header.seqid else first


def _place(area: bytes, offset_bytes: int, where: str) -> Place:
    try:
        return Place(offset_bytes, parse(area, offset_bytes=offset_bytes, where=where), None)
    except FormatError as error:
        return Place(offset_bytes, None, error)


def _checksum(binary: bytes, json_area: bytes) -> bytes:
    blank = binary[:_CHECKSUM_OFFSET] + bytes(64) + binary[_CHECKSUM_OFFSET + 64 :]
    return sha256(blank + json_area).digest()


def _text(field: bytes, name: str, where: str) -> str:
    text, end, rest = field.partition(b"\0")
    if not end or any(rest):
        raise FormatError(
            "luks2-text", f"the field {name} has no end, or bytes behind it", where=where
        )
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise FormatError("luks2-text", f"the field {name} is not UTF-8", where=where) from None


def _field(text: str, name: str) -> bytes:
    data = text.encode()
    if len(data) >= _TEXT_BYTES[name] or 0 in data:
        raise FormatError("luks2-text", f"{text!r} does not fit into the field {name}")
    return data
