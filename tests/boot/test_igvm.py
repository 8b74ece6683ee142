# SPDX-License-Identifier: Apache-2.0
"""IGVM files that were built start Linux: natively, see ``boot.igvm_native`` for what differs."""

from __future__ import annotations

import contextlib
import io
import json
import re
import struct
import subprocess
from pathlib import Path

import pytest

from boot import igvm_native
from boot.bundles import TROTH
from boot.expected import check_registers
from igvm_given import Given
from igvm_image import PAGE, ZERO, load
from igvm_linux import problems
from igvm_processor import registers
from troth.abi import cpio
from troth.image.igvm.build import build
from troth.machine.qemu import DiskImage
from troth.machine.swtpm import Swtpm

MIB = 1 << 20
POLICY = 0x30000

#: As bundle "small", but with a TPM, and the kernel says what it finds.
_MANIFEST = """
[image]
name = "igvm"
kernel = {kernel}
compression = "none"
cmdline = "ignore_loglevel"
[root]
source = "../smallfs"
overlay = "none"
[handover]
modules_disabled = true
[tee]
snp = "none"
vtpm = "required"
[fail]
deadline_s = 60
device_timeout_s = 20
"""


@pytest.fixture(scope="module")
def bundle(forge):
    place = forge.base / "igvm"
    place.mkdir()
    manifest = place / "troth.toml"
    manifest.write_text(_MANIFEST.format(kernel=forge._kernel("6.12")))
    subprocess.run([TROTH, "build", manifest, "-o", place / "bundle"], check=True)
    return place / "bundle"


def built(given):
    """The guest of the file that the builder makes of ``given``; no fault in it."""
    stream = io.BytesIO()
    build(
        kernel=given.kernel, initramfs=given.initramfs, cmdline=given.cmdline,
        memory_bytes=given.memory_bytes, vcpus=given.vcpus, policy=given.policy, tpm=given.tpm,
        stream=stream,
    )  # fmt: skip
    image = load(stream.getvalue())
    assert problems(image, given) == []
    return image


def kernel_lines(boot):
    """What the kernel says, without its times."""
    found = re.findall(r"^\[ *\d+\.\d+\] (.*)$", boot.console, re.MULTILINE)
    assert found, "the kernel said nothing"
    return found


def own_lines(boot):
    """What PID 1 says, without the milliseconds."""
    found = re.findall(r"troth: (.*)$", boot.console, re.MULTILINE)
    return [re.sub(r"(?<= ok) \d+$", "", line) for line in found]


def memory_map(image):
    """The kernel's lines about the memory map that boot_params hold; it joins what is alike."""
    params = image.read(registers(image.vmsa)["rsi"], PAGE)
    rows = []
    for row in range(params[0x1E8]):
        start, size, kind = struct.unpack_from("<QQI", params, 0x2D0 + 20 * row)
        end = start + size
        if rows and rows[-1][1:] == (start, kind):
            start = rows.pop()[0]
        rows.append((start, end, kind))
    names = {1: "usable", 2: "reserved", 3: "ACPI data", 4: "ACPI NVS"}
    return [
        f"BIOS-e820: [mem {start:#018x}-{end - 1:#018x}] {names[kind]}" for start, end, kind in rows
    ]


def check_tables(image, lines):
    """The kernel's ACPI tables are those in the image, and no others; it complains of nothing."""
    root = image.number(registers(image.vmsa)["rsi"] + 0x70, 8)
    (xsdt,) = struct.unpack("<Q", image.read(root + 24, 8))
    entries = image.read(xsdt, image.number(xsdt + 4, 4))[36:]
    where = {"XSDT": xsdt}
    for (at,) in struct.iter_unpack("<Q", entries):
        where[image.read(at, 4).decode()] = at
    fadt = where["FACP"]
    where["DSDT"] = image.number(fadt + 140, 8)
    where["FACS"] = image.number(fadt + 36, 4) or image.number(fadt + 132, 8)
    found = {
        match[1]: (int(match[2], 16), int(match[3], 16))
        for line in lines
        if (match := re.match(r"ACPI: (\w{4}) 0x([0-9A-F]{16}) ([0-9A-F]{6})", line))
    }
    assert found.pop("RSDP")[0] == root
    assert found == {name: (at, image.number(at + 4, 4)) for name, at in where.items()}
    bad = [
        line
        for line in lines
        if re.search(r"ACPI.*(Error|Warning|Exception)|Firmware Bug|can't claim|\bBUG\b", line)
    ]
    assert bad == []


