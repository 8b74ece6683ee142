# SPDX-License-Identifier: Apache-2.0
"""The guest's ACPI tables, by hand-written bytes and by ACPICA's own compiler."""

import re
import shutil
import struct
import subprocess

import pytest

from troth.errors import UsageError
from troth.image.igvm import acpi, aml, dsdt, layout

_IASL = shutil.which("iasl")
#: A table's checksum, compiler ID and compiler version: iasl writes its own.
_COMPILERS_OWN = (range(9, 10), range(28, 36))


def split(made):
    """Signature -> bytes of each table, found by following pointers from the RSDP."""
    memory = made.main

    def table(gpa):
        at = gpa - layout.ACPI
        return memory[at : at + int.from_bytes(memory[at + 4 : at + 8], "little")]

    assert memory[:8] == b"RSD PTR "
    xsdt = table(int.from_bytes(memory[24:32], "little"))
    found = {b"XSDT": xsdt}
    for (gpa,) in struct.iter_unpack("<Q", xsdt[36:]):
        found[table(gpa)[:4]] = table(gpa)
    found[b"DSDT"] = table(int.from_bytes(found[b"FACP"][140:148], "little"))
    return found


@pytest.mark.parametrize("vcpus", [1, 2, 254, 255, 256, 512])
def test_sums_lengths_and_places(vcpus):
    made = acpi.tables(vcpus)
    assert len(made.main) <= layout.ACPI_END - layout.ACPI
    assert sum(made.main[:20]) % 256 == 0
    assert sum(made.main[:36]) % 256 == 0
    found = split(made)
    assert set(found) == {b"XSDT", b"FACP", b"APIC", b"DSDT"}
    for signature, data in found.items():
        assert sum(data) % 256 == 0, signature
        assert data[10:28] == b"TROTH TROTHVM \x01\0\0\0"
    assert len(found[b"FACP"]) == 276
    fadt = found[b"FACP"]
    assert int.from_bytes(fadt[36:40], "little") == layout.FACS
    assert fadt[40:44] == fadt[140:144]
    assert len(made.facs) == 64
    assert made.facs[:8] == b"FACS\x40\0\0\0"


def entries(madt):
    at, found = 44, []
    while at < len(madt):
        assert madt[at + 1] >= 6
        found.append(madt[at : at + madt[at + 1]])
        at += madt[at + 1]
    assert at == len(madt)
    return found


def test_the_processors_of_a_small_machine():
    """Written by hand from ACPI 6.5, 5.2.12."""
    madt = split(acpi.tables(2))[b"APIC"]
    assert madt[36:44] == bytes.fromhex("0000e0fe 01000000")
    assert entries(madt) == [
        bytes.fromhex("00 08 00 00 01000000"),
        bytes.fromhex("00 08 01 01 01000000"),
        bytes.fromhex("01 0c 00 00 0000c0fe 00000000"),
        bytes.fromhex("02 0a 00 00 02000000 0000"),
        bytes.fromhex("02 0a 00 09 09000000 0d00"),
        bytes.fromhex("04 06 ff 0000 01"),
    ]


def test_processors_beyond_what_an_apic_id_of_eight_bits_names():
    madt = entries(split(acpi.tables(257))[b"APIC"])
    assert [entry[3] for entry in madt if entry[0] == 0] == list(range(255))
    assert [entry for entry in madt if entry[0] in {9, 10}] == [
        bytes.fromhex("09 10 0000 ff000000 01000000 ff000000"),
        bytes.fromhex("09 10 0000 00010000 01000000 00010000"),
        bytes.fromhex("0a 0c 0000 ffffffff 01 000000"),
    ]
    assert not [entry for entry in entries(split(acpi.tables(255))[b"APIC"]) if entry[0] > 4]


@pytest.mark.parametrize("vcpus", [-1, 0, 513, 1 << 40])
def test_no_such_machine(vcpus):
    with pytest.raises(UsageError) as caught:
        acpi.tables(vcpus)
    assert caught.value.code == "igvm-vcpus"


def test_only_the_processors_differ():
    one, many = split(acpi.tables(1)), split(acpi.tables(300))
    assert one[b"DSDT"] == many[b"DSDT"]
    assert one[b"APIC"] != many[b"APIC"]


