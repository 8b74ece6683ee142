# SPDX-License-Identifier: Apache-2.0
"""The ACPI tables of the guest: RSDP, XSDT, FADT, FACS, MADT, DSDT and TPM2.

Serves ``build``. They are pages of the file like any other, so the launch
digest covers them and the host's own tables are never read. Must describe
nothing that a plain q35 machine does not have.

Source: ACPI specification 6.5, sections 5.2.5 (RSDP), 5.2.6 (header), 5.2.8
(XSDT), 5.2.9 (FADT), 5.2.10 (FACS), 5.2.12 (MADT); TCG ACPI Specification 1.2,
8 (TPM2); the interrupts of a q35 from QEMU ``hw/i386/acpi-common.c``.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from troth.errors import UsageError
from troth.image.igvm import dsdt, layout
from troth.record import record

if TYPE_CHECKING:
    from collections.abc import Iterator

_OEM_ID = b"TROTH "
_OEM_TABLE_ID = b"TROTHVM "
_CREATOR_ID = b"TRTH"
_HEADER = struct.Struct("<4sIBB6s8sI4sI")
_RSDP = struct.Struct("<8sB6sBIIQB3x")
_ALIGN_BYTES = 16

_LAPIC_ADDRESS = 0xFEE0_0000
_IOAPIC_ADDRESS = 0xFEC0_0000
_LAST_LAPIC_ID = 254  # 255 means all
_SCI = 9

# 5.2.9.3: WBINVD works, C1 works, no sleep button and no RTC among the fixed
# events, RESET_REG is there. The power button is a fixed event: bit 4 is clear.
_FADT_FLAGS = 1 << 0 | 1 << 2 | 1 << 5 | 1 << 6 | 1 << 10
# 5.2.9.3, IA-PC boot architecture: a serial port on the ISA bus, no keyboard
# controller worth a probe (bit 1), no VGA (bit 2).
_BOOT_ARCHITECTURE = 1 << 0 | 1 << 2
_NO_C2, _NO_C3 = 101, 1001
_RESET_PORT, _RESET_VALUE = 0xCF9, 0x06  # ICH9 reset control: system reset, hard

_TPM_CONTROL_AREA = dsdt.TPM_BASE + 0x40
_TPM_START_CRB = 7


@record
class Tables:
    """The tables' bytes: ``main`` from ``layout.ACPI`` on, RSDP first; ``facs``: its page's."""

    main: bytes
    facs: bytes


def tables(vcpus: int, *, tpm: bool = False) -> Tables:
    """The tables of a machine with ``vcpus`` processors, APIC IDs 0 to vcpus - 1.

    ``tpm``: describe a TPM, which the host may give or not. Raises ``UsageError``
    ``igvm-vcpus`` for no processor or more than 512.
    """
    if not 1 <= vcpus <= layout.MAX_VCPUS:
        raise UsageError(
            "igvm-vcpus", f"a machine has 1 to {layout.MAX_VCPUS} processors, not {vcpus}"
        )
    # Pointers go one way, so the tables are laid out from the last to the first.
    places: dict[str, int] = {}
    parts: list[bytes] = [bytes(_aligned(_RSDP.size))]

    def put(label: str, data: bytes) -> None:
        places[label] = layout.ACPI + sum(map(len, parts))
        parts.append(data.ljust(_aligned(len(data)), b"\0"))

    put("DSDT", _table(b"DSDT", 2, dsdt.body(tpm=tpm)))
    put("APIC", _table(b"APIC", 5, _madt_body(vcpus)))
    put("FACP", _table(b"FACP", 6, _fadt_body(places["DSDT"])))
    listed = ["FACP", "APIC"]
    if tpm:
        # No platform class, no parameters of the start method, no log: nothing has written one.
        tpm2 = struct.pack("<HHQI12xIQ", 0, 0, _TPM_CONTROL_AREA, _TPM_START_CRB, 0, 0)
        put("TPM2", _table(b"TPM2", 4, tpm2))
        listed.append("TPM2")
    put("XSDT", _table(b"XSDT", 1, b"".join(struct.pack("<Q", places[name]) for name in listed)))
    parts[0] = _rsdp(places["XSDT"]).ljust(len(parts[0]), b"\0")
    main = b"".join(parts)
    if len(main) > layout.ACPI_END - layout.ACPI:
        raise UsageError("igvm-vcpus", f"the tables of {vcpus} processors do not fit their place")
    return Tables(main=main, facs=struct.pack("<4sI24xB31x", b"FACS", 64, 2))


def _aligned(size_bytes: int) -> int:
    return -(-size_bytes // _ALIGN_BYTES) * _ALIGN_BYTES


def _checksum(data: bytes) -> int:
    """The byte that makes the sum of all bytes a multiple of 256."""
    return -sum(data) & 0xFF


def _table(signature: bytes, revision: int, body: bytes) -> bytes:
    length = _HEADER.size + len(body)

    def header(checksum: int) -> bytes:
        return _HEADER.pack(
            signature, length, revision, checksum, _OEM_ID, _OEM_TABLE_ID, 1, _CREATOR_ID, 1
        )

    return header(_checksum(header(0) + body)) + body


def _rsdp(xsdt: int) -> bytes:
    def packed(first: int, all_: int) -> bytes:
        return _RSDP.pack(b"RSD PTR ", first, _OEM_ID, 2, 0, _RSDP.size, xsdt, all_)

    first = _checksum(packed(0, 0)[:20])
    return packed(first, _checksum(packed(first, 0)))


def _io_register(port: int, bits: int, *, access: int = 0) -> bytes:
    """A generic address of the I/O space; ``access`` 0: by the register's width."""
    return struct.pack("<BBBBQ", 1, bits, 0, access, port)


