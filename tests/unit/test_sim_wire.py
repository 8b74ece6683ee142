# SPDX-License-Identifier: Apache-2.0
"""Frames between front and host, against bytes written by hand."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz import sim_wire as fuzzed
from troth.errors import FormatError
from troth.simulated import wire
from troth.simulated.wire import Frame, Head


def raw(magic=0x31505354, kind=1, sequence=7, value_a=0, value_b=0):
    return struct.pack("<IIQQQ", magic, kind, sequence, value_a, value_b)


def refused(read, code):
    with pytest.raises(FormatError) as caught:
        read()
    assert caught.value.code == code


def test_by_hand():
    assert raw()[:4] == b"TSP1"
    assert wire.PORT == "troth.sim-snp"
    frame = Frame(Head(2, 0x0102030405060708), b"page")
    assert wire.encode(frame) == bytes.fromhex(
        "54535031 02000000 0807060504030201 0000000000000000 0000000000000000"
    ) + b"page"  # fmt: skip
    assert wire.request_head(raw()) == Head(1, 7)
    assert wire.request_head(raw(kind=3, value_a=16)) == Head(3, 7, 16)


@pytest.mark.parametrize(
    ("kind", "pages", "request_bytes", "answer_bytes"),
    [(1, 0, 0, 4096), (2, 0, 4096, 4096), (3, 0, 4096, 4096), (3, 4, 4096, 5 * 4096)],
)
def test_lengths(kind, pages, request_bytes, answer_bytes):
    head = Head(kind, 1, pages)
    assert (head.request_body_bytes, head.answer_body_bytes) == (request_bytes, answer_bytes)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "sim-wire-size"),
        (raw()[:-1], "sim-wire-size"),
        (raw() + b"\0", "sim-wire-size"),
        (raw(magic=0x31505355), "sim-wire-magic"),
        (raw(kind=0), "sim-wire-kind"),
        (raw(kind=4), "sim-wire-kind"),
        (raw(kind=0x81), "sim-wire-kind"),
        (raw(kind=0xFFFFFFFF), "sim-wire-kind"),
        (raw(kind=1, value_a=1), "sim-wire-value"),
        (raw(kind=2, value_a=1), "sim-wire-value"),
        (raw(kind=3, value_a=17), "sim-wire-value"),
        (raw(kind=3, value_a=(1 << 64) - 1), "sim-wire-value"),
        (raw(kind=3, value_b=1), "sim-wire-value"),
    ],
)
def test_requests_that_are_none(data, code):
    refused(lambda: wire.request_head(data), code)


def test_answers():
    asked = Head(3, 7, 4)
    found = wire.answer_head(raw(kind=0x83, value_a=1 << 32, value_b=5), asked)
    assert found == Head(0x83, 7, 1 << 32, 5)
    refused(lambda: wire.answer_head(raw(kind=0x82), asked), "sim-wire-kind")
    refused(lambda: wire.answer_head(raw(kind=3), asked), "sim-wire-kind")
    refused(lambda: wire.answer_head(raw(kind=0x83, sequence=8), asked), "sim-wire-sequence")
    refused(lambda: wire.answer_head(raw(magic=0), asked), "sim-wire-magic")
    refused(lambda: wire.answer_head(b"", asked), "sim-wire-size")


@pytest.mark.parametrize("head", [Head(-1, 0), Head(1, 1 << 64), Head(1, 0, -1), Head(1 << 32, 0)])
def test_values_that_no_frame_has(head):
    refused(lambda: wire.encode(Frame(head, b"")), "sim-wire-value")


@given(st.sampled_from([1, 2, 3]), st.integers(0, (1 << 64) - 1), st.integers(0, 16))
def test_round_trip(kind, sequence, pages):
    head = Head(kind, sequence, pages if kind == 3 else 0)
    assert wire.request_head(wire.encode(Frame(head, b""))) == head


@given(st.binary(max_size=64))
def test_random_bytes(data):
    fuzzed.fuzz(data)


@given(st.integers(0, 31), st.integers(0, 255))
def test_mutants(offset, byte):
    for seed in fuzzed.SEEDS:
        fuzzed.fuzz(seed[:offset] + bytes((byte,)) + seed[offset + 1 :])
