# SPDX-License-Identifier: Apache-2.0
"""IGVM files assembled byte by byte from the specification, by nothing of troth.

A file is a list of ``(type, body)`` where the body is bytes, or a function of
the file offset at which the data begin. ``made`` puts fixed header, headers,
padding, checksum and data together and can lie about each of them.
"""

import hashlib
import struct
import zlib

PAGE = 4096
KVM_GPA = 0xFFFF_FFFF_F000
SNP, NATIVE, TDX, VSM, SEV, SEV_ES, CCA = 2, 0, 3, 1, 4, 5, 6


def platform(mask=1, kind=SNP, vtl=0, version=1, boundary=0):
    return 0x001, struct.pack("<IBBHQ", mask, vtl, kind, version, boundary)


def policy(value=0x30000, mask=1, reserved=0):
    return 0x101, struct.pack("<QII", value, mask, reserved)


def relocatable(mask=1, vp=0, vtl=0, flags=0, align=PAGE, gpa=0, size=PAGE, low=0, high=PAGE):
    return 0x102, struct.pack("<IHBBQQQQQ", mask, vp, vtl, flags, align, gpa, size, low, high)


def page_tables(mask=1, vp=0, vtl=0, gpa=0, size=PAGE, used=PAGE, reserved=0):
    return 0x103, struct.pack("<IHBBQQQ", mask, vp, vtl, reserved, gpa, size, used)


def corim(data_at, size, mask=1, kind=0x104):
    return kind, lambda base: struct.pack("<IIII", mask, base + data_at, size, 0)


def area(size=PAGE, index=0, data_at=None):
    return 0x301, lambda base: struct.pack("<QII", size, index, _at(base, data_at))


def page(gpa, data_at=None, mask=1, flags=0, kind=0, reserved=0):
    return 0x302, lambda base: struct.pack(
        "<QIIIHH", gpa, mask, _at(base, data_at), flags, kind, reserved
    )


def insert(gpa, index=0, mask=1):
    return 0x303, struct.pack("<QII", gpa, mask, index)


def context(data_at=0, gpa=KVM_GPA, mask=1, vp=0, reserved=0):
    return 0x304, lambda base: struct.pack("<QIIHH", gpa, mask, base + data_at, vp, reserved)


def memory(gpa=0, size=1 << 20, mask=1, flags=0, reserved=0):
    return 0x305, struct.pack("<QIIII", gpa, mask, size, flags, reserved)


def usage(kind, index=0, offset=0):
    return kind, struct.pack("<II", index, offset)


def id_block(digest=bytes(48), mask=1, author_enabled=0, author_curve=0):
    body = bytearray(696)
    struct.pack_into("<IB", body, 0, mask, author_enabled)
    body[8:56] = digest
    struct.pack_into("<IIII", body, 88, 1, 7, 1, 0)
    struct.pack_into("<I", body, 248, 2)
    struct.pack_into("<I", body, 544, author_curve)
    return 0x30B, bytes(body)


def error_range(gpa, mask=1, size=PAGE):
    return 0x30D, struct.pack("<QII", gpa, mask, size)


def vbs(mask=1):
    return 0x311, struct.pack("<I", mask).ljust(864, b"\0")


def _at(base, data_at):
    return 0 if data_at is None else base + data_at


def counted(number):
    """A page that no other number has."""
    return hashlib.sha256(number.to_bytes(8, "little")).digest() * 128


def vmsa(**fields):
    """A VMSA of 64-bit fields that the tests need; offsets of AMD's manual, table B-4."""
    places = {"efer": 0xD0, "cr4": 0x148, "cr3": 0x150, "cr0": 0x158, "rip": 0x178, "cr2": 0x240,
              "sev_features": 0x3B0, "virtual_tom": 0x3C8, "reserved": 0xB00}  # fmt: skip
    state = bytearray(PAGE)
    values = {"efer": 0x1000, "cr4": 0x40, "cr0": 0x31, "rip": 0x100000, "sev_features": 1} | fields
    for name, value in values.items():
        struct.pack_into("<Q", state, places[name], value)
    return bytes(state)


def packed(kind, body, *, length=None, padding=b"\0"):
    size = len(body) if length is None else length
    return struct.pack("<II", kind, size) + body + padding * (-len(body) % 8)


def made(headers, data=b"", *, version=1, padding=b"\0", gap=b"", tail=b"", **lies):
    """The file. ``lies``: magic, version, start, size, total, crc, architecture, page_size."""
    fixed_bytes = 24 if version == 1 else 32
    start = fixed_bytes + len(gap)

    def section(base):
        parts = []
        for item in headers:
            if isinstance(item, bytes):
                parts.append(item)
                continue
            kind, body = item
            parts.append(packed(kind, body(base) if callable(body) else body, padding=padding))
        return b"".join(parts) + tail

    base = start + len(section(1 << 20))
    section = section(base)
    fields = {
        "magic": 0x4D564749,
        "version": version,
        "start": start,
        "size": len(section),
        "total": base + len(data),
    }
    fixed = struct.pack("<5I", *(lies.get(name, value) for name, value in fields.items()))
    second = b""
    if version > 1:
        second = struct.pack("<II", lies.get("architecture", 0), lies.get("page_size", PAGE))
    crc = zlib.crc32(fixed + bytes(4) + second + section)
    fixed += struct.pack("<I", lies.get("crc", crc))
    return fixed + second + gap + section + data


def linux(pages=8, *, version=1, before=(), after=(), state=None):
    """A small SNP file as a builder of plain Linux files makes it: VMSA last, at KVM's address."""
    data = b"".join(counted(number) for number in range(pages))
    state = vmsa() if state is None else state
    headers = [
        platform(),
        policy(),
        memory(),
        *before,
        page(0x1000, kind=2),
        page(0x2000, kind=1),
        *(page(0x10000 + number * PAGE, number * PAGE) for number in range(pages)),
        page(0x10000 + pages * PAGE),
        context(len(data)),
        *after,
    ]
    return made(headers, data + state, version=version)


def repaired(data):
    """``data`` with size and checksum that hold, for mutants."""
    file = bytearray(data.ljust(32, b"\0"))
    file[:4] = b"IGVM"
    file[16:20] = len(file).to_bytes(4, "little")
    version, start, size = struct.unpack_from("<III", file, 4)
    fixed_bytes = 24 if version == 1 else 32
    fixed = bytes(file[:20]) + bytes(4) + bytes(file[24:fixed_bytes])
    if start + size <= len(file):
        crc = zlib.crc32(bytes(file[start : start + size]), zlib.crc32(fixed))
        file[20:24] = crc.to_bytes(4, "little")
    return bytes(file)
