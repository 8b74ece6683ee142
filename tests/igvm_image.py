# SPDX-License-Identifier: Apache-2.0
"""A second reader of IGVM files: loads one as a VMM does, into the guest's memory.

Shares nothing with ``troth.abi``: written from the IGVM format (igvm_defs). ``igvm_processor``
looks at the image as a processor does, ``igvm_linux`` as Linux does. Knows only images for SNP
alone by a builder that leaves the host nothing to decide; ``Image.complaints`` names the rest.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field

PAGE = 4096
ZERO = bytes(PAGE)
C_BIT = 1 << 51
VMSA_GPA = 0xFFFF_FFFF_F000
SNP = 2

_SUPPORTED_PLATFORM, _GUEST_POLICY = 0x001, 0x101
_PAGE_DATA, _VP_CONTEXT, _REQUIRED_MEMORY, _SNP_ID_BLOCK = 0x302, 0x304, 0x305, 0x30B
HOST_FILLED = {
    0x301: "PARAMETER_AREA", 0x303: "PARAMETER_INSERT", 0x307: "VP_COUNT", 0x308: "SRAT",
    0x309: "MADT", 0x30A: "MMIO_RANGES", 0x30C: "MEMORY_MAP", 0x30D: "ERROR_RANGE",
    0x30E: "COMMAND_LINE", 0x30F: "SLIT", 0x310: "PPTT", 0x312: "DEVICE_TREE",
    0x313: "ENVIRONMENT_INFO",
}  # fmt: skip


class BadFileError(Exception):
    """Not an IGVM file that this reader can load."""


class Fault(Exception):  # noqa: N818 - what a processor calls it
    """The walk touched what is not there: on hardware a #PF, #GP or #NPF."""


@dataclass
class Image:
    """What a VMM has in hand after the last directive.

    ``pages``: private guest memory, gpa -> 4096 bytes; ``cpuid``, ``secrets``: pages that the
    firmware fills; ``order``: gpa of each page directive in file order, the VMSA's with them;
    ``complaints``: what the file asks for and this loader would refuse.
    """

    pages: dict[int, bytes] = field(default_factory=dict)
    cpuid: list[int] = field(default_factory=list)
    secrets: list[int] = field(default_factory=list)
    required: list[tuple[int, int]] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
    vmsas: list[tuple[int, int, bytes]] = field(default_factory=list)
    policies: list[int] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    @property
    def vmsa(self) -> bytes:
        return self.vmsas[0][2]

    def copy(self) -> Image:
        return Image(**{name: value.copy() for name, value in vars(self).items()})

    def read(self, gpa: int, size: int) -> bytes:
        """Guest memory; ``Fault`` outside the measured pages (those of the firmware included)."""
        if size > 1 << 30:
            raise Fault(f"{size:#x} bytes at {gpa:#x}")
        parts, at, end = [], gpa, gpa + size
        while at < end:
            start = at % PAGE
            page = self.pages.get(at - start)
            if page is None:
                raise Fault(f"no measured page at {at:#x}")
            part = page[start : min(PAGE, start + end - at)]
            parts.append(part)
            at += len(part)
        return b"".join(parts)

    def write(self, gpa: int, data: bytes) -> None:
        """Change guest memory: for tests that break an image."""
        for done, byte in enumerate(data):
            base, start = divmod(gpa + done, PAGE)
            page = bytearray(self.pages[base * PAGE])
            page[start] = byte
            self.pages[base * PAGE] = bytes(page)

    def number(self, gpa: int, size: int) -> int:
        return int.from_bytes(self.read(gpa, size), "little")


