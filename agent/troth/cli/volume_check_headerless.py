# SPDX-License-Identifier: Apache-2.0
"""``troth volume check`` of a volume without a header: both slots, and which one counts.

The judging is ``troth.volumes.headerless_checks``'s. Must never print a key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from troth.cli import volume_key
from troth.cli.volume_verdict import Verdict
from troth.documents.volume_profile import VolumeProfile
from troth.errors import UsageError
from troth.record import replace
from troth.volumes import headerless_checks
from troth.volumes.headerless_checks import Expected
from troth.volumes.record_reasons import WHY

if TYPE_CHECKING:
    from troth.cli.volume_check import Options
    from troth.volumes.headerless_checks import Disk, Judged

_DIGEST_DIGITS = 64
_HEX = frozenset("0123456789abcdef")


def judge(options: Options, disk: Disk, profile: VolumeProfile) -> Verdict:
    """What a guest would say of ``disk``.

    Raises ``UsageError``: ``usage``, ``volume-profile-file``, ``volume-record``, ``key-file``.
    """
    if options.raw_key:
        raise UsageError("usage", "--raw-key is a passphrase, which only LUKS2 volumes have")
    if replace(profile, integrity="hmac", uuid="") != VolumeProfile():
        raise UsageError(
            "volume-profile-file",
            "only integrity and uuid are said of a volume without a header",
            where=options.profile or "",
        )
    expected = Expected(profile.integrity, profile.uuid, _digest(options.record))
    secret = volume_key.source(options.key_file) if options.key_file is not None else b""
    found = headerless_checks.judge(disk, expected, secret)
    return Verdict(
        uuid=str(UUID(bytes=found.record.uuid)) if found.record is not None else "",
        profile=expected.profile,
        code=found.code,
        opened=not found.code if secret else None,
        rows=tuple(
            (item.check, f"slot {item.slot}" if item.slot >= 0 else "", WHY[item.check.code])
            for item in found.checks
        ),
        last=_last(found, tried=bool(secret)),
        more={
            "slot": found.slot if found.slot >= 0 else None,
            "generation": found.record.generation if found.record is not None else 0,
            "record": found.digest,
        },
    )


def _last(found: Judged, *, tried: bool) -> str:
    if found.code:
        return f"refused: {found.code}: no guest opens it"
    if found.record is None:
        raise RuntimeError("accepted, and no record")
    end = "" if tried else "; no key was tried, so nothing of it is proved"
    return (
        f"accepted: generation {found.record.generation} in slot {found.slot},"
        f" record {found.digest}{end}"
    )


def _digest(text: str | None) -> str:
    if text is None:
        return ""
    if len(text) != _DIGEST_DIGITS or not set(text) <= _HEX:
        raise UsageError("volume-record", f"{text!r} is no SHA-256: 64 lower-case hex digits")
    return text
