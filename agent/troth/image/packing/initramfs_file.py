# SPDX-License-Identifier: Apache-2.0
"""An initramfs file, read back: decompressed within bounds and taken apart.

Serves ``inspect``. The kernel knows three forms here: a plain newc archive, an
lz4 legacy frame, a zstd frame. Never believes a size that the file names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.abi import cpio
from troth.errors import FormatError
from troth.image import program

if TYPE_CHECKING:
    from pathlib import Path

    from troth.abi.cpio import Member

MAX_BYTES = 1 << 30
MAGICS = (
    ("none", b"070701"),
    ("lz4", b"\x02\x21\x4c\x18"),
    ("zstd", b"\x28\xb5\x2f\xfd"),
)
_PROGRAMS = {"lz4": ("lz4", "-dcq", "-"), "zstd": ("zstd", "-dcq", "--memory=128MB")}


def compression_of(path: Path) -> str | None:
    """none, lz4 or zstd by the first bytes; None where it is no initramfs."""
    with path.open("rb") as file:
        head = file.read(8)
    return next((name for name, magic in MAGICS if head.startswith(magic)), None)


def read(path: Path, *, limit_bytes: int = MAX_BYTES) -> bytes:
    """The archive in ``path``, decompressed.

    Raises ``FormatError``: ``initramfs-kind``, ``initramfs-size`` (more than
    ``limit_bytes``), ``initramfs-broken``; ``HostError`` ``program-missing``.
    """
    kind = compression_of(path)
    if kind is None:
        raise FormatError("initramfs-kind", "neither newc, lz4 nor zstd", where=str(path))
    with path.open("rb", buffering=0) as file:
        if kind == "none":
            data = file.read(limit_bytes + 1)
            status = 0
        else:
            data, status = _run(_PROGRAMS[kind], file.fileno(), limit_bytes)
    if len(data) > limit_bytes:
        raise FormatError("initramfs-size", f"more than {limit_bytes} bytes", where=str(path))
    if status != 0:
        raise FormatError("initramfs-broken", f"{kind} cannot decompress it", where=str(path))
    return data


def _run(argv: tuple[str, ...], stdin: int, limit_bytes: int) -> tuple[bytes, int]:
    with program.start(argv, stdin=stdin) as process:
        parts = []
        left = limit_bytes + 1
        while left and process.stdout and (piece := process.stdout.read(min(left, 1 << 20))):
            parts.append(piece)
            left -= len(piece)
        if not left:
            process.kill()
    return b"".join(parts), process.returncode


def members(path: Path, *, limit_bytes: int = MAX_BYTES) -> tuple[Member, ...]:
    """What a guest would see, of a repeated path the last; ``FormatError`` ``cpio-*``."""
    found = {
        member.path: member
        for member in cpio.parse(read(path, limit_bytes=limit_bytes), where=str(path))
    }
    return tuple(found[name] for name in sorted(found))
