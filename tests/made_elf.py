# SPDX-License-Identifier: Apache-2.0
"""Small ELF files made to order, for the tests of readers and closures."""

import struct

from troth.abi import elf


def made(
    *,
    kind=elf.SHARED,
    machine=62,
    needed=("libc.so.6",),
    soname="libx.so.1",
    runpath="$ORIGIN/../lib:/opt/lib",
    interpreter=b"/lib64/ld.so\0",
    sections=((b".modinfo", b"depends=a,b\0"),),
):
    """A small ELF file: headers, one PT_LOAD over all of it, dynamic section, section table."""
    strings = b"\0"

    def text(value):
        nonlocal strings
        offset = len(strings)
        strings += value.encode() + b"\0"
        return offset

    entries = [(1, text(name)) for name in needed]
    if soname:
        entries.append((14, text(soname)))
    if runpath:
        entries.append((29, text(runpath)))
    headers = 64 + 56 * 3
    base = 0x400000
    interp_at = headers
    strings_at = interp_at + len(interpreter)
    dynamic_at = strings_at + len(strings)
    dynamic = b"".join(
        struct.pack("<qQ", *entry)
        for entry in [*entries, (5, base + strings_at), (10, len(strings)), (0, 0)]
    )
    body = interpreter + strings + dynamic
    names = b"\0.names\0"
    table = [(1, 3, 0)]
    content = b""
    at = headers + len(body)
    rows = []
    for name, data in sections:
        rows.append((len(names), 1, at + len(content), len(data)))
        names += name + b"\0"
        content += data
    rows.insert(0, (1, 3, at + len(content), len(names)))
    content += names
    section_at = at + len(content)
    table = b"".join(
        struct.pack("<IIQQQQIIQQ", n, k, 0, 0, o, s, 0, 0, 0, 0) for n, k, o, s in rows
    )
    head = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", kind, machine, 1, 0, 64, section_at, 0,
        64, 56, 3, 64, len(rows), 0,
    )  # fmt: skip
    size = section_at + len(table)
    segments = [
        (1, 5, 0, base, base, size, size, 4096),
        (3, 4, interp_at, 0, 0, len(interpreter), len(interpreter), 1),
        (2, 6, dynamic_at, 0, 0, len(dynamic), len(dynamic), 8),
    ]
    return (
        head + b"".join(struct.pack("<IIQQQQQQ", *row) for row in segments) + body + content + table
    )
