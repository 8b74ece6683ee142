# SPDX-License-Identifier: Apache-2.0
"""/dev/sev-guest: the numbers and structures of its ioctls, and the names of what fails.

Serves the guest, which asks the kernel's driver, and the simulated platform,
which answers in its place; so every structure goes both ways. The kernel copies
its answer into memory that was the caller's: must never take success of the
ioctl for a report. The firmware's error numbers are kept here, because kernel
headers before 2025 had them wrong from 0x19 on.

Source: Linux, include/uapi/linux/sev-guest.h and Documentation/virt/coco/sev-guest.rst;
error numbers: AMD 56860 1.58, table "Status Codes"; AMD 56421, section 4.1.7.
"""

from __future__ import annotations

import struct

from troth.abi import guest_payload
from troth.errors import FormatError
from troth.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.abi.guest_payload import KeyRequest, KeyResponse, ReportRequest, ReportResponse

GET_REPORT = 0xC0205300
GET_DERIVED_KEY = 0xC0205301
GET_EXT_REPORT = 0xC0205302

MESSAGE_VERSION = 1
REQUEST_BYTES = 32
"""struct snp_guest_request_ioctl."""
REPORT_REQUEST_BYTES = guest_payload.REPORT_REQUEST_BYTES
EXT_REPORT_REQUEST_BYTES = 112
REPORT_RESPONSE_BYTES = 4000
DERIVED_KEY_REQUEST_BYTES = guest_payload.KEY_REQUEST_BYTES
DERIVED_KEY_RESPONSE_BYTES = guest_payload.KEY_RESPONSE_BYTES

PAGE_BYTES = 4096
MAX_CERTIFICATES_BYTES = 0x4000
"""Largest buffer that the driver takes; a multiple of the page."""

VMM_OK = 0
VMM_INVALID_LENGTH = 1
"""The certificates do not fit; ``certificates_bytes`` of the request says what they need."""
VMM_BUSY = 2
"""The host lets the guest wait."""

NO_FIRMWARE_CALL = 0xFFFFFFFF
"""The driver presets this: the firmware was never asked."""

_REQUEST = struct.Struct("<B7sQQII")
_EXT_REQUEST = struct.Struct("<96sQI4s")

_FIRMWARE_ERRORS = {
    0x00: "SUCCESS",
    0x01: "INVALID_PLATFORM_STATE",
    0x02: "INVALID_GUEST_STATE",
    0x03: "INVALID_CONFIG",
    0x04: "INVALID_LEN",
    0x05: "ALREADY_OWNED",
    0x06: "INVALID_CERTIFICATE",
    0x07: "POLICY_FAILURE",
    0x08: "INACTIVE",
    0x09: "INVALID_ADDRESS",
    0x0A: "BAD_SIGNATURE",
    0x0B: "BAD_MEASUREMENT",
    0x0C: "ASID_OWNED",
    0x0D: "INVALID_ASID",
    0x0E: "WBINVD_REQUIRED",
    0x0F: "DFFLUSH_REQUIRED",
    0x10: "INVALID_GUEST",
    0x11: "INVALID_COMMAND",
    0x12: "ACTIVE",
    0x13: "HW_PLATFORM",
    0x14: "HW_UNSAFE",
    0x15: "UNSUPPORTED",
    0x16: "INVALID_PARAM",
    0x17: "RESOURCE_LIMIT",
    0x18: "SECURE_DATA_INVALID",
    0x19: "INVALID_PAGE_SIZE",
    0x1A: "INVALID_PAGE_STATE",
    0x1B: "INVALID_MDATA_ENTRY",
    0x1C: "INVALID_PAGE_OWNER",
    0x1D: "AEAD_OFLOW",
    0x1F: "EXIT_RING_BUFFER",
    0x20: "RMP_INIT_REQUIRED",
    0x21: "BAD_SVN",
    0x22: "BAD_VERSION",
    0x23: "SHUTDOWN_REQUIRED",
    0x24: "UPDATE_FAILED",
    0x25: "RESTORE_REQUIRED",
    0x26: "RMP_INIT_FAILED",
    0x27: "INVALID_KEY",
    NO_FIRMWARE_CALL: "NO_FW_CALL",
}
_VMM_ERRORS = {VMM_OK: "NONE", VMM_INVALID_LENGTH: "INVALID_LEN", VMM_BUSY: "BUSY"}


@record
class Request:
    """struct snp_guest_request_ioctl.

    ``message_version``: 1 to 255; ``request_address``, ``response_address``: in
    the caller's memory; ``firmware_error`` and ``vmm_error``: set by the driver.
    """

    message_version: int
    request_address: int
    response_address: int
    firmware_error: int = 0
    vmm_error: int = 0


@record
class ExtendedReportRequest:
    """struct snp_ext_report_req: a report, and where its certificates go.

    ``certificates_address`` or ``certificates_bytes`` 0: none are asked for.
    """

    report: ReportRequest
    certificates_address: int = 0
    certificates_bytes: int = 0


