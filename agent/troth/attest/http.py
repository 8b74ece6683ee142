# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 of the agent's sockets: bytes in, requests out; responses in, bytes out.

Serves the agent's server, and that of ``keybroker``, which own sockets and time;
nothing here waits. Only what a guest needs is spoken: no transfer codings, no
folded lines, no second meaning of anything. Must never hold more than one head
and one body of a peer's bytes, nor look at a byte more often than a few times,
however the peer cuts them.

Source: RFC 9112 (messages), RFC 9110 (fields and status codes).
"""

from __future__ import annotations

from troth.errors import FormatError
from troth.record import record

HEAD_BYTES = 16 << 10
BODY_BYTES = 64 << 10
LIMIT_BYTES = HEAD_BYTES + BODY_BYTES
MAX_FIELDS = 64
TARGET_BYTES = 1024

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

REASONS = {
    200: "OK", 202: "Accepted", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed", 408: "Request Timeout", 411: "Length Required",
    413: "Content Too Large", 414: "URI Too Long", 415: "Unsupported Media Type",
    417: "Expectation Failed", 429: "Too Many Requests", 431: "Request Header Fields Too Large",
    500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway",
    503: "Service Unavailable", 504: "Gateway Timeout", 505: "HTTP Version Not Supported",
}  # fmt: skip

STATUS = {
    "http-request-line": 400,
    "http-field": 400,
    "http-host": 400,
    "http-length": 400,
    "http-body-size": 413,
    "http-target-size": 414,
    "http-expectation": 417,
    "http-head-size": 431,
    "http-transfer-coding": 501,
    "http-version": 505,
}
"""What each code of the parser is as a status."""

_TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_VISIBLE = frozenset(range(0x21, 0x7F))
_VALUE = _VISIBLE | frozenset(b" \t")
_METHOD_BYTES = 16
_LENGTH_DIGITS = 10
#: Fields whose repetition could be read two ways.
_ONCE = ("host", "content-length", "content-type", "transfer-encoding", "expect")
_HOST_BYTES = 255


@record
class Request:
    """One request. ``fields``: by lower-case name; ``query``: behind "?", None without one;
    ``sized``: whether it said how long its body is; ``keep``: whether another may follow.
    """  # noqa: D205 - the fields are the summary

    method: str
    path: str
    query: str | None
    fields: dict[str, str]
    body: bytes
    sized: bool
    keep: bool


@record
class _Head:
    method: str
    path: str
    query: str | None
    fields: dict[str, str]
    body_bytes: int
    sized: bool
    keep: bool


class Parser:
    """The requests of one connection, one after the other; ``body_bytes``: the largest body."""

    def __init__(self, body_bytes: int = BODY_BYTES) -> None:
        self._body_bytes = body_bytes
        self._data = bytearray()
        self._seen = 0
        self._head: _Head | None = None
        self._continue = False

    @property
    def room(self) -> int:
        """How many more bytes ``feed`` takes."""
        return HEAD_BYTES + self._body_bytes - len(self._data)

    @property
    def started(self) -> bool:
        """Whether bytes of a request are here that is not complete."""
        return bool(self._data) or self._head is not None

    def take_continue(self) -> bool:
        """Whether the peer waits for ``CONTINUE`` before it sends its body; said once."""
        wanted, self._continue = self._continue, False
        return wanted

    def feed(self, data: bytes) -> None:
        """Take ``data``, at most ``room`` bytes."""
        if len(data) > self.room:
            raise ValueError(f"{len(data)} bytes where {self.room} have room")
        self._data += data

    def next(self) -> Request | None:
        """The next request, None while it is not complete.

        Raises ``FormatError`` with a code of ``STATUS``; no request can be told
        from the bytes after it.
        """
        if self._head is None:
            head = self._take_head()
            if head is None:
                return None
            self._head = _head(head, self._body_bytes)
            waits = self._head.fields.get("expect") is not None
            self._continue = waits and len(self._data) < self._head.body_bytes
        found = self._head
        if len(self._data) < found.body_bytes:
            return None
        body = bytes(self._data[: found.body_bytes])
        del self._data[: found.body_bytes]
        self._head, self._continue, self._seen = None, False, 0
        return Request(
            method=found.method,
            path=found.path,
            query=found.query,
            fields=found.fields,
            body=body,
            sized=found.sized,
            keep=found.keep,
        )

    def _take_head(self) -> bytes | None:
        """The head without its empty line, None while that has not come."""
        start = max(0, self._seen - 3)
        end = self._data.find(b"\r\n\r\n", start, HEAD_BYTES)
        if self._data.find(b"\n\n", start, HEAD_BYTES if end < 0 else end) >= 0:
            # Said at once to people who type by hand, instead of waiting for more.
            raise _malformed("http-request-line", "lines end with CR and LF")
        if end < 0:
            if len(self._data) >= HEAD_BYTES:
                if b"\r\n" not in self._data[: TARGET_BYTES + 64]:
                    raise _malformed(
                        "http-target-size", f"the target has over {TARGET_BYTES} bytes"
                    )
                raise _malformed("http-head-size", f"the head has over {HEAD_BYTES} bytes")
            self._seen = len(self._data)
            return None
        head = bytes(self._data[:end])
        del self._data[: end + 4]
        return head


def _head(data: bytes, most: int) -> _Head:
    first, *lines = data.split(b"\r\n")
    method, target, minor = _request_line(first)
    path, mark, query = target.partition("?")
    fields = _fields(lines)
    if minor and "host" not in fields:
        raise _malformed("http-host", "HTTP/1.1 needs a Host, whichever")
    if len(fields.get("host", "")) > _HOST_BYTES:
        raise _malformed("http-host", f"Host has over {_HOST_BYTES} bytes")
    if "transfer-encoding" in fields:
        raise _malformed("http-transfer-coding", "bodies have a Content-Length, and no coding")
    length = fields.get("content-length")
    if length is not None and not (length.isdecimal() and len(length) <= _LENGTH_DIGITS):
        raise _malformed("http-length", "Content-Length is no number")
    body_bytes = int(length or "0")
    if body_bytes > most:
        raise _malformed("http-body-size", f"the body has {body_bytes} bytes, at most {most}")
    if fields.get("expect", "100-continue").lower() != "100-continue":
        raise _malformed("http-expectation", "no expectation but 100-continue is met")
    words = {word.strip().lower() for word in fields.get("connection", "").split(",")}
    return _Head(
        method=method,
        path=path,
        query=query if mark else None,
        fields=fields,
        body_bytes=body_bytes,
        sized=length is not None,
        keep=bool(minor) and "close" not in words,
    )


def _request_line(line: bytes) -> tuple[str, str, int]:
    """(method, target, minor version)."""
    parts = line.split(b" ")
    if len(parts) != 3:
        raise _malformed("http-request-line", "the first line is not METHOD TARGET VERSION")
    method, target, version = parts
    if not 1 <= len(method) <= _METHOD_BYTES or not _TOKEN.issuperset(method):
        raise _malformed("http-request-line", "the method is no token")
    if len(target) > TARGET_BYTES:
        raise _malformed("http-target-size", f"the target has over {TARGET_BYTES} bytes")
    if version not in (b"HTTP/1.0", b"HTTP/1.1"):
        raise _malformed("http-version", "only HTTP/1.1 is spoken here")
    if not target.startswith(b"/") or not _VISIBLE.issuperset(target):
        raise _malformed("http-request-line", "the target is no path")
    return method.decode("ascii"), target.decode("ascii"), version[-1] - ord("0")


def _fields(lines: list[bytes]) -> dict[str, str]:
    if len(lines) > MAX_FIELDS:
        raise _malformed("http-head-size", f"{len(lines)} fields, at most {MAX_FIELDS}")
    fields: dict[str, str] = {}
    for line in lines:
        # A name is a token: a folded line, or a blank before the colon, is no field.
        name, colon, value = line.partition(b":")
        if not colon or not name or not _TOKEN.issuperset(name):
            raise _malformed("http-field", "a line of the head is no field")
        if not _VALUE.issuperset(value):
            raise _malformed("http-field", "a field's value is not printable ASCII")
        key, text = name.decode("ascii").lower(), value.decode("ascii").strip(" \t")
        if key in fields:
            if key in _ONCE:
                raise _malformed("http-field", f"{key} is there twice")
            text = f"{fields[key]}, {text}"
        fields[key] = text
    return fields


@record
class FilePart:
    """The first ``size_bytes`` of the open file ``fd``, which stays its owner's."""

    fd: int
    size_bytes: int


@record
class Response:
    """One answer. ``fields``: further lines of its head; ``close``: it is the last one."""

    status: int
    body: bytes | FilePart
    media: str = "application/json"
    fields: tuple[tuple[str, str], ...] = ()
    close: bool = False

    @property
    def body_bytes(self) -> int:
        """How long the body is."""
        return self.body.size_bytes if isinstance(self.body, FilePart) else len(self.body)


def head(response: Response, *, keep: bool) -> bytes:
    """The lines before the body of ``response``; ``keep``: whether the connection lives on."""
    lines = [
        f"HTTP/1.1 {response.status} {REASONS[response.status]}",
        f"Content-Type: {response.media}",
        f"Content-Length: {response.body_bytes}",
        # An answer is of one moment, and for one caller.
        "Cache-Control: no-store",
        "Connection: keep-alive" if keep else "Connection: close",
        *(f"{name}: {value}" for name, value in response.fields),
    ]
    return "\r\n".join((*lines, "", "")).encode("ascii")


def _malformed(code: str, message: str) -> FormatError:
    return FormatError(code, message)
