# SPDX-License-Identifier: Apache-2.0
"""An IGVM image as the first processor sees it: registers, page tables, the entry code.

Shares nothing with ``troth.abi``: written from the AMD64 manual (volume 2: 4.8 segment
descriptors, 5.3 page translation, 15.34 the VMSA) and the state at which KVM starts a processor.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from igvm_image import C_BIT, PAGE, Fault

if TYPE_CHECKING:
    from igvm_image import Image

SEGMENTS = {
    "es": 0x00, "cs": 0x10, "ss": 0x20, "ds": 0x30, "fs": 0x40, "gs": 0x50,
    "gdtr": 0x60, "ldtr": 0x70, "idtr": 0x80, "tr": 0x90,
}  # fmt: skip
WORDS = {
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
        name: int.from_bytes(vmsa[at : at + size], "little") for name, (at, size) in WORDS.items()
    }


def segments(vmsa: bytes) -> dict[str, Segment]:
    return {name: Segment(*struct.unpack_from("<HHIQ", vmsa, at)) for name, at in SEGMENTS.items()}


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


def check(image: Image, found: list[str]) -> None:
    """Add to ``found`` what KVM or Linux would not take of the state and the GDT."""
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
    for offset, size in [*((at, 16) for at in SEGMENTS.values()), *WORDS.values()]:
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
