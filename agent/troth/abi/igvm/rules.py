# SPDX-License-Identifier: Apache-2.0
"""What the headers of one IGVM file must keep among each other.

Serves the reader, which shows it every header in file order. Keeps little: no
memory that grows with the file but eight bytes a run of pages. Must never
judge whether a file is wise; that is for ``measure``.

Source: microsoft/igvm, ``igvm_defs/src/lib.rs`` and what the crate ``igvm``
validates (``IgvmFile::validate_*``); the limits are troth's own.
"""

from __future__ import annotations

from functools import reduce
from operator import or_

from troth.abi.igvm import headers as h
from troth.abi.igvm.coverage import Coverage
from troth.errors import FormatError
from troth.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_PAGES = 1 << 24
"""Pages one file places (64 GiB); the time to measure it grows with them."""

MAX_OTHERS = 1 << 16
"""Headers that are not PAGE_DATA: real files have some dozens, and each takes its time."""

MAX_AREAS = 4096
MAX_AREA_BYTES = 64 << 20
MAX_GPA = 1 << 52
"""No platform addresses more: the reverse map of SNP holds address bits 12 to 51."""

KVM_VMSA_GPA = 0x0000_FFFF_FFFF_F000

_FLAGS = h.LARGE | h.UNMEASURED | h.SHARED
_KNOWN_FLAGS = frozenset(range(_FLAGS + 1))
_KNOWN_TYPES = frozenset((h.NORMAL, h.SECRETS, h.CPUID_DATA, h.CPUID_XF))
_NO_RESERVED = frozenset((0,))
_CONTEXT_PAGE = (h.SEV_SNP, h.SEV_ES)
_HIGHEST_VTLS = (0, 2)
_MAX_VTL = 2


@record
class Pages:
    """Consecutive PAGE_DATA headers, one column a field; ``at``: the first one's file offset."""

    at: int
    gpas: tuple[int, ...]
    masks: tuple[int, ...]
    file_offsets: tuple[int, ...]
    flags: tuple[int, ...]
    data_types: tuple[int, ...]

    def rows(self) -> Iterator[tuple[int, int, int, int, int]]:
        """Address, mask, file offset, flags and data type of each page."""
        return zip(
            self.gpas, self.masks, self.file_offsets, self.flags, self.data_types, strict=True
        )


