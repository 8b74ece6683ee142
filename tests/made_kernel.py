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


def linux_bytes(*, code=b"\x90" * 0x5001, protocol=0x20F, sectors=3, **fields):
    """A kernel image that a boot loader takes; ``fields`` replace those of the setup header.

    Offsets and meaning: Linux Documentation/arch/x86/boot.rst.
    """
    places = {
        "loadflags": (0x211, 1),
        "initrd_addr_max": (0x22C, 4),
        "kernel_alignment": (0x230, 4),
        "relocatable": (0x234, 1),
        "xloadflags": (0x236, 2),
        "cmdline_size": (0x238, 4),
        "pref_address": (0x258, 8),
        "init_size": (0x260, 4),
    }
    values = {
        "loadflags": 0x01,
        "initrd_addr_max": 0x7FFF_FFFF,
        "kernel_alignment": 0x20_0000,
        "relocatable": 1,
        "xloadflags": 0x7F,
        "cmdline_size": 2047,
        "pref_address": 0x100_0000,
        "init_size": 0x10_0000,
        **fields,
    }
    data = bytearray(512 * (sectors + 1))
    data[0x1F1] = sectors
    data[0x1F4:0x1F8] = (-(-len(code) // 16)).to_bytes(4, "little")
    data[0x1FE:0x202] = b"\x55\xaa\xeb\x6a"
    data[0x202:0x206] = b"HdrS"
    data[0x206:0x208] = protocol.to_bytes(2, "little")
    for name, value in values.items():
        at, size = places[name]
        data[at : at + size] = value.to_bytes(size, "little")
    return bytes(data) + code
