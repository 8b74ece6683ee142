# SPDX-License-Identifier: Apache-2.0
"""What an OVMF image says at its end: the table of GUIDed entries and the SEV metadata.

Serves ``measure.direct_boot`` and ``troth inspect``. A wrong answer here is a
wrong launch digest, so nothing is skipped in silence: unknown section types,
gaps and overlaps are errors. Must never follow an offset it has not compared
with the size of the file. Pure: it is given bytes.

Source: edk2, ``OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm`` (the table) and
``OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm`` (the sections); QEMU,
``hw/i386/pc_sysfw_ovmf.c``, which reads both.
"""

from __future__ import annotations

import struct

from troth.abi.gpt import guid_text
from troth.errors import FormatError
from troth.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

PAGE_BYTES = 4096
END_GPA = 1 << 32
"""Firmware ends where 32-bit addresses do."""

MAX_BYTES = 1 << 30
TAIL_BYTES = 1 << 20
"""How much of the file's end is looked at: the table is next to it, the metadata near."""

MAX_SECTIONS = 64

SEC_MEM = 1
SECRETS = 2
CPUID = 3
SVSM_CAA = 4
KERNEL_HASHES = 0x10

SECTION_KINDS = {
    SEC_MEM: "sec-mem",
    SECRETS: "secrets",
    CPUID: "cpuid",
    SVSM_CAA: "svsm-caa",
    KERNEL_HASHES: "kernel-hashes",
}
"""Type of a section -> its name."""

RESET_BLOCK = "00f771de-1a7e-4fcb-890e-68c77e2fb44e"
HASHES_AREA = "7255371f-3a3b-4b04-927b-1da6efa8d454"
INJECTION_AREA = "4c2eb361-7d9b-4cc3-8081-127c90d3d294"
SEV_METADATA = "dc886566-984a-4798-a75e-5585a7bf67cc"
TDX_METADATA = "e47a6535-984a-4798-865e-4685a7bf8ec2"
IGVM_LIST = "784fa70e-3176-4677-8a20-04b68699e374"
LEGACY_SVSM = "a789a612-0597-4c4b-a49f-cbb1fe9d1ddd"

ENTRY_NAMES = {
    RESET_BLOCK: "sev-es-reset-block",
    HASHES_AREA: "kernel-hashes-area",
    INJECTION_AREA: "launch-secret-area",
    SEV_METADATA: "sev-metadata",
    TDX_METADATA: "tdx-metadata",
    IGVM_LIST: "igvm-parameter-list",
    LEGACY_SVSM: "svsm-info",
}
"""GUID of an entry -> its name, for those that are known."""

_FOOTER = "96b582de-1fb2-45f7-baea-a366c55a082d"
_RESET_CODE_BYTES = 32
_ENTRY = struct.Struct("<H16s")
_METADATA = struct.Struct("<4sIII")
_SECTION = struct.Struct("<III")
_AREA = struct.Struct("<II")
_DATA_BYTES = {RESET_BLOCK: 4, HASHES_AREA: 8, INJECTION_AREA: 8, SEV_METADATA: 4}
# The launch secret, the CPUID table and the hashes have one place; each place is one page.
_SINGLE = (SECRETS, CPUID, KERNEL_HASHES)
_ONE_PAGE = (SECRETS, CPUID)


@record
class Section:
    """Guest memory that the host must prepare: ``kind`` is a key of ``SECTION_KINDS``."""

    gpa: int
    size_bytes: int
    kind: int

    @property
    def end(self) -> int:
        """The address behind the section."""
        return self.gpa + self.size_bytes

    @property
    def pages(self) -> int:
        """How many pages it has."""
        return self.size_bytes // PAGE_BYTES


@record
class Area:
    """A place in guest memory, in bytes. Firmware that has no such place says 0, 0."""

    gpa: int
    size_bytes: int


@record
class Entry:
    """One entry of the table: its GUID as lower case text, and the bytes it holds."""

    guid: str
    data: bytes


