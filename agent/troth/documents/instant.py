# SPDX-License-Identifier: Apache-2.0
"""A moment as text: RFC 3339, UTC, whole seconds, in one spelling only.

Serves every document and option that has a date. ``2026-01-31T23:59:59Z`` is
the whole grammar: no offset, no fraction, no lower case, no leap second, so
that two equal moments are two equal texts. Must never read a clock: time is
a parameter wherever something is judged (source: RFC 3339, section 5.6).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from troth.errors import FormatError

_FORM = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})Z", re.ASCII)
EXAMPLE = "2026-01-31T12:00:00Z"


def parse(text: str, *, where: str = "") -> int:
    """Seconds since 1970 of ``text``; ``FormatError`` ``time-form``."""
    found = _FORM.fullmatch(text)
    if found is not None:
        year, month, day, hour, minute, second = (int(part) for part in found.groups())
        try:
            moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        except ValueError:
            pass  # a day that its month does not have, an hour over 23
        else:
            return round(moment.timestamp())
    raise FormatError(
        "time-form",
        f"{text[:40]!r} is no time",
        where=where,
        hint=f"write it like {EXAMPLE}: UTC, whole seconds",
    )


def print_(seconds: int) -> str:
    """The text of a moment in seconds since 1970.

    Raises ``FormatError`` ``time-form`` outside the years 1 to 9999.
    """
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        raise FormatError("time-form", f"no year has the second {seconds}") from None
    # strftime leaves years below 1000 without their leading zeros.
    return (
        f"{moment.year:04}-{moment.month:02}-{moment.day:02}"
        f"T{moment.hour:02}:{moment.minute:02}:{moment.second:02}Z"
    )
