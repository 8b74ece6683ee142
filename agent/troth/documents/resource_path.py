# SPDX-License-Identifier: Apache-2.0
"""The name of what a broker releases: ``repository/type/tag``.

Serves key URIs and both sides of the key broker protocol, where it is a part of
a URL: what can be a name needs no escaping and leads nowhere else. Must never
import ``re``: guests import it. Source: Trustee, kbs/docs/kbs_attestation_protocol.md
and its resource plugin's pattern ``[A-Za-z0-9_-]+[A-Za-z0-9_.-]*``.
"""

from __future__ import annotations

from troth.errors import FormatError
from troth.record import record

MAX_PART_CHARACTERS = 128
_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.")


@record
class ResourcePath:
    """``repository``, ``kind`` (the protocol's "type") and ``tag``."""

    repository: str
    kind: str
    tag: str

    def __str__(self) -> str:
        return f"{self.repository}/{self.kind}/{self.tag}"


def parse(text: str, *, where: str = "") -> ResourcePath:
    """The name in ``text``. ``FormatError``: ``resource-path``."""
    parts = text.split("/")
    if len(parts) != 3 or not all(is_part(part) for part in parts):
        raise FormatError(
            "resource-path",
            f"{text[:80]!r} is not repository/type/tag",
            where=where,
            hint=f"each of 1 to {MAX_PART_CHARACTERS} letters, digits, _ - . and no dot first",
        )
    return ResourcePath(*parts)


def is_part(text: str) -> bool:
    """Whether ``text`` can be one of the three."""
    size_is_right = 1 <= len(text) <= MAX_PART_CHARACTERS
    return size_is_right and text[0] != "." and _LETTERS.issuperset(text)
