# SPDX-License-Identifier: Apache-2.0
"""What Linux is handed: boot_params, and the setup_data entry that makes it an SNP guest.

Serves ``build``. Must copy nothing of the kernel's own setup header that the
boot protocol leaves to the loader.

Sources: Linux Documentation/arch/x86/boot.rst, Documentation/arch/x86/
zero-page.rst, ``arch/x86/include/uapi/asm/bootparam.h`` and
``asm/setup_data.h`` (struct setup_data, SETUP_CC_BLOB),
``arch/x86/include/asm/sev.h`` (struct cc_blob_sev_info).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from troth.errors import BuildError
from troth.image.igvm import layout

if TYPE_CHECKING:
    from troth.abi.bzimage import SetupHeader
    from troth.image.igvm.layout import Plan

_ACPI_RSDP_AT = 0x070
_E820_ENTRIES_AT = 0x1E8
_HEADER_AT = 0x1F1
_TYPE_OF_LOADER_AT = 0x210
_LOADFLAGS_AT = 0x211
_RAMDISK_AT = 0x218
_CMD_LINE_AT = 0x228
_SETUP_DATA_AT = 0x250
_E820_AT = 0x2D0

_LOADER_UNDEFINED = 0xFF
_LOADED_HIGH = 1
_SETUP_CC_BLOB = 7
_SETUP_DATA = struct.Struct("<QII")
_BLOB = struct.Struct("<IHHQIIQII")
_BLOB_MAGIC = 0x4544_4D41  # "AMDE"
_BLOB_VERSION = 0  # what OVMF writes; Linux does not look


def page(header: SetupHeader, plan: Plan, *, initramfs_bytes: int) -> bytes:
    """The page of struct boot_params, 4096 bytes; fields not named here are zero."""
    out = bytearray(layout.PAGE_BYTES)
    out[_HEADER_AT : _HEADER_AT + len(header.fields)] = header.fields
    out[_TYPE_OF_LOADER_AT] = _LOADER_UNDEFINED
    # Only that the kernel is above 1 MiB: no heap for 16-bit code, no other flag.
    out[_LOADFLAGS_AT] = _LOADED_HIGH
    struct.pack_into("<Q", out, _ACPI_RSDP_AT, layout.ACPI)
    place = plan.initramfs if initramfs_bytes else 0
    struct.pack_into("<II", out, _RAMDISK_AT, place, initramfs_bytes)
    struct.pack_into("<I", out, _CMD_LINE_AT, layout.CMDLINE)
    struct.pack_into("<Q", out, _SETUP_DATA_AT, layout.SETUP_DATA)
    out[_E820_ENTRIES_AT] = len(plan.e820)
    for index, region in enumerate(plan.e820):
        at = _E820_AT + index * 20
        struct.pack_into("<QQI", out, at, region.gpa, region.size_bytes, region.kind)
    return bytes(out)


def cmdline_page(header: SetupHeader, cmdline: str) -> bytes:
    """The command line and its NUL, 4096 bytes.

    Raises ``BuildError`` ``igvm-cmdline`` where it is longer than the kernel
    takes, which would cut it off in silence, or holds a NUL.
    """
    data = cmdline.encode("utf-8", "surrogateescape")
    longest = min(header.cmdline_size, layout.PAGE_BYTES - 1)
    if len(data) > longest:
        raise BuildError(
            "igvm-cmdline",
            f"the command line has {len(data)} bytes, the kernel takes {longest}",
            hint="shorten it",
        )
    if b"\0" in data:
        raise BuildError("igvm-cmdline", "the command line holds a NUL")
    return data.ljust(layout.PAGE_BYTES, b"\0")


def setup_data() -> bytes:
    """The setup_data list: one entry of type SETUP_CC_BLOB, with the blob's address.

    By setup_data, because Linux clears ``boot_params.cc_blob_address`` before
    it looks.
    """
    return _SETUP_DATA.pack(0, _SETUP_CC_BLOB, 4) + struct.pack("<I", layout.CC_BLOB)


def cc_blob() -> bytes:
    """The struct cc_blob_sev_info: where the secrets page and the CPUID page are."""
    size_bytes = layout.PAGE_BYTES
    return _BLOB.pack(
        _BLOB_MAGIC, _BLOB_VERSION, 0,
        layout.SECRETS, size_bytes, 0, layout.CPUID, size_bytes, 0,
    )  # fmt: skip
