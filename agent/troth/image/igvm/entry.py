# SPDX-License-Identifier: Apache-2.0
"""How the first processor gets into Linux: GDT, page tables, two instructions, VMSA.

Serves ``build``. The processor starts in 32-bit protected mode with paging
off, because KVM checks and rewrites less of that state than of long mode, and
because igvmmeasure ``--check-kvm`` demands it. The entry page turns paging on
and jumps to the kernel's 64-bit entry. Must hold no other code: there is no
stack, no interrupt table and no #VC handler yet, so nothing here may touch
memory that is not mapped, an I/O port or CPUID.

Sources: AMD64 Architecture Programmer's Manual volume 2, 4.7 and 4.8 (segment
descriptors), 5.3 (long-mode paging), 14.6 (activating long mode), 15.34.5 (the
C-bit), 15.36 (SNP); Linux Documentation/arch/x86/boot.rst, "64-bit Boot
Protocol"; QEMU ``target/i386/sev.c`` (which VMSA fields it takes); KVM
``arch/x86/kvm/svm`` (what it sets itself).
"""

from __future__ import annotations

import struct

from troth.abi import vmsa
from troth.abi.vmsa import Segment
from troth.image.igvm import layout

C_BIT = 1 << 51
"""The address bit that makes a page private: bit 51 on every processor with SNP so far."""

KERNEL_ENTRY_OFFSET = 0x200
"""The 64-bit entry point, from the start of the protected-mode kernel (boot.rst)."""

_CODE32, _BOOT_CS, _BOOT_DS = 0x08, 0x10, 0x18
# Flat 4 GiB segments, already marked as accessed, so that no load writes the table.
_DESCRIPTORS = (0, 0x00CF_9B00_0000_FFFF, 0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF)
_GDT_AT = 0x800

_CR0_PE, _CR0_ET, _CR0_NE, _CR0_PG = 1 << 0, 1 << 4, 1 << 5, 1 << 31
_CR0 = _CR0_PE | _CR0_ET | _CR0_NE
_CR4_PAE, _CR4_MCE = 1 << 5, 1 << 6
_EFER_LME, _EFER_SVME = 1 << 8, 1 << 12

_PRESENT, _WRITABLE, _ACCESSED, _DIRTY, _LARGE = 1 << 0, 1 << 1, 1 << 5, 1 << 6, 1 << 7
# Accessed and dirty are set from the start, so that the tables stay as measured.
_TABLE_ENTRY = C_BIT | _PRESENT | _WRITABLE | _ACCESSED
_LARGE_ENTRY = _TABLE_ENTRY | _DIRTY | _LARGE
_ENTRIES = 512
_DIRECTORIES = 4
_LARGE_BYTES = 2 << 20

_SNP_ACTIVE = 1


def page(kernel: int) -> bytes:
    """The entry page, 4096 bytes: mov cr0, eax; jmp 0x10:kernel + 0x200; and the GDT."""
    code = b"\x0f\x22\xc0" + b"\xea" + struct.pack("<IH", kernel + KERNEL_ENTRY_OFFSET, _BOOT_CS)
    table = struct.pack(f"<{len(_DESCRIPTORS)}Q", *_DESCRIPTORS)
    return (code.ljust(_GDT_AT, b"\0") + table).ljust(layout.PAGE_BYTES, b"\0")


def page_tables() -> bytes:
    """Six pages that map the first 4 GiB onto themselves, private, in 2 MiB pages.

    Linux makes its own tables before it touches anything else; device memory
    is mapped here too, but used by nobody.
    """
    place = layout.PAGE_TABLES
    first = place + 2 * layout.PAGE_BYTES
    top = [place + layout.PAGE_BYTES | _TABLE_ENTRY]
    pointers = [first + index * layout.PAGE_BYTES | _TABLE_ENTRY for index in range(_DIRECTORIES)]
    large = [
        index * _LARGE_BYTES | _LARGE_ENTRY for index in range(_DIRECTORIES * _ENTRIES)
    ]  # fmt: skip
    return b"".join(
        struct.pack(f"<{len(entries)}Q", *entries).ljust(layout.PAGE_BYTES, b"\0")
        for entries in (top, pointers, large)
    )


def first_state() -> bytes:
    """The VMSA of the first processor, 4096 bytes.

    Every field is one that QEMU takes over into KVM's state of the processor,
    and has the value that KVM's own VMSA will have: the secure processor
    measures KVM's page, not this one.
    """
    # 0xC9B: code, readable, accessed, present, 32-bit, limit in pages; 0xC93: data likewise.
    data = Segment(_BOOT_DS, 0xC93, 0xFFFF_FFFF, 0)
    return vmsa.encode(
        {
            "cs": Segment(_CODE32, 0xC9B, 0xFFFF_FFFF, 0),
            "ds": data,
            "es": data,
            "fs": data,
            "gs": data,
            "ss": data,
            "gdtr": Segment(0, 0, len(_DESCRIPTORS) * 8 - 1, layout.ENTRY + _GDT_AT),
            # Base 0, as at reset: page 0 is measured zeros, so any exception ends the guest.
            "idtr": Segment(0, 0, 0xFFFF, 0),
            # As at reset: a present LDT and a busy TSS, both of them empty.
            "ldtr": Segment(0, 0x82, 0xFFFF, 0),
            "tr": Segment(0, 0x8B, 0xFFFF, 0),
            # Long mode is allowed (LME) and becomes active with paging; SVME is KVM's own.
            "efer": _EFER_SVME | _EFER_LME,
            # Long mode needs PAE; MCE is what KVM adds where the host has it on.
            "cr4": _CR4_PAE | _CR4_MCE,
            # The top page table is private too: its address carries the C-bit.
            "cr3": layout.PAGE_TABLES | C_BIT,
            # Paging is off: the entry page turns it on. KVM keeps ET and NE as they are.
            "cr0": _CR0,
            # Debug registers, PAT, x87 and SSE control as at reset.
            "dr7": 0x400,
            "dr6": 0xFFFF_0FF0,
            "g_pat": 0x0007_0406_0007_0406,
            "mxcsr": 0x1F80,
            "x87_fcw": 0x37F,
            # Only x87 state is enabled, which must be.
            "xcr0": 1,
            # Bit 1 is always set; interrupts are off.
            "rflags": 2,
            "rip": layout.ENTRY,
            # What the entry page moves to CR0, so that it needs no stack and no immediate.
            "rax": _CR0 | _CR0_PG,
            # The 64-bit boot protocol: RSI holds the address of boot_params.
            "rsi": layout.BOOT_PARAMS,
            # SNP itself and no other feature: what every host that can start this has.
            "sev_features": _SNP_ACTIVE,
        }
    )
