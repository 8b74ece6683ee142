# SPDX-License-Identifier: Apache-2.0
"""The variable headers of an IGVM file: bytes <-> one record a type.

Serves the reader and the writer beside it. Knows the layout of each header by
itself: length and reserved fields. Must never decide whether headers fit
together, which is ``rules``' work.

Source: microsoft/igvm, ``igvm_defs/src/lib.rs`` (structures IGVM_VHS_*).
"""

from __future__ import annotations

import struct

from troth.errors import FormatError
from troth.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

PAGE_BYTES = 4096
LARGE_PAGE_BYTES = 2 << 20

NATIVE, VSM, SEV_SNP, TDX, SEV, SEV_ES, CCA = range(7)
PLATFORMS = {
    NATIVE: "native",
    VSM: "vsm",
    SEV_SNP: "sev-snp",
    TDX: "tdx",
    SEV: "sev",
    SEV_ES: "sev-es",
    CCA: "cca",
}
"""Platform type -> its name."""

LARGE, UNMEASURED, SHARED = 1, 2, 4
"""Flags of PAGE_DATA: 2 MiB page; not measured; visible to the host and not measured."""

NORMAL, SECRETS, CPUID_DATA, CPUID_XF = range(4)
"""Data types of PAGE_DATA."""

PAGE_DATA_TYPE = 0x302

USAGES = {
    0x307: "VP_COUNT",
    0x308: "SRAT",
    0x309: "MADT",
    0x30A: "MMIO_RANGES",
    0x30C: "MEMORY_MAP",
    0x30E: "COMMAND_LINE",
    0x30F: "SLIT",
    0x310: "PPTT",
    0x312: "DEVICE_TREE",
    0x313: "ENVIRONMENT_INFO",
}
"""Type of each header that lets the host fill a parameter area -> what the host writes."""

SECTIONS = ((0x001, 0x100), (0x101, 0x200), (0x301, 0x400))
"""First and last type of the platform, initialisation and directive headers."""

IGNORABLE = 1 << 31


@record
class SupportedPlatform:
    """A platform the file can start on: ``compatibility_mask`` is its one bit."""

    compatibility_mask: int
    highest_vtl: int
    platform_type: int
    version: int = 1
    shared_gpa_boundary: int = 0


@record
class GuestPolicy:
    """The guest policy of the launch, for SNP the number of ``abi.snp_policy``."""

    policy: int
    compatibility_mask: int


@record
class RelocatableRegion:
    """Memory that the loader may place elsewhere.

    ``flags``: 1 the region is of VTL 2, 2 it moves RIP, 4 it moves GDTR of ``vp_index``.
    """

    compatibility_mask: int
    vp_index: int
    vtl: int
    flags: int
    alignment_bytes: int
    gpa: int
    size_bytes: int
    minimum_gpa: int
    maximum_gpa: int


@record
class PageTableRelocation:
    """Page tables that the loader rewrites after it moved regions."""

    compatibility_mask: int
    vp_index: int
    vtl: int
    gpa: int
    size_bytes: int
    used_bytes: int


@record
class CorimDocument:
    """Where in the file an endorsement (CoRIM) is."""

    compatibility_mask: int
    file_offset: int
    size_bytes: int


@record
class CorimSignature:
    """Where in the file the signature of the endorsement is."""

    compatibility_mask: int
    file_offset: int
    size_bytes: int


@record
class CcaPolicy:
    """The policy of an Arm realm: 32 bytes, kept as they are."""

    body: bytes


@record
class ParameterArea:
    """Memory of ``size_bytes`` that is filled before it is inserted; ``file_offset`` 0: zeros."""

    size_bytes: int
    index: int
    file_offset: int = 0


@record
class PageData:
    """A page at ``gpa``; ``file_offset`` 0: without data. ``flags``, ``data_type``: see above."""

    gpa: int
    compatibility_mask: int
    file_offset: int = 0
    flags: int = 0
    data_type: int = NORMAL


