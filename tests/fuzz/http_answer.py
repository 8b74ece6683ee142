# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: a broker's answers, whole, and cut into pieces."""

from troth.boot.key_sources import http_answer
from troth.errors import ProviderError

SEEDS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    (
        b"HTTP/1.1 401 Unauthorized\r\ncontent-length:0\r\nConnection: close\r\n"
        b"Set-Cookie: kbs-session-id=0123456789abcdef0123456789abcdef; Path=/\r\n\r\n"
    ),
    b"HTTP/1.1 302 Found\r\nLocation: http://a/\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
]


def fuzz(data: bytes) -> None:
    whole = told(data, len(data) or 1)
    cut = told(data, 1 + data[0] % 7 if data else 1)
    # In pieces an answer ends before what follows it is seen.
    if whole != cut and whole != "broker-answer":
        raise AssertionError("the pieces of a stream change what it says")


def told(data: bytes, step: int) -> object:
    parser = http_answer.Parser()
    for at in range(0, len(data), step):
        try:
            found = parser.feed(data[at : at + step])
        except ProviderError as error:
            return error.code
        if found is None:
            continue
        if len(found.body) > http_answer.MAX_BODY_BYTES or found.status // 100 in (1, 3):
            raise AssertionError("an answer out of bounds")
        if found.session and len(found.session) != 32:
            raise AssertionError("a cookie of another form")
        return found
    return None
