# SPDX-License-Identifier: Apache-2.0
"""The x86 boot protocol's setup header: which kernel a bzImage holds.

Serves the packer. Source: Linux Documentation/arch/x86/boot.rst ("The
Real-Mode Kernel Header"). Pure; must never look beyond the bytes given.
"""

from __future__ import annotations

from troth.errors import FormatError

_BOOT_FLAG_AT, _MAGIC_AT, _VERSION_AT = 0x1FE, 0x202, 0x20E
_VERSION_LIMIT_BYTES = 512


def release(data: bytes, *, where: str = "") -> str:
    """The kernel release (``uname -r``) that the header of ``data`` names.

    Raises ``FormatError``: ``bzimage-header`` (no setup header),
    ``bzimage-release`` (no version text, or one without a release).
    """
    if (
        len(data) < _VERSION_AT + 2
        or data[_BOOT_FLAG_AT : _BOOT_FLAG_AT + 2] != b"\x55\xaa"
        or data[_MAGIC_AT : _MAGIC_AT + 4] != b"HdrS"
    ):
        raise FormatError("bzimage-header", "not a bzImage: no setup header", where=where)
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
