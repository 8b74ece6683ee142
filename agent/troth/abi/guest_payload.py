# SPDX-License-Identifier: Apache-2.0
"""What guest and secure processor say to each other inside their messages.

Serves the guest's providers, whose kernel takes and gives these same bytes, and
the simulated platform, which has both ends. Requests are read strictly. In
responses what is reserved is passed over: firmware fills it in time. Must never
show a derived key where a value is printed.

Source: AMD SEV Secure Nested Paging Firmware ABI Specification (56860) 1.58,
chapter 7, "Guest Messages": MSG_REPORT_REQ and RSP, MSG_KEY_REQ and RSP,
MSG_TSC_INFO_REQ and RSP; little-endian.
"""

from __future__ import annotations

import struct

from troth.errors import FormatError
from troth.record import record

REPORT_REQUEST_BYTES = 96
REPORT_RESPONSE_HEAD_BYTES = 32
"""What stands before the report."""
KEY_REQUEST_BYTES = 32
KEY_REQUEST_BYTES_V2 = 40
KEY_RESPONSE_BYTES = 64
TSC_INFO_BYTES = 128
"""Size of the request, which is all zeros, and of the response."""

REPORT_DATA_BYTES = 64
KEY_BYTES = 32

# KEY_SEL: which key signs a report.
KEY_SELECTION_AUTO = 0
"""The VLEK where the host has loaded one, else the VCEK."""
KEY_SELECTION_VCEK = 1
KEY_SELECTION_VLEK = 2

# ROOT_KEY_SELECT: what a key is derived from.
ROOT_KEY_VCEK = 0
ROOT_KEY_VMRK = 1

# GUEST_FIELD_SELECT: what is mixed into a derived key.
FIELD_POLICY = 1 << 0
FIELD_IMAGE_ID = 1 << 1
FIELD_FAMILY_ID = 1 << 2
FIELD_MEASUREMENT = 1 << 3
FIELD_GUEST_SVN = 1 << 4
FIELD_TCB_VERSION = 1 << 5
FIELD_LAUNCH_MIT_VECTOR = 1 << 6
"""Message version 2 only."""

# Status of a response.
STATUS_OK = 0x00
STATUS_INVALID_PARAM = 0x16
STATUS_INVALID_KEY = 0x27

_REPORT_REQUEST = struct.Struct("<64sII24s")
_RESPONSE_HEAD = struct.Struct("<II24s")
_KEY_REQUEST = struct.Struct("<IIQIIQ")
_KEY_RESPONSE = struct.Struct("<I28s32s")
_TSC_INFO = struct.Struct("<IIQQI100s")
_MIT_VECTOR = struct.Struct("<Q")


@record
class ReportRequest:
    """MSG_REPORT_REQ: 64 bytes of ``report_data``, ``vmpl`` and one of ``KEY_SELECTION_*``."""

    report_data: bytes
    vmpl: int = 0
    key_selection: int = KEY_SELECTION_AUTO


@record
class ReportResponse:
    """MSG_REPORT_RSP: ``status``, and the ``report`` of as many bytes as it said."""

    status: int
    report: bytes


@record
class KeyRequest:
    """MSG_KEY_REQ.

    ``root_key``: ``ROOT_KEY_*``; ``fields``: bits ``FIELD_*``; ``vmpl``,
    ``guest_svn``, ``tcb_version``: what is mixed in, at most the guest's own.
    ``launch_mit_vector``: given in message version 2 only, which it makes this.
    """

    root_key: int = ROOT_KEY_VCEK
    fields: int = 0
    vmpl: int = 0
    guest_svn: int = 0
    tcb_version: int = 0
    launch_mit_vector: int | None = None

    @property
    def message_version(self) -> int:
        """Which version of the message has these fields."""
        return 1 if self.launch_mit_vector is None else 2


@record
class KeyResponse:
    """MSG_KEY_RSP: ``status`` and the 32 bytes of the derived ``key``, which is secret."""

    status: int
    key: bytes

    def __repr__(self) -> str:
        return f"KeyResponse(status={self.status})"


@record
class TscInfo:
    """MSG_TSC_INFO_RSP: ``status``, and the guest's time stamp counter."""

    status: int
    scale: int
    offset: int
    factor: int


def encode_report_request(request: ReportRequest) -> bytes:
    """The 96 bytes of ``request``. ``FormatError``: ``guest-payload-field``."""
    _has("REPORT_DATA", request.report_data, REPORT_DATA_BYTES)
    _fits("vmpl", request.vmpl, 32)
    _fits("key selection", request.key_selection, 2)
    return _REPORT_REQUEST.pack(request.report_data, request.vmpl, request.key_selection, b"")


def decode_report_request(data: bytes) -> ReportRequest:
    """The request in ``data``, exactly 96 bytes; whether it can be granted is not looked at.

    ``FormatError``: ``guest-payload-size``, ``guest-payload-field``.
    """
    _size("report request", data, REPORT_REQUEST_BYTES)
    report_data, vmpl, key_selection, reserved = _REPORT_REQUEST.unpack(data)
    _zero("report request", reserved)
    _fits("key selection", key_selection, 2)
    return ReportRequest(report_data, vmpl, key_selection)


