# SPDX-License-Identifier: Apache-2.0
"""A second reader of IGVM files: loads one as a VMM, looks at it as a processor and Linux do.

Shares nothing with ``troth.abi``: written from the IGVM format (igvm_defs), the AMD64 manual
(volume 2: 4.8 segment descriptors, 5.3 page translation, 15.34 the VMSA), the x86 boot protocol
(Documentation/arch/x86/boot.rst, "64-bit Boot Protocol"), ``struct boot_params``
(arch/x86/include/uapi/asm/bootparam.h), what Linux does with a CC blob (arch/x86/coco/sev), and
ACPI 6.5. ``problems`` knows only images made for Linux by a builder that leaves the host nothing
to decide.
"""

from __future__ import annotations

import bisect
import itertools
import struct
import zlib
from dataclasses import dataclass, field

PAGE = 4096
ZERO = bytes(PAGE)
C_BIT = 1 << 51
VMSA_GPA = 0xFFFF_FFFF_F000
SNP = 2
#: q35 keeps at most this below 4 GiB; a larger memory is split at 2 GiB.
LOW_LIMIT, LOW_SPLIT, FOUR_GIB = 0xB000_0000, 0x8000_0000, 1 << 32
#: Option ROMs, then the BIOS, up to 1 MiB; to QEMU two regions.
_ROMS, _BIOS, _MIB = 0xC0000, 0xE0000, 0x100000

