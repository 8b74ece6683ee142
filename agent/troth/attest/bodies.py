# SPDX-License-Identifier: Apache-2.0
"""What a request's body holds: one JSON object with known keys.

Serves the endpoints. curl says ``application/x-www-form-urlencoded`` of whatever
it sends unless told otherwise, so that word is taken for JSON as well. Must never
guess: what is not exactly right is refused with the reason.
"""

from __future__ import annotations

from troth.attest import http
from troth.documents import strict
from troth.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.attest.http import Request

_MEDIA = ("application/json", "application/x-www-form-urlencoded")
_HEX = frozenset("0123456789abcdefABCDEF")


def read(request: Request) -> strict.Reader:
    """The object in the body of ``request``.

    Raises ``UsageError``: ``request-length``, ``request-media``; ``FormatError``
    ``json-*``.
    """
    if not request.sized:
        raise UsageError("request-length", "a body with a Content-Length is needed")
    media, _, options = request.fields.get("content-type", _MEDIA[0]).partition(";")
    charset = options.replace(" ", "").lower()
    if media.strip().lower() not in _MEDIA or charset not in ("", "charset=utf-8"):
        raise UsageError("request-media", "the body is to be application/json in UTF-8")
    return strict.Reader(strict.parse(request.body, limit_bytes=http.BODY_BYTES))


def hex_of(body: strict.Reader, key: str, *, most_bytes: int) -> bytes:
    """The bytes at ``key``. ``FormatError`` ``json-*``; ``UsageError`` ``request-field``."""
    text = body.text(key)
    if len(text) > 2 * most_bytes:
        raise wrong(f"{key} has over {most_bytes} bytes")
    if len(text) % 2 or not _HEX.issuperset(text):
        raise wrong(f"{key} is no hex")
    return bytes.fromhex(text)


def wrong(message: str) -> UsageError:
    """A value that its field does not allow: ``request-field``."""
    return UsageError("request-field", message)
