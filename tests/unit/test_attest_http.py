# SPDX-License-Identifier: Apache-2.0
"""Requests of the agent's sockets: what is taken, what is refused, and with which status.

The standard library's client parser is the oracle of the responses; the requests
are written by hand from RFC 9112.
"""

import http.client
import io
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.http import SEEDS, fuzz, told
from troth.attest import http as agent
from troth.attest.http import Parser, Request, Response
from troth.errors import FormatError


def parsed(data: bytes) -> list[Request]:
    found = told(data, len(data))
    assert all(isinstance(item, Request) for item in found), found
    return found


def refused(data: bytes) -> tuple[str, int]:
    parser = Parser()
    parser.feed(data)
    with pytest.raises(FormatError) as caught:
        parser.next()
    return caught.value.code, agent.STATUS[caught.value.code]


def get(*lines: str, first: str = "GET /v1/info HTTP/1.1") -> bytes:
    return "\r\n".join((first, "Host: troth", *lines, "", "")).encode("latin-1")


def test_a_request():
    data = (
        b"POST /v1/report?x=1 HTTP/1.1\r\nHost: troth\r\nCONTENT-type:\t application/json \r\n"
        b"Content-Length: 4\r\nX-A: 1\r\nx-a: 2\r\n\r\nabcd"
    )
    (found,) = parsed(data)
    assert (found.method, found.path, found.query) == ("POST", "/v1/report", "x=1")
    assert found.body == b"abcd"
    assert found.fields["content-type"] == "application/json"
    assert found.fields["x-a"] == "1, 2"
    assert (found.sized, found.keep) == (True, True)


@pytest.mark.parametrize(
    ("data", "keep"),
    [
        (get(), True),
        (get("Connection: keep-alive, Close"), False),
        (b"GET / HTTP/1.0\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", False),
    ],
)
def test_who_may_ask_again(data, keep):
    (found,) = parsed(data)
    assert found.keep == keep
    assert found.sized is False
    assert found.query is None


def test_requests_behind_each_other():
    data = get() + get("Content-Length: 3", first="POST /a HTTP/1.1") + b"abc" + get()
    assert [(one.path, one.body) for one in parsed(data)] == [
        ("/v1/info", b""), ("/a", b"abc"), ("/v1/info", b""),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "code", "status"),
    [
        (b"\r\n\r\n", "http-request-line", 400),
        (b"GET /\r\n\r\n", "http-request-line", 400),
        (b"GET  / HTTP/1.1\r\n\r\n", "http-request-line", 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", "http-request-line", 400),
        (get(first="GE\xe9T / HTTP/1.1"), "http-request-line", 400),
        (get(first="A" * 17 + " / HTTP/1.1"), "http-request-line", 400),
        (get(first="GET http://a/ HTTP/1.1"), "http-request-line", 400),
        (get(first="OPTIONS * HTTP/1.1"), "http-request-line", 400),
        (get(first="GET /a\x00b HTTP/1.1"), "http-request-line", 400),
        (get(first="GET /\xff HTTP/1.1"), "http-request-line", 400),
        (get(first="GET /" + "a" * 1024 + " HTTP/1.1"), "http-target-size", 414),
        (b"GET /" + b"a" * agent.HEAD_BYTES, "http-target-size", 414),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "http-version", 505),
        (get(first="GET / HTTP/1.10"), "http-version", 505),
        (get(first="GET / http/1.1"), "http-version", 505),
        (b"GET / HTTP/1.1\r\n\r\n", "http-host", 400),
        (b"GET / HTTP/1.1\r\nHost: " + b"a" * 256 + b"\r\n\r\n", "http-host", 400),
        (get("Host: other"), "http-field", 400),
        (get("X-A : 1"), "http-field", 400),
        (get(" folded"), "http-field", 400),
        (get("X-A: 1\r\n folded"), "http-field", 400),
        (get("X-A"), "http-field", 400),
        (get(": 1"), "http-field", 400),
        (get("X-A: \x00"), "http-field", 400),
        (get("X-A: a\rb"), "http-field", 400),
        (get("X-A: a\nb: c"), "http-field", 400),
        (get("X-A: \xe9"), "http-field", 400),
        (get("Content-Length: 1", "Content-Length: 1"), "http-field", 400),
        (get("Content-Length: "), "http-length", 400),
        (get("Content-Length: -1"), "http-length", 400),
        (get("Content-Length: +1"), "http-length", 400),
        (get("Content-Length: 0x1"), "http-length", 400),
        (get("Content-Length: 1, 1"), "http-length", 400),
        (get("Content-Length: " + "9" * 11), "http-length", 400),
        (get("Content-Length: " + "9" * 10), "http-body-size", 413),
        (get("Content-Length: 65537"), "http-body-size", 413),
        (get("Transfer-Encoding: chunked"), "http-transfer-coding", 501),
        (get("Transfer-Encoding: identity", "Content-Length: 1"), "http-transfer-coding", 501),
        (get("Expect: 200-ok"), "http-expectation", 417),
        (get(*(f"X-{n}: 1" for n in range(64))), "http-head-size", 431),
        (get("X-A: " + "a" * agent.HEAD_BYTES), "http-head-size", 431),
    ],
)
def test_what_is_refused(data, code, status):
    assert refused(data) == (code, status)


