# SPDX-License-Identifier: Apache-2.0
"""The DSDT: what a q35 machine without firmware must tell Linux.

Serves ``acpi``. The launch digest covers it, so this is the only ACPI machine
language that such a guest ever runs (SECURITY S11). It holds the PCI host
bridge with its windows and interrupt lines, power-off, and one method: no
firmware has told the chip set where its power-management registers are, so
``_INI`` does. A TPM is described where the image uses one. Must never touch
memory.

Sources: ACPI specification 6.5, 6.1.5 (_HID), 6.2.2 (_CRS), 6.2.13 (_PRT),
6.5.1 (_INI), 7.4.2 (_Sx); PCI Firmware Specification 3.3, 4.1; Intel ICH9 data
sheet (316972), 13.1.13 (PMBASE), 13.1.14 (ACPI_CNTL); QEMU
``hw/isa/lpc_ich9.c`` (interrupt lines), ``hw/acpi/core.c`` (sleep types) and
``include/hw/acpi/tpm.h`` (where tpm-crb is).
"""

from __future__ import annotations

from troth.image.igvm import aml

PM_BASE = 0x600
"""The I/O port where ``_INI`` puts the power-management registers: where firmware puts them."""

TPM_BASE = 0xFED4_0000
"""Where the registers of a TPM with a command response buffer (CRB) are."""
_TPM_BYTES = 0x1000

_PMBASE_REGISTER = 0x40
_PMBASE_VALUE = PM_BASE | 1  # bit 0: an I/O address, hardwired
_ACPI_ENABLE = 0x80  # and interrupt 9 for SCI: bits 2 to 0 are zero

# From above any memory of such a machine (2.75 GiB) to below the IOAPIC.
_MEMORY_WINDOW = (0xC000_0000, 0xFEBF_FFFF)
_LAST_BUS = 0xFF


def body(*, tpm: bool) -> bytes:
    """The definition block: everything after the table's header. ``tpm``: there may be one."""
    chipset = aml.device(
        "ISA_",
        aml.name("_ADR", aml.integer(0x001F_0000)),
        aml.operation_region("PCFG", aml.PCI_CONFIG, offset=_PMBASE_REGISTER, size_bytes=8),
        aml.field("PCFG", aml.DWORD_ACCESS, path="PMBS", bits=32),
        aml.field("PCFG", aml.BYTE_ACCESS, skip_bits=32, path="ACTL", bits=8),
        aml.method(
            "_INI",
            aml.store(aml.integer(_PMBASE_VALUE), "PMBS"),
            aml.store(aml.integer(_ACPI_ENABLE), "ACTL"),
        ),
    )
    bridge = aml.device(
        "PCI0",
        aml.name("_HID", aml.eisa_id("PNP0A08")),
        aml.name("_CID", aml.eisa_id("PNP0A03")),
        aml.name("_BBN", aml.integer(0)),
        aml.name("_UID", aml.integer(0)),
        aml.name(
            "_CRS",
            aml.resources(
                aml.bus_numbers(0, _LAST_BUS),
                aml.io(0xCF8, 8),
                aml.io_window(0, 0xCF7),
                aml.io_window(0xD00, 0xFFFF),
                aml.memory_window(*_MEMORY_WINDOW),
            ),
        ),
        aml.name("_PRT", _interrupt_lines()),
        chipset,
    )
    # Sleep type 0 is "soft off" to QEMU's ICH9.
    off = aml.name("_S5_", aml.package(*[aml.integer(0)] * 4))
    return aml.scope("\\_SB_", bridge, *([_tpm()] if tpm else [])) + off


def _tpm() -> bytes:
    """A TPM 2.0 for the driver to find; a machine without one answers nothing there."""
    return aml.device(
        "TPM_",
        aml.name("_HID", aml.string("MSFT0101")),
        aml.name("_CRS", aml.resources(aml.fixed_memory(TPM_BASE, _TPM_BYTES))),
    )


def _interrupt_lines() -> bytes:
    return aml.package(
        *(
            aml.package(
                aml.integer(slot << 16 | 0xFFFF),
                aml.integer(pin),
                aml.integer(0),
                aml.integer(_gsi(slot, pin)),
            )
            for slot in range(32)
            for pin in range(4)
        )
    )


def _gsi(slot: int, pin: int) -> int:
    """The interrupt of INTA + ``pin`` of a device: lines A to H are 16 to 23.

    At reset the chip set gives lines A to D to its own slots, and spreads the
    others over E to H.
    """
    if slot == 30:
        return 20 + pin
    return 16 + pin if slot >= 25 else 20 + (slot + pin) % 4