def load(data: bytes) -> Image:
    """The guest of ``data`` on an SNP host. Raises ``BadFileError``."""
    if len(data) < 24:
        raise BadFileError("shorter than a header")
    magic, version, start, size, total, checksum = struct.unpack_from("<4s5I", data)
    if magic != b"IGVM" or version != 1:
        raise BadFileError(f"magic {magic!r}, version {version}")
    if start != 24 or total != len(data) or start + size > total or size % 8:
        raise BadFileError("sizes of the fixed header do not fit the file")
    crc = zlib.crc32(data[24 : 24 + size], zlib.crc32(data[:20] + bytes(4)))
    if crc != checksum:
        raise BadFileError(f"checksum {checksum:#x}, computed {crc:#x}")
    image = Image()
    platforms: list[int] = []
    at, end, section = start, start + size, 0
    while at < end:
        kind, length = struct.unpack_from("<II", data, at)
        body, at = at + 8, at + 8 + (length + 7) // 8 * 8
        if at > end:
            raise BadFileError(f"header {kind:#x} leaves the variable headers")
        if any(data[body + length : at]):
            raise BadFileError(f"padding of header {kind:#x} is not zero")
        if kind >> 8 < section:
            raise BadFileError(f"header {kind:#x} stands in a wrong section")
        section = kind >> 8
        if kind == _PAGE_DATA:
            if length != 24:
                raise BadFileError(f"page directive of {length} bytes")
            _load_page(image, data, body, platforms, start + size)
        else:
            _load_other(image, data[body : body + length], kind, platforms, data)
    if not platforms:
        raise BadFileError("no platform")
    return image


def _blob(data: bytes, offset: int, lowest: int) -> bytes:
    if not offset:
        return ZERO
    page = data[offset : offset + PAGE]
    if offset < lowest or not page:
        raise BadFileError(f"file data at {offset:#x}")
    return page.ljust(PAGE, b"\0")


def _load_page(image: Image, data: bytes, body: int, platforms: list[int], lowest: int) -> None:
    gpa, mask, offset, flags, kind, reserved = struct.unpack_from("<QIIIHH", data, body)
    if mask not in platforms:
        raise BadFileError(f"page {gpa:#x} for platforms {mask:#x}")
    if flags or reserved:
        image.complaints.append(f"page {gpa:#x}: flags {flags:#x}: not measured, shared or large")
    if gpa % PAGE or gpa >= C_BIT:
        raise BadFileError(f"page at {gpa:#x}")
    if gpa in image.pages or gpa in image.cpuid or gpa in image.secrets:
        image.complaints.append(f"page {gpa:#x} is loaded twice")
    if kind and offset:
        image.complaints.append(f"page {gpa:#x} of kind {kind} has data of its own")
    image.order.append(gpa)
    if kind == 0:
        image.pages[gpa] = _blob(data, offset, lowest)
    elif kind == 1:
        image.secrets.append(gpa)
    elif kind == 2:
        image.cpuid.append(gpa)
    else:
        image.complaints.append(f"page {gpa:#x} of kind {kind}")


def _load_other(image: Image, body: bytes, kind: int, platforms: list[int], data: bytes) -> None:
    if kind == _SUPPORTED_PLATFORM:
        mask, vtl, platform, version, _ = struct.unpack("<IBBHQ", body)
        if mask.bit_count() != 1 or vtl or platform != SNP or version != 1 or platforms:
            raise BadFileError(f"platform {platform}, mask {mask:#x}, VTL {vtl}")
        platforms.append(mask)
    elif kind == _GUEST_POLICY:
        policy, mask, reserved = struct.unpack("<QII", body)
        _belongs(mask, platforms, reserved)
        image.policies.append(policy)
    elif kind == _REQUIRED_MEMORY:
        gpa, mask, size, flags, reserved = struct.unpack("<QIIII", body)
        _belongs(mask, platforms, flags or reserved)
        image.required.append((gpa, size))
    elif kind == _VP_CONTEXT:
        gpa, mask, offset, index, reserved = struct.unpack("<QIIHH", body)
        _belongs(mask, platforms, reserved)
        page = data[offset : offset + PAGE]
        if not offset or len(page) != PAGE:
            raise BadFileError("VMSA outside the file")
        image.vmsas.append((gpa, index, page))
        image.order.append(gpa)
    elif kind in HOST_FILLED:
        image.complaints.append(f"the host is asked to fill something: {HOST_FILLED[kind]}")
    elif kind != _SNP_ID_BLOCK:
        image.complaints.append(f"header {kind:#x}, which this loader does not know")


def _belongs(mask: int, platforms: list[int], reserved: int) -> None:
    if mask not in platforms or reserved:
        raise BadFileError(f"header for platforms {mask:#x}, reserved {reserved:#x}")
