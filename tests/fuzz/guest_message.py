# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: guest message pages as a hostile host would hand them over, and their payloads."""

from troth.abi import guest_message, guest_payload
from troth.abi.guest_message import Header
from troth.errors import FormatError

EXPECTED = Header(sequence=2, kind=6, version=1, vmpck=0)
PAYLOADS = (
    (guest_payload.decode_report_request, guest_payload.encode_report_request),
    (guest_payload.decode_key_request, guest_payload.encode_key_request),
)
ANSWERS = (
    guest_payload.decode_report_response,
    guest_payload.decode_key_response,
    guest_payload.decode_tsc_info,
)


class Nothing:
    """An AEAD that lets everything pass, so that no check hides behind the tag."""

    def encrypt(self, iv, aad, plaintext):
        if (len(iv), len(aad)) != (12, 48):
            raise AssertionError("IV or AAD of another size")
        return plaintext, bytes(16)

    def decrypt(self, iv, aad, ciphertext, tag):
        if (len(iv), len(aad), len(tag)) != (12, 48, 16):
            raise AssertionError("IV, AAD or tag of another size")
        return ciphertext


def fuzz(data: bytes) -> None:
    page = data[:4096].ljust(4096, b"\0")
    for candidate in (data, page, page[:0x20] + bytes([2]) + bytes(7) + page[0x28:]):
        try:
            guest_message.peek(candidate)
            payload = guest_message.open_(candidate, EXPECTED, Nothing())
        except FormatError:
            continue
        again = guest_message.seal(EXPECTED, payload, Nothing())
        if again[16:96] != candidate[16:96] or not candidate[96:].startswith(payload):
            raise AssertionError("an opened page is not what it was sealed from")
    for decode, encode in PAYLOADS:
        try:
            request = decode(data)
        except FormatError:
            continue
        if encode(request) != data:
            raise AssertionError(f"{request} is not what was read")
    for decode in ANSWERS:
        try:
            decode(data)
        except FormatError:
            continue


SEEDS = [
    guest_message.seal(EXPECTED, bytes(1216), Nothing()),
    guest_message.seal(EXPECTED, b"", Nothing()),
    guest_payload.encode_report_request(guest_payload.ReportRequest(bytes(range(64)), 1, 2)),
    guest_payload.encode_key_request(guest_payload.KeyRequest(1, 0x7F, 2, 3, 4, 5)),
]
