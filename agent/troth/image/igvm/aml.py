# SPDX-License-Identifier: Apache-2.0
"""ACPI machine language: values and statements -> bytes, only what our DSDT needs.

Serves ``dsdt``. Knows encodings and no machine. Must stay exact rather than
complete: whatever is not here is not needed.

Source: ACPI specification 6.5, section 20.2 (AML grammar), 6.4 (resource
descriptors), 19.3.4 (EISA identifiers).
"""

from __future__ import annotations

import struct

SYSTEM_IO, PCI_CONFIG = 0x01, 0x02
BYTE_ACCESS, DWORD_ACCESS = 0x01, 0x03

_ZERO, _ONE = b"\x00", b"\x01"


def package_length(body_bytes: int) -> bytes:
    """PkgLength of ``body_bytes`` bytes; it counts its own bytes too (section 20.2.4)."""
    if body_bytes + 1 < 0x40:
        return bytes([body_bytes + 1])
    for follow in (1, 2, 3):
        if body_bytes + 1 + follow < 1 << (4 + 8 * follow):
            return _long_length(body_bytes + 1 + follow, follow)
    raise ValueError(f"{body_bytes} bytes are too long for AML")


def _long_length(value: int, follow: int) -> bytes:
    return bytes([follow << 6 | value & 0xF]) + (value >> 4).to_bytes(follow, "little")


def _bits(count: int) -> bytes:
    """The length of a field in bits: coded as a PkgLength, but counting itself not."""
    return bytes([count]) if count < 0x40 else _long_length(count, 1)


def integer(value: int) -> bytes:
    """An integer constant of up to 64 bits, in its shortest form."""
    if value < 2:
        return _ONE if value else _ZERO
    for prefix, size_bytes in ((0x0A, 1), (0x0B, 2), (0x0C, 4)):
        if value < 1 << 8 * size_bytes:
            return bytes([prefix]) + value.to_bytes(size_bytes, "little")
    return b"\x0e" + value.to_bytes(8, "little")


def eisa_id(text: str) -> bytes:
    """``PNP0A08`` as the compressed identifier that _HID holds."""
    letters = [ord(char) - 0x40 for char in text[:3]]
    name = letters[0] << 10 | letters[1] << 5 | letters[2]
    return b"\x0c" + struct.pack(">H", name) + bytes.fromhex(text[3:])


def string(text: str) -> bytes:
    """A string constant of ASCII text."""
    return b"\x0d" + text.encode("ascii") + b"\0"


def name(path: str, value: bytes) -> bytes:
    """Name (path, value)."""
    return b"\x08" + path.encode() + value


def package(*elements: bytes) -> bytes:
    """Package () {...}, at most 255 elements."""
    return _sized(b"\x12", bytes([len(elements)]) + b"".join(elements))


def buffer(data: bytes) -> bytes:
    """Buffer () {...}."""
    return _sized(b"\x11", integer(len(data)) + data)


def scope(path: str, *terms: bytes) -> bytes:
    """Scope (path) {...}."""
    return _sized(b"\x10", path.encode() + b"".join(terms))


def device(path: str, *terms: bytes) -> bytes:
    """Device (path) {...}."""
    return _sized(b"\x5b\x82", path.encode() + b"".join(terms))


def method(path: str, *terms: bytes) -> bytes:
    """Method (path, 0, NotSerialized) {...}."""
    return _sized(b"\x14", path.encode() + b"\x00" + b"".join(terms))


def operation_region(path: str, space: int, *, offset: int, size_bytes: int) -> bytes:
    """OperationRegion (path, space, offset, size)."""
    return (
        b"\x5b\x80" + path.encode() + bytes([space]) + integer(offset) + integer(size_bytes)
    )  # fmt: skip


def field(region: str, access: int, *, skip_bits: int = 0, path: str, bits: int) -> bytes:
    """Field (region, access, NoLock, Preserve) with one field ``path`` after ``skip_bits``."""
    skipped = b"\x00" + _bits(skip_bits) if skip_bits else b""
    return _sized(
        b"\x5b\x81", region.encode() + bytes([access]) + skipped + path.encode() + _bits(bits)
    )


def store(value: bytes, path: str) -> bytes:
    """Store (value, path)."""
    return b"\x70" + value + path.encode()


def resources(*descriptors: bytes) -> bytes:
    """ResourceTemplate () {...} as a buffer; the end tag's checksum 0 means "not checked"."""
    return buffer(b"".join(descriptors) + b"\x79\x00")


def io(start: int, size_bytes: int) -> bytes:
    """IO (Decode16, start, start, 1, size): ports that the device itself answers."""
    return struct.pack("<BBHHBB", 0x47, 1, start, start, 1, size_bytes)


def fixed_memory(start: int, size_bytes: int) -> bytes:
    """Memory32Fixed (ReadWrite, start, size): addresses that the device itself answers."""
    return struct.pack("<BHBII", 0x86, 9, 1, start, size_bytes)


def bus_numbers(first: int, last: int) -> bytes:
    """WordBusNumber, produced, range fixed."""
    return _word_space(2, 0x00, first, last)


def io_window(first: int, last: int) -> bytes:
    """WordIO, produced, entire range."""
    return _word_space(1, 0x03, first, last)


def memory_window(first: int, last: int) -> bytes:
    """DWordMemory, produced, not cacheable, read and write."""
    length = last - first + 1
    return struct.pack("<BHBBBIIIII", 0x87, 23, 0, 0x0C, 0x01, 0, first, last, 0, length)


def _word_space(kind: int, flags: int, first: int, last: int) -> bytes:
    # 0x0C: minimum and maximum are fixed, positive decode, a window that devices consume.
    length = last - first + 1
    return struct.pack("<BHBBBHHHHH", 0x88, 13, kind, 0x0C, flags, 0, first, last, 0, length)


def _sized(opcode: bytes, body: bytes) -> bytes:
    return opcode + package_length(len(body)) + body
