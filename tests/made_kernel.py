# SPDX-License-Identifier: Apache-2.0
"""Kernel images and module trees made to order, for the tests of the packer."""

import lzma
import zlib

from made_elf import made
from troth.abi import elf

SIGNATURE = b"\x30\x82signature~Module signature appended~\n"


def bzimage_bytes(version, *, pointer=0x400):
    """A setup header that points at ``version``; ``pointer`` is relative to 0x200."""
    data = bytearray(0x1000)
    data[0x1FE:0x200] = b"\x55\xaa"
    data[0x202:0x206] = b"HdrS"
    data[0x20E:0x210] = pointer.to_bytes(2, "little")
    text = version.encode("latin-1") + b"\0"
    data[0x600 : 0x600 + len(text)] = text
    return bytes(data)


def module_bytes(*, depends=(), softdep="", signed=True):
    """A kernel module that says what it depends on."""
    info = b"license=GPL\0depends=" + ",".join(depends).encode() + b"\0"
    if softdep:
        info += b"softdep=" + softdep.encode() + b"\0"
    return made(kind=elf.RELOCATABLE, sections=((b".modinfo", info),)) + (
        SIGNATURE if signed else b""
    )


def module_tree(place, modules, *, builtin=(), builtin_aliases=()):
    """Write ``modules`` (file name with suffix -> plain bytes) as a tree below ``place``."""
    for name, data in modules.items():
        path = place / "kernel" / "drivers" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".xz"):
            packed = lzma.compress(data)
        elif name.endswith(".gz"):
            packer = zlib.compressobj(wbits=31)
            packed = packer.compress(data) + packer.flush()
        else:
            packed = data
        path.write_bytes(packed)
    (place / "modules.builtin").write_text("".join(f"kernel/lib/{name}.ko\n" for name in builtin))
    (place / "modules.builtin.modinfo").write_bytes(
        b"".join(b"x.alias=" + alias.encode() + b"\0" for alias in builtin_aliases)
    )
    return place