def firmware_error_name(code: int) -> str:
    """The firmware's word for ``code``, or the number itself where it has none."""
    return _FIRMWARE_ERRORS.get(code, f"{code:#x}")


def vmm_error_name(code: int) -> str:
    """The host's word for ``code``, or the number itself where it has none."""
    return _VMM_ERRORS.get(code, f"{code:#x}")


def exit_info(firmware_error: int, vmm_error: int) -> int:
    """Both errors as the one number exitinfo2."""
    return vmm_error << 32 | firmware_error


def split_exit_info(number: int) -> tuple[int, int]:
    """Firmware error and VMM error in exitinfo2 ``number``."""
    return number & 0xFFFFFFFF, number >> 32 & 0xFFFFFFFF


def encode_request(request: Request) -> bytes:
    """The 32 bytes of ``request``. ``FormatError``: ``sev-guest-field``."""
    try:
        return _REQUEST.pack(
            request.message_version,
            b"",
            request.request_address,
            request.response_address,
            request.firmware_error,
            request.vmm_error,
        )
    except struct.error as error:
        raise FormatError("sev-guest-field", f"ioctl structure: {error}") from None


def decode_request(data: bytes) -> Request:
    """The request in ``data``, exactly 32 bytes; padding is not looked at, as in the kernel.

    ``FormatError``: ``sev-guest-size``.
    """
    _size("an ioctl structure", data, REQUEST_BYTES)
    version, _, request_address, response_address, firmware, vmm = _REQUEST.unpack(data)
    return Request(version, request_address, response_address, firmware, vmm)


def encode_extended(request: ExtendedReportRequest) -> bytes:
    """The 112 bytes of ``request``.

    ``FormatError``: ``sev-guest-field`` also for a size that the driver refuses,
    ``guest-payload-field``.
    """
    if request.certificates_bytes not in range(0, MAX_CERTIFICATES_BYTES + 1, PAGE_BYTES):
        raise FormatError(
            "sev-guest-field",
            f"{request.certificates_bytes} bytes for certificates: whole pages, at most "
            f"{MAX_CERTIFICATES_BYTES}",
        )
    head = guest_payload.encode_report_request(request.report)
    try:
        return _EXT_REQUEST.pack(
            head, request.certificates_address, request.certificates_bytes, b""
        )
    except struct.error as error:
        raise FormatError("sev-guest-field", f"ioctl structure: {error}") from None


def decode_extended(data: bytes) -> ExtendedReportRequest:
    """The request in ``data``, exactly 112 bytes.

    The driver writes the size it needs into it, so any size is read.
    ``FormatError``: ``sev-guest-size``, ``guest-payload-field``.
    """
    _size("a request for an extended report", data, EXT_REPORT_REQUEST_BYTES)
    head, address, size_bytes, _ = _EXT_REQUEST.unpack(data)
    return ExtendedReportRequest(guest_payload.decode_report_request(head), address, size_bytes)


def encode_report_response(response: ReportResponse) -> bytes:
    """The 4000 bytes of struct snp_report_resp. ``FormatError``: ``sev-guest-size``."""
    body = guest_payload.encode_report_response(response)
    if len(body) > REPORT_RESPONSE_BYTES:
        raise FormatError("sev-guest-size", f"a report of {len(response.report)} bytes")
    return body.ljust(REPORT_RESPONSE_BYTES, b"\0")


def decode_report_response(data: bytes) -> ReportResponse:
    """The response in ``data``, exactly 4000 bytes; status and size are the caller's to check.

    ``FormatError``: ``sev-guest-size``, ``guest-payload-size``.
    """
    _size("a report's answer", data, REPORT_RESPONSE_BYTES)
    return guest_payload.decode_report_response(data)


def encode_derived_key_request(request: KeyRequest) -> bytes:
    """The 32 bytes of struct snp_derived_key_req.

    The driver has no room for message version 2. ``FormatError``:
    ``sev-guest-field``, ``guest-payload-field``.
    """
    if request.message_version != MESSAGE_VERSION:
        raise FormatError("sev-guest-field", "the driver takes no mitigation vector")
    return guest_payload.encode_key_request(request)


def decode_derived_key_request(data: bytes) -> KeyRequest:
    """The request in ``data``, exactly 32 bytes. ``sev-guest-size``, ``guest-payload-field``."""
    _size("a request for a key", data, DERIVED_KEY_REQUEST_BYTES)
    return guest_payload.decode_key_request(data)


def encode_derived_key_response(response: KeyResponse) -> bytes:
    """The 64 bytes of struct snp_derived_key_resp."""
    return guest_payload.encode_key_response(response)


def decode_derived_key_response(data: bytes) -> KeyResponse:
    """The response in ``data``, exactly 64 bytes. ``FormatError``: ``guest-payload-size``."""
    return guest_payload.decode_key_response(data)


def _size(what: str, data: bytes, size_bytes: int) -> None:
    if len(data) != size_bytes:
        raise FormatError("sev-guest-size", f"{what} of {len(data)} bytes, not {size_bytes}")
