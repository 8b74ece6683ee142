# SPDX-License-Identifier: Apache-2.0
"""``troth volume format``: words only; ``troth.volumes`` makes the volume.

Must never print a key.
"""

from __future__ import annotations

import os
import sys
import uuid
from typing import TYPE_CHECKING, Protocol

from troth.cli import volume_headerless, volume_key
from troth.cli.terminal import Terminal
from troth.documents import strict
from troth.documents.volume_profile import VolumeProfile
from troth.errors import UsageError
from troth.volumes import luks2_image, luks2_write

if TYPE_CHECKING:
    from troth.volumes.luks2_write import Written

_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_MAX_DIGITS = 9


class Options(Protocol):
    """What the grammar gives."""

    device: str
    key_file: str
    raw_key: bool
    format: str
    integrity: str
    uuid: str | None
    size: str | None
    content: str | None
    data_offset: str
    overwrite: bool
    json: bool


def format_(options: Options) -> int:
    """Make the volume and say what it is; 0.

    Raises ``UsageError``: ``volume-uuid``, ``volume-size``, ``key-file``, and what
    ``troth.volumes`` raises.
    """
    if options.format == "headerless":
        volume_headerless.format_(options)
    profile = VolumeProfile(integrity=options.integrity, uuid=_uuid(options.uuid))
    passphrase = volume_key.passphrase(
        options.key_file, raw=options.raw_key, uuid=profile.uuid, profile=profile.text
    )
    written = luks2_write.new(
        profile,
        passphrase,
        random=os.urandom,
        data_offset_bytes=size(options.data_offset),
    )
    with Terminal().passing_bar("encrypting") as update:
        size_bytes = luks2_image.write(
            options.device,
            written,
            size_bytes=size(options.size) if options.size is not None else 0,
            content=options.content or "",
            overwrite=options.overwrite,
            progress=update,
        )
    _print(options, written, size_bytes)
    return 0


def size(text: str) -> int:
    """Bytes of a size such as ``64M``; ``UsageError`` ``volume-size``."""
    unit = _UNITS.get(text[-1:], 1)
    digits = text[:-1] if text[-1:] in _UNITS else text
    if not 0 < len(digits) <= _MAX_DIGITS or not set(digits) <= set("0123456789"):
        raise UsageError("volume-size", f"{text!r} is no size", hint="such as 64M or 2G")
    if not int(digits):
        raise UsageError("volume-size", "a volume of no bytes holds nothing")
    return int(digits) * unit


def _uuid(text: str | None) -> str:
    if text is None:
        return str(uuid.uuid4())
    try:
        found = str(uuid.UUID(text))
    except ValueError:
        found = ""
    if found != text.lower():
        raise UsageError(
            "volume-uuid",
            f"{text!r} is not a UUID",
            hint="write it as 8-4-4-4-12 hexadecimal digits",
        )
    return found


def _print(options: Options, written: Written, size_bytes: int) -> None:
    profile = written.accepted.profile
    found: dict[str, object] = {
        "schema": "troth-volume-format-v1",
        "device": volume_key.printable(options.device),
        "format": options.format,
        "uuid": profile.uuid,
        "profile": profile.text,
        "size_bytes": size_bytes,
        "data_offset_bytes": written.data_offset_bytes,
        "complete": written.table.integrity is None,
    }
    if options.json:
        sys.stdout.write(strict.pretty(found).decode())
        return
    print(f"volume    {options.device} {size_bytes} bytes, {profile.text}")
    print(f"uuid      {profile.uuid}")
    print(f"data      from {written.data_offset_bytes}")
    if written.table.integrity is not None:
        print(
            f"integrity the kernel writes the superblock of dm-integrity to"
            f" {written.data_offset_bytes}, and the tags, when the volume is first used"
        )