@pytest.mark.parametrize(
    ("made", "wanted"),
    [
        # ACPI 6.5, 20.2.4: one byte up to 63, then 12 bits, then 20
        (aml.package_length(62), "3f"),
        (aml.package_length(63), "4104"),
        (aml.package_length(0xFFF - 2), "4fff"),
        (aml.package_length(0xFFE), "810001"),
        (aml.package_length(0x12345 - 3), "853412"),
        # 20.2.3
        (aml.integer(0), "00"),
        (aml.integer(1), "01"),
        (aml.integer(2), "0a02"),
        (aml.integer(0x601), "0b0106"),
        (aml.integer(0x1F0000), "0c00001f00"),
        (aml.integer(1 << 32), "0e0000000001000000"),
        # the EISA ID of a PCI bus is well known
        (aml.eisa_id("PNP0A03"), "0c41d00a03"),
        (aml.eisa_id("PNP0A08"), "0c41d00a08"),
        (aml.name("_S5_", aml.package(*[aml.integer(0)] * 4)), "085f53355f 1206 04 00000000"),
        (aml.method("_INI", aml.store(aml.integer(1), "ABCD")), "140c 5f494e49 00 7001 41424344"),
        (aml.io(0xCF8, 8), "47 01 f80c f80c 01 08"),
    ],
)  # fmt: skip
def test_the_encoder(made, wanted):
    assert made == bytes.fromhex(wanted)


def test_interrupt_lines_of_a_q35():
    """As QEMU's lpc_ich9.c has them: slots 0 to 24 share E to H, 25 and above have A to D."""
    lines = {}
    packed = re.findall(rb"\x12.\x04(\x0b\xff\xff|\x0c\xff\xff..)(\0|\x01|\x0a.)\0\x0a(.)",
                        dsdt.body(tpm=False), re.DOTALL)  # fmt: skip
    for where, pin, gsi in packed:
        slot = int.from_bytes(where[3:5], "little")
        lines[slot, pin[-1]] = gsi[0]
    assert len(lines) == 128
    assert [lines[1, pin] for pin in range(4)] == [21, 22, 23, 20]
    assert [lines[24, pin] for pin in range(4)] == [20, 21, 22, 23]
    assert [lines[30, pin] for pin in range(4)] == [20, 21, 22, 23]
    assert [lines[31, pin] for pin in range(4)] == [16, 17, 18, 19]


def test_a_tpm():
    """Written by hand: TCG ACPI Specification 1.2, 8; ACPI 6.5, 6.4.3.4."""
    plain, found = split(acpi.tables(2)), split(acpi.tables(2, tpm=True))
    assert set(found) - set(plain) == {b"TPM2"}
    assert found[b"TPM2"][36:] == bytes.fromhex("0000 0000 4000d4fe00000000 07000000" + 24 * "00")
    assert found[b"TPM2"][8] == 4
    resource = bytes.fromhex("8609 00 01 0000d4fe 00100000")
    assert found[b"DSDT"].count(b"\x08_HID\x0dMSFT0101\0") == 1
    assert found[b"DSDT"].count(resource) == 1
    assert b"MSFT0101" not in plain[b"DSDT"]
    assert found[b"APIC"] == plain[b"APIC"]


@pytest.mark.skipif(_IASL is None, reason="iasl is not installed (apt-get install acpica-tools)")
@pytest.mark.parametrize(("vcpus", "tpm"), [(1, True), (300, False)])
def test_the_disassembler_reads_what_was_meant(vcpus, tpm, tmp_path):
    """Taken apart and compiled again by iasl, each table is the same, without a warning."""
    made = acpi.tables(vcpus, tpm=tpm)
    for signature, data in {**split(made), b"FACS": made.facs}.items():
        name = signature.decode().lower()
        (tmp_path / f"{name}.aml").write_bytes(data)
        said = ""
        for words in (("-d", f"{name}.aml"), ("-oa", "-p", f"again-{name}", f"{name}.dsl")):
            done = subprocess.run(
                [_IASL, *words], cwd=tmp_path, check=True, capture_output=True, text=True
            )
            said += done.stdout + done.stderr
        assert "0 Errors, 0 Warnings, 0 Remarks" in said
        assert not re.search(r"(?i)\binvalid|checksum.*should|unknown", said), said
        again = (tmp_path / f"again-{name}.aml").read_bytes()
        own = [] if signature == b"FACS" else [at for part in _COMPILERS_OWN for at in part]
        assert [at for at in range(len(data)) if data[at] != again[at] and at not in own] == []
        assert len(again) == len(data)
    text = " ".join((tmp_path / "dsdt.dsl").read_text().split())
    assert "OperationRegion (PCFG, PCI_Config, 0x40, 0x08)" in text
    assert "{ PMBS = 0x0601 ACTL = 0x80 }" in text
    assert "SystemMemory" not in text
    assert ("Memory32Fixed (ReadWrite, 0xFED40000" in text) is tpm
    assert "Name (_S5, Package (0x04) // _S5_: S5 System State { Zero, Zero, Zero, Zero })" in text
