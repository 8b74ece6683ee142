# SPDX-License-Identifier: Apache-2.0
"""Guest messages against vectors made elsewhere, with AES-GCM of ``cryptography``."""

import hashlib
import json
import os
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz import guest_message as fuzzed
from troth.abi import guest_message, guest_payload
from troth.abi.guest_message import Header
from troth.errors import FormatError

VECTORS = Path(os.environ.get("TROTH_VECTORS", Path(__file__).parents[3] / "shared/vectors"))
KEY = bytes(range(32))
REQUEST = Header(sequence=1, kind=5, version=1, vmpck=0)
ANSWER = Header(sequence=2, kind=6, version=1, vmpck=0)


class AesGcm:
    """Seals and opens, and counts how often it was asked to open."""

    def __init__(self, key):
        self._gcm = AESGCM(key)
        self.opened = 0

    def encrypt(self, iv, aad, plaintext):
        sealed = self._gcm.encrypt(iv, plaintext, aad)
        return sealed[:-16], sealed[-16:]

    def decrypt(self, iv, aad, ciphertext, tag):
        self.opened += 1
        try:
            return self._gcm.decrypt(iv, ciphertext + tag, aad)
        except InvalidTag:
            raise guest_message.wrong_tag() from None


@pytest.fixture(scope="module")
def vectors():
    path = VECTORS / "snp/guest-messages.json"
    if not path.exists():
        pytest.skip(f"no vectors at {path} (set TROTH_VECTORS)")
    return {item["name"]: item for item in json.loads(path.read_text())}


def header_of(vector):
    return Header(vector["seqno"], vector["msg_type"], vector["msg_version"], vector["vmpck"])


def plaintext_of(vector):
    if "plaintext" in vector:
        return bytes.fromhex(vector["plaintext"])
    report = (VECTORS / "snp/milan-v3-ms.report.bin").read_bytes()
    return bytes(4) + (1184).to_bytes(4, "little") + bytes(24) + report


@pytest.mark.parametrize(
    "name", ["report_req_seq1_vmpck1", "report_rsp_seq2_vmpck1", "key_req_seq3_vmpck1"]
)
def test_pages_are_those_of_the_vectors(vectors, name):
    vector = vectors[name]
    aead = AesGcm(bytes.fromhex(vector["key"]))
    page = guest_message.seal(header_of(vector), plaintext_of(vector), aead)
    assert page[:96].hex() == vector["header"]
    assert hashlib.sha256(page).hexdigest() == vector["page_sha256"]
    assert guest_message.peek(page) == header_of(vector)
    assert guest_message.open_(page, header_of(vector), aead) == plaintext_of(vector)


def test_the_vectors_payloads_are_read(vectors):
    request = guest_payload.decode_report_request(plaintext_of(vectors["report_req_seq1_vmpck1"]))
    assert request == guest_payload.ReportRequest(bytes(range(64)), vmpl=1, key_selection=0)
    answer = guest_payload.decode_report_response(plaintext_of(vectors["report_rsp_seq2_vmpck1"]))
    assert (answer.status, len(answer.report)) == (0, 1184)
    key = guest_payload.decode_key_request(plaintext_of(vectors["key_req_seq3_vmpck1"]))
    assert key == guest_payload.KeyRequest(0, 0x3F, vmpl=1, tcb_version=4 << 56)


def test_an_answer_follows_its_request():
    assert guest_message.answer_to(REQUEST) == ANSWER
    assert guest_message.iv(0x0102) == b"\x02\x01" + bytes(10)


def test_the_count_ends_with_32_bits():
    assert guest_message.next_sequence(0) == 1
    assert guest_message.next_sequence(0xFFFFFFFE) == 0xFFFFFFFF
    for count in (-1, 0xFFFFFFFF, 1 << 32):
        with pytest.raises(FormatError) as caught:
            guest_message.next_sequence(count)
        assert caught.value.code == "guest-message-sequence"


def refused(page, expected=ANSWER, *, aead=None, **options):
    aead = aead or AesGcm(KEY)
    with pytest.raises(FormatError) as caught:
        guest_message.open_(page, expected, aead, **options)
    return caught.value.code


# Each stands before those below it: offset, bytes there, code.
WRONG = [
    (0x20, (4).to_bytes(8, "little"), "guest-message-sequence"),
    (0x34, b"\5", "guest-message-type"),
    (0x35, b"\2", "guest-message-version"),
    (0x36, (4001).to_bytes(2, "little"), "guest-message-length"),
    (0x31, b"\2", "guest-message-header"),
    (0x32, (95).to_bytes(2, "little"), "guest-message-header"),
    (0x30, b"\0", "guest-message-header"),
    (0x3C, b"\1", "guest-message-vmpck"),
    (0x3D, b"\1", "guest-message-reserved"),
    (0x00, bytes(16), "guest-message-tag"),
]
ALSO_RESERVED = [0x10, 0x1F, 0x28, 0x2F, 0x38, 0x3B, 0x5F]


