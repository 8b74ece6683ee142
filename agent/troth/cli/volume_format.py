# SPDX-License-Identifier: Apache-2.0
"""``troth volume format``: words only; ``troth.volumes`` makes the volume.

Must never print a key.
"""

from __future__ import annotations

import os
import sys
from hashlib import sha256
from typing import Protocol
from uuid import uuid4

from troth.abi import volume_record
from troth.cli import volume_headerless, volume_key
from troth.cli.terminal import Terminal
from troth.documents import strict
from troth.documents.policy_keys import HEADERLESS
from troth.documents.volume_profile import VolumeProfile
from troth.errors import UsageError
from troth.volumes import header_area, headerless_write, luks2_write
from troth.volumes.headerless_write import GENERATION
from troth.volumes.laid_out import LaidOut, write

_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_MAX_DIGITS = 9
_DATA_OFFSET = "16M"


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
    data_offset: str | None
    overwrite: bool
    json: bool


def format_(options: Options) -> int:
    """Make the volume and say what it is; 0.

    Raises ``UsageError``: ``volume-uuid``, ``volume-size``, ``key-file``, and what
    ``volume_headerless`` and ``troth.volumes`` raise.
    """
    uuid = str(uuid4()) if options.uuid is None else volume_key.uuid(options.uuid)
    if options.format == HEADERLESS:
        laid_out, profile = volume_headerless.laid_out(options, uuid), headerless_write.PROFILE
    else:
        expected = VolumeProfile(integrity=options.integrity, uuid=uuid)
        laid_out, profile = _luks2(options, expected), expected.text
    with Terminal().passing_bar("encrypting") as update:
        made = write(
            options.device,
            laid_out,
            size_bytes=size(options.size) if options.size is not None else 0,
            content=options.content or "",
            overwrite=options.overwrite,
            progress=update,
        )
    complete = bool(laid_out.key)
    tree: dict[str, object] = {
        "schema": "troth-volume-format-v1",
        "device": volume_key.printable(options.device),
        "format": options.format,
        "uuid": uuid,
        "profile": profile,
        "size_bytes": made.size_bytes,
        "data_offset_bytes": laid_out.data_offset_bytes,
        "complete": complete,
        "generation": GENERATION if complete else 0,
        "record": _record(options.format, made.head) if complete else "",
    }
    if options.json:
        sys.stdout.write(strict.pretty(tree).decode())
    else:
        _print(tree)
    return 0


def _luks2(options: Options, profile: VolumeProfile) -> LaidOut:
    passphrase = volume_key.passphrase(
        options.key_file, raw=options.raw_key, uuid=profile.uuid, profile=profile.text
    )
    written = luks2_write.new(
        profile,
        passphrase,
        random=os.urandom,
        data_offset_bytes=size(options.data_offset or _DATA_OFFSET),
    )
    return LaidOut(
        head=lambda _room_bytes: written.head,
        data_offset_bytes=written.data_offset_bytes,
        key=bytes(written.volume_key) if written.table.integrity is None else b"",
        sector_bytes=written.table.sector_bytes,
    )


def _record(format_: str, head: bytes) -> str:
    """What a broker that counts holds the disk against when it is opened for the first time."""
    if format_ == HEADERLESS:
        at = volume_record.slot(GENERATION) * volume_record.RECORD_BYTES
        return sha256(head[at : at + volume_record.RECORD_BYTES]).hexdigest()
    return sha256(head.ljust(header_area.AREA_BYTES, b"\0")).hexdigest()


def size(text: str) -> int:
    """Bytes of a size such as ``64M``; ``UsageError`` ``volume-size``."""
    unit = _UNITS.get(text[-1:], 1)
    digits = text[:-1] if text[-1:] in _UNITS else text
    if not 0 < len(digits) <= _MAX_DIGITS or not set(digits) <= set("0123456789"):
        raise UsageError("volume-size", f"{text!r} is no size", hint="such as 64M or 2G")
    if not int(digits):
        raise UsageError("volume-size", "a volume of no bytes holds nothing")
    return int(digits) * unit


def _print(tree: dict[str, object]) -> None:
    print(f"volume     {tree['device']} {tree['size_bytes']} bytes, {tree['profile']}")
    print(f"uuid       {tree['uuid']}")
    print(f"data       from {tree['data_offset_bytes']}")
    if tree["complete"]:
        print(f"generation {tree['generation']}")
        print(f"record     {tree['record']}")
    else:
        print(
            f"integrity  the superblock of dm-integrity at {tree['data_offset_bytes']} and the tags"
            " behind it are still to be written, by a kernel"
        )