def _fadt_body(dsdt_gpa: int) -> bytes:
    none = bytes(12)
    event, control = dsdt.PM_BASE, dsdt.PM_BASE + 4
    fields = (
        # FACS, DSDT, a reserved byte, profile "enterprise server", SCI
        struct.pack("<IIBBH", layout.FACS, dsdt_gpa, 0, 4, _SCI),
        # no SMI command port: the machine is in ACPI mode from the start
        struct.pack("<I4B", 0, 0, 0, 0, 0),
        # PM1a/b event, PM1a/b control, PM2, PM timer, GPE0, GPE1: two of them exist
        struct.pack("<8I", event, 0, control, 0, 0, 0, 0, 0),
        # their lengths, GPE1's base, _CST
        struct.pack("<8B", 4, 2, 0, 0, 0, 0, 0, 0),
        # latencies that say "no C2, no C3"; flush, duty cycle, alarm, century: none
        struct.pack("<HHHH5B", _NO_C2, _NO_C3, 0, 0, 0, 0, 0, 0, 0),
        struct.pack("<HBI", _BOOT_ARCHITECTURE, 0, _FADT_FLAGS),
        _io_register(_RESET_PORT, 8, access=1),
        # reset value, Arm boot architecture, minor version of the table
        struct.pack("<BHB", _RESET_VALUE, 0, 5),
        # the FACS is named by its 32-bit field alone (5.2.9), the DSDT by both
        struct.pack("<QQ", 0, dsdt_gpa),
        _io_register(event, 32),
        none,
        _io_register(control, 16),
        # PM1b control, PM2, timer, GPE0, GPE1, sleep control and sleep status
        none * 7,
        bytes(8),
    )
    return b"".join(fields)


def _madt_body(vcpus: int) -> bytes:
    # Flag 1: there are two 8259s beside the APICs, as on any PC.
    return struct.pack("<II", _LAPIC_ADDRESS, 1) + b"".join(_interrupt_controllers(vcpus))


def _interrupt_controllers(vcpus: int) -> Iterator[bytes]:
    for apic_id in range(vcpus):
        if apic_id <= _LAST_LAPIC_ID:
            yield struct.pack("<BBBBI", 0, 8, apic_id, apic_id, 1)
        else:
            yield struct.pack("<BBHIII", 9, 16, 0, apic_id, 1, apic_id)
    yield struct.pack("<BBBBII", 1, 12, 0, 0, _IOAPIC_ADDRESS, 0)
    # The timer's IRQ 0 comes in at pin 2; SCI is level triggered, active high.
    yield struct.pack("<BBBBIH", 2, 10, 0, 0, 2, 0)
    yield struct.pack("<BBBBIH", 2, 10, 0, _SCI, _SCI, 0x000D)
    # NMI is at LINT1 of every processor.
    yield struct.pack("<BBBHB", 4, 6, 0xFF, 0, 1)
    if vcpus > _LAST_LAPIC_ID + 1:
        yield struct.pack("<BBHIB3x", 10, 12, 0, 0xFFFF_FFFF, 1)
