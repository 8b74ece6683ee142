# SPDX-License-Identifier: Apache-2.0
"""What the verbs of ``troth verify`` share: hex, the time, files.

Must hold no verb. A clock is read here only, and only where no time is given.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from troth.documents import binding, instant
from troth.errors import FormatError, UsageError
from troth.verify.endorsing import endorsements

if TYPE_CHECKING:
    from troth.verify.endorsing.endorsements import Endorsements

HINT = "see: troth verify report --help, or: troth verify evidence --help"


def hex_of(option: str, text: str) -> bytes:
    """The bytes of an option's hex digits; ``UsageError`` ``verify-option``."""
    if len(text) % 2 or not set(text) <= set("0123456789abcdefABCDEF"):
        raise wrong(f"{option} takes pairs of hex digits")
    return bytes.fromhex(text)


def user_data(text: str) -> bytes:
    """``--user-data``; ``UsageError`` ``verify-option``."""
    found = hex_of("--user-data", text)
    if len(found) > binding.MAX_USER_DATA_BYTES:
        raise wrong(f"--user-data has {len(found)} bytes, at most {binding.MAX_USER_DATA_BYTES}")
    return found


def moment(text: str | None) -> int:
    """Seconds since 1970 of ``--at``, of now where there is none."""
    if text is None:
        return int(time.time())
    try:
        return instant.parse(text)
    except FormatError as error:
        raise UsageError("verify-option", f"--at: {error.message}", hint=error.hint) from None


def read(name: str, limit_bytes: int, *, code: str) -> bytes:
    """At most ``limit_bytes`` of a file; ``UsageError`` ``code`` where it cannot be read."""
    try:
        with Path(name).open("rb") as file:
            return file.read(limit_bytes)
    except OSError as error:
        raise UsageError(code, f"cannot be read: {error.strerror}", where=name) from None


def certificates(name: str) -> Endorsements:
    """What the directory of ``--certs`` holds; files that are neither are named and passed over."""
    given = endorsements.read_directory(Path(name))
    for file, reason in given.foreign:
        sys.stderr.write(f"troth: {_safe(file)} in {name} was not used: {_safe(reason)}\n")
    if not given.certificates:
        below = Path(name) / "certs"
        hint = f"; is it {_safe(str(below))}?" if below.is_dir() else ""
        sys.stderr.write(f"troth: no certificate is in {_safe(name)}{hint}\n")
    return given


def wrong(message: str) -> UsageError:
    """An option that is odd."""
    return UsageError("verify-option", message, hint=HINT)


def _safe(text: str) -> str:
    """``text`` without control characters: names of files are not ours."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)