@record
class Firmware:
    """What a firmware says of itself.

    ``entries``: the table from the file's end backwards; ``ap_eip``: where other
    processors than the first start (32 bits), None where it does not say;
    ``hashes_area``, ``launch_secret``: None where there is no entry;
    ``sections``: in the file's order, which is the order of measuring;
    ``has_metadata``: whether there is SEV metadata at all.
    """

    size_bytes: int
    entries: tuple[Entry, ...] = ()
    ap_eip: int | None = None
    hashes_area: Area | None = None
    launch_secret: Area | None = None
    sections: tuple[Section, ...] = ()
    has_metadata: bool = False

    @property
    def gpa(self) -> int:
        """Where the first byte of the firmware is in the guest."""
        return END_GPA - self.size_bytes


def parse(
    tail: bytes,
    *,
    size_bytes: int | None = None,
    footer_required: bool = True,
    where: str = "",
) -> Firmware:
    """The table and the metadata of the firmware that ends with ``tail``.

    ``tail``: the whole file, or its last ``TAIL_BYTES``; ``size_bytes``: of the
    file, where ``tail`` is not all of it; ``footer_required``: without it, a file
    that has no table is a firmware that says nothing, as plain SEV allows.
    Raises ``FormatError``: ``firmware-size``, ``firmware-footer`` (no table),
    ``firmware-table``, ``firmware-metadata``, ``firmware-section``.
    """
    size_bytes = len(tail) if size_bytes is None else size_bytes
    check_size(size_bytes, where=where)
    if not min(size_bytes, PAGE_BYTES) <= len(tail) <= size_bytes:
        raise FormatError(
            "firmware-size", f"{len(tail)} bytes are not the end of {size_bytes}", where=where
        )
    end = len(tail) - _RESET_CODE_BYTES - _ENTRY.size
    table_bytes, footer = _ENTRY.unpack_from(tail, end)
    if guid_text(footer) != _FOOTER:
        if not footer_required:
            return Firmware(size_bytes=size_bytes)
        raise FormatError(
            "firmware-footer",
            "there is no OVMF table at the end of this file",
            where=where,
            hint="name the file that QEMU loads as code: OVMF.fd or OVMF_CODE.fd, not the VARS",
        )
    data_bytes = table_bytes - _ENTRY.size
    if not 0 <= data_bytes <= end:
        raise FormatError(
            "firmware-table", f"a table of {table_bytes} bytes cannot be here", where=where
        )
    entries = _entries(tail[end - data_bytes : end], where)
    found = {entry.guid: entry.data for entry in entries}
    reset = found.get(RESET_BLOCK)
    metadata = found.get(SEV_METADATA)
    sections: tuple[Section, ...] = ()
    if metadata is not None:
        sections = _sections(tail, int.from_bytes(metadata, "little"), where=where)
        check_sections(sections, firmware_bytes=size_bytes, where=where)
    return Firmware(
        size_bytes=size_bytes,
        entries=entries,
        ap_eip=None if reset is None else int.from_bytes(reset, "little"),
        hashes_area=_area(found.get(HASHES_AREA)),
        launch_secret=_area(found.get(INJECTION_AREA)),
        sections=sections,
        has_metadata=metadata is not None,
    )


def check_size(size_bytes: int, *, where: str = "") -> None:
    """Refuse a firmware that is not whole pages, 4 KiB to 1 GiB: ``firmware-size``."""
    if not PAGE_BYTES <= size_bytes <= MAX_BYTES or size_bytes % PAGE_BYTES:
        raise FormatError(
            "firmware-size",
            f"a firmware of {size_bytes} bytes: it must be whole pages of {PAGE_BYTES} bytes,"
            f" at most {MAX_BYTES}",
            where=where,
        )


