# SPDX-License-Identifier: Apache-2.0
"""``troth volume check``: which kind of volume it is, and every check of a LUKS2 header.

The judging is ``troth.volumes.luks2_profile``'s. Must never print a key, nor try one on a
header that was refused.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from troth.abi import luks2
from troth.cli import volume_check_headerless, volume_key
from troth.cli.volume_verdict import Verdict, show
from troth.documents import volume_profile_file
from troth.documents.policy_keys import HEADERLESS, LUKS2
from troth.documents.volume_profile import VolumeProfile
from troth.errors import FormatError, UsageError
from troth.record import replace
from troth.volumes import (
    header_area,
    headerless_checks,
    keys,
    luks2_open,
    luks2_profile,
    luks2_shown,
)
from troth.volumes.luks2_reasons import WHY

if TYPE_CHECKING:
    from troth.volumes.luks2_profile import Accepted
    from troth.volumes.luks2_rules import Check


class Options(Protocol):
    """What the grammar gives."""

    header: str
    key_file: str | None
    raw_key: bool
    format: str | None
    integrity: str | None
    uuid: str | None
    record: str | None
    profile: str | None
    json: bool


def check(options: Options) -> int:
    """Judge the volume; 0 where it is accepted, and opened where a key is given, else 1.

    Raises ``UsageError``: ``volume-profile-file``, ``volume-uuid``, ``volume-record``,
    ``key-file``, and ``HostError`` where the key cannot be tried.
    """
    if options.raw_key and options.key_file is None:
        raise UsageError("usage", "--raw-key says how --key-file is read; give both")
    profile = _expected(options)
    disk = headerless_checks.read(options.header)
    format_ = options.format or (HEADERLESS if disk.has_record else LUKS2)
    if format_ == HEADERLESS:
        return show(options, volume_check_headerless.judge(options, disk, profile))
    if options.record is not None:
        raise UsageError("usage", "--record is of a volume without a header")
    return show(options, _luks2(options, profile))


def _luks2(options: Options, given: VolumeProfile) -> Verdict:
    area = header_area.read_file(options.header)
    profile, as_shown = given, options.profile is None
    if as_shown:
        shown = luks2_shown.profile_of(area)
        integrity = shown.integrity if options.integrity is None else given.integrity
        profile = replace(shown, uuid=given.uuid, integrity=integrity)
    found, accepted = _judge(area, profile)
    opened, key = None, ""
    if accepted is not None and options.key_file is not None:
        opened, key = _opens(accepted, area, options)
    copy = luks2.selected(luks2.pair(area))
    refused = [item for item in found if not item.passed]
    code = refused[0].code if refused else "luks2-key" if opened is False else ""
    if refused:
        last = f"refused: {len(refused)} of {len(found)} checks; no key was tried"
    elif opened is False:
        last = "refused: luks2-key: the header is as expected, the key does not open it"
    else:
        last = "accepted" + (f", and {key} opens it" if opened else "; no key was tried")
        if as_shown:
            last += f"; {_bounds(area, profile.integrity)}"
    return Verdict(
        uuid=copy.header.uuid if copy is not None else "",
        profile=profile.text,
        code=code,
        opened=opened,
        rows=tuple((item, "", WHY[item.code]) for item in found),
        last=last,
    )


def _bounds(area: bytes, integrity: str) -> str:
    """What a guest makes of a volume that is judged by its own words."""
    policy = VolumeProfile(integrity=integrity)
    found, _accepted = _judge(area, policy)
    codes = [item.code for item in found if not item.passed]
    words = f"a guest opens it where its policy says {policy.text}"
    if codes:
        words = f"no guest of troth opens it: {', '.join(codes)} with {policy.text}"
    return words if integrity != "none" else f"{words}; its host can change data unseen"


def _expected(options: Options) -> VolumeProfile:
    """The profile with what is said beside it."""
    profile = _profile(options.profile)
    if options.uuid is not None:
        profile = replace(profile, uuid=volume_key.uuid(options.uuid))
    if options.integrity is None:
        return profile
    try:
        return replace(profile, integrity=options.integrity)
    except FormatError as error:
        raise UsageError(
            "volume-profile-file", error.message, where=options.profile or ""
        ) from None


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


def _opens(accepted: Accepted, area: bytes, options: Options) -> tuple[bool, str]:
    """Whether the key file opens it, and as what: a source key, or a passphrase as it is."""
    # Once: it may be a pipe.
    whole = volume_key.read(options.key_file or "")
    ways = [("the passphrase in the file", whole)]
    if volume_key.is_source(whole) and not options.raw_key:
        derived = keys.passphrase(whole, uuid=accepted.header.uuid, profile=accepted.profile.text)
        ways.insert(0, ("the key", derived))
    for noun, passphrase in ways:
        try:
            luks2_open.unlock(accepted, area, passphrase)
        except FormatError as error:
            if error.code != "luks2-key":
                raise
        else:
            return True, noun
    return False, ""
