# SPDX-License-Identifier: Apache-2.0
"""The DSSE envelope against its own documents, and against openssl."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz import dsse as fuzz_dsse
from made_values import SIGNED_VALUES
from troth.documents import dsse, instant, reference_values_json
from troth.documents.dsse import Envelope, Signature
from troth.errors import FormatError


def test_the_example_of_the_protocol_document():
    """DSSE protocol, section "Test Vectors"."""
    found = dsse.pae("http://example.com/HelloWorld", b"hello world")
    assert found == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


def test_the_encoding_counts_bytes_and_is_not_fooled_by_spaces():
    assert dsse.pae("", b"") == b"DSSEv1 0  0 "
    assert dsse.pae("\u0107", b"\xff\n") == b"DSSEv1 2 \xc4\x87 2 \xff\n"
    assert dsse.pae("a 1 b", b"") != dsse.pae("a", b"b 0 ")


def test_the_example_of_the_envelope_document():
    """DSSE protocol, "Test Vectors": the envelope of the hello world example."""
    data = b"""{"payload": "aGVsbG8gd29ybGQ=",
        "payloadType": "http://example.com/HelloWorld",
        "signatures": [{"sig":
        "A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA=="}]}"""
    found = dsse.parse(data)
    assert found.payload == b"hello world"
    assert found.payload_type == "http://example.com/HelloWorld"
    assert found.signatures[0].key_id == ""
    assert len(found.signatures[0].value) == 64


def text(**changes):
    tree = {"payloadType": "t", "payload": "aGk=", "signatures": [{"keyid": "k", "sig": "AA=="}]}
    return json.dumps({**tree, **changes}).encode()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (text(payloadType=""), "dsse-type"),
        (text(payloadType="t" * 257), "dsse-type"),
        (text(payloadType="a\n"), "dsse-type"),
        (text(payloadType="\u00e9"), "dsse-type"),
        (text(payload="aGk"), "dsse-base64"),
        (text(payload="aGl="), "dsse-base64"),
        (text(payload="aGk=\n"), "dsse-base64"),
        (text(payload="_-8="), "dsse-base64"),
        (text(payload="\u00e9"), "dsse-base64"),
        (text(payload="="), "dsse-base64"),
        (text(signatures=[]), "dsse-signatures"),
        (text(signatures=[{"sig": "AA=="}] * 17), "dsse-signatures"),
        (text(signatures=[{"sig": ""}]), "dsse-signatures"),
        (text(signatures=[{"sig": base64.b64encode(bytes(1025)).decode()}]), "dsse-signatures"),
        (text(signatures=[{"sig": "AB=="}]), "dsse-base64"),
        (text(signatures=[{"sig": "AA==", "keyid": "a\tb"}]), "dsse-key-id"),
        (text(signatures=[{"sig": "AA==", "keyid": "k" * 257}]), "dsse-key-id"),
        (text(signatures=[{"sig": "AA==", "cert": ""}]), "json-unknown"),
        (text(signatures=[{"keyid": "k"}]), "json-missing"),
        (text(signatures={}), "json-type"),
        (text(signatures=["AA=="]), "json-type"),
        (text(more=1), "json-unknown"),
        (text(payload=1), "json-type"),
        (text()[:-1] + b',"payload":"aGk="}', "json-duplicate"),
        (b"{}", "json-missing"),
        (b"", "json-syntax"),
        (b"[" * 100000, "json-syntax"),
    ],
)
def test_refused(data, code):
    with pytest.raises(FormatError) as caught:
        dsse.parse(data)
    assert caught.value.code == code


def test_an_envelope_that_is_too_large_is_refused_unread():
    with pytest.raises(FormatError) as caught:
        dsse.parse(b" " * (dsse.MAX_ENVELOPE_BYTES + 1))
    assert caught.value.code == "json-size"


def test_sixteen_signatures_are_read():
    assert len(dsse.parse(text(signatures=[{"sig": "AA=="}] * 16)).signatures) == 16


KEY_IDS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=256)


@given(
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=256),
    st.binary(max_size=300),
    st.lists(st.tuples(KEY_IDS, st.binary(min_size=1, max_size=200)), min_size=1, max_size=16),
)
def test_round_trip(kind, payload, signatures):
    made = Envelope(kind, payload, tuple(Signature(*item) for item in signatures))
    assert dsse.parse(dsse.print_(made)) == made


@given(st.tuples(st.text(max_size=9), st.binary(max_size=9)),
       st.tuples(st.text(max_size=9), st.binary(max_size=9)))  # fmt: skip
def test_two_contents_never_have_one_encoding(one, other):
    assert (dsse.pae(*one) == dsse.pae(*other)) == (one == other)


@given(st.integers(0, 9000), st.binary(max_size=3))
def test_mutated(offset, insert):
    data = fuzz_dsse.SEEDS[0]
    fuzz_dsse.fuzz(data[:offset] + insert + data[offset + 1 :])


@given(st.integers(0, 6000), st.binary(max_size=3))
def test_mutated_statement(offset, insert):
    payload = reference_values_json.to_statement(SIGNED_VALUES)
    payload = payload[:offset] + insert + payload[offset + 1 :]
    fuzz_dsse.fuzz(dsse.print_(Envelope(dsse.IN_TOTO, payload, (Signature("", b"x"),))))


@given(st.binary(max_size=100))
def test_random(data):
    fuzz_dsse.fuzz(data)


# --- dates ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2000-02-29T12:00:00Z", 951825600),
        ("2026-01-31T23:59:59Z", 1769903999),
        ("2100-01-01T00:00:00Z", 4102444800),
    ],
)
def test_moments(text, seconds):
    """Seconds as date(1) gives them: date -u -d TEXT +%s."""
    assert instant.parse(text) == seconds
    assert instant.print_(seconds) == text


@pytest.mark.parametrize(
    "text",
    ["", "2026-01-31", "2026-01-31T12:00:00", "2026-01-31T12:00:00+00:00", "2026-01-31t12:00:00z",
     "2026-01-31 12:00:00Z", "2026-01-31T12:00:00.0Z", "2026-02-29T12:00:00Z",
     "2026-13-01T12:00:00Z", "2026-01-31T24:00:00Z", "2026-12-31T23:59:60Z",
     "2026-1-31T12:00:00Z", " 2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z\n",
     "\u0662026-01-31T12:00:00Z", "0000-01-01T00:00:00Z", "20260131T120000Z", "never"],
)  # fmt: skip
def test_no_moments(text):
    with pytest.raises(FormatError) as caught:
        instant.parse(text)
    assert caught.value.code == "time-form"


@given(st.integers(-62135596800, 253402300799))
def test_moments_round_trip(seconds):
    assert instant.parse(instant.print_(seconds)) == seconds


@pytest.mark.parametrize("seconds", [-62135596801, 253402300800, 10**30])
def test_seconds_outside_the_calendar(seconds):
    with pytest.raises(FormatError):
        instant.print_(seconds)
