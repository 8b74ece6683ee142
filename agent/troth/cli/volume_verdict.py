# SPDX-License-Identifier: Apache-2.0
"""What ``troth volume check`` says of a volume, in words or JSON, whatever kind it is of.

Serves ``cli.volume_check`` and ``cli.volume_check_headerless``. A disk is not ours: none of
its control characters may reach a terminal.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol

from troth.cli import volume_key
from troth.documents import strict
from troth.record import record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from troth.volumes.luks2_rules import Check

SCHEMA = "troth-volume-check-v1"
_NOTHING: Mapping[str, object] = {}


class Options(Protocol):
    """What the grammar gives."""

    header: str
    json: bool


@record
class Verdict:
    """``code``: of the refusal, "" where it is accepted; ``opened``: whether the key opens it,
    None where none was tried; ``rows``: each check, where it was made ("" where there is one
    place only), and the attack that it ends; ``last``: the line that sums it up; ``more``: what
    else the JSON says.
    """  # noqa: D205 - the fields are the summary

    uuid: str
    profile: str
    code: str
    opened: bool | None
    rows: tuple[tuple[Check, str, str], ...]
    last: str
    more: Mapping[str, object] = _NOTHING


def show(options: Options, found: Verdict) -> int:
    """Say it; the status of the program."""
    if options.json:
        tree: dict[str, object] = {
            "schema": SCHEMA,
            "volume": volume_key.printable(options.header),
            "uuid": found.uuid,
            "profile": found.profile,
            "verdict": "refused" if found.code else "accepted",
            "code": found.code,
            "opened": found.opened,
            "checks": [_row(*row) for row in found.rows],
            **found.more,
        }
        sys.stdout.write(strict.pretty(tree).decode())
    else:
        lines = _lines(options, found)
        sys.stdout.write("".join(f"{_safe(line)}\n" for line in lines))
    return 1 if found.code else 0


def _row(check: Check, place: str, why: str) -> dict[str, object]:
    tree: dict[str, object] = {
        "code": check.code,
        "verdict": "pass" if check.passed else "fail",
        "expected": check.expected,
        "observed": check.observed,
        "why": why,
    }
    return tree | {"place": place} if place else tree


def _lines(options: Options, found: Verdict) -> list[str]:
    lines = [
        f"volume {volume_key.printable(options.header)} {found.uuid}",
        f"profile {found.profile}",
    ]
    width = max(len(check.code) for check, _place, _why in found.rows)
    for check, place, why in found.rows:
        at = f"{place}: " if place else ""
        if check.passed:
            lines.append(f"   pass  {check.code:<{width}}  {at}{check.expected}: {check.observed}")
        else:
            lines.append(
                f"-> fail  {check.code:<{width}}  {at}expected {check.expected};"
                f" seen: {check.observed}"
            )
            lines.append(f"         {'':<{width}}  why: {why}")
    return [*lines, found.last]


def _safe(text: str) -> str:
    """``text`` without control characters: a header is not ours."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)
