# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: the structures of /dev/sev-guest, as a caller or a driver gone wrong fills them."""

from troth.abi import sev_guest
from troth.abi.guest_payload import ReportRequest, ReportResponse
from troth.errors import FormatError

EXACT = ((sev_guest.decode_derived_key_request, sev_guest.encode_derived_key_request),)


def fuzz(data: bytes) -> None:
    for size in (None, 32, 64, 112, 4000):
        candidate = data if size is None else data[:size].ljust(size, b"\0")
        for decode, encode in EXACT:
            try:
                found = decode(candidate)
            except FormatError:
                continue
            if encode(found) != candidate:
                raise AssertionError(f"{found} is not what was read")
        for decode in (
            sev_guest.decode_request,
            sev_guest.decode_extended,
            sev_guest.decode_derived_key_response,
        ):
            try:
                decode(candidate)
            except FormatError:
                continue
        try:
            answer = sev_guest.decode_report_response(candidate)
        except FormatError:
            continue
        if not candidate[32:].startswith(answer.report):
            raise AssertionError("a report that was not in the answer")


SEEDS = [
    sev_guest.encode_request(sev_guest.Request(1, 4096, 8192, 0xFFFFFFFF, 0)),
    sev_guest.encode_extended(
        sev_guest.ExtendedReportRequest(ReportRequest(bytes(64)), 4096, 0x4000)
    ),
    sev_guest.encode_report_response(ReportResponse(0, bytes(1184))),
]
