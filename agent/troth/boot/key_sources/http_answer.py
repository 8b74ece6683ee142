# SPDX-License-Identifier: Apache-2.0
"""An answer of HTTP/1.1, from pieces of a stream to a value.

Serves ``https``. Brokers answer with short JSON of a known length, so that is
all that is read: no chunks, no compression, no second answer behind the first,
no body without its length. A redirect is refused by name, because an identity
was pinned, not an address. Must never keep more than its bounds, whatever a
header claims, nor hand on a cookie that is not the session's.

Source: RFC 9112; RFC 6265, section 5.2.
"""

from __future__ import annotations

from troth.documents import kbs
from troth.errors import ProviderError
from troth.record import record

MAX_HEAD_BYTES = 16 << 10
MAX_FIELDS = 64
MAX_BODY_BYTES = kbs.MAX_BODY_BYTES

_TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_DIGITS = frozenset(b"0123456789")
_CODES_OF_A_BODY = range(200, 600)
#: Too many requests, and no place for this one: nothing was done, so it may be asked again.
_BUSY = (429, 503)
MAX_RETRY_S = 30


@record
class HttpAnswer:
    """``status``: 200 to 599 without 3xx; ``session``: the cookie that was set, or "";
    ``closes``: no request may follow on this connection; ``retry_s``: how long to wait before
    asking again, where it was too busy, 0 else.
    """  # noqa: D205 - the fields are the summary

    status: int
    body: bytes
    session: str
    closes: bool
    retry_s: int = 0


class Parser:
    """One answer; ``feed`` until it is returned."""

    def __init__(self, *, where: str = "") -> None:
        self._where = where
        self._data = bytearray()
        self._head: tuple[int, int, str, bool, int] | None = None

    @property
    def begun(self) -> bool:
        """Whether anything came."""
        return bool(self._data) or self._head is not None

    def feed(self, data: bytes) -> HttpAnswer | None:
        """The answer, if ``data`` completes it.

        Raises ``ProviderError``: ``broker-answer``, ``broker-size``,
        ``broker-redirect``.
        """
        self._data += data
        if self._head is None:
            end = self._data.find(b"\r\n\r\n", max(0, len(self._data) - len(data) - 3))
            if end > MAX_HEAD_BYTES or (end < 0 and len(self._data) > MAX_HEAD_BYTES):
                raise self._error("broker-size", f"a head of more than {MAX_HEAD_BYTES} bytes")
            if end < 0:
                return None
            self._head = self._read(bytes(self._data[:end]))
            del self._data[: end + 4]
        status, size_bytes, session, closes, retry_s = self._head
        if len(self._data) > size_bytes:
            raise self._error("broker-answer", "something follows the answer")
        if len(self._data) < size_bytes:
            return None
        return HttpAnswer(status, bytes(self._data), session, closes, retry_s)

    def _read(self, head: bytes) -> tuple[int, int, str, bool, int]:
        first, *lines = head.split(b"\r\n")
        status = self._status(first)
        if len(lines) > MAX_FIELDS:
            raise self._error("broker-size", f"more than {MAX_FIELDS} header fields")
        lengths: list[bytes] = []
        sessions: set[str] = set()
        closes, retry_s = False, 1
        for line in lines:
            name, value = self._field(line)
            if name == b"content-length":
                lengths.append(value)
            elif name == b"transfer-encoding":
                raise self._error("broker-answer", "the body comes in chunks")
            elif name == b"content-encoding" and value.lower() != b"identity":
                raise self._error("broker-answer", "the body is compressed")
            elif name == b"connection":
                closes |= b"close" in value.lower()
            elif name == b"retry-after" and _is_number(value):
                retry_s = min(int(value[:4]), MAX_RETRY_S) or 1
            elif name == b"set-cookie":
                sessions |= self._session(value)
        if len(sessions) > 1:
            raise self._error("broker-answer", "the session has two cookies")
        busy = status in _BUSY
        session = next(iter(sessions), "")
        return status, self._size(lengths), session, closes, retry_s if busy else 0

    def _status(self, line: bytes) -> int:
        words = line.split(b" ", 2)
        if len(words) < 2 or words[0] != b"HTTP/1.1" or not _is_number(words[1], digits=3):
            raise self._error("broker-answer", "what came is not HTTP/1.1")
        if any(letter < 0x20 or letter == 0x7F for letter in line):
            raise self._error("broker-answer", "the first line has control characters")
        status = int(words[1])
        if 300 <= status < 400:
            raise self._error(
                "broker-redirect",
                f"the broker answers {status}, which sends guests elsewhere",
                hint="name the broker's own address; redirects are never followed",
            )
        if status not in _CODES_OF_A_BODY:
            raise self._error("broker-answer", f"the status {status} is none of an answer")
        return status

    def _field(self, line: bytes) -> tuple[bytes, bytes]:
        name, colon, value = line.partition(b":")
        if not colon or not name or not _TOKEN.issuperset(name):
            raise self._error("broker-answer", "a header field without a proper name")
        value = value.strip(b" \t")
        if any((letter < 0x20 and letter != 0x09) or letter == 0x7F for letter in value):
            raise self._error("broker-answer", "a header field with control characters")
        return name.lower(), value

    def _size(self, lengths: list[bytes]) -> int:
        if len(lengths) != 1 or not _is_number(lengths[0]):
            raise self._error("broker-answer", "the body has no length, or more than one")
        # Digits are bounded first: a number may be as long as the head.
        size_bytes = int(lengths[0]) if len(lengths[0]) <= 9 else MAX_BODY_BYTES + 1
        if size_bytes > MAX_BODY_BYTES:
            raise self._error("broker-size", f"a body of more than {MAX_BODY_BYTES} bytes")
        return size_bytes

    def _session(self, value: bytes) -> set[str]:
        name, _, text = value.partition(b";")[0].partition(b"=")
        if name.strip(b" \t") != kbs.COOKIE.encode():
            return set()
        session = text.strip(b" \t").decode("latin-1")
        if not kbs.is_session(session):
            raise self._error("broker-answer", "the session's cookie is not 32 hex digits")
        return {session}

    def _error(self, code: str, message: str, *, hint: str = "") -> ProviderError:
        return ProviderError(code, message, where=self._where, hint=hint)


def _is_number(text: bytes, *, digits: int = 0) -> bool:
    return bool(text) and _DIGITS.issuperset(text) and (not digits or len(text) == digits)
