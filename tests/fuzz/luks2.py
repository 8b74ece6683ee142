# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: a pair of LUKS2 headers with their metadata, up to the judgement.

A checksum would stop most changes at once. So the input is also taken as the JSON of a
pair whose checksums are right, and as bytes that are laid over a good header.
"""

from __future__ import annotations

from troth.abi import luks2
from troth.documents import luks2_json
from troth.documents.volume_profile import VolumeProfile
from troth.errors import FormatError
from troth.volumes import luks2_profile, luks2_write
from troth.volumes.luks2_reasons import WHY

_MEMORY_BYTES = 2 << 30
_HEADER = luks2.Header(16384, 1, "0c5f4a3e-7b11-4f7e-9d59-3f6f5d0f2a10", bytes(64))

_HEADS = [
    luks2_write.new(
        VolumeProfile(integrity=integrity, sector_bytes=sector, uuid=_HEADER.uuid),
        b"key",
        random=lambda size: bytes(range(256)) * (size // 256) + bytes(range(size % 256)),
    ).head[:32768]
    for integrity, sector in (("hmac", 4096), ("none", 512))
]
SEEDS = [*_HEADS, *(luks2.parse(head).metadata for head in _HEADS)]


def fuzz(data: bytes) -> None:
    judge(data)
    for secondary in (0, 16384):
        try:
            copy = luks2.parse(data, offset_bytes=secondary)
        except FormatError:
            continue
        end = secondary + copy.header.size_bytes
        if luks2.pack(copy, secondary=bool(secondary)) != data[secondary:end]:
            raise AssertionError("a header that was read does not pack to its own bytes")
    try:
        found = luks2_json.parse(data)
        if luks2_json.parse(luks2_json.print_(found)) != found:
            raise AssertionError("metadata that were printed read as something else")
    except FormatError:
        pass
    try:
        copy = luks2.Copy(_HEADER, data[:12000])
        judge(luks2.pack(copy, secondary=False) + luks2.pack(copy, secondary=True))
    except FormatError:
        return


def judge(area: bytes) -> None:
    for profile in (VolumeProfile(), VolumeProfile(integrity="none", sector_bytes=512)):
        checks = list(luks2_profile.checks(area, profile, memory_bytes=_MEMORY_BYTES))
        "".join(check.expected + check.observed for check in checks).encode()
        if not {check.code for check in checks} <= set(WHY):
            raise AssertionError("a check that nobody explains")
        try:
            luks2_profile.require(area, profile, memory_bytes=_MEMORY_BYTES)
        except FormatError as error:
            if all(check.passed for check in checks) or error.code not in WHY:
                raise AssertionError("refused by none of its checks") from error
        else:
            if not all(check.passed for check in checks):
                raise AssertionError("accepted in spite of a refusal")
