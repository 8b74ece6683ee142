# SPDX-License-Identifier: Apache-2.0
"""``troth volume check``: every check of a header, in words or JSON.

The judging is ``troth.volumes.luks2_profile``'s. Must never print a key, nor try one on a
header that was refused.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from troth.abi import luks2
from troth.cli import volume_key
from troth.documents import strict, volume_profile_file
from troth.documents.volume_profile import VolumeProfile
from troth.errors import FormatError, UsageError
from troth.volumes import header_area, luks2_open, luks2_profile
from troth.volumes.luks2_reasons import WHY

if TYPE_CHECKING:
    from troth.volumes.luks2_profile import Accepted
    from troth.volumes.luks2_rules import Check

SCHEMA = "troth-volume-check-v1"


class Options(Protocol):
    """What the grammar gives."""

    header: str
    key_file: str | None
    raw_key: bool
    profile: str | None
    json: bool


def check(options: Options) -> int:
    """Judge the header; 0 where it is accepted, and opened where a key is given, else 1.

    Raises ``UsageError``: ``volume-profile-file``, ``key-file``, and ``HostError`` where the
    key cannot be tried.
    """
    if options.raw_key and options.key_file is None:
        raise UsageError("usage", "--raw-key says how --key-file is read; give both")
    profile = _profile(options.profile)
    area = header_area.read_file(options.header)
    found, accepted = _judge(area, profile)
    opened: bool | None = None
    if accepted is not None and options.key_file is not None:
        opened = _opens(accepted, area, options)
    copy = luks2.selected(luks2.pair(area))
    refused = [item for item in found if not item.passed]
    code = refused[0].code if refused else "luks2-key" if opened is False else ""
    tree: dict[str, object] = {
        "schema": SCHEMA,
        "volume": volume_key.printable(options.header),
        "uuid": copy.header.uuid if copy is not None else "",
        "profile": profile.text,
        "verdict": "refused" if code else "accepted",
        "code": code,
        "opened": opened,
        "checks": [
            {
                "code": item.code,
                "verdict": "pass" if item.passed else "fail",
                "expected": item.expected,
                "observed": item.observed,
                "why": WHY[item.code],
            }
            for item in found
        ],
    }
    if options.json:
        sys.stdout.write(strict.pretty(tree).decode())
    else:
        _show(tree, found, profile, opened=opened)
    return 1 if code else 0


def _profile(name: str | None) -> VolumeProfile:
    if name is None:
        return VolumeProfile()
    try:
        with Path(name).open("rb") as file:
            data = file.read(volume_profile_file.LIMIT_BYTES + 1)
    except OSError as error:
        raise UsageError(
            "volume-profile-file", f"cannot be read: {error.strerror}", where=name
        ) from None
    return volume_profile_file.parse(data, where=name)


def _judge(area: bytes, profile: VolumeProfile) -> tuple[list[Check], Accepted | None]:
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    steps = luks2_profile.checks(area, profile, memory_bytes=memory_bytes)
    found: list[Check] = []
    while True:
        try:
            found.append(next(steps))
        except StopIteration as end:
            return found, end.value


def _opens(accepted: Accepted, area: bytes, options: Options) -> bool:
    passphrase = volume_key.passphrase(
        options.key_file or "",
        raw=options.raw_key,
        uuid=accepted.header.uuid,
        profile=accepted.profile.text,
    )
    try:
        luks2_open.unlock(accepted, area, passphrase)
    except FormatError as error:
        if error.code != "luks2-key":
            raise
        return False
    return True


def _show(
    tree: dict[str, object], found: list[Check], profile: VolumeProfile, *, opened: bool | None
) -> None:
    lines = [f"volume {tree['volume']} {tree['uuid']}", f"profile {profile.text}"]
    width = max(len(item.code) for item in found)
    for item in found:
        if item.passed:
            lines.append(f"   pass  {item.code:<{width}}  {item.expected}: {item.observed}")
        else:
            lines.append(
                f"-> fail  {item.code:<{width}}  expected {item.expected}; seen: {item.observed}"
            )
            lines.append(f"         {'':<{width}}  why: {WHY[item.code]}")
    refused = sum(not item.passed for item in found)
    if refused:
        lines.append(f"refused: {refused} of {len(found)} checks; no key was tried")
    elif opened is False:
        lines.append("refused: luks2-key: the header is as expected, the key does not open it")
    else:
        lines.append("accepted" + (", and the key opens it" if opened else "; no key was tried"))
    sys.stdout.write("".join(f"{_safe(line)}\n" for line in lines))


def _safe(text: str) -> str:
    """``text`` without control characters: a header is not ours."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)