def test_every_check_in_its_order():
    page = bytearray(guest_message.seal(ANSWER, b"payload", AesGcm(KEY)))
    aead = AesGcm(KEY)
    for at, data, code in reversed(WRONG):
        page[at : at + len(data)] = data
        assert refused(bytes(page), aead=aead) == code
    assert aead.opened == 1, "only a page of the expected form is decrypted"


@pytest.mark.parametrize("at", ALSO_RESERVED)
def test_reserved_bytes(at):
    page = bytearray(guest_message.seal(ANSWER, b"payload", AesGcm(KEY)))
    page[at] ^= 1
    assert refused(bytes(page)) == "guest-message-reserved"
    with pytest.raises(FormatError, match="reserved"):
        guest_message.peek(bytes(page))


@pytest.mark.parametrize("size", [0, 95, 4095, 4097])
def test_a_page_has_4096_bytes(size):
    assert refused(bytes(size)) == "guest-message-page"


def test_the_callers_bound():
    page = guest_message.seal(ANSWER, bytes(65), AesGcm(KEY))
    assert refused(page, max_payload_bytes=64) == "guest-message-length"
    assert guest_message.open_(page, ANSWER, AesGcm(KEY), max_payload_bytes=65) == bytes(65)


def test_no_bound_of_a_caller_reaches_beyond_the_page():
    page = bytearray(guest_message.seal(ANSWER, bytes(4000), AesGcm(KEY)))
    assert guest_message.open_(bytes(page), ANSWER, AesGcm(KEY)) == bytes(4000)
    page[0x36:0x38] = (4001).to_bytes(2, "little")
    assert refused(bytes(page), max_payload_bytes=1 << 16) == "guest-message-length"


def test_another_key_or_changed_ciphertext():
    page = bytearray(guest_message.seal(ANSWER, b"payload", AesGcm(KEY)))
    assert refused(bytes(page), aead=AesGcm(bytes(32))) == "guest-message-tag"
    page[0x60] ^= 1
    assert refused(bytes(page)) == "guest-message-tag"


def test_a_page_that_the_host_changes_meanwhile():
    page = bytearray(guest_message.seal(ANSWER, b"payload", AesGcm(KEY)))

    class Changing(AesGcm):
        def decrypt(self, iv, aad, ciphertext, tag):
            page[:] = bytes(4096)
            return super().decrypt(iv, aad, ciphertext, tag)

    assert guest_message.open_(memoryview(page), ANSWER, Changing(KEY)) == b"payload"


def test_the_firmware_learns_the_key_number():
    page = bytearray(guest_message.seal(Header(1, 5, 1, 3), b"", AesGcm(KEY)))
    assert guest_message.peek(bytes(page)).vmpck == 3
    page[0x3C] = 4
    with pytest.raises(FormatError) as caught:
        guest_message.peek(bytes(page))
    assert caught.value.code == "guest-message-vmpck"


@pytest.mark.parametrize(
    ("header", "size", "code"),
    [
        (Header(0, 5, 1, 0), 0, "guest-message-sequence"),
        (Header(1 << 64, 5, 1, 0), 0, "guest-message-sequence"),
        (Header(1, 256, 1, 0), 0, "guest-message-field"),
        (Header(1, 5, 256, 0), 0, "guest-message-field"),
        (Header(1, 5, 1, 4), 0, "guest-message-field"),
        (REQUEST, 4001, "guest-message-length"),
    ],
)
def test_what_cannot_be_sealed(header, size, code):
    with pytest.raises(FormatError) as caught:
        guest_message.seal(header, bytes(size), AesGcm(KEY))
    assert caught.value.code == code


@given(
    st.builds(
        Header,
        sequence=st.integers(1, 2**64 - 1),
        kind=st.integers(0, 255),
        version=st.integers(0, 255),
        vmpck=st.integers(0, 3),
    ),
    st.binary(max_size=4000),
)
@settings(max_examples=50)
def test_round_trip(header, payload):
    page = guest_message.seal(header, payload, AesGcm(KEY))
    assert len(page) == 4096
    assert guest_message.open_(page, header, AesGcm(KEY)) == payload


@given(st.integers(0, 95), st.integers(1, 255))
def test_no_changed_header_is_opened(at, change):
    page = bytearray(guest_message.seal(ANSWER, b"payload", AesGcm(KEY)))
    page[at] ^= change
    refused(bytes(page))


@given(st.binary(max_size=200))
def test_random_bytes(data):
    fuzzed.fuzz(data)


def test_seeds():
    for seed in fuzzed.SEEDS:
        fuzzed.fuzz(seed)