@record
class ParameterInsert:
    """The parameter area ``index`` goes to ``gpa`` now, and is gone."""

    gpa: int
    compatibility_mask: int
    index: int


@record
class VpContext:
    """The first state of processor ``vp_index``; for SNP a VMSA at ``gpa``."""

    gpa: int
    compatibility_mask: int
    file_offset: int
    vp_index: int = 0


@record
class RequiredMemory:
    """Memory that must be there; ``flags``: 1 VTL 2 must be able to protect it."""

    gpa: int
    compatibility_mask: int
    size_bytes: int
    flags: int = 0


@record
class Usage:
    """What the host writes into area ``index`` at ``offset_bytes``; ``type``: of ``USAGES``."""

    type: int
    index: int
    offset_bytes: int


@record
class SnpIdBlock:
    """The ID block of SNP with its keys and signatures, 696 bytes; ``abi.id_block`` reads them."""

    body: bytes

    @property
    def compatibility_mask(self) -> int:
        return int.from_bytes(self.body[:4], "little")

    @property
    def launch_digest(self) -> bytes:
        return self.body[8:56]


@record
class ErrorRange:
    """Memory where a loader may tell of an error; it is shared with the host."""

    gpa: int
    compatibility_mask: int
    size_bytes: int


@record
class VbsMeasurement:
    """The expected measurement of Hyper-V's VSM with its signature, 864 bytes."""

    body: bytes

    @property
    def compatibility_mask(self) -> int:
        return int.from_bytes(self.body[:4], "little")


Header = (
    SupportedPlatform
    | GuestPolicy
    | RelocatableRegion
    | PageTableRelocation
    | CorimDocument
    | CorimSignature
    | CcaPolicy
    | ParameterArea
    | PageData
    | ParameterInsert
    | VpContext
    | RequiredMemory
    | Usage
    | SnpIdBlock
    | ErrorRange
    | VbsMeasurement
)

# Type -> record, layout, and at which fields the layout is reserved (zero).
_LAYOUTS: dict[int, tuple[Callable[..., Header], struct.Struct, tuple[int, ...]]] = {
    0x001: (SupportedPlatform, struct.Struct("<IBBHQ"), ()),
    0x101: (GuestPolicy, struct.Struct("<QII"), (2,)),
    0x102: (RelocatableRegion, struct.Struct("<IHBBQQQQQ"), ()),
    0x103: (PageTableRelocation, struct.Struct("<IHBBQQQ"), (3,)),
    0x104: (CorimDocument, struct.Struct("<IIII"), (3,)),
    0x105: (CorimSignature, struct.Struct("<IIII"), (3,)),
    0x106: (CcaPolicy, struct.Struct("<32s"), ()),
    0x301: (ParameterArea, struct.Struct("<QII"), ()),
    PAGE_DATA_TYPE: (PageData, struct.Struct("<QIIIHH"), (5,)),
    0x303: (ParameterInsert, struct.Struct("<QII"), ()),
    0x304: (VpContext, struct.Struct("<QIIHH"), (4,)),
    0x305: (RequiredMemory, struct.Struct("<QIIII"), (4,)),
    0x30B: (SnpIdBlock, struct.Struct("<696s"), ()),
    0x30D: (ErrorRange, struct.Struct("<QII"), ()),
    0x311: (VbsMeasurement, struct.Struct("<864s"), ()),
}
_USAGE = struct.Struct("<II")
_TYPES = {layout[0]: number for number, layout in _LAYOUTS.items()}
_HEAD = struct.Struct("<II")