def test_a_built_file_boots(forge, boot, token, bundle, tmp_path):
    """The whole way to the next init and to power off, beside ``troth run`` of the same bundle."""
    cmdline = (bundle / "cmdline").read_text()
    initramfs = (bundle / "initramfs").read_bytes()
    given = Given(
        (bundle / "vmlinuz").read_bytes(), initramfs, cmdline, 512 * MIB, 2, POLICY, tpm=True
    )
    image = built(given)
    disks = json.loads((bundle / "manifest.json").read_bytes())["disks"]
    assert [disk["serial"] for disk in disks] == ["root"]
    state = tmp_path / "state"
    state.mkdir()
    with contextlib.closing(Swtpm(state, tmp_path / "tpm")):
        found = igvm_native.run(
            igvm_native.without_sev(image, unlink=True), tmp_path, memory_mib=512, cpus=2,
            disks=(DiskImage("root", bundle / "root.img", read_only=True),),
            tpm_socket=tmp_path / "tpm",
        )  # fmt: skip
    lines = kernel_lines(found)
    assert lines[0].startswith("Linux version 6.12.")

    # What was measured is what the kernel has in hand.
    assert f"Command line: {cmdline}" in lines
    assert [line for line in lines if line.startswith("BIOS-e820:")] == memory_map(image)
    disk = image.number(registers(image.vmsa)["rsi"] + 0x218, 4)
    end = disk + len(initramfs) - 1
    assert f"RAMDISK: [mem {disk:#010x}-{end | 0xFFF:#010x}]" in lines
    check_tables(image, lines)

    # The machine that the tables describe works.
    assert "ACPI: Using ACPI (MADT) for SMP configuration information" in lines
    assert "smp: Brought up 1 node, 2 CPUs" in lines
    assert any(line.startswith("IOAPIC[0]: ") and line.endswith("GSI 0-23") for line in lines)
    assert "ACPI: Interpreter enabled" in lines
    assert "PCI host bridge to bus 0000:00" in lines
    assert any(line.startswith("virtio_blk virtio0: [vda] ") for line in lines)

    # PID 1 has done all it does elsewhere, and so has the program behind it.
    usual = boot(bundle, "--cpus", "2", "--memory", "512M")
    assert usual.status == 0
    assert own_lines(found) == own_lines(usual)
    assert "handover /sbin/init" in own_lines(found)
    assert f"@@ marker {token}" in found.console
    assert f"@@ done {token}" in found.console
    check_registers(found, bundle, cmdline=cmdline)
    for name in ("argv", "environ", "writes", "list /", "list /proc/self/fd", "file /proc/cmdline"):
        assert found.section(name) == usual.section(name), name
    assert found.section("list /sys/firmware") != ""

    # Switched off by ACPI, not halted, and not by the reset that ends QEMU as well.
    assert lines[-1] == "reboot: Power down"
    assert found.status == 0


def test_the_cc_blob_is_found(forge, tmp_path):
    """By Linux 6.1, which copies the CPUID table of whatever blob it finds, SNP or not.

    With just so much memory that q35 has a part of it above 4 GiB.
    """
    kernel = re.search(r'vmlinuz = "([^"]+)"', forge._kernel("6.1"))[1]
    cmdline = "console=ttyS0 panic=-1 ignore_loglevel"
    given = Given(Path(kernel).read_bytes(), cpio.write([]), cmdline, 2816 * MIB, 3, POLICY)
    image = built(given)
    leaves = [(leaf, 0, 0x8000_0008 if leaf >> 31 else 0x10, 0, 0, 0) for leaf in (0, 0x8000_0000)]
    filled = igvm_native.cpuid_table(*leaves, *((leaf, 0, 0, 0, 0, 0) for leaf in range(1, 6)))
    found = igvm_native.run(
        igvm_native.without_sev(image, unlink=False, cpuid=filled), tmp_path,
        memory_mib=2816, cpus=3,
    )  # fmt: skip
    lines = kernel_lines(found)
    assert lines[0].startswith("Linux version 6.1.")
    assert "SEV: Using SNP CPUID table, 7 entries present." in lines
    assert "smp: Brought up 1 node, 3 CPUs" in lines
    assert [line for line in lines if line.startswith("BIOS-e820:")] == memory_map(image)
    available = next(line for line in lines if line.startswith("Memory: "))
    assert int(re.search(r"/(\d+)K available", available)[1]) > 2815 << 10
    check_tables(image, lines)
    # It has no root, so it panics, and the reset of our tables ends QEMU.
    assert any("Unable to mount root fs" in line for line in lines)
    assert found.status == 0


def test_newer_linux_takes_the_cc_blob(forge, tmp_path):
    """As far as a processor without SNP can go: to the first instruction that needs one.

    Linux 6.12 has then found the blob and the CPUID table. An empty table, which no firmware
    leaves behind, it answers with a request for termination (VMGEXIT).
    """
    kernel = re.search(r'vmlinuz = "([^"]+)"', forge._kernel("6.12"))[1]
    given = Given(Path(kernel).read_bytes(), cpio.write([]), "nokaslr", 256 * MIB, 1, POLICY)
    image = built(given)
    filled = igvm_native.cpuid_table((0, 0, 0x10, 0, 0, 0))
    rmpadjust, vmgexit = "f30f01fe", "f30f01d9"
    for table, instruction in ((filled, rmpadjust), (ZERO, vmgexit)):
        native = igvm_native.without_sev(image, unlink=False, cpuid=table)
        assert igvm_native.undefined_instruction(native, tmp_path) == instruction