_SUPPORTED_PLATFORM, _GUEST_POLICY = 0x001, 0x101
_PAGE_DATA, _VP_CONTEXT, _REQUIRED_MEMORY, _SNP_ID_BLOCK = 0x302, 0x304, 0x305, 0x30B
_HOST_FILLED = {
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
    elif kind in _HOST_FILLED:
        image.complaints.append(f"the host is asked to fill something: {_HOST_FILLED[kind]}")
    elif kind != _SNP_ID_BLOCK:
        image.complaints.append(f"header {kind:#x}, which this loader does not know")


def _belongs(mask: int, platforms: list[int], reserved: int) -> None:
    if mask not in platforms or reserved:
        raise BadFileError(f"header for platforms {mask:#x}, reserved {reserved:#x}")


# The processor

_SEGMENTS = {
    "es": 0x00, "cs": 0x10, "ss": 0x20, "ds": 0x30, "fs": 0x40, "gs": 0x50,
    "gdtr": 0x60, "ldtr": 0x70, "idtr": 0x80, "tr": 0x90,
}  # fmt: skip
_WORDS = {
    "vmpl": (0xCA, 1), "cpl": (0xCB, 1), "efer": (0xD0, 8), "cr4": (0x148, 8), "cr3": (0x150, 8),
    "cr0": (0x158, 8), "dr7": (0x160, 8), "dr6": (0x168, 8), "rflags": (0x170, 8),
    "rip": (0x178, 8), "rsp": (0x1D8, 8), "rax": (0x1F8, 8), "g_pat": (0x268, 8),
    "rcx": (0x308, 8), "rdx": (0x310, 8), "rbx": (0x318, 8), "rbp": (0x328, 8), "rsi": (0x330, 8),
    "rdi": (0x338, 8), "sev_features": (0x3B0, 8), "xcr0": (0x3E8, 8), "mxcsr": (0x408, 4),
    "fcw": (0x410, 2),
}  # fmt: skip
#: State at which KVM and QEMU start a processor, where the entry does not need another.
_AT_RESET = {
    "vmpl": 0, "cpl": 0, "dr6": 0xFFFF0FF0, "dr7": 0x400, "g_pat": 0x0007040600070406, "xcr0": 1,
    "mxcsr": 0x1F80, "fcw": 0x37F, "sev_features": 1, "rflags": 2,
}  # fmt: skip
_PG, _PE = 1 << 31, 1
_LME, _LMA, _SVME = 1 << 8, 1 << 10, 1 << 12
_PAE, _MCE, _LA57 = 1 << 5, 1 << 6, 1 << 12


@dataclass(frozen=True)
class Segment:
    """A segment register; ``attributes`` as in the VMSA: the descriptor's 12 bits packed."""

    selector: int
    attributes: int
    limit: int
    base: int


def registers(vmsa: bytes) -> dict[str, int]:
    return {
        name: int.from_bytes(vmsa[at : at + size], "little") for name, (at, size) in _WORDS.items()
    }


def segments(vmsa: bytes) -> dict[str, Segment]:
    return {name: Segment(*struct.unpack_from("<HHIQ", vmsa, at)) for name, at in _SEGMENTS.items()}


def descriptor(raw: int, selector: int) -> Segment:
    """The register after loading the 8-byte descriptor ``raw``."""
    limit = raw & 0xFFFF | (raw >> 32 & 0xF0000)
    base = raw >> 16 & 0xFFFFFF | (raw >> 32 & 0xFF000000)
    attributes = raw >> 40 & 0xFF | (raw >> 44 & 0xF00)
    if attributes & 0x800:
        limit = limit << 12 | 0xFFF
    return Segment(selector, attributes, limit, base)


@dataclass
class Walk:
    """Translation as with paging on."""

    image: Image
    cr3: int

    def translate(self, linear: int) -> tuple[int, int]:
        """Physical address and the bytes mapped with it; ``Fault`` where hardware faults."""
        if not self.cr3 & C_BIT:
            raise Fault("CR3 without the C-bit: the tables would be read as shared memory")
        table = self.cr3 & ~C_BIT & ~0xFFF
        for shift in (39, 30, 21, 12):
            entry = self.image.number(table + (linear >> shift & 0x1FF) * 8, 8)
            if entry & 3 != 3:
                raise Fault(f"{linear:#x} is not mapped writable (entry {entry:#x})")
            if not entry & C_BIT:
                raise Fault(f"{linear:#x} is mapped shared (entry {entry:#x})")
            if entry >> 52:
                raise Fault(f"{linear:#x}: high bits or NX (entry {entry:#x})")
            large = shift == 12 or (entry & 0x80 and shift != 39)
            address = entry & ~C_BIT & 0x000F_FFFF_FFFF_F000
            if not large:
                if entry & 0x80:
                    raise Fault(f"{linear:#x}: reserved bit 7 (entry {entry:#x})")
                table = address
                continue
            size = 1 << shift
            base = address & ~0x1000 if shift != 12 else address  # bit 12 of a large page: PAT
            if base % size:
                raise Fault(f"{linear:#x}: page of {size:#x} at {base:#x}")
            return base | linear % size, size - linear % size
        raise Fault(f"{linear:#x}")

    def fetch(self, linear: int, size: int) -> bytes:
        """Memory by linear address."""
        found = b""
        while len(found) < size:
            physical, mapped = self.translate(linear + len(found))
            found += self.image.read(physical, min(mapped, size - len(found)))
        return found


def tables(image: Image) -> list[int]:
    """Every page of the page tables; a ``Fault`` where they lead out of memory or to no end."""
    found: list[int] = []
    level = [registers(image.vmsa)["cr3"] & ~C_BIT & ~0xFFF]
    for depth in range(4):
        found += level
        if len(found) > 4096:
            raise Fault("page tables without end")
        entries = [
            entry for gpa in level for entry in struct.unpack("<512Q", image.read(gpa, PAGE))
        ]
        level = [
            entry & ~C_BIT & 0x000F_FFFF_FFFF_F000
            for entry in entries
            if entry & 1 and (depth == 0 or not entry & 0x80)
        ]
    return found


@dataclass(frozen=True)
class Entry:
    """Where the processor is once it is in 64-bit mode."""

    rip: int
    rsi: int
    instructions: tuple[str, ...]


def execute(image: Image) -> Entry:
    """Run the entry code until the first instruction of 64-bit mode. ``Fault`` where it cannot."""
    at = registers(image.vmsa)
    parts = segments(image.vmsa)
    code, gdtr = parts["cs"], parts["gdtr"]
    walk = Walk(image, at["cr3"])
    rip, paging, done = at["rip"], bool(at["cr0"] & _PG), []

    def fetch(size: int) -> bytes:
        if rip + size - 1 > code.limit:
            raise Fault(f"{rip:#x} is beyond the limit of cs")
        linear = code.base + rip & 0xFFFFFFFF
        return walk.fetch(linear, size) if paging else image.read(linear, size)

    for _ in range(4):
        if fetch(3) == b"\x0f\x22\xc0":
            done.append("mov %eax,%cr0")
            cr0 = at["rax"] & 0xFFFFFFFF
            if not cr0 & _PE or not cr0 & _PG or cr0 & ~0x8001_003F:
                raise Fault(f"mov to cr0 of {cr0:#x}")
            if not at["cr4"] & _PAE or not at["efer"] & _LME or at["cr4"] & _LA57:
                raise Fault("paging turned on without PAE and long mode, or with five levels")
            if code.attributes & 0x200:
                raise Fault("long mode activated with CS.L set")
            rip, paging = rip + 3, True
        elif fetch(1) == b"\xea":
            _, target, selector = struct.unpack("<BIH", fetch(7))
            done.append(f"ljmp ${selector:#x},${target:#x}")
            if not paging:
                raise Fault("far jump before paging is on")
            if selector + 7 > gdtr.limit or selector < 8 or selector & 7:
                raise Fault(f"selector {selector:#x} is not in the GDT")
            loaded = descriptor(
                int.from_bytes(walk.fetch(gdtr.base + selector, 8), "little"), selector
            )
            if loaded.attributes & ~0x103 != 0x298 | 0x800 & loaded.attributes:
                raise Fault(f"selector {selector:#x} is no 64-bit code ({loaded.attributes:#x})")
            return Entry(target, at["rsi"], tuple(done))
        else:
            raise Fault(f"instruction {fetch(8).hex()} at {rip:#x} is none that the entry needs")
    raise Fault("the entry code does not end")


def _check_processor(image: Image, found: list[str]) -> None:
    at, parts = registers(image.vmsa), segments(image.vmsa)
    for name, value in _AT_RESET.items():
        if at[name] != value:
            found.append(f"VMSA: {name} is {at[name]:#x}, not {value:#x}")
    if at["cr0"] != 0x31:
        found.append(f"VMSA: cr0 is {at['cr0']:#x}, KVM starts at 0x31")
    if at["cr4"] != _PAE | _MCE:
        found.append(f"VMSA: cr4 is {at['cr4']:#x}, not PAE and MCE")
    if at["efer"] & ~0x800 != _LME | _SVME:
        found.append(f"VMSA: efer is {at['efer']:#x}, not LME and SVME")
    found += [f"VMSA: {name} is not zero" for name in ("rbx", "rbp", "rdi") if at[name]]
    known = bytearray(image.vmsa)
    for offset, size in [*((at, 16) for at in _SEGMENTS.values()), *_WORDS.values()]:
        known[offset : offset + size] = bytes(size)
    if any(known):
        offset = next(index for index, byte in enumerate(known) if byte)
        found.append(f"VMSA: byte {offset:#x} is not zero, and no VMM can set it")
    gdtr = parts["gdtr"]
    try:
        table = image.read(gdtr.base, gdtr.limit + 1)
    except Fault as fault:
        found.append(f"GDT: {fault}")
        return
    if gdtr.limit + 1 < 32 or gdtr.limit > 0xFFFF or gdtr.attributes or gdtr.selector:
        found.append(f"GDTR: {gdtr}")
        return
    # boot.rst: __BOOT_CS 0x10 and __BOOT_DS 0x18 are flat, execute/read and read/write.
    for selector, attributes in ((0x10, 0xA9A), (0x18, 0xC92)):
        raw = int.from_bytes(table[selector : selector + 8], "little")
        flat = descriptor(raw, selector)
        if (flat.base, flat.limit, flat.attributes & ~1) != (0, 0xFFFFFFFF, attributes):
            found.append(f"GDT: {flat} is not what Linux asks for")
    for name in ("cs", "ds", "es", "ss", "fs", "gs"):
        part = parts[name]
        wanted = 0xC9B if name == "cs" else 0xC93
        if part.selector & 7 or not 8 <= part.selector <= gdtr.limit - 7:
            found.append(f"{name}: selector {part.selector:#x} is not in the GDT")
            continue
        raw = int.from_bytes(table[part.selector : part.selector + 8], "little")
        behind = descriptor(raw | 1 << 40, part.selector)  # loading one sets its accessed bit
        if part != behind:
            found.append(f"{name}: {part} is not what the GDT says ({behind})")
        if (part.attributes, part.base, part.limit) != (wanted, 0, 0xFFFFFFFF):
            found.append(f"{name}: {part} is not flat with attributes {wanted:#x}")
        if name in ("ds", "es", "ss") and part.selector != 0x18:
            found.append(f"{name}: selector {part.selector:#x}, Linux asks for 0x18")
    if parts["tr"].attributes != 0x8B or parts["ldtr"].attributes != 0x82:
        found.append("tr, ldtr: not of the types that VMRUN wants")


# Linux

_HEADER_AT = 0x1F1
#: Fields of the setup header that the boot protocol has a loader write.
_WRITTEN = (range(0x210, 0x212), range(0x218, 0x220), range(0x228, 0x22C), range(0x250, 0x258))
_RAM, _RESERVED, _ACPI, _NVS = 1, 2, 3, 4


@dataclass(frozen=True)
class Given:
    """What the image was made from."""

    kernel: bytes
    initramfs: bytes
    cmdline: str
    memory_bytes: int
    vcpus: int
    policy: int
    tpm: bool = False

    def field(self, at: int, size: int) -> int:
        """A field of the kernel's setup header, by its offset in the file."""
        return int.from_bytes(self.kernel[at : at + size], "little")

    @property
    def protected(self) -> bytes:
        """What follows the real-mode sectors."""
        return self.kernel[((self.kernel[0x1F1] or 4) + 1) * 512 :]

    @property
    def load_address(self) -> int:
        return self.field(0x258, 8)

    @property
    def init_bytes(self) -> int:
        return self.field(0x260, 4)

    @property
    def machine(self) -> list[tuple[int, int]]:
        """Where q35 has memory, and may be given some: one row for each of its memory regions."""
        low = self.memory_bytes if self.memory_bytes < LOW_LIMIT else LOW_SPLIT
        rows = [(0, 0xA0000), (_ROMS, _BIOS), (_BIOS, _MIB), (_MIB, low)]
        if low < self.memory_bytes:
            rows.append((FOUR_GIB, FOUR_GIB + self.memory_bytes - low))
        return rows


@dataclass
class Claims:
    """Who lies where; ``rows``: start, end, name."""

    rows: list[tuple[int, int, str]] = field(default_factory=list)

    def add(self, name: str, start: int, size: int) -> None:
        self.rows.append((start, start + size, name))

    def overlaps(self) -> list[str]:
        rows = sorted(self.rows)
        return [
            f"{first[2]} and {second[2]} overlap at {second[0]:#x}"
            for first, second in itertools.pairwise(rows)
            if second[0] < first[1]
        ]


def problems(image: Image, given: Given) -> list[str]:
    """Every reason why Linux would not start, or not see what was given; none for a good image."""
    found = list(image.complaints)
    _check_file(image, given, found)
    if len(image.vmsas) != 1:
        return found
    _check_processor(image, found)
    try:
        entry = execute(image)
    except Fault as fault:
        return [*found, f"entry: {fault}"]
    if entry.rip != given.load_address + 0x200:
        found.append(f"entry: arrives at {entry.rip:#x}, not at startup_64")
    try:
        _check_linux(image, given, entry, found)
    except Fault as fault:
        found.append(f"memory: {fault}")
    return found


def _check_file(image: Image, given: Given, found: list[str]) -> None:
    if image.policies != [given.policy]:
        found.append(f"policy: {[hex(policy) for policy in image.policies]}")
    if not all(policy & 1 << 17 for policy in image.policies):
        found.append("policy: bit 17 must be one")
    if [(gpa, index) for gpa, index, _ in image.vmsas] != [(VMSA_GPA, 0)]:
        found.append("VMSA: not exactly one, of processor 0, at the address KVM uses")
    if image.order[-1:] != [VMSA_GPA]:
        found.append("VMSA: not the last page")
    if image.order != sorted(image.order):
        found.append("pages: not ascending")
    if len(image.cpuid) != 1 or len(image.secrets) != 1:
        found.append("pages: not exactly one CPUID page and one secrets page")
    gpas = sorted((*image.pages, *image.cpuid, *image.secrets))
    if sum(_between(gpas, start, end) for start, end in given.machine) != len(gpas):
        found.append("pages: where the machine has no memory")
    ends, inside = 0, 0
    for gpa, size in image.required:
        if gpa % PAGE or size % PAGE or gpa < ends or not size:
            found.append(f"required memory {gpa:#x}, {size:#x}: not aligned or not ascending")
        ends, inside = gpa + size, inside + _between(gpas, gpa, gpa + size)
        if not any(start <= gpa and ends <= end for start, end in given.machine):
            found.append(f"required memory {gpa:#x}, {size:#x}: beyond the machine's")
    if inside != len(gpas):
        found.append("required memory: pages are outside")


def _between(gpas: list[int], start: int, end: int) -> int:
    """How many of the sorted ``gpas`` lie from ``start`` to before ``end``."""
    return bisect.bisect_left(gpas, end) - bisect.bisect_left(gpas, start)


def _check_linux(image: Image, given: Given, entry: Entry, found: list[str]) -> None:
    walk = Walk(image, registers(image.vmsa)["cr3"])
    zero_page = entry.rsi
    params = image.read(zero_page, PAGE)
    claims = Claims()
    claims.add("kernel", given.load_address, given.init_bytes)
    claims.add("boot_params", zero_page, PAGE)
    at, parts = registers(image.vmsa), segments(image.vmsa)
    claims.add("GDT", parts["gdtr"].base, parts["gdtr"].limit + 1)
    claims.add("entry code", parts["cs"].base + at["rip"], 16)
    for name, gpas in (("CPUID page", image.cpuid), ("secrets page", image.secrets)):
        for gpa in gpas:
            claims.add(name, gpa, PAGE)

    _check_header(params, given, found)
    if image.read(given.load_address, len(given.protected)) != given.protected:
        found.append("kernel: not the bytes of the file")
    rest = given.init_bytes - len(given.protected)
    if image.read(given.load_address + len(given.protected), rest) != bytes(max(0, rest)):
        found.append("kernel: the memory behind it is not clear")

    line = given.cmdline.encode() + b"\0"
    where = int.from_bytes(params[0x228:0x22C], "little")
    claims.add("command line", where, len(line))
    if image.read(where, len(line)) != line:
        found.append("command line: not the one given")
    if len(line) - 1 > given.field(0x238, 4):
        found.append("command line: longer than the kernel reads")

    disk, size = struct.unpack_from("<II", params, 0x218)
    if size != len(given.initramfs) or image.read(disk, size) != given.initramfs:
        found.append("initramfs: not the one given")
    if disk % PAGE or (size and disk + size - 1 > given.field(0x22C, 4)):
        found.append(f"initramfs: at {disk:#x}, not aligned or above initrd_addr_max")
    if size:
        claims.add("initramfs", disk, size)

    table = _e820(params, found)
    _check_memory(image, given, table, found)
    _check_setup_data(image, params, table, claims, found)
    _check_acpi(image, params, given, table, claims, found)
    # What Linux reads before it has tables of its own, all of it identity-mapped. Page 0 holds
    # the BIOS data area, which it reads in order to find a place for its trampoline.
    claims.add("page 0", 0, PAGE)
    for number, gpa in enumerate(tables(image)):
        claims.add(f"page table {number}", gpa, PAGE)
    for start, end, name in list(claims.rows):
        linear = start
        while linear < end:
            try:
                physical, mapped = walk.translate(linear)
            except Fault as fault:
                found.append(f"{name}: {fault}")
                break
            if physical != linear:
                found.append(f"{name}: {linear:#x} is mapped to {physical:#x}")
                break
            linear += mapped
    found += claims.overlaps()
    for start, end, name in claims.rows:
        if name in ("kernel", "initramfs") and _kind(table, start, end) != {_RAM}:
            found.append(f"{name}: not in RAM of the memory map")
    if image.number(0x40E, 2) or image.number(0x413, 2):
        found.append("page 0: a BIOS data area that is not empty")


def _check_header(params: bytes, given: Given, found: list[str]) -> None:
    end = 0x202 + given.kernel[0x201]
    for at in range(_HEADER_AT, end):
        if params[at] != given.kernel[at] and not any(at in part for part in _WRITTEN):
            found.append(f"setup header: byte {at:#x} differs from the kernel's")
            break
    if not params[0x210]:
        found.append("setup header: no type_of_loader, which Linux takes for a broken loader")
    if params[0x211] & ~0x80 != given.kernel[0x211] & ~0x80:
        found.append("setup header: loadflags changed")
    # Outside the header a loader sets only what is named here.
    rest = bytearray(params)
    entries = params[0x1E8]
    for start, stop in (
        (0x70, 0x78), (0x1E8, 0x1E9), (_HEADER_AT, end), (0x2D0, 0x2D0 + 20 * entries),
    ):  # fmt: skip
        rest[start:stop] = bytes(stop - start)
    if any(rest):
        at = next(index for index, byte in enumerate(rest) if byte)
        found.append(f"boot_params: byte {at:#x} is set")


def _e820(params: bytes, found: list[str]) -> list[tuple[int, int, int]]:
    table = [struct.unpack_from("<QQI", params, 0x2D0 + 20 * row) for row in range(params[0x1E8])]
    ends = 0
    if not 0 < len(table) <= 128:
        found.append(f"memory map: {len(table)} entries")
    for start, size, kind in table:
        if start < ends or not size:
            found.append(f"memory map: entry at {start:#x} overlaps, is empty or out of order")
        if kind not in (_RAM, _RESERVED, _ACPI, _NVS):
            found.append(f"memory map: type {kind} at {start:#x}")
        ends = start + size
    return [(start, start + size, kind) for start, size, kind in table]


def _kind(table: list[tuple[int, int, int]], start: int, end: int) -> set[int]:
    """Types of the entries that cover all of a range; 0 for what no entry covers."""
    kinds, at = set(), start
    for first, last, kind in table:
        if first <= at < last and at < end:
            kinds.add(kind)
            at = last
    return kinds if at >= end else kinds | {0}


def _check_memory(
    image: Image, given: Given, table: list[tuple[int, int, int]], found: list[str]
) -> None:
    gpas = sorted((*image.pages, *image.cpuid, *image.secrets))
    if sum(_between(gpas, start, end) for start, end, _ in table) != len(gpas):
        found.append("memory map: it does not tell of all pages in the file")
    offered = 0
    for start, end, kind in table:
        if kind != _RAM:
            continue
        offered += end - start
        if start < _MIB and end > 0xA0000:
            found.append("memory map: RAM between 640 KiB and 1 MiB")
        if start % PAGE or end % PAGE:
            found.append(f"memory map: RAM {start:#x}-{end:#x} is not whole pages")
        elif not any(first <= start and end <= last for first, last in given.machine):
            found.append(f"memory map: RAM {start:#x}-{end:#x} beyond the machine's")
        elif _between(gpas, start, end) != (end - start) // PAGE:
            absent = next(gpa for gpa in range(start, end, PAGE) if gpa not in image.pages)
            found.append(f"memory map: RAM page {absent:#x} is not in the file")
    # All that the machine has but what is kept from the kernel: a few pages.
    kept = sum(end - start for start, end in given.machine) - offered
    if kept > 1 << 20:
        found.append(f"memory map: {kept:#x} bytes of memory are not offered")
    for start, end, kind in table:
        if kind != _RAM and end - start > 1 << 20:
            found.append(f"memory map: {end - start:#x} bytes are kept back")
    if not any(
        kind == _RAM and start < 0x90000 and min(end, 0xA0000) - start >= 0x10000
        for start, end, kind in table
    ):
        found.append("memory map: no RAM below 640 KiB for the trampolines of the processors")
    # drivers/firmware/iscsi_ibft_find.c reads all of the ROM area where EFI has not started Linux.
    roms = {image.pages.get(gpa) for gpa in range(_ROMS, _MIB, PAGE)}
    if roms != {ZERO} or _kind(table, _ROMS, _MIB) != {_RESERVED}:
        found.append("memory map: the ROM area is not empty memory, or not reserved")
    if 1 in {kind for gpa in (*image.cpuid, *image.secrets) for kind in
             _kind(table, gpa, gpa + PAGE)}:  # fmt: skip
        found.append("memory map: the CPUID or the secrets page is called RAM")


def _check_setup_data(
    image: Image, params: bytes, table: list[tuple[int, int, int]], claims: Claims,
    found: list[str],
) -> None:  # fmt: skip
    entries = setup_data(image, params)
    blobs = [entry for entry in entries if entry[1] == 7]
    for at, _, data in entries:
        claims.add(f"setup_data at {at:#x}", at, 16 + len(data))
        # Linux reserves the entries itself, and reads them late (arch/x86/kernel/ksysfs.c) with
        # memremap, which until 6.15 takes all that is no RAM for shared memory in an SEV guest.
        if _kind(table, at, at + 16 + len(data)) != {_RAM}:
            found.append(f"setup_data at {at:#x}: not in RAM, so Linux would map it shared")
    if len(blobs) != 1 or len(blobs[0][2]) != 4:
        found.append("setup_data: not exactly one SETUP_CC_BLOB with an address")
        return
    where = int.from_bytes(blobs[0][2], "little")
    claims.add("CC blob", where, 40)
    magic, _, _, secrets, secrets_bytes, first, cpuid, cpuid_bytes, second = struct.unpack(
        "<IHHQIIQII", image.read(where, 40)
    )
    if magic != 0x45444D41 or first or second:
        found.append(f"CC blob: magic {magic:#x}, reserved {first:#x}, {second:#x}")
    if image.secrets != [secrets] or secrets_bytes != PAGE:
        found.append(f"CC blob: secrets {secrets:#x}, {secrets_bytes:#x} bytes")
    if image.cpuid != [cpuid] or cpuid_bytes != PAGE:
        found.append(f"CC blob: CPUID table {cpuid:#x}, {cpuid_bytes:#x} bytes")
    # Linux reads it more than once, and keeps nobody away from it but where it keeps everybody
    # away (arch/x86/kernel/setup.c: the first 64 KiB).
    if where + 40 > 1 << 16 and not _kind(table, where, where + 40) <= {_RESERVED, _ACPI, _NVS}:
        found.append("CC blob: in memory that Linux would use for something else")


def setup_data(image: Image, params: bytes) -> list[tuple[int, int, bytes]]:
    """The chain: address, type and data of each entry."""
    entries = []
    at = int.from_bytes(params[0x250:0x258], "little")
    while at and len(entries) < 16:
        following, kind, length = struct.unpack("<QII", image.read(at, 16))
        entries.append((at, kind, image.read(at + 16, length)))
        at = following
    if at:
        raise Fault("setup_data does not end")
    return entries


# ACPI


def _check_acpi(
    image: Image, params: bytes, given: Given, table: list[tuple[int, int, int]], claims: Claims,
    found: list[str],
) -> None:  # fmt: skip
    where = int.from_bytes(params[0x70:0x78], "little")
    root = image.read(where, 36)
    claims.add("RSDP", where, 36)
    if root[:8] != b"RSD PTR " or sum(root[:20]) % 256 or sum(root) % 256:
        found.append("RSDP: signature or checksum")
    if root[15] < 2 or root[20:24] != struct.pack("<I", 36):
        found.append("RSDP: revision or length")
    if any(root[16:20]):
        found.append("RSDP: an RSDT beside the XSDT")

    def read(name: str, at: int) -> bytes:
        data = image.read(at, max(36, image.number(at + 4, 4)))
        claims.add(name, at, len(data))
        if data[:4] != name.encode() or len(data) != int.from_bytes(data[4:8], "little"):
            found.append(f"{name}: signature {data[:4]!r} or length")
        if sum(data) % 256:
            found.append(f"{name}: checksum")
        if not _kind(table, at, at + len(data)) <= {_ACPI, _NVS}:
            found.append(f"{name}: in memory that Linux uses for something else or maps shared")
        return data

    # ioremap, which maps them, takes what is merely reserved for shared memory in an SEV guest
    # (arch/x86/mm/ioremap.c, __ioremap_check_encrypted).
    if not _kind(table, where, where + 36) <= {_ACPI, _NVS}:
        found.append("RSDP: in memory that Linux uses for something else or maps shared")
    xsdt = read("XSDT", int.from_bytes(root[24:32], "little"))
    tables = {}
    for (at,) in struct.iter_unpack("<Q", xsdt[36 : 36 + (len(xsdt) - 36) // 8 * 8]):
        name = image.read(at, 4).decode("latin-1")
        if name in tables:
            found.append(f"{name}: twice")
        tables[name] = read(name, at)
    wanted = {"FACP", "APIC", *(["TPM2"] if given.tpm else [])}
    if set(tables) != wanted:
        found.append(f"XSDT: {sorted(tables)} instead of {sorted(wanted)}")
    if not {"FACP", "APIC"} <= set(tables):
        return
    # TCG ACPI specification, "TPM2": the control area of QEMU's tpm-crb, started by a register.
    if "TPM2" in tables and tables["TPM2"][36:52] != struct.pack("<HHQI", 0, 0, 0xFED40040, 7):
        found.append("TPM2: not the device that QEMU has")
    fadt = tables["FACP"].ljust(276, b"\0")
    narrow, wide = struct.unpack_from("<I", fadt, 40)[0], struct.unpack_from("<Q", fadt, 140)[0]
    if (narrow and wide and narrow != wide) or not (narrow or wide):
        found.append("FACP: which DSDT?")
    else:
        read("DSDT", wide or narrow)
    narrow, wide = struct.unpack_from("<I", fadt, 36)[0], struct.unpack_from("<Q", fadt, 132)[0]
    if narrow and wide:
        found.append("FACP: which FACS?")
    elif facs := narrow or wide:
        claims.add("FACS", facs, 64)
        if image.read(facs, 8) != b"FACS" + struct.pack("<I", 64) or facs % 64:
            found.append("FACS: signature, length or alignment")
        if not _kind(table, facs, facs + 64) <= {_NVS}:
            found.append("FACS: in memory that Linux uses for something else or maps shared")
    if len(tables["FACP"]) < 244 or tables["FACP"][8] < 5:
        found.append("FACP: shorter or older than ACPI 5")
    _check_madt(tables["APIC"], given, found)


def _check_madt(madt: bytes, given: Given, found: list[str]) -> None:
    if madt[36:40] != struct.pack("<I", 0xFEE00000):
        found.append("APIC: address of the local APIC")
    at, processors, controllers = 44, [], []
    while at < len(madt):
        kind, length = madt[at], madt[at + 1] if at + 1 < len(madt) else 0
        body = madt[at : at + length]
        if length < 2 or len(body) != length:
            found.append(f"APIC: entry at {at} has {length} bytes")
            return
        if kind == 0 and length == 8:
            processors.append((body[3], struct.unpack_from("<I", body, 4)[0]))
        elif kind == 9 and length == 16:
            processors.append(struct.unpack_from("<II", body, 4))
        elif kind == 1 and length == 12:
            controllers.append(struct.unpack_from("<II", body, 4))
        elif kind not in (2, 4, 10):
            found.append(f"APIC: entry of type {kind}, {length} bytes")
        at += length
    if processors != [(number, 1) for number in range(given.vcpus)]:
        found.append(f"APIC: processors {processors}, not {given.vcpus} with ids from 0 on")
    if controllers != [(0xFEC00000, 0)]:
        found.append(f"APIC: I/O APICs {controllers}")
