# SPDX-License-Identifier: Apache-2.0
"""The x86 boot protocol's setup header: which kernel a bzImage holds.

Serves the packer, which wants the release, and ``image.igvm``, which loads the
kernel as a boot loader does. Source: Linux Documentation/arch/x86/boot.rst ("The
Real-Mode Kernel Header"). Pure; must never look beyond the bytes given.
"""

from __future__ import annotations

from troth.errors import FormatError
from troth.record import record

_BOOT_FLAG_AT, _MAGIC_AT, _VERSION_AT = 0x1FE, 0x202, 0x20E
_VERSION_LIMIT_BYTES = 512
_HEADER_AT, _JUMP_AT = 0x1F1, 0x201
_SECTOR_BYTES = 512
_OLD_SETUP_SECTORS = 4  # what 0 stands for

PROTOCOL_2_12 = 0x020C
"""The first version with all fields of ``SetupHeader``; older ones end earlier."""
_FIELDS_END, _FIELDS_LIMIT = 0x264, 0x290  # boot_params have other things from there on

LOADED_HIGH = 1 << 0
"""Of ``loadflags``: the protected-mode kernel belongs above 1 MiB."""
XLF_KERNEL_64 = 1 << 0
"""Of ``xloadflags``: there is a 64-bit entry point 0x200 into the protected-mode kernel."""


@record
class SetupHeader:
    """What a boot loader reads.

    ``protocol``: version, major in the high byte; ``fields``: the header's own
    bytes, from 0x1F1 of the file on, as boot_params hold them at the same
    offset; ``kernel_at``: where in the file the protected-mode kernel begins;
    ``kernel_bytes``: how long it is at least; ``initrd_addr_max``: the highest
    address an initramfs may have; ``pref_address``, ``init_size_bytes``: where
    the kernel wants to be, and the room it needs there before it reads a memory
    map; ``cmdline_size``: the longest command line, without its NUL.
    """

    protocol: int
    fields: bytes
    kernel_at: int
    kernel_bytes: int
    loadflags: int
    xloadflags: int
    initrd_addr_max: int
    kernel_alignment: int
    cmdline_size: int
    pref_address: int
    init_size_bytes: int


def setup_header(data: bytes, *, where: str = "") -> SetupHeader:
    """The setup header of the kernel image ``data``.

    Raises ``FormatError``: ``bzimage-header`` (no setup header, or one shorter
    than its version needs), ``bzimage-protocol`` (older than 2.12, of Linux
    3.8), ``bzimage-truncated`` (the file ends before the kernel that the header
    announces).
    """
    _check_magic(data, where)
    protocol = _number(data, 0x206, 2)
    if protocol < PROTOCOL_2_12:
        raise FormatError(
            "bzimage-protocol",
            f"boot protocol {protocol >> 8}.{protocol & 0xFF:02}, 2.12 is needed",
            where=where,
        )
    # The jump over the header tells where it ends (boot.rst, field "jump").
    end = _JUMP_AT + 1 + data[_JUMP_AT]
    if not _FIELDS_END <= end <= min(len(data), _FIELDS_LIMIT):
        raise FormatError("bzimage-header", "the setup header is cut off", where=where)
    kernel_at = (data[_HEADER_AT] or _OLD_SETUP_SECTORS) * _SECTOR_BYTES + _SECTOR_BYTES
    # Counted in paragraphs of 16 bytes, the last of which need not be full.
    kernel_bytes = max(_number(data, 0x1F4, 4) * 16 - 15, 1)
    if len(data) - kernel_at < kernel_bytes:
        raise FormatError(
            "bzimage-truncated",
            f"{kernel_bytes} bytes of kernel from {kernel_at:#x} on leave the file",
            where=where,
        )
    return SetupHeader(
        protocol=protocol,
        fields=data[_HEADER_AT:end],
        kernel_at=kernel_at,
        kernel_bytes=kernel_bytes,
        loadflags=data[0x211],
        xloadflags=_number(data, 0x236, 2),
        initrd_addr_max=_number(data, 0x22C, 4),
        kernel_alignment=_number(data, 0x230, 4),
        cmdline_size=_number(data, 0x238, 4),
        pref_address=_number(data, 0x258, 8),
        init_size_bytes=_number(data, 0x260, 4),
    )


def release(data: bytes, *, where: str = "") -> str:
    """The kernel release (``uname -r``) that the header of ``data`` names.

    Raises ``FormatError``: ``bzimage-header`` (no setup header),
    ``bzimage-release`` (no version text, or one without a release).
    """
    _check_magic(data, where)
    # boot.rst: the pointer is relative to the setup header's sector, 0x200.
    start = int.from_bytes(data[_VERSION_AT : _VERSION_AT + 2], "little") + 0x200
    end = data.find(b"\0", start, start + _VERSION_LIMIT_BYTES)
    first = data[start:end].split(b" ")[0] if start != 0x200 and end > start else b""
    text = first.decode("ascii", "replace")
    if not text or not all(char.isalnum() or char in "._+~-" for char in text):
        raise FormatError("bzimage-release", "the header names no release", where=where)
    if text in (".", ".."):
        raise FormatError("bzimage-release", f"{text!r} is no release", where=where)
    return text


def _check_magic(data: bytes, where: str) -> None:
    if (
        len(data) < _VERSION_AT + 2
        or data[_BOOT_FLAG_AT : _BOOT_FLAG_AT + 2] != b"\x55\xaa"
        or data[_MAGIC_AT : _MAGIC_AT + 4] != b"HdrS"
    ):
        raise FormatError("bzimage-header", "not a bzImage: no setup header", where=where)


def _number(data: bytes, at: int, size_bytes: int) -> int:
    return int.from_bytes(data[at : at + size_bytes], "little")
