# SPDX-License-Identifier: Apache-2.0
"""Synthetic OVMF images, written from edk2's ResetVectorVtf0.asm and OvmfSevMetadata.asm.

Deliberately knows nothing of ``troth.abi.ovmf``: a mistake there must not be repeated here.
"""

import random
import struct
import uuid

FOOTER = "96b582de-1fb2-45f7-baea-a366c55a082d"
RESET = "00f771de-1a7e-4fcb-890e-68c77e2fb44e"
HASHES = "7255371f-3a3b-4b04-927b-1da6efa8d454"
INJECT = "4c2eb361-7d9b-4cc3-8081-127c90d3d294"
SEV = "dc886566-984a-4798-a75e-5585a7bf67cc"
TDX = "e47a6535-984a-4798-865e-4685a7bf8ec2"
IGVM = "784fa70e-3176-4677-8a20-04b68699e374"

MEM, SECRETS, CPUID, CAA, KERNEL = 1, 2, 3, 4, 0x10

AP_EIP = 0x0080B004
AREA = (0x00810C00, 0x400)

#: As AmdSevX64.dsc of edk2-stable202405 has them: the hashes in the middle.
MIDDLE = (
    (0x800000, 0x9000, MEM),
    (0x80A000, 0x3000, MEM),
    (0x80D000, 0x1000, SECRETS),
    (0x80E000, 0x1000, CPUID),
    (0x80F000, 0x1000, CAA),
    (0x810000, 0x1000, KERNEL),
    (0x811000, 0xF000, MEM),
)
#: Later releases: the hashes behind all others.
LAST = (*(item for item in MIDDLE if item[2] != KERNEL), (0x810000, 0x1000, KERNEL))
#: OvmfPkgX64.dsc: no place for hashes.
PLAIN = (
    (0x800000, 0x9000, MEM),
    (0x80A000, 0x3000, MEM),
    (0x80D000, 0x1000, SECRETS),
    (0x80E000, 0x1000, CPUID),
    (0x80F000, 0x11000, MEM),
)
#: Several areas for an SVSM's calls, the CPUID page first.
SVSM = (
    (0x80E000, 0x1000, CPUID),
    (0x900000, 0x4000, CAA),
    (0x800000, 0x9000, MEM),
    (0x80D000, 0x1000, SECRETS),
    (0x910000, 0x1000, CAA),
    (0x810000, 0x1000, KERNEL),
)


def entry(guid, data):
    return data + struct.pack("<H", len(data) + 18) + uuid.UUID(guid).bytes_le


def metadata(sections, *, magic=b"ASEV", version=1, count=None, length=None):
    body = b"".join(struct.pack("<III", *item) for item in sections)
    head = struct.pack(
        "<4sIII",
        magic,
        16 + len(body) if length is None else length,
        version,
        len(sections) if count is None else count,
    )
    return head + body


def firmware(
    size=8192,
    *,
    sections=MIDDLE,
    area=AREA,
    eip=AP_EIP,
    inject=(0x810000, 0xC00),
    extra=(),
    seed=1,
    gap=64,
    **of_metadata,
):
    """A firmware of ``size`` bytes; None leaves an entry out. ``extra``: entries in front."""
    table = b"".join(entry(guid, data) for guid, data in extra)
    if sections is not None:
        table += entry(SEV, b"\0\0\0\0")
    if area is not None:
        table += entry(HASHES, struct.pack("<II", *area))
    if inject is not None:
        table += entry(INJECT, struct.pack("<II", *inject))
    if eip is not None:
        table += entry(RESET, struct.pack("<I", eip))
    described = metadata(sections, **of_metadata) if sections is not None else b""
    table_at = size - 32 - 18 - len(table)
    described_at = table_at - gap - len(described)
    if sections is not None:
        offset = struct.pack("<I", size - described_at)
        table = table.replace(entry(SEV, b"\0\0\0\0"), entry(SEV, offset))
    made = bytearray(random.Random(seed).randbytes(size))
    made[described_at : described_at + len(described)] = described
    made[table_at:] = with_table(table)
    return bytes(made)


def with_table(table, *, size=None):
    """The end of a firmware: ``table``, the footer entry and 32 bytes of code."""
    size = len(table) + 18 if size is None else size
    return table + struct.pack("<H", size) + uuid.UUID(FOOTER).bytes_le + b"\x90" * 32