def encode_report_response(response: ReportResponse) -> bytes:
    """The 32 bytes of head and the report."""
    _fits("status", response.status, 32)
    return _RESPONSE_HEAD.pack(response.status, len(response.report), b"") + response.report


def decode_report_response(data: bytes) -> ReportResponse:
    """The response at the start of ``data``, which may be padded.

    The size it says is bounded by ``data``; that it is a report's is the
    caller's to check, after the status. ``FormatError``: ``guest-payload-size``.
    """
    if len(data) < REPORT_RESPONSE_HEAD_BYTES:
        raise _wrong_size("report response", data, REPORT_RESPONSE_HEAD_BYTES)
    status, size, _ = _RESPONSE_HEAD.unpack_from(data)
    end = REPORT_RESPONSE_HEAD_BYTES + size
    if end > len(data):
        raise FormatError(
            "guest-payload-size", f"a report of {size} bytes in an answer of {len(data)}"
        )
    return ReportResponse(status, bytes(data[REPORT_RESPONSE_HEAD_BYTES:end]))


def encode_key_request(request: KeyRequest) -> bytes:
    """The bytes of ``request``: 32, or 40 in message version 2. ``guest-payload-field``."""
    _fits("root key", request.root_key, 1)
    _fits("fields", request.fields, 64)
    _fits("vmpl", request.vmpl, 32)
    _fits("guest SVN", request.guest_svn, 32)
    _fits("TCB version", request.tcb_version, 64)
    head = _KEY_REQUEST.pack(
        request.root_key, 0, request.fields, request.vmpl, request.guest_svn, request.tcb_version
    )
    if request.launch_mit_vector is None:
        if request.fields & FIELD_LAUNCH_MIT_VECTOR:
            raise FormatError("guest-payload-field", "a field is chosen and not given")
        return head
    _fits("mitigation vector", request.launch_mit_vector, 64)
    return head + _MIT_VECTOR.pack(request.launch_mit_vector)


def decode_key_request(data: bytes) -> KeyRequest:
    """The request in ``data``: 32 bytes, or 40 in message version 2.

    ``FormatError``: ``guest-payload-size``, ``guest-payload-field``.
    """
    if len(data) not in (KEY_REQUEST_BYTES, KEY_REQUEST_BYTES_V2):
        raise _wrong_size("key request", data, KEY_REQUEST_BYTES)
    root_key, reserved, fields, vmpl, guest_svn, tcb_version = _KEY_REQUEST.unpack_from(data)
    if reserved or root_key > 1:
        raise FormatError("guest-payload-field", "key request: reserved bits are set")
    vector = _MIT_VECTOR.unpack_from(data, KEY_REQUEST_BYTES)[0] if len(data) > 32 else None
    if vector is None and fields & FIELD_LAUNCH_MIT_VECTOR:
        raise FormatError("guest-payload-field", "a field is chosen and not given")
    return KeyRequest(root_key, fields, vmpl, guest_svn, tcb_version, vector)


def encode_key_response(response: KeyResponse) -> bytes:
    """The 64 bytes of ``response``. ``FormatError``: ``guest-payload-field``."""
    _fits("status", response.status, 32)
    _has("key", response.key, KEY_BYTES)
    return _KEY_RESPONSE.pack(response.status, b"", response.key)


def decode_key_response(data: bytes) -> KeyResponse:
    """The response in ``data``, exactly 64 bytes. ``FormatError``: ``guest-payload-size``."""
    _size("key response", data, KEY_RESPONSE_BYTES)
    status, _, key = _KEY_RESPONSE.unpack(data)
    return KeyResponse(status, key)


def encode_tsc_info(response: TscInfo) -> bytes:
    """The 128 bytes of ``response``. ``FormatError``: ``guest-payload-field``."""
    _fits("status", response.status, 32)
    _fits("scale", response.scale, 64)
    _fits("offset", response.offset, 64)
    _fits("factor", response.factor, 32)
    return _TSC_INFO.pack(response.status, 0, response.scale, response.offset, response.factor, b"")


def decode_tsc_info(data: bytes) -> TscInfo:
    """The response in ``data``, exactly 128 bytes. ``FormatError``: ``guest-payload-size``."""
    _size("TSC info", data, TSC_INFO_BYTES)
    status, _, scale, offset, factor, _ = _TSC_INFO.unpack(data)
    return TscInfo(status, scale, offset, factor)


def _size(what: str, data: bytes, size_bytes: int) -> None:
    if len(data) != size_bytes:
        raise _wrong_size(what, data, size_bytes)


def _wrong_size(what: str, data: bytes, size_bytes: int) -> FormatError:
    return FormatError("guest-payload-size", f"{what}: {len(data)} bytes, not {size_bytes}")


def _has(what: str, value: bytes, size_bytes: int) -> None:
    if len(value) != size_bytes:
        raise FormatError("guest-payload-field", f"{what} has {len(value)} bytes, not {size_bytes}")


def _fits(what: str, value: int, bits: int) -> None:
    if not 0 <= value < 1 << bits:
        raise FormatError("guest-payload-field", f"{what} {value} has not {bits} bits")


def _zero(what: str, reserved: bytes) -> None:
    if any(reserved):
        raise FormatError("guest-payload-field", f"{what}: reserved bytes are not zero")