def test_limits_are_inside():
    longest = get(first="GET /" + "a" * 1023 + " HTTP/1.1")
    assert len(parsed(longest)[0].path) == 1024
    assert len(parsed(get(*(f"X-{n}: 1" for n in range(63))))[0].fields) == 64
    room = agent.HEAD_BYTES - len(get("X-A: "))
    head = get("X-A: " + "a" * room, "Content-Length: 65536")[:]
    head = get("X-A: " + "a" * (room - len("Content-Length: 65536\r\n")), "Content-Length: 65536")
    assert len(head) == agent.HEAD_BYTES
    (found,) = parsed(head + bytes(65536))
    assert len(found.body) == 65536


def test_continue_is_said_once_and_only_to_who_waits():
    parser = Parser()
    parser.feed(get("Content-Length: 2", "Expect: 100-Continue"))
    assert parser.next() is None
    assert parser.take_continue()
    assert not parser.take_continue()
    assert parser.started
    parser.feed(b"ab")
    assert parser.next().body == b"ab"
    assert not parser.started
    parser.feed(get("Content-Length: 2", "Expect: 100-continue") + b"ab")
    assert parser.next().body == b"ab"
    assert not parser.take_continue()


def test_a_parser_takes_no_more_than_it_says():
    parser = Parser()
    with pytest.raises(ValueError, match="have room"):
        parser.feed(bytes(agent.LIMIT_BYTES + 1))


def test_a_stream_of_single_bytes_costs_no_more_than_its_length():
    """Each byte is searched a few times: not the whole head again with every byte."""
    parser = Parser()
    data = get("X-A: " + "a" * 15000)
    searched = 0

    class Counting(bytearray):
        def find(self, what, start, end):
            nonlocal searched
            searched += min(end, len(self)) - start
            return super().find(what, start, end)

    parser._data = Counting()
    for byte in data:
        parser.feed(bytes([byte]))
        if parser.next() is not None:
            break
    else:
        pytest.fail("no request")
    assert searched < 10 * len(data)


def response_of(data: bytes) -> http.client.HTTPResponse:
    class Socket:
        def makefile(self, _mode):
            return io.BytesIO(data)

    found = http.client.HTTPResponse(Socket())
    found.begin()
    return found


@pytest.mark.parametrize("keep", [True, False])
def test_responses_are_what_another_client_reads(keep):
    response = Response(429, b'{"a":1}', fields=(("Retry-After", "3"),))
    found = response_of(agent.head(response, keep=keep) + response.body)
    assert (found.status, found.reason) == (429, "Too Many Requests")
    assert found.getheader("Retry-After") == "3"
    assert found.getheader("Content-Type") == "application/json"
    assert found.getheader("Cache-Control") == "no-store"
    assert found.will_close != keep
    assert found.read() == b'{"a":1}'


def test_every_code_has_a_reason():
    assert set(agent.STATUS.values()) <= set(agent.REASONS)


@given(st.binary(max_size=300))
def test_random_bytes(data):
    fuzz(data)


@given(st.sampled_from(SEEDS), st.integers(0, 2**32))
def test_mutated_requests(seed, number):
    chance = random.Random(number)
    data = bytearray(seed)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(data))
        if chance.random() < 0.5:
            data[at] = chance.choice(b"\r\n :/0\x00\xffA")
        else:
            del data[at : at + chance.randint(1, 4)]
        data = data or bytearray(b"x")
    fuzz(bytes(data))


TOKENS = st.text("abcXYZ-_09", min_size=1, max_size=12).filter(
    lambda name: name.lower() not in agent._ONCE and name.lower() != "connection"
)
VALUES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=20)


@given(
    st.dictionaries(TOKENS, VALUES, max_size=20).filter(
        lambda fields: len({name.lower() for name in fields}) == len(fields)
    ),
    st.binary(max_size=200),
    st.integers(1, 50),
)
def test_what_was_written_is_read(fields, body, step):
    lines = [f"{name}: {value}" for name, value in fields.items()]
    data = get(*lines, f"Content-Length: {len(body)}", first="POST /x HTTP/1.1") + body
    (found,) = told(data, step)
    assert found.body == body
    wanted = {name.lower(): value for name, value in fields.items()}
    wanted |= {"host": "troth", "content-length": str(len(body))}
    assert found.fields == wanted