HEAD_BYTES = _HEAD.size
NAMES = {
    0x001: "SUPPORTED_PLATFORM",
    0x101: "GUEST_POLICY",
    0x102: "RELOCATABLE_REGION",
    0x103: "PAGE_TABLE_RELOCATION_REGION",
    0x104: "CORIM_DOCUMENT",
    0x105: "CORIM_SIGNATURE",
    0x106: "CCA_POLICY",
    0x301: "PARAMETER_AREA",
    PAGE_DATA_TYPE: "PAGE_DATA",
    0x303: "PARAMETER_INSERT",
    0x304: "VP_CONTEXT",
    0x305: "REQUIRED_MEMORY",
    0x30B: "SNP_ID_BLOCK",
    0x30D: "ERROR_RANGE",
    0x311: "VBS_MEASUREMENT",
    **USAGES,
}
"""Type -> the name the specification gives it."""


def body_bytes(kind: int, *, where: str = "") -> int:
    """The length of the body of a header of type ``kind``, without padding.

    Raises ``FormatError``: ``igvm-type`` for an unknown type,
    ``igvm-type-ignorable`` where its bit 31 lets loaders skip it.
    """
    if kind in USAGES:
        return _USAGE.size
    if kind in _LAYOUTS:
        return _LAYOUTS[kind][1].size
    if kind & IGNORABLE:
        # Loaders may skip it, so what one machine does is not what another does.
        raise FormatError(
            "igvm-type-ignorable",
            f"header type {kind:#x} is unknown, and loaders may skip it or not",
            where=where,
        )
    raise FormatError("igvm-type", f"header type {kind:#x} is unknown", where=where)


def padded(length: int) -> int:
    """``length`` rounded up to the 8 bytes that headers are aligned to."""
    return -(-length // 8) * 8


def decode(kind: int, body: bytes, *, where: str = "") -> Header:
    """The header of type ``kind`` with ``body``, as long as ``body_bytes`` says.

    Raises ``FormatError``: ``igvm-type``, ``igvm-type-ignorable``,
    ``igvm-header-length``, ``igvm-reserved`` where reserved fields are not zero.
    """
    wanted = body_bytes(kind, where=where)
    if len(body) != wanted:
        raise FormatError(
            "igvm-header-length",
            f"{NAMES[kind]} has {wanted} bytes, here are {len(body)}",
            where=where,
        )
    if kind in USAGES:
        return Usage(kind, *_USAGE.unpack(body))
    make, layout, reserved = _LAYOUTS[kind]
    values = list(layout.unpack(body))
    for place in reversed(reserved):
        if values.pop(place):
            raise FormatError(
                "igvm-reserved", f"a reserved field of {NAMES[kind]} is not zero", where=where
            )
    return make(*values)


def type_of(header: Header) -> int:
    """The number of the header's type."""
    return header.type if isinstance(header, Usage) else _TYPES[type(header)]


def encode(header: Header) -> bytes:
    """The header's bytes with its type, its length and zero padding.

    Raises ``FormatError`` ``igvm-value`` for a number that does not fit its
    field or a body of another length, ``igvm-type`` for a usage that is none.
    """
    kind = type_of(header)
    length = body_bytes(kind)
    if isinstance(header, CcaPolicy | SnpIdBlock | VbsMeasurement):
        if len(header.body) != length:
            raise FormatError(
                "igvm-value", f"{NAMES[kind]} has {length} bytes, not {len(header.body)}"
            )
        body = header.body
    elif isinstance(header, Usage):
        body = _packed(kind, _USAGE, [header.index, header.offset_bytes])
    else:
        _, layout, reserved = _LAYOUTS[kind]
        values = [getattr(header, name) for name in header.__match_args__]
        for place in reserved:
            values.insert(place, 0)
        body = _packed(kind, layout, values)
    return (_HEAD.pack(kind, length) + body).ljust(HEAD_BYTES + padded(length), b"\0")


def _packed(kind: int, layout: struct.Struct, values: list[int]) -> bytes:
    try:
        return layout.pack(*values)
    except struct.error as error:
        raise FormatError("igvm-value", f"{NAMES[kind]}: {error}") from None
