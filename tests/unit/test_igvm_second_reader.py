# SPDX-License-Identifier: Apache-2.0
"""IGVM files as a reader sees them that shares nothing with the builder: Linux would start.

The reader (``igvm_image``, ``igvm_linux``) is tested too: each thing it looks at is broken once,
and seen.
"""

import functools
import io
import random
import struct
import zlib
from dataclasses import replace

import pytest

from igvm_given import LOW_SPLIT, Given
from igvm_image import C_BIT, HOST_FILLED, PAGE, VMSA_GPA, ZERO, BadFileError, load
from igvm_linux import problems
from igvm_processor import SEGMENTS, WORDS, execute, registers, segments
from troth.image.igvm.build import build

MIB = 1 << 20
POLICY = 0x30000
CMDLINE = "console=ttyS0 panic=-1"


def made_kernel(*, protected_bytes=70000, init_bytes=2 * MIB, pref_address=16 * MIB):
    """A bzImage with all the fields of protocol 2.15 and noise for code."""
    setup_sectors = 3
    data = bytearray(random.Random(1).randbytes((setup_sectors + 1) * 512 + protected_bytes))
    data[0x1F1:0x26C] = bytes(0x26C - 0x1F1)
    for at, layout, value in (
        (0x1EF, "<H", 0xFFFF),  # the sentinel: must not get into boot_params
        (0x1F1, "<B", setup_sectors), (0x1F4, "<I", -(-protected_bytes // 16)),
        (0x1FA, "<H", 0xFFFF), (0x1FE, "<H", 0xAA55), (0x200, "<H", 0x6AEB),
        (0x202, "<4s", b"HdrS"), (0x206, "<H", 0x20F), (0x20E, "<H", 0x300), (0x211, "<B", 1),
        (0x212, "<H", 0x8000),
        (0x214, "<I", 0x100000), (0x22C, "<I", 0x7FFFFFFF), (0x230, "<I", 0x200000),
        (0x234, "<B", 1), (0x235, "<B", 21), (0x236, "<H", 0x7F), (0x238, "<I", 2047),
        (0x248, "<I", 0x400), (0x24C, "<I", protected_bytes - 0x800), (0x258, "<Q", pref_address),
        (0x260, "<I", init_bytes), (0x500, "<12s", b"6.12.1-made\0"),
    ):  # fmt: skip
        struct.pack_into(layout, data, at, value)
    return bytes(data)


def made(
    memory_bytes=128 * MIB, vcpus=2, *, initramfs_bytes=30001, cmdline="console=ttyS0 panic=-1"
):
    initramfs = random.Random(2).randbytes(initramfs_bytes)
    return Given(made_kernel(), initramfs, cmdline, memory_bytes, vcpus, POLICY)


def file_of(given):
    stream = io.BytesIO()
    build(
        kernel=given.kernel, initramfs=given.initramfs, cmdline=given.cmdline,
        memory_bytes=given.memory_bytes, vcpus=given.vcpus, policy=given.policy, tpm=given.tpm,
        stream=stream,
    )  # fmt: skip
    return stream.getvalue()


@pytest.fixture(scope="module")
def given():
    return made()


@pytest.fixture(scope="module")
def data(given):
    return file_of(given)


@pytest.fixture(scope="module")
def good(data):
    return load(data)


def test_a_built_file_has_no_problems(good, given):
    assert problems(good, given) == []
    entry = execute(good)
    assert entry.instructions == ("mov %eax,%cr0", f"ljmp $0x10,${16 * MIB + 0x200:#x}")


@pytest.mark.parametrize(
    "given",
    [
        replace(made(128 * MIB, 1, initramfs_bytes=1, cmdline=""), policy=0x1A0000),
        replace(made(130 * MIB, 64), tpm=True, kernel=made_kernel(init_bytes=37 * MIB + 0x123)),
        replace(
            made(128 * MIB, 3, initramfs_bytes=9 * MIB, cmdline="x" * 2047),
            kernel=made_kernel(protected_bytes=MIB),
        ),
        replace(made(128 * MIB, initramfs_bytes=PAGE), kernel=made_kernel(pref_address=4 * MIB)),
    ],
    ids=range(4),
)
def test_other_sizes(given):
    assert problems(load(file_of(given)), given) == []


# What does not fit the file is seen


@pytest.mark.parametrize(
    ("changed", "needle"),
    [
        ({"policy": 0x10000}, "policy: "),
        ({"vcpus": 3}, "APIC: processors"),
        ({"tpm": True}, "XSDT: ['APIC', 'FACP'] instead of ['APIC', 'FACP', 'TPM2']"),
        ({"memory_bytes": 130 * MIB}, "are not offered"),
        ({"memory_bytes": 127 * MIB}, "where the machine has no memory"),
        ({"cmdline": "console=ttyS1 panic=-1"}, "command line: not the one given"),
        ({"cmdline": "console=ttyS0 panic="}, "command line: not the one given"),
        ({"initramfs": b"x"}, "initramfs: not the one given"),
        ({"kernel": made_kernel(init_bytes=3 * MIB)}, "setup header: byte 0x262"),
    ],
)
def test_something_else_was_given(good, given, changed, needle):
    assert needle in "\n".join(problems(good, replace(given, **changed)))


# The file


def resealed(data, at, layout, *values):
    """``data`` with a change, its checksum brought in line."""
    out = bytearray(data)
    struct.pack_into(layout, out, at, *values)
    size = struct.unpack_from("<I", out, 12)[0]
    struct.pack_into(
        "<I", out, 20, zlib.crc32(out[24 : 24 + size], zlib.crc32(out[:20] + bytes(4)))
    )
    return bytes(out)


@functools.cache
def headers(data):
    """Type -> offsets of the variable headers of that type."""
    found = {}
    at, end = 24, 24 + struct.unpack_from("<I", data, 12)[0]
    while at < end:
        kind, length = struct.unpack_from("<II", data, at)
        found.setdefault(kind, []).append(at)
        at += 8 + (length + 7) // 8 * 8
    return found


@pytest.mark.parametrize("at", [0, 4, 8, 12, 16, 20, 24, 40])
def test_a_broken_file_is_not_loaded(data, at):
    broken = bytearray(data)
    broken[at] ^= 0x10
    with pytest.raises(BadFileError):
        load(bytes(broken))


@pytest.mark.parametrize("kind", sorted(HOST_FILLED))
def test_nothing_is_left_to_the_host(data, given, kind):
    """A page directive turned into one that has the host fill something."""
    image = load(resealed(data, headers(data)[0x302][-1], "<I", kind))
    assert "the host is asked to fill something" in "\n".join(problems(image, given))


@pytest.mark.parametrize(
    ("offset", "layout", "value", "needle"),
    [
        (24, "<I", 2, "flags 0x2"), (24, "<I", 4, "flags 0x4"), (24, "<I", 1, "flags 0x1"),
        (28, "<H", 2, "not exactly one CPUID"), (28, "<H", 1, "not exactly one CPUID"),
        (28, "<H", 3, "of kind 3"), (8, "<Q", 0, "is loaded twice"),
        (8, "<Q", 1 << 40, "where the machine has no memory"),
    ],
)  # fmt: skip
def test_a_page_that_is_not_as_it_should_be(data, given, offset, layout, value, needle):
    image = load(resealed(data, headers(data)[0x302][-1] + offset, layout, value))
    assert needle in "\n".join(problems(image, given))


@pytest.mark.parametrize(
    ("kind", "offset", "layout", "value"),
    [
        (0x302, 16, "<I", 0x80), (0x302, 8, "<Q", 0x10001), (0x302, 20, "<I", 24),
        (0x302, 20, "<I", 0xFFFFF000), (0x304, 16, "<I", 0x80), (0x304, 20, "<I", 0),
        (0x001, 13, "<B", 3), (0x001, 8, "<I", 3), (0x001, 12, "<B", 2), (0x101, 16, "<I", 2),
        (0x305, 24, "<I", 1), (0x302, 4, "<I", 1 << 30), (0x101, 0, "<I", 0x302),
    ],
)  # fmt: skip
def test_directives_that_no_vmm_takes(data, kind, offset, layout, value):
    with pytest.raises((BadFileError, struct.error)):
        load(resealed(data, headers(data)[kind][0] + offset, layout, value))


# The guest


def register(name, value):
    at, size = WORDS[name]
    return lambda image: vmsa(image, at, value.to_bytes(size, "little"))


def vmsa(image, at, data):
    gpa, index, page = image.vmsas[0]
    image.vmsas[0] = (gpa, index, page[:at] + data + page[at + len(data) :])


def segment(name, **values):
    def change(image):
        part = replace(segments(image.vmsa)[name], **values)
        data = struct.pack("<HHIQ", part.selector, part.attributes, part.limit, part.base)
        vmsa(image, SEGMENTS[name], data)

    return change


def change_descriptor(selector, raw):
    return lambda image: image.write(
        segments(image.vmsa)["gdtr"].base + selector, raw.to_bytes(8, "little")
    )


def code(offset, data):
    return lambda image: image.write(registers(image.vmsa)["rip"] + offset, data)


def params_at(image):
    return registers(image.vmsa)["rsi"]


def params(offset, data):
    return lambda image: image.write(params_at(image) + offset, data)


def pointed(offset, size, data, inside=0):
    """Write where a field of boot_params points."""
    return lambda image: image.write(image.number(params_at(image) + offset, size) + inside, data)


def table_entry(level, linear, change):
    """Change the entry of ``level`` (0 for the top) that translates ``linear``."""

    def apply(image):
        table = registers(image.vmsa)["cr3"] & ~C_BIT & ~0xFFF
        for depth in range(level + 1):
            at = table + (linear >> (39 - 9 * depth) & 0x1FF) * 8
            entry = image.number(at, 8)
            table = entry & ~C_BIT & ~0xFFF
        image.write(at, change(entry).to_bytes(8, "little"))

    return apply


def e820(change):
    """Rewrite the memory map: ``change`` gets and gives rows of start, size, type."""

    def apply(image):
        at = params_at(image)
        rows = [
            list(struct.unpack("<QQI", image.read(at + 0x2D0 + 20 * row, 20)))
            for row in range(image.number(at + 0x1E8, 1))
        ]
        rows = change(rows, image) or rows
        image.write(at + 0x1E8, bytes([len(rows)]))
        image.write(at + 0x2D0, b"".join(struct.pack("<QQI", *row) for row in rows))

    return apply


def set_kind(find, kind=1):
    """Call the pages RAM, or what ``kind`` says, in which ``find`` (of an image: gpa) lies."""

    def change(rows, image):
        gpa = find(image) // PAGE * PAGE
        row = next(row for row in rows if row[0] <= gpa < row[0] + row[1])
        row[2] = kind

    return e820(change)


def drop(find):
    return lambda image: image.pages.pop(find(image) // PAGE * PAGE)


def blob_at(image):
    return image.number(image.number(params_at(image) + 0x250, 8) + 16, 4)


def blob_into_ram(image):
    """Before the initramfs, where Linux knows of nothing that it should spare."""
    to = image.number(params_at(image) + 0x218, 4) - PAGE
    image.write(to, image.read(blob_at(image), 40))
    image.write(image.number(params_at(image) + 0x250, 8) + 16, to.to_bytes(4, "little"))


def rsdp(image):
    return image.number(params_at(image) + 0x70, 8)


def xsdt(image):
    return image.number(rsdp(image) + 24, 8)


def acpi(name):
    """Where the table ``name`` is."""

    def find(image):
        size = image.number(xsdt(image) + 4, 4)
        tables = {
            image.read(at, 4): at
            for (at,) in struct.iter_unpack("<Q", image.read(xsdt(image), size)[36:])
        }
        fadt = tables[b"FACP"]
        if name == "FACS":
            return image.number(fadt + 36, 4) or image.number(fadt + 132, 8)
        return image.number(fadt + 140, 8) if name == "DSDT" else tables[name.encode()]

    return find


def flip(find, offset=0):
    def change(image):
        at = find(image) + offset
        image.write(at, bytes([image.number(at, 1) ^ 0x80]))

    return change


def summed(find, offset, data):
    """Change a table and bring its checksum in line."""

    def change(image):
        at = find(image)
        image.write(at + offset, data)
        image.write(at + 9, b"\0")
        total = sum(image.read(at, image.number(at + 4, 4)))
        image.write(at + 9, bytes([-total & 0xFF]))

    return change


def move(field, size, target, length):
    """Copy what a field of boot_params points at, and point there."""

    def change(image):
        at = params_at(image) + field
        to = target(image)
        image.write(to, image.read(image.number(at, size), length))
        image.write(at, to.to_bytes(size, "little"))

    return change


def overlap_rows(rows, image):
    rows[0][1] += PAGE if len(rows) > 1 and rows[0][0] + rows[0][1] == rows[1][0] else MIB


def without_low(rows, image):
    return [row for row in rows if row[0] >= MIB or row[2] != 1]


def more_at_top(rows, image):
    rows[-1][1] += PAGE


def less_at_top(rows, image):
    rows[-1][1] -= 2 * MIB


def unmentioned(rows, image):
    return [row for row in rows if not row[0] <= blob_at(image) < row[0] + row[1]]


def hole_as_ram(rows, image):
    rows.append([0xA0000, 0x60000, 1])
    rows.sort()


KERNEL = 16 * MIB
BROKEN = {
    # the VMSA
    "cr0": (register("cr0", 0x11), "cr0 is 0x11"),
    "cr4": (register("cr4", 0x20), "cr4 is 0x20"),
    "no pae": (register("cr4", 0x40), "without PAE"),
    "efer": (register("efer", 0x1500), "efer is 0x1500"),
    "no lme": (register("efer", 0x1000), "without PAE and long mode"),
    "no svme": (register("efer", 0x100), "efer is 0x100"),
    "dr6": (register("dr6", 0), "dr6"), "dr7": (register("dr7", 0), "dr7"),
    "pat": (register("g_pat", 0), "g_pat"), "xcr0": (register("xcr0", 3), "xcr0"),
    "mxcsr": (register("mxcsr", 0), "mxcsr"), "fcw": (register("fcw", 0), "fcw"),
    "rflags": (register("rflags", 0x202), "rflags"), "vmpl": (register("vmpl", 1), "vmpl"),
    "features": (register("sev_features", 0x21), "sev_features"),
    "rbx": (register("rbx", 1), "rbx"),
    "unknown field": (lambda image: vmsa(image, 0x2E0, b"\1"), "byte 0x2e0"),
    "second vmsa": (lambda image: image.vmsas.append(image.vmsas[0]), "VMSA: not exactly one"),
    "vmsa address": (
        lambda image: image.vmsas.__setitem__(0, (0x1000, 0, image.vmsa)), "address KVM uses"),
    "vmsa first": (lambda image: image.order.insert(0, image.order.pop()), "not the last page"),
    "page order": (lambda image: image.order.insert(5, image.order.pop(9)), "not ascending"),
    # segments
    "cs long": (segment("cs", attributes=0xA9B), "cs"),
    "cs base": (segment("cs", base=0x1000), "cs"),
    "cs limit": (segment("cs", limit=0xFFFF), "cs"),
    "ds selector": (segment("ds", selector=0x10), "ds: selector"),
    "ss null": (segment("ss", selector=0), "ss: selector 0x0"),
    "es beyond": (segment("es", selector=0x1000), "es: selector 0x1000"),
    "fs attributes": (segment("fs", attributes=0x93), "fs"),
    "gs limit": (segment("gs", limit=0xFFFFF), "gs"),
    "tr": (segment("tr", attributes=0x83), "tr, ldtr"),
    "gdtr limit": (segment("gdtr", limit=15), "GDTR"),
    "gdtr base": (segment("gdtr", base=1 << 40), "GDT: no measured page"),
    "gdt code": (change_descriptor(0x10, 0x00CF9B000000FFFF), "is no 64-bit code"),
    "gdt code absent": (change_descriptor(0x10, 0x00AF1B000000FFFF), "is no 64-bit code"),
    "gdt data": (change_descriptor(0x18, 0x00CF93000000FFFE), "not what Linux asks for"),
    "gdt entry": (change_descriptor(0x08, 0x00CF9B000000FFFE), "not what the GDT says"),
    # the entry
    "rip": (register("rip", 1 << 31), "entry: no measured page"),
    "rip in zeros": (register("rip", KERNEL + 0x190000), "none that the entry needs"),
    "opcode": (code(0, b"\xf4"), "none that the entry needs"),
    "cr3 instead": (code(2, b"\xd8"), "none that the entry needs"),
    "jump first": (code(0, b"\xea"), "far jump before paging"),
    "jump selector": (code(8, b"\x18"), "is no 64-bit code"),
    "jump selector null": (code(8, b"\0"), "is not in the GDT"),
    "jump target": (code(4, b"\x10"), "not at startup_64"),
    "no paging": (register("rax", 0x31), "mov to cr0"),
    "cache off": (register("rax", 0xC0000031), "mov to cr0"),
    # page tables
    "cr3 shared": (lambda image: register("cr3", registers(image.vmsa)["cr3"] & ~C_BIT)(image),
                   "CR3 without the C-bit"),
    **{
        f"table {level} {name}": (table_entry(level, KERNEL, change), needle)
        for level in range(3)
        for name, change, needle in (
            ("shared", lambda entry: entry & ~C_BIT, "mapped shared"),
            ("absent", lambda entry: entry & ~1, "not mapped writable"),
            ("read-only", lambda entry: entry & ~2, "not mapped writable"),
            ("nx", lambda entry: entry | 1 << 63, "high bits or NX"),
        )
    },
    "mapped elsewhere": (table_entry(2, KERNEL, lambda entry: entry ^ 0x400000), "is mapped to"),
    "large and odd": (table_entry(2, KERNEL, lambda entry: entry | 0x2000), "page of 0x200000 at"),
    "table lost": (table_entry(1, KERNEL, lambda entry: entry ^ 1 << 40), "no measured page"),
    # boot_params
    "no boot_params": (register("rsi", 1 << 40), "no measured page"),
    "header": (params(0x230, b"\1"), "byte 0x230 differs"),
    "loader": (params(0x210, b"\0"), "no type_of_loader"),
    "loadflags": (params(0x211, b"\x41"), "loadflags"),
    "sentinel": (params(0x1EF, b"\xff"), "byte 0x1ef is set"),
    "screen": (params(0x07, b"\x50"), "byte 0x7 is set"),
    "blob address": (params(0x13C, b"\x01"), "byte 0x13c is set"),
    "cmdline byte": (pointed(0x228, 4, b"K"), "command line: not the one"),
    "cmdline end": (pointed(0x228, 4, b"x", 22), "command line: not the one"),
    "cmdline moved": (move(0x228, 4, lambda image: KERNEL + 0x180000, 23), "overlap"),
    "initramfs byte": (pointed(0x218, 4, b"\0\0", 30000 - 2), "initramfs: not the one"),
    "initramfs size": (params(0x21C, b"\x32"), "initramfs: not the one"),
    "initramfs high": (params(0x21B, b"\xf0"), "no measured page"),
    "kernel byte": (flip(lambda _: KERNEL + 4711), "not the bytes"),
    "kernel behind": (lambda image: image.write(KERNEL + 0x1FFFFF, b"\1"), "is not clear"),
    "kernel page": (drop(lambda _: KERNEL + 0x100000), "no measured page at 0x1100000"),
    # the memory map
    "map empty": (params(0x1E8, b"\0"), "memory map: 0 entries"),
    "map order": (e820(lambda rows, image: rows[::-1]), "out of order"),
    "map overlap": (e820(overlap_rows), "overlaps"),
    "map type": (e820(lambda rows, image: rows[0].__setitem__(2, 9)), "type 9"),
    "map too much": (e820(more_at_top), "beyond the machine"),
    "map too little": (e820(less_at_top), "are not offered"),
    "map no low": (e820(without_low), "for the trampolines"),
    "map hole": (e820(hole_as_ram), "between 640 KiB and 1 MiB"),
    "map odd": (e820(lambda rows, image: rows[-1].__setitem__(1, rows[-1][1] - 1)), "whole pages"),
    "rom page": (drop(lambda image: 0xC8000), "the ROM area"),
    "rom filled": (flip(lambda image: 0xF0000), "the ROM area"),
    "rom is acpi": (set_kind(lambda image: 0xF0000, 3), "the ROM area"),
    "ram page": (drop(lambda image: 24 * MIB), "RAM page 0x1800000 is not in the file"),
    "secrets are ram": (set_kind(lambda image: image.secrets[0]), "is called RAM"),
    "cpuid is ram": (set_kind(lambda image: image.cpuid[0]), "is called RAM"),
    "blob is ram": (blob_into_ram, "CC blob: in memory"),
    "tables are ram": (set_kind(rsdp), "RSDP: in memory"),
    "dsdt is ram": (set_kind(acpi("DSDT")), "DSDT: in memory"),
    "page 0": (drop(lambda image: 0), "no measured page"),
    "bios data": (lambda image: image.write(0x413, b"\x80\x02"), "BIOS data area"),
    "page unmentioned": (e820(unmentioned), "does not tell of all pages"),
    "required": (lambda image: image.required.clear(), "required memory"),
    "required odd": (lambda image: image.required.append((1 << 33, 1)), "required memory"),
    # setup_data and the CC blob
    "no setup_data": (params(0x250, bytes(8)), "not exactly one SETUP_CC_BLOB"),
    "data type": (pointed(0x250, 8, b"\x09", 8), "not exactly one SETUP_CC_BLOB"),
    "data length": (pointed(0x250, 8, b"\x08", 12), "not exactly one SETUP_CC_BLOB"),
    "data chain": (
        lambda image: pointed(0x250, 8, image.read(params_at(image) + 0x250, 8))(image),
        "does not end"),
    "blob magic": (flip(blob_at), "CC blob: magic"),
    "blob secrets": (flip(blob_at, 9), "CC blob: secrets"),
    "blob secrets size": (flip(blob_at, 16), "CC blob: secrets"),
    "blob cpuid": (flip(blob_at, 25), "CC blob: CPUID table"),
    "blob cpuid size": (flip(blob_at, 32), "CC blob: CPUID table"),
    "no secrets page": (lambda image: image.secrets.clear(), "not exactly one CPUID"),
    "no cpuid page": (lambda image: image.cpuid.clear(), "not exactly one CPUID"),
    # ACPI
    "no rsdp": (params(0x70, bytes(8)), "RSDP"),
    "rsdp": (flip(rsdp, 10), "RSDP: signature or checksum"),
    "rsdp extended": (flip(rsdp, 33), "RSDP: signature or checksum"),
    "xsdt": (flip(xsdt, 12), "XSDT: checksum"),
    "fadt": (flip(acpi("FACP"), 50), "FACP: checksum"),
    "madt": (flip(acpi("APIC"), 40), "APIC: checksum"),
    "dsdt": (flip(acpi("DSDT"), 60), "DSDT: checksum"),
    "facs": (flip(acpi("FACS"), 4), "FACS: signature"),
    "rsdp is reserved": (set_kind(rsdp, 2), "RSDP: in memory"),
    "dsdt is reserved": (set_kind(acpi("DSDT"), 2), "DSDT: in memory"),
    "setup_data is reserved": (
        set_kind(lambda image: image.number(params_at(image) + 0x250, 8), 2), "not in RAM, so"),
    "facs is ram": (set_kind(acpi("FACS")), "FACS: in memory"),
    "madt address": (summed(acpi("APIC"), 36, b"\1"), "address of the local APIC"),
    "madt id": (summed(acpi("APIC"), 44 + 3, b"\7"), "APIC: processors"),
    "madt flags": (summed(acpi("APIC"), 44 + 4, b"\0"), "APIC: processors"),
    "madt length": (summed(acpi("APIC"), 44 + 1, b"\1"), "APIC: entry at 44"),
    "madt type": (summed(acpi("APIC"), 44, b"\x7f"), "of type 127"),
    "fadt dsdt": (summed(acpi("FACP"), 140, b"\0\x10\0\0"), "FACP|DSDT"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_every_fault_is_seen(good, given, name):
    change, needle = BROKEN[name]
    image = good.copy()
    change(image)
    found = "\n".join(problems(image, given))
    assert any(part in found for part in needle.split("|")), found


def test_a_tpm_that_is_elsewhere_is_seen():
    given = replace(made(), tpm=True)
    image = load(file_of(given))
    assert problems(image, given) == []
    summed(acpi("TPM2"), 40, b"\x41")(image)
    assert problems(image, given) == ["TPM2: not the device that QEMU has"]


def test_memory_above_four_gib(good, given):
    """The reader's own arithmetic: where q35 puts memory, whatever a builder thinks."""
    image = good.copy()
    image.pages[LOW_SPLIT] = ZERO
    image.order[-1:] = [LOW_SPLIT, VMSA_GPA]
    assert "where the machine has no memory" in "\n".join(problems(image, given))
