# SPDX-License-Identifier: Apache-2.0
"""Where everything is in the guest's memory, and how that memory is described to Linux.

Serves the other modules of this room, which never choose an address
themselves. The map is fixed, so that a reader of a digest can compute it; only
the initramfs and the ends of memory move, with sizes. Must never describe
memory that the virtual machine does not have.

Sources: QEMU ``hw/i386/pc_q35.c`` (how memory is split below and above 4 GiB);
Linux Documentation/arch/x86/boot.rst (what must be where), Documentation/arch/
x86/zero-page.rst, ``arch/x86/boot/compressed/pgtable_64.c`` (the trampoline at
the end of the memory below 640 KiB), ``arch/x86/mm/ioremap.c`` (under SEV,
``memremap`` and ``ioremap`` take memory of type "reserved" for the host's, but
not RAM and not ACPI's: what Linux maps late must have one of those types) and
``drivers/firmware/iscsi_ibft_find.c`` (which reads the ROM area).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from troth.errors import BuildError, UsageError
from troth.record import record

if TYPE_CHECKING:
    from troth.abi.bzimage import SetupHeader

PAGE_BYTES = 4096
MIB = 1 << 20
GIB = 1 << 30

# Below 1 MiB. The first 64 KiB are never given out by Linux, so boot_params and
# what it points to live there; the memory above stays free for the trampolines
# that Linux puts below 1 MiB.
BOOT_PARAMS = 0x1000
"""struct boot_params, one page."""
ENTRY = 0x2000
"""The first instructions and the GDT, one page."""
PAGE_TABLES = 0x3000
"""PML4, PDPT and four page directories: six pages."""
CMDLINE = 0x9000
"""The command line with its NUL, one page."""
SETUP_DATA = 0xA000
"""The one entry of the setup_data list, one page."""
CC_BLOB = 0xB000
"""The blob with the places of SNP's two pages, one page."""
CPUID = 0xC000
"""The CPUID page: filled by the host, checked by the secure processor."""
SECRETS = 0xD000
"""The secrets page: filled by the secure processor."""
FACS = 0xE000
"""The table that firmware and system share; Linux may write it. One page."""
ACPI = 0xF000
"""RSDP and the tables it leads to."""
ACPI_END = 0x13000
LOW_END = 0xA0000
"""Above it is the VGA window, which is no memory and which nobody touches."""
ROMS = 0xC0000
"""Where a PC has option ROMs, up to ``BIOS``, and its BIOS, up to ``HIGH_START``: see ``ram``."""
BIOS = 0xE0000
HIGH_START = MIB

MIN_MEMORY_BYTES = 128 * MIB
MAX_MEMORY_BYTES = 31 * GIB
"""A dense file has one header of 32 bytes a page, and readers take 256 MiB of them."""
MEMORY_UNIT_BYTES = 2 * MIB
MAX_VCPUS = 512
_SPLIT_FROM_BYTES = 0xB000_0000
_SPLIT_AT = 0x8000_0000
_FOUR_GIB = 1 << 32

# e820 types (boot_params and Linux arch/x86/include/asm/e820/types.h).
E820_RAM, E820_RESERVED, E820_ACPI, E820_NVS = 1, 2, 3, 4

_SIZE = re.compile(r"([1-9][0-9]{0,8})([MG])")


@record
class Region:
    """Memory from ``gpa`` on, ``size_bytes`` long; ``kind``: an e820 type."""

    gpa: int
    size_bytes: int
    kind: int = E820_RAM

    @property
    def end(self) -> int:
        return self.gpa + self.size_bytes


@record
class Plan:
    """The addresses that depend on sizes.

    ``ram``: all memory, ascending; ``e820``: the same memory as Linux is told
    of it; ``kernel``: where the protected-mode kernel is loaded and starts;
    ``initramfs``: where the initramfs is, whole pages.
    """

    ram: tuple[Region, ...]
    e820: tuple[Region, ...]
    kernel: int
    initramfs: int


