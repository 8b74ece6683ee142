# SPDX-License-Identifier: Apache-2.0
"""The ACPI tables of an IGVM image as Linux finds them, from the RSDP on.

Shares nothing with ``troth.abi``: written from ACPI 6.5 and, for TPM2, the TCG ACPI specification.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from igvm_memory_map import ACPI, NVS, Claims, Table, kinds

if TYPE_CHECKING:
    from igvm_given import Given
    from igvm_image import Image


def check(
    image: Image, params: bytes, given: Given, table: Table, claims: Claims,
    found: list[str],
) -> None:  # fmt: skip
    """Add to ``found`` what Linux would not take of the tables, to ``claims`` where they lie."""
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
        if not kinds(table, at, at + len(data)) <= {ACPI, NVS}:
            found.append(f"{name}: in memory that Linux uses for something else or maps shared")
        return data

    # ioremap, which maps them, takes what is merely reserved for shared memory in an SEV guest
    # (arch/x86/mm/ioremap.c, __ioremap_check_encrypted).
    if not kinds(table, where, where + 36) <= {ACPI, NVS}:
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
        if not kinds(table, facs, facs + 64) <= {NVS}:
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
