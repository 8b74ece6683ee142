# SPDX-License-Identifier: Apache-2.0
"""The table of hashes by which OVMF recognises kernel, initrd and command line.

Serves ``measure.direct_boot``. QEMU writes this table into guest memory before
the launch; the firmware compares what it loads with it. Pure: it must never
open a file.

Source: QEMU, ``target/i386/sev.c``, ``SevHashTable`` and
``sev_add_kernel_loader_hashes``; edk2, ``OvmfPkg/AmdSev/BlobVerifierLibSevHashes``.
"""

from __future__ import annotations

import struct
from hashlib import sha256

from troth.errors import FormatError
from troth.record import record

TABLE_BYTES = 176
"""The table of 168 bytes, padded to a multiple of 16 as QEMU pads it."""

EMPTY_SHA256 = sha256(b"").digest()

# The GUIDs in the byte order of EFI: first three groups little-endian.
_TABLE = bytes.fromhex("06d63894224fc94cb479a793d411fd21")  # 9438d606-4f22-4cc9-b479-...
_CMDLINE = bytes.fromhex("d82dd09720bd944caa78e7714d36ab2a")  # 97d02dd8-bd20-4c94-aa78-...
_INITRD = bytes.fromhex("31f7ba442f3ad74b9af141e29169781d")  # 44baf731-3a2f-4bd7-9af1-...
_KERNEL = bytes.fromhex("3794e74dd2ab7f42b835d5b172d2045b")  # 4de79437-abd2-427f-b835-...

_HEAD = struct.Struct("<16sH")
_ENTRY = struct.Struct("<16sH32s")
_LENGTH = _HEAD.size + 3 * _ENTRY.size


@record
class KernelHashes:
    """SHA-256 digests, 32 bytes each, of what a direct boot loads.

    ``kernel``: the file as it is on disk; ``initrd``: the file, or no bytes;
    ``cmdline``: the text and the NUL that ends it.
    """

    kernel: bytes
    initrd: bytes
    cmdline: bytes

    def __post_init__(self) -> None:
        """Refuse digests of another size: ``FormatError`` ``kernel-hash``."""
        for name in ("kernel", "initrd", "cmdline"):
            if len(getattr(self, name)) != 32:
                raise FormatError("kernel-hash", f"the hash of the {name} has not 32 bytes")


def cmdline_sha256(cmdline: str | None) -> bytes:
    """The digest of a command line as QEMU takes it: the bytes and a NUL; None is empty.

    Text that came from an argument that is no UTF-8 gives the argument's bytes.
    Raises ``FormatError`` ``kernel-cmdline`` where it holds a NUL or half a character.
    """
    try:
        data = (cmdline or "").encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise FormatError("kernel-cmdline", "the command line is no text") from None
    if b"\0" in data:
        raise FormatError("kernel-cmdline", "the command line holds a NUL")
    return sha256(data + b"\0").digest()


def table(hashes: KernelHashes) -> bytes:
    """The table with its padding, ``TABLE_BYTES`` long."""
    entries = ((_CMDLINE, hashes.cmdline), (_INITRD, hashes.initrd), (_KERNEL, hashes.kernel))
    body = b"".join(_ENTRY.pack(guid, _ENTRY.size, digest) for guid, digest in entries)
    return (_HEAD.pack(_TABLE, _LENGTH) + body).ljust(TABLE_BYTES, b"\0")