def memory_size(text: str) -> int:
    """The bytes of a memory size such as ``512M`` or ``4G``; ``UsageError`` ``igvm-memory``."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise UsageError(
            "igvm-memory", f"{text!r} is no memory size", hint="such as 512M, 1G or 4096M"
        )
    size_bytes = int(match[1]) * (GIB if match[2] == "G" else MIB)
    check_memory(size_bytes)
    return size_bytes


def check_memory(memory_bytes: int) -> None:
    """Nothing, or ``UsageError`` ``igvm-memory`` for a size no file is made for."""
    if memory_bytes % MEMORY_UNIT_BYTES:
        raise UsageError(
            "igvm-memory",
            f"{memory_bytes} bytes of memory are no multiple of 2 MiB",
            hint="name a multiple of 2M",
        )
    if not MIN_MEMORY_BYTES <= memory_bytes <= MAX_MEMORY_BYTES:
        raise UsageError(
            "igvm-memory",
            f"{memory_bytes >> 20} MiB of memory are not within 128 MiB and 31 GiB",
            hint="every page of memory is in the file and is measured",
        )


def ram(memory_bytes: int) -> tuple[Region, ...]:
    """The memory of a q35 machine with ``memory_bytes``, ascending, without the VGA window.

    QEMU puts all of it below 4 GiB where it is less than 2.75 GiB, else 2 GiB
    below and the rest from 4 GiB on. The ROM area is a region of its own for
    the option ROMs, which to QEMU is other memory, and one for the BIOS; both
    are reserved. Nothing is there, but Linux with CONFIG_ISCSI_IBFT_FIND, such
    as Debian's, reads all of it where it was not started by EFI, and dies of
    the first page that was not accepted. Raises ``UsageError`` ``igvm-memory``.
    """
    check_memory(memory_bytes)
    below_end = memory_bytes if memory_bytes < _SPLIT_FROM_BYTES else _SPLIT_AT
    regions = [
        Region(0, LOW_END),
        Region(ROMS, BIOS - ROMS, E820_RESERVED),
        Region(BIOS, HIGH_START - BIOS, E820_RESERVED),
        Region(HIGH_START, below_end - HIGH_START),
    ]
    if memory_bytes > below_end:
        regions.append(Region(_FOUR_GIB, memory_bytes - below_end))
    return tuple(regions)


def plan(
    header: SetupHeader, *, kernel_bytes: int, initramfs_bytes: int, memory_bytes: int
) -> Plan:
    """Where the kernel of ``header`` and an initramfs are in ``memory_bytes`` of memory.

    ``kernel_bytes``: of the protected-mode kernel. The kernel stands where it
    prefers to be, with the room it asks for to unpack itself; the initramfs
    ends at the end of the memory below 4 GiB, or where the kernel says it must.
    Raises ``UsageError`` ``igvm-memory``, ``BuildError`` ``igvm-room``.
    """
    memory = ram(memory_bytes)
    below_end = memory[3].end
    kernel_end = header.pref_address + max(header.init_size_bytes, kernel_bytes)
    end = min(below_end, header.initrd_addr_max + 1)
    initramfs = (end - initramfs_bytes) // PAGE_BYTES * PAGE_BYTES
    if header.pref_address < HIGH_START or kernel_end > below_end or initramfs < kernel_end:
        raise BuildError(
            "igvm-room",
            f"kernel ({header.pref_address:#x} to {kernel_end:#x}) and initramfs "
            f"({initramfs_bytes} bytes) do not fit {memory_bytes >> 20} MiB of memory",
            hint="give the machine more memory, or the bundle a smaller initramfs",
        )
    return Plan(ram=memory, e820=_e820(memory), kernel=header.pref_address, initramfs=initramfs)


def _e820(memory: tuple[Region, ...]) -> tuple[Region, ...]:
    low = (
        # Linux reserves the command line, boot_params and setup_data itself.
        Region(0, CC_BLOB),
        # Read again by every kernel that is started later, so never given out.
        Region(CC_BLOB, FACS - CC_BLOB, E820_RESERVED),
        Region(FACS, ACPI - FACS, E820_NVS),
        Region(ACPI, ACPI_END - ACPI, E820_ACPI),
        Region(ACPI_END, LOW_END - ACPI_END),
    )
    return (*low, *memory[1:])
