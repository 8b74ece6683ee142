# SPDX-License-Identifier: Apache-2.0
"""An IGVM image as Linux finds it once the entry code has run: would it start, with what was given?

Shares nothing with ``troth.abi``: written from the x86 boot protocol
(Documentation/arch/x86/boot.rst, "64-bit Boot Protocol"), ``struct boot_params``
(arch/x86/include/uapi/asm/bootparam.h) and what Linux does with a CC blob (arch/x86/coco/sev).
``problems`` knows only images made for Linux by a builder that leaves the host nothing to decide.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import igvm_acpi
import igvm_memory_map
import igvm_processor
from igvm_image import PAGE, VMSA_GPA, Fault
from igvm_memory_map import ACPI, NVS, RAM, RESERVED, Claims, Table, between, kinds, read_table
from igvm_processor import Walk, execute, registers, segments, tables

if TYPE_CHECKING:
    from igvm_given import Given
    from igvm_image import Image
    from igvm_processor import Entry

_HEADER_AT = 0x1F1
#: Fields of the setup header that the boot protocol has a loader write.
_WRITTEN = (range(0x210, 0x212), range(0x218, 0x220), range(0x228, 0x22C), range(0x250, 0x258))


def problems(image: Image, given: Given) -> list[str]:
    """Every reason why Linux would not start, or not see what was given; none for a good image."""
    found = list(image.complaints)
    _check_file(image, given, found)
    if len(image.vmsas) != 1:
        return found
    igvm_processor.check(image, found)
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
    if sum(between(gpas, start, end) for start, end in given.machine) != len(gpas):
        found.append("pages: where the machine has no memory")
    ends, inside = 0, 0
    for gpa, size in image.required:
        if gpa % PAGE or size % PAGE or gpa < ends or not size:
            found.append(f"required memory {gpa:#x}, {size:#x}: not aligned or not ascending")
        ends, inside = gpa + size, inside + between(gpas, gpa, gpa + size)
        if not any(start <= gpa and ends <= end for start, end in given.machine):
            found.append(f"required memory {gpa:#x}, {size:#x}: beyond the machine's")
    if inside != len(gpas):
        found.append("required memory: pages are outside")


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

    table = read_table(params, found)
    igvm_memory_map.check(image, given, table, found)
    _check_setup_data(image, params, table, claims, found)
    igvm_acpi.check(image, params, given, table, claims, found)
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
        if name in ("kernel", "initramfs") and kinds(table, start, end) != {RAM}:
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


def _check_setup_data(
    image: Image, params: bytes, table: Table, claims: Claims,
    found: list[str],
) -> None:  # fmt: skip
    entries = setup_data(image, params)
    blobs = [entry for entry in entries if entry[1] == 7]
    for at, _, data in entries:
        claims.add(f"setup_data at {at:#x}", at, 16 + len(data))
        # Linux reserves the entries itself, and reads them late (arch/x86/kernel/ksysfs.c) with
        # memremap, which until 6.15 takes all that is no RAM for shared memory in an SEV guest.
        if kinds(table, at, at + 16 + len(data)) != {RAM}:
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
    if where + 40 > 1 << 16 and not kinds(table, where, where + 40) <= {RESERVED, ACPI, NVS}:
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
