# SPDX-License-Identifier: Apache-2.0
"""Payloads of guest messages, against bytes written by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from troth.abi import guest_payload as payload
from troth.errors import FormatError

DATA = bytes(range(64))


def u32(value):
    return value.to_bytes(4, "little")


def u64(value):
    return value.to_bytes(8, "little")


def code_of(function, *arguments):
    with pytest.raises(FormatError) as caught:
        function(*arguments)
    return caught.value.code


def test_report_request():
    raw = DATA + u32(3) + u32(2) + bytes(24)
    request = payload.ReportRequest(DATA, vmpl=3, key_selection=payload.KEY_SELECTION_VLEK)
    assert payload.encode_report_request(request) == raw
    assert payload.decode_report_request(raw) == request


def test_a_level_out_of_range_is_the_firmwares_to_refuse():
    raw = DATA + u32(0xFFFFFFFF) + bytes(28)
    assert payload.decode_report_request(raw).vmpl == 0xFFFFFFFF


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (bytes(95), "guest-payload-size"),
        (bytes(97), "guest-payload-size"),
        (bytes(68) + u32(4) + bytes(24), "guest-payload-field"),
        (bytes(72) + b"\1" + bytes(23), "guest-payload-field"),
        (bytes(95) + b"\1", "guest-payload-field"),
    ],
)
def test_wrong_report_requests(raw, code):
    assert code_of(payload.decode_report_request, raw) == code


@pytest.mark.parametrize(
    "request_",
    [
        payload.ReportRequest(DATA[:63]),
        payload.ReportRequest(DATA + b"x"),
        payload.ReportRequest(DATA, vmpl=-1),
        payload.ReportRequest(DATA, vmpl=1 << 32),
        payload.ReportRequest(DATA, key_selection=4),
    ],
)
def test_report_requests_that_cannot_be(request_):
    assert code_of(payload.encode_report_request, request_) == "guest-payload-field"


def test_report_response():
    report = bytes(range(256)) * 4 + bytes(160)
    raw = u32(0) + u32(1184) + bytes(24) + report
    assert payload.encode_report_response(payload.ReportResponse(0, report)) == raw
    assert payload.decode_report_response(raw + bytes(100)) == payload.ReportResponse(0, report)


def test_a_refused_report_has_no_bytes():
    raw = u32(0x16) + bytes(28)
    assert payload.decode_report_response(raw) == payload.ReportResponse(0x16, b"")


@pytest.mark.parametrize("size", [1185, 0x7FFFFFFF, 0xFFFFFFE0, 0xFFFFFFFF])
def test_a_report_longer_than_its_answer(size):
    raw = u32(0) + u32(size) + bytes(24 + 1184)
    assert code_of(payload.decode_report_response, raw) == "guest-payload-size"


@pytest.mark.parametrize("size", [0, 31])
def test_an_answer_without_head(size):
    assert code_of(payload.decode_report_response, bytes(size)) == "guest-payload-size"


def test_key_request_of_both_versions():
    raw = u32(1) + u32(0) + u64(0x3F) + u32(2) + u32(7) + u64(0x1122334455667788)
    request = payload.KeyRequest(1, 0x3F, vmpl=2, guest_svn=7, tcb_version=0x1122334455667788)
    assert payload.encode_key_request(request) == raw
    assert payload.decode_key_request(raw) == request
    assert request.message_version == 1
    second = payload.KeyRequest(0, 0x40, launch_mit_vector=9)
    raw = u32(0) + u32(0) + u64(0x40) + bytes(16) + u64(9)
    assert payload.encode_key_request(second) == raw
    assert payload.decode_key_request(raw) == second
    assert second.message_version == 2


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (bytes(31), "guest-payload-size"),
        (bytes(33), "guest-payload-size"),
        (bytes(41), "guest-payload-size"),
        (u32(2) + bytes(28), "guest-payload-field"),
        (u32(0) + u32(1) + bytes(24), "guest-payload-field"),
        (u64(0) + u64(0x40) + bytes(16), "guest-payload-field"),
    ],
)
def test_wrong_key_requests(raw, code):
    assert code_of(payload.decode_key_request, raw) == code


@pytest.mark.parametrize(
    "request_",
    [
        payload.KeyRequest(root_key=2),
        payload.KeyRequest(fields=1 << 64),
        payload.KeyRequest(fields=payload.FIELD_LAUNCH_MIT_VECTOR),
        payload.KeyRequest(vmpl=1 << 32),
        payload.KeyRequest(guest_svn=1 << 32),
        payload.KeyRequest(tcb_version=1 << 64),
        payload.KeyRequest(launch_mit_vector=-1),
    ],
)
def test_key_requests_that_cannot_be(request_):
    assert code_of(payload.encode_key_request, request_) == "guest-payload-field"


def test_key_response_is_not_shown():
    key = bytes(range(100, 132))
    raw = u32(0) + bytes(28) + key
    response = payload.KeyResponse(0, key)
    assert payload.encode_key_response(response) == raw
    assert payload.decode_key_response(raw) == response
    assert repr(response) == "KeyResponse(status=0)"
    assert code_of(payload.decode_key_response, raw[:-1]) == "guest-payload-size"
    assert (
        code_of(payload.encode_key_response, payload.KeyResponse(0, b"")) == "guest-payload-field"
    )


def test_tsc_info():
    raw = u32(0) + u32(0) + u64(1 << 32) + u64(5) + u32(200) + bytes(100)
    value = payload.TscInfo(0, scale=1 << 32, offset=5, factor=200)
    assert len(raw) == 128
    assert payload.encode_tsc_info(value) == raw
    assert payload.decode_tsc_info(raw) == value
    assert code_of(payload.decode_tsc_info, raw + b"x") == "guest-payload-size"
    assert (
        code_of(payload.encode_tsc_info, payload.TscInfo(0, 1 << 64, 0, 0)) == "guest-payload-field"
    )


@given(st.integers(0, 2**32 - 1), st.binary(max_size=2000))
def test_report_response_round_trip(status, report):
    response = payload.ReportResponse(status, report)
    raw = payload.encode_report_response(response)
    assert payload.decode_report_response(raw) == response
