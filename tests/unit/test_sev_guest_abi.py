# SPDX-License-Identifier: Apache-2.0
"""The driver's structures, against bytes written by hand from the kernel's header."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz import sev_guest as fuzzed
from troth.abi import sev_guest
from troth.abi.guest_payload import KeyRequest, KeyResponse, ReportRequest, ReportResponse
from troth.abi.sev_guest import ExtendedReportRequest, Request
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


def test_numbers_are_iowr_of_32_bytes():
    numbers = [3 << 30 | 32 << 16 | ord("S") << 8 | number for number in range(3)]
    wanted = [sev_guest.GET_REPORT, sev_guest.GET_DERIVED_KEY, sev_guest.GET_EXT_REPORT]
    assert wanted == numbers


def test_the_ioctl_structure():
    raw = u64(1) + u64(0x1000) + u64(0x2000) + u32(0x16) + u32(2)
    request = Request(1, 0x1000, 0x2000, firmware_error=0x16, vmm_error=2)
    assert sev_guest.encode_request(request) == raw
    assert sev_guest.decode_request(raw) == request
    assert code_of(sev_guest.decode_request, raw[:-1]) == "sev-guest-size"
    assert code_of(sev_guest.encode_request, Request(256, 0, 0)) == "sev-guest-field"


def test_padding_of_the_ioctl_structure_is_not_read():
    raw = b"\1" + b"x" * 7 + bytes(24)
    assert sev_guest.decode_request(raw) == Request(1, 0, 0)


def test_exit_info_has_the_host_above():
    assert sev_guest.exit_info(0x16, 2) == 0x0000000200000016
    assert sev_guest.split_exit_info(0x0000000100000000) == (0, 1)


def test_extended_request():
    report = ReportRequest(DATA, vmpl=1)
    raw = DATA + u32(1) + bytes(28) + u64(0xABC000) + u32(0x4000) + bytes(4)
    request = ExtendedReportRequest(report, 0xABC000, 0x4000)
    assert sev_guest.encode_extended(request) == raw
    assert sev_guest.decode_extended(raw) == request


def test_the_needed_size_is_read_whatever_it_is():
    raw = bytes(96) + u64(0) + u32(0xFFFFFFFF) + bytes(4)
    assert sev_guest.decode_extended(raw).certificates_bytes == 0xFFFFFFFF


@pytest.mark.parametrize("size", [1, 4095, 0x5000, 1 << 32, -4096])
def test_certificate_buffers_that_the_driver_refuses(size):
    request = ExtendedReportRequest(ReportRequest(DATA), 0x1000, size)
    assert code_of(sev_guest.encode_extended, request) == "sev-guest-field"


def test_report_response():
    report = bytes([7]) * 1184
    raw = u32(0) + u32(1184) + bytes(24) + report + bytes(4000 - 32 - 1184)
    assert sev_guest.encode_report_response(ReportResponse(0, report)) == raw
    assert sev_guest.decode_report_response(raw) == ReportResponse(0, report)
    assert code_of(sev_guest.decode_report_response, raw[:-1]) == "sev-guest-size"
    assert (
        code_of(sev_guest.encode_report_response, ReportResponse(0, bytes(3969)))
        == "sev-guest-size"
    )


def test_untouched_memory_is_an_empty_report():
    assert sev_guest.decode_report_response(bytes(4000)) == ReportResponse(0, b"")


def test_derived_key():
    raw = u32(1) + u32(0) + u64(5) + u32(1) + u32(2) + u64(3)
    request = KeyRequest(1, 5, vmpl=1, guest_svn=2, tcb_version=3)
    assert sev_guest.encode_derived_key_request(request) == raw
    assert sev_guest.decode_derived_key_request(raw) == request
    newer = KeyRequest(launch_mit_vector=1)
    assert code_of(sev_guest.encode_derived_key_request, newer) == "sev-guest-field"
    assert code_of(sev_guest.decode_derived_key_request, raw + bytes(8)) == "sev-guest-size"
    answer = u32(0) + bytes(28) + b"k" * 32
    assert sev_guest.encode_derived_key_response(KeyResponse(0, b"k" * 32)) == answer
    assert sev_guest.decode_derived_key_response(answer) == KeyResponse(0, b"k" * 32)


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (0x00, "SUCCESS"),
        (0x16, "INVALID_PARAM"),
        # Kernel headers before 2025 number these from 0x28.
        (0x19, "INVALID_PAGE_SIZE"),
        (0x1D, "AEAD_OFLOW"),
        (0x1F, "EXIT_RING_BUFFER"),
        (0x27, "INVALID_KEY"),
        (0xFFFFFFFF, "NO_FW_CALL"),
        (0x1E, "0x1e"),
        (0x28, "0x28"),
    ],
)
def test_names_of_firmware_errors(code, name):
    assert sev_guest.firmware_error_name(code) == name


def test_names_of_host_errors():
    names = [sev_guest.vmm_error_name(code) for code in (0, 1, 2, 0x80000000)]
    assert names == ["NONE", "INVALID_LEN", "BUSY", "0x80000000"]


@given(st.binary(max_size=200))
def test_random_bytes(data):
    fuzzed.fuzz(data)
