# SPDX-License-Identifier: Apache-2.0
"""Base64 in its two alphabets, one text for each value.

Serves the documents of key release, on both sides. Decoding refuses every text
that printing would not have given: other letters, missing or extra padding, set
bits behind the end. Must never allocate more than the text is long. Source: RFC
4648, sections 4 and 5; RFC 7515, section 2 (base64url without padding).
"""

from __future__ import annotations

import binascii

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_URL_LETTERS: Final = frozenset("-_ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")


def standard(data: bytes) -> str:
    """``data`` in the standard alphabet, padded."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def from_standard(text: str) -> bytes | None:
    """The bytes of ``text`` in the standard alphabet with its padding; none for any other text."""
    try:
        found = binascii.a2b_base64(text, strict_mode=True) if text else b""
    except ValueError:
        return None
    return found if standard(found) == text else None


def url(data: bytes) -> str:
    """``data`` in the alphabet of URLs, without padding."""
    return standard(data).rstrip("=").replace("+", "-").replace("/", "_")


def from_url(text: str) -> bytes | None:
    """The bytes of ``text`` in the alphabet of URLs, without padding; none for any other text."""
    if not _URL_LETTERS.issuperset(text):
        return None
    padded = text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4)
    return from_standard(padded)