def check_sections(sections: Iterable[Section], *, firmware_bytes: int, where: str = "") -> None:
    """Refuse sections that no firmware of ``firmware_bytes`` can mean: ``firmware-section``.

    Each is of a known kind and of whole pages below the firmware, none overlaps
    another, and what has one place stands once. So all together are at most the
    1 Mi pages below 4 GiB.
    """
    sections = tuple(sections)
    if len(sections) > MAX_SECTIONS:
        raise FormatError(
            "firmware-section",
            f"{len(sections)} sections, at most {MAX_SECTIONS} are possible",
            where=where,
        )
    seen: set[int] = set()
    for number, section in enumerate(sections, 1):
        wrong = _wrong(section, seen=seen, firmware_gpa=END_GPA - firmware_bytes)
        if wrong:
            raise FormatError("firmware-section", f"section {number} {wrong}", where=where)
        seen.add(section.kind)
    ordered = sorted(sections, key=lambda section: section.gpa)
    for index in range(1, len(ordered)):
        before, after = ordered[index - 1], ordered[index]
        if after.gpa < before.end:
            raise FormatError(
                "firmware-section",
                f"the sections at {before.gpa:#x} and {after.gpa:#x} overlap",
                where=where,
            )


def _wrong(section: Section, *, seen: set[int], firmware_gpa: int) -> str:
    if section.kind not in SECTION_KINDS:
        return f"has the type {section.kind:#x}, which is not known"
    if section.gpa % PAGE_BYTES or section.size_bytes % PAGE_BYTES or section.size_bytes < 1:
        return f"has {section.size_bytes:#x} bytes at {section.gpa:#x}: these are not whole pages"
    if section.gpa < 0 or section.end > firmware_gpa:
        return f"reaches from {section.gpa:#x} to {section.end:#x}, into the firmware or beyond"
    if section.kind in _SINGLE and section.kind in seen:
        return f"is a second one of the kind {SECTION_KINDS[section.kind]}"
    if section.kind in _ONE_PAGE and section.pages != 1:
        return f"has {section.pages} pages, but {SECTION_KINDS[section.kind]} is one page"
    return ""


def _entries(table: bytes, where: str) -> tuple[Entry, ...]:
    found: dict[str, Entry] = {}
    end = len(table)
    while end:
        if end < _ENTRY.size:
            raise FormatError(
                "firmware-table", f"{end} bytes of the table belong to no entry", where=where
            )
        entry_bytes, raw = _ENTRY.unpack_from(table, end - _ENTRY.size)
        if not _ENTRY.size <= entry_bytes <= end:
            raise FormatError(
                "firmware-table",
                f"an entry of {entry_bytes} bytes where {end} bytes are left",
                where=where,
            )
        guid = guid_text(raw)
        data = table[end - entry_bytes : end - _ENTRY.size]
        if guid in found:
            raise FormatError("firmware-table", f"the entry {guid} stands twice", where=where)
        if len(data) != _DATA_BYTES.get(guid, len(data)):
            raise FormatError(
                "firmware-table",
                f"the entry {ENTRY_NAMES[guid]} holds {len(data)} bytes,"
                f" it must be {_DATA_BYTES[guid]}",
                where=where,
            )
        found[guid] = Entry(guid=guid, data=data)
        end -= entry_bytes
    return tuple(found.values())


def _sections(tail: bytes, offset: int, *, where: str) -> tuple[Section, ...]:
    if not _METADATA.size <= offset <= len(tail):
        raise FormatError(
            "firmware-metadata",
            f"the SEV metadata is said to begin {offset} bytes before the end",
            where=where,
        )
    start = len(tail) - offset
    magic, length, version, count = _METADATA.unpack_from(tail, start)
    if magic != b"ASEV" or version != 1:
        raise FormatError(
            "firmware-metadata",
            "there is no SEV metadata of version 1 where it is said to be",
            where=where,
        )
    if length != _METADATA.size + count * _SECTION.size or length > offset:
        raise FormatError(
            "firmware-metadata",
            f"{length} bytes of SEV metadata with {count} sections, {offset} bytes before the end",
            where=where,
        )
    body = tail[start + _METADATA.size : start + length]
    return tuple(Section(*values) for values in _SECTION.iter_unpack(body))


def _area(data: bytes | None) -> Area | None:
    return None if data is None else Area(*_AREA.unpack(data))