class Rules:
    """The rules of a file whose data are at ``data_start`` to ``size_bytes``.

    ``platforms``: mask -> platform; ``warnings``: odd, but of no consequence.
    All methods raise ``FormatError`` ``igvm-*``.
    """

    def __init__(self, *, data_start: int, size_bytes: int, where: str) -> None:
        self._data_start = data_start
        self._size_bytes = size_bytes
        self._where = where
        self.platforms: dict[int, h.SupportedPlatform] = {}
        self.warnings: list[str] = []
        self._known = 0
        self._section = 0
        self._areas: dict[int, int | None] = {}
        self._contexts: set[tuple[int, int]] = set()
        self._once: dict[type, int] = {}
        self._coverage = Coverage()
        self._pages = 0
        self._others = 0

    def place(self, at: int) -> str:
        """Where the header at file offset ``at`` is, for errors."""
        return f"{self._where}: header at {at:#x}" if self._where else f"header at {at:#x}"

    def error(self, code: str, message: str, at: int) -> FormatError:
        """The error ``code`` about the header at file offset ``at``."""
        return FormatError(code, message, where=self.place(at))

    def section(self, kind: int, at: int) -> None:
        """A header of type ``kind`` comes next: platform, initialisation, then directives."""
        for number, (first, last) in enumerate(h.SECTIONS):
            if first <= kind <= last:
                if number < self._section:
                    raise self.error("igvm-order", f"{h.NAMES[kind]} comes too late", at)
                self._section = number

    def header(self, header: h.Header, at: int) -> None:
        """Check the next header, any but PAGE_DATA."""
        self._others += 1
        if self._others > MAX_OTHERS:
            raise self.error("igvm-limit", f"more than {MAX_OTHERS} headers beside pages", at)
        match header:
            case h.SupportedPlatform():
                self._platform(header, at)
            case h.GuestPolicy():
                self._mask(header.compatibility_mask, at)
                self._one_a_platform(header, header.compatibility_mask, "igvm-policy-twice", at)
            case h.RelocatableRegion() | h.PageTableRelocation():
                self._relocation(header, at)
            case h.CorimDocument() | h.CorimSignature():
                self._corim(header, at)
            case h.ParameterArea():
                self._area(header, at)
            case h.ParameterInsert():
                self._insert(header, at)
            case h.Usage():
                size_bytes = self._alive(header.index, at)
                if header.offset_bytes >= size_bytes:
                    raise self.error(
                        "igvm-parameter-offset",
                        f"{h.NAMES[header.type]} goes to byte {header.offset_bytes} of area"
                        f" {header.index}, which has {size_bytes}",
                        at,
                    )
            case h.VpContext():
                self._context(header, at)
            case h.RequiredMemory() | h.ErrorRange():
                self._mask(header.compatibility_mask, at)
                self._memory(header.gpa, header.size_bytes, at)
                if isinstance(header, h.RequiredMemory) and header.flags > 1:
                    raise self.error("igvm-flags", f"unknown flags {header.flags:#x}", at)
            case h.SnpIdBlock():
                self._mask(header.compatibility_mask, at)
                self._one_a_platform(header, header.compatibility_mask, "igvm-id-block-twice", at)
            case h.VbsMeasurement():
                self._mask(header.compatibility_mask, at)
            case _:  # CCA_POLICY: Arm's own
                pass

    def pages(self, pages: Pages, reserved: tuple[int, ...]) -> None:
        """Check consecutive PAGE_DATA headers, with the column of their reserved fields.

        Whole columns first: a file has millions of pages. Only where a column
        looks odd are rows looked at, to name the one that is wrong.
        """
        gpas, offsets = pages.gpas, pages.file_offsets
        masks = frozenset(pages.masks)
        lowest = min(filter(None, offsets), default=self._data_start)
        plain = (
            not reduce(or_, gpas) % h.PAGE_BYTES
            and max(gpas) < MAX_GPA
            and lowest >= self._data_start
            and max(offsets) + h.PAGE_BYTES <= self._size_bytes
            and frozenset(pages.data_types) <= _KNOWN_TYPES
            and frozenset(reserved) == _NO_RESERVED
            and frozenset(pages.flags) <= {0}
        )
        for mask in masks:
            self._mask(mask, pages.at)
        if not plain:
            for index, row in enumerate(pages.rows()):
                self._page(row, reserved[index], pages.at + index * 32)
        count = len(gpas)
        if plain and len(masks) == 1 and gpas == tuple(_consecutive(gpas[0], count)):
            self._place(pages.masks[0], gpas[0], count, pages.at)
            return
        for index, (gpa, mask, _, flags, _) in enumerate(pages.rows()):
            size_bytes = h.LARGE_PAGE_BYTES if flags & h.LARGE else h.PAGE_BYTES
            self._place(mask, gpa, size_bytes // h.PAGE_BYTES, pages.at + index * 32)

    def finish(self) -> None:
        """All headers were shown."""
        if not self.platforms:
            raise FormatError("igvm-platform-none", "the file names no platform", where=self._where)
        twice = self._coverage.twice()
        if twice is not None:
            raise FormatError(
                "igvm-overlap",
                f"the page at {twice:#x} is placed twice on one platform",
                where=self._where,
            )

    def platform_of(self, header: h.VpContext, at: int) -> h.SupportedPlatform:
        """The one platform that ``header`` is for."""
        found = [item for bit, item in self.platforms.items() if header.compatibility_mask & bit]
        if len(found) != 1:
            raise self.error(
                "igvm-context-platform",
                f"a processor's state for {len(found)} platforms; it is of one",
                at,
            )
        return found[0]

    def inside(self, file_offset: int, size_bytes: int, at: int) -> None:
        """``size_bytes`` at ``file_offset`` are in the data, whole."""
        if file_offset < self._data_start or file_offset + size_bytes > self._size_bytes:
            raise self.error(
                "igvm-data",
                f"{size_bytes} bytes at {file_offset:#x} are not in the data section, which is"
                f" {self._data_start:#x} to {self._size_bytes:#x}",
                at,
            )

    def _platform(self, header: h.SupportedPlatform, at: int) -> None:
        mask = header.compatibility_mask
        if mask.bit_count() != 1 or mask & self._known:
            raise self.error(
                "igvm-platform-mask", f"mask {mask:#x} is not one bit that is still free", at
            )
        if header.platform_type not in h.PLATFORMS:
            raise self.error(
                "igvm-platform-type", f"platform type {header.platform_type} is unknown", at
            )
        if header.platform_type in {item.platform_type for item in self.platforms.values()}:
            name = h.PLATFORMS[header.platform_type]
            raise self.error("igvm-platform-twice", f"{name} stands twice", at)
        if header.version != 1 or header.highest_vtl not in _HIGHEST_VTLS:
            raise self.error(
                "igvm-platform-version",
                f"platform version {header.version}, highest VTL {header.highest_vtl}:"
                " known are 1, and 0 or 2",
                at,
            )
        self.platforms[mask] = header
        self._known |= mask

    def _mask(self, mask: int, at: int) -> None:
        if not mask & self._known:
            raise self.error("igvm-mask", f"mask {mask:#x} is of no platform of this file", at)
        if mask & ~self._known:
            text = "a mask has bits of platforms that the file does not name"
            if text not in self.warnings:
                self.warnings.append(text)

    def _one_a_platform(self, header: h.Header, mask: int, code: str, at: int) -> None:
        taken = self._once.get(type(header), 0)
        if taken & mask:
            name = h.NAMES[h.type_of(header)]
            raise self.error(code, f"a second {name} for one platform", at)
        self._once[type(header)] = taken | mask

    def _relocation(self, header: h.RelocatableRegion | h.PageTableRelocation, at: int) -> None:
        self._mask(header.compatibility_mask, at)
        self._memory(header.gpa, header.size_bytes, at)
        wrong = header.vtl > _MAX_VTL
        if isinstance(header, h.PageTableRelocation):
            self._one_a_platform(header, header.compatibility_mask, "igvm-relocation", at)
            wrong = wrong or header.used_bytes > header.size_bytes
            wrong = wrong or header.used_bytes % h.PAGE_BYTES != 0
        else:
            places = header.minimum_gpa | header.maximum_gpa | header.alignment_bytes
            wrong = wrong or header.flags & ~7 != 0 or places % h.PAGE_BYTES != 0
            wrong = wrong or header.alignment_bytes == 0
            wrong = wrong or header.minimum_gpa > header.maximum_gpa
        if wrong:
            raise self.error("igvm-relocation", "a relocation that cannot be", at)

    def _corim(self, header: h.CorimDocument | h.CorimSignature, at: int) -> None:
        mask = header.compatibility_mask
        self._mask(mask, at)
        documents = self._once.get(h.CorimDocument, 0)
        if isinstance(header, h.CorimSignature) and mask & documents != mask:
            raise self.error("igvm-corim", "the signature of no document", at)
        if not header.size_bytes:
            raise self.error("igvm-corim", "a document or signature without bytes", at)
        self._one_a_platform(header, mask, "igvm-corim", at)
        self.inside(header.file_offset, header.size_bytes, at)

    def _area(self, header: h.ParameterArea, at: int) -> None:
        if header.index in self._areas:
            raise self.error(
                "igvm-parameter-twice", f"parameter area {header.index} stands twice", at
            )
        if header.size_bytes % h.PAGE_BYTES or not 0 < header.size_bytes <= MAX_AREA_BYTES:
            raise self.error(
                "igvm-parameter-size",
                f"a parameter area of {header.size_bytes} bytes: whole pages up to"
                f" {MAX_AREA_BYTES} bytes can be",
                at,
            )
        if len(self._areas) >= MAX_AREAS:
            raise self.error("igvm-limit", f"more than {MAX_AREAS} parameter areas", at)
        if header.file_offset:
            self.inside(header.file_offset, header.size_bytes, at)
        self._areas[header.index] = header.size_bytes

    def _alive(self, index: int, at: int) -> int:
        size_bytes = self._areas.get(index)
        if size_bytes is None:
            why = "was inserted before" if index in self._areas else "is not declared"
            raise self.error("igvm-parameter-index", f"parameter area {index} {why}", at)
        return size_bytes

    def _insert(self, header: h.ParameterInsert, at: int) -> None:
        self._mask(header.compatibility_mask, at)
        size_bytes = self._alive(header.index, at)
        self._memory(header.gpa, size_bytes, at)
        self._place(header.compatibility_mask, header.gpa, size_bytes // h.PAGE_BYTES, at)
        self._areas[header.index] = None

    def _context(self, header: h.VpContext, at: int) -> None:
        self._mask(header.compatibility_mask, at)
        platform = self.platform_of(header, at)
        mask = platform.compatibility_mask
        if (mask, header.vp_index) in self._contexts:
            raise self.error(
                "igvm-context-twice", f"a second state of processor {header.vp_index}", at
            )
        self._contexts.add((mask, header.vp_index))
        # A VBS state is as long as it says itself; the reader checks that.
        self.inside(header.file_offset, 4 if platform.platform_type == h.VSM else h.PAGE_BYTES, at)
        if platform.platform_type in _CONTEXT_PAGE:
            self._memory(header.gpa, h.PAGE_BYTES, at)
            if header.gpa != KVM_VMSA_GPA:  # there KVM has those of all processors
                self._place(mask, header.gpa, 1, at)

    def _page(self, row: tuple[int, int, int, int, int], reserved: int, at: int) -> None:
        gpa, _mask, file_offset, flags, data_type = row
        if reserved:
            raise self.error("igvm-reserved", "a reserved field of PAGE_DATA is not zero", at)
        if flags not in _KNOWN_FLAGS:
            raise self.error("igvm-flags", f"unknown flags {flags:#x}", at)
        if data_type not in _KNOWN_TYPES:
            raise self.error("igvm-data-type", f"unknown data type {data_type}", at)
        if data_type != h.NORMAL and flags & h.SHARED:
            # The crate skips such a page, igvmmeasure measures it: no digest would be right.
            raise self.error("igvm-flags", "a secrets or CPUID page cannot be shared", at)
        size_bytes = h.LARGE_PAGE_BYTES if flags & h.LARGE else h.PAGE_BYTES
        self._memory(gpa, size_bytes, at)
        if flags & h.LARGE and (gpa % size_bytes or file_offset or data_type != h.NORMAL):
            raise self.error(
                "igvm-large-page", "a 2 MiB page is aligned, normal and without data", at
            )
        if file_offset:
            self.inside(file_offset, h.PAGE_BYTES, at)

    def _memory(self, gpa: int, size_bytes: int, at: int) -> None:
        if (gpa | size_bytes) % h.PAGE_BYTES or not size_bytes:
            raise self.error(
                "igvm-alignment", f"{size_bytes:#x} bytes at {gpa:#x} are no whole pages", at
            )
        if gpa + size_bytes > MAX_GPA:
            raise self.error(
                "igvm-gpa", f"{size_bytes:#x} bytes at {gpa:#x} leave the address space", at
            )

    def _place(self, mask: int, gpa: int, pages: int, at: int) -> None:
        self._pages += pages
        if self._pages > MAX_PAGES:
            raise self.error("igvm-limit", f"more than {MAX_PAGES} pages", at)
        self._coverage.add(mask & self._known, gpa, pages)


def _consecutive(gpa: int, count: int) -> range:
    return range(gpa, gpa + count * h.PAGE_BYTES, h.PAGE_BYTES)
