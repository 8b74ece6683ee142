# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: requests of the agent's callers, whole, and cut into pieces."""

from troth.attest import http
from troth.errors import FormatError

SEEDS = [
    b"GET /v1/info HTTP/1.1\r\nHost: troth\r\n\r\n",
    (
        b"POST /v1/report HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n"
        b"Expect: 100-continue\r\n\r\n{}GET /a?b HTTP/1.0\r\n\r\n"
    ),
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
]


def fuzz(data: bytes) -> None:
    data = data[: http.LIMIT_BYTES]
    step = 1 + data[0] % 7 if data else 1
    if told(data, len(data) or 1) != told(data, step):
        raise AssertionError("the pieces of a stream change what it says")


def told(data: bytes, step: int) -> list[object]:
    """The requests in ``data``, and the code it ends with, if any."""
    parser = http.Parser()
    found: list[object] = []
    for at in range(0, len(data), step):
        piece = data[at : at + step]
        if len(piece) > parser.room:
            raise AssertionError("no room for a piece, and no error")
        parser.feed(piece)
        try:
            while (request := parser.next()) is not None:
                if len(request.body) > http.BODY_BYTES:
                    raise AssertionError("a body over its limit")
                found.append(request)
        except FormatError as error:
            if error.code not in http.STATUS:
                raise AssertionError(f"{error.code} has no status") from None
            return [*found, error.code]
    return found
