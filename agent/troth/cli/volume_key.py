# SPDX-License-Identifier: Apache-2.0
"""What the verbs of ``troth volume`` share: the key file. Must hold no verb, and print no key."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

from troth.errors import UsageError
from troth.volumes import keys

LIMIT_BYTES = 8 << 20
"""cryptsetup's own limit for a key file."""


def read(name: str) -> bytes:
    """The bytes of the file; ``UsageError`` ``key-file`` where it cannot be read, or is empty."""
    try:
        with Path(name).open("rb") as file:
            found = file.read(LIMIT_BYTES + 1)
    except OSError as error:
        raise UsageError("key-file", f"cannot be read: {error.strerror}", where=name) from None
    if not 0 < len(found) <= LIMIT_BYTES:
        raise UsageError("key-file", f"a key file has 1 to {LIMIT_BYTES} bytes", where=name)
    return found


def is_source(found: bytes) -> bool:
    """Whether these bytes can be a source key, of which others are derived."""
    return keys.LEAST_BYTES <= len(found) <= keys.MOST_BYTES


def passphrase(name: str, *, raw: bool, uuid: str, profile: str) -> bytes:
    """What opens the LUKS2 volume ``uuid`` of a profile's text.

    Raises ``UsageError`` ``key-file``.
    """
    if raw:
        return read(name)
    return keys.passphrase(source(name), uuid=uuid, profile=profile)


def source(name: str) -> bytes:
    """The source key in the file: 32 to 64 bytes; ``UsageError`` ``key-file``."""
    found = read(name)
    if not is_source(found):
        raise UsageError(
            "key-file",
            f"a source key has {keys.LEAST_BYTES} to {keys.MOST_BYTES} bytes,"
            f" here are {len(found)}",
            where=name,
            hint="openssl rand -out FILE 32 makes one; --raw-key takes the bytes as a passphrase",
        )
    return found


def uuid(text: str) -> str:
    """``text`` in lower case, as 8-4-4-4-12; ``UsageError`` ``volume-uuid`` where it is no UUID."""
    try:
        found = str(UUID(text))
    except ValueError:
        found = ""
    if found != text.lower():
        raise UsageError(
            "volume-uuid",
            f"{text!r} is not a UUID",
            hint="write it as 8-4-4-4-12 hexadecimal digits",
        )
    return found


def printable(name: str) -> str:
    """A path for output, where it may have bytes that are no text."""
    return name.encode("utf-8", "backslashreplace").decode()
