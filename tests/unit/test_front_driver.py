# SPDX-License-Identifier: Apache-2.0
"""The driver's half of the guest message protocol, with vectors and a firmware made here."""

import errno
import hashlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from made_aead import AesGcm
from troth.abi import guest_message, secrets_page
from troth.abi.guest_message import Header
from troth.abi.secrets_page import SecretsPage, Svsm
from troth.errors import ProviderError
from troth.simulated import wire
from troth.simulated.front.driver import Again, Ask, Driver, Outcome
from troth.simulated.wire import Frame, Head

VECTORS = Path(os.environ.get("TROTH_VECTORS", Path(__file__).parents[3] / "shared/vectors"))
KEY = bytes(range(32))
PAGE = SecretsPage(vmpcks=(KEY, b"\1" * 32, b"\2" * 32, b"\3" * 32))
ASK = Ask(kind=5, version=1, payload=b"p" * 96, response_bytes=4000)
EXTENDED = Ask(kind=5, version=1, payload=b"e" * 96, response_bytes=4000, pages=4)
BUSY, INVALID_LEN = 2 << 32, 1 << 32


def driver(page=PAGE):
    return Driver(page, AesGcm)


def answer(frame, body=None, *, exit_info=0, needed=0, certificates=b"", payload=b"answer"):
    """What an honest firmware says to ``frame``, unless something else is given."""
    if body is None:
        request = guest_message.peek(frame.body)
        body = guest_message.seal(guest_message.answer_to(request), payload, AesGcm(KEY))
    pages = frame.head.value_a if frame.head.kind == wire.EXT_GUEST_REQUEST else 0
    body += certificates.ljust(4096 * pages, b"\0")
    return Frame(Head(frame.head.kind | wire.ANSWER, frame.head.sequence, exit_info, needed), body)


def failed(frame, exit_info, *, needed=0):
    return answer(frame, bytes(4096), exit_info=exit_info, needed=needed)


def test_pages_are_those_of_the_vectors():
    path = VECTORS / "snp/guest-messages.json"
    if not path.exists():
        pytest.skip(f"no vectors at {path} (set TROTH_VECTORS)")
    vectors = {item["name"]: item for item in json.loads(path.read_text())}
    report = (VECTORS / "snp/milan-v3-ms.report.bin").read_bytes()
    # A guest at VMPL 1, below a service module, whose key is VMPCK 1.
    page = SecretsPage(
        vmpcks=(bytes(32), KEY, KEY, KEY), svsm=Svsm(0x1000, 0x1000, 0x1000, 1, guest_vmpl=1)
    )
    made = driver(page)
    for name, kind, rest in (
        ("report_req_seq1_vmpck1", 5, bytes(4) + (1184).to_bytes(4, "little") + bytes(24) + report),
        ("key_req_seq3_vmpck1", 3, bytes(64)),
    ):
        vector = vectors[name]
        frame = made.begin(Ask(kind, 1, bytes.fromhex(vector["plaintext"]), 4000), now_s=0)
        assert frame.body[:96].hex() == vector["header"]
        assert hashlib.sha256(frame.body).hexdigest() == vector["page_sha256"]
        head = Header(vector["seqno"] + 1, kind + 1, 1, 1)
        page = guest_message.seal(head, rest, AesGcm(KEY))
        if kind == 5:
            said = vectors["report_rsp_seq2_vmpck1"]["page_sha256"]
            assert hashlib.sha256(page).hexdigest() == said
        found = made.answered(answer(frame, page), now_s=0)
        assert (found.errno, found.exit_info, found.payload) == (0, 0, rest.ljust(4000, b"\0"))
    assert made.count == 4


def test_numbers_are_odd_and_grow_by_two():
    made = driver()
    for number in (1, 3, 5):
        frame = made.begin(ASK, now_s=0)
        assert frame.head.kind == wire.GUEST_REQUEST
        assert guest_message.peek(frame.body) == Header(number, 5, 1, 0)
        assert made.answered(answer(frame), now_s=0).errno == 0
    assert made.count == 6


def test_counting_goes_on_where_the_page_says():
    """A kernel that took over from a boot loader finds a count that is not zero."""
    made = driver(secrets_page.replace(PAGE, counts=(8, 0, 0, 0)))
    assert guest_message.peek(made.begin(ASK, now_s=0).body).sequence == 9


@pytest.mark.parametrize("count", [0xFFFFFFFE, 0xFFFFFFFF])
def test_a_key_that_is_used_up(count):
    made = driver(secrets_page.replace(PAGE, counts=(count, 0, 0, 0)))
    assert made.begin(ASK, now_s=0) == Outcome(errno.EIO, 0xFFFFFFFF)
    assert not made.wiped


def test_the_last_number_and_its_answer_still_fit():
    made = driver(secrets_page.replace(PAGE, counts=(0xFFFFFFFC, 0, 0, 0)))
    frame = made.begin(ASK, now_s=0)
    assert guest_message.peek(frame.body).sequence == 0xFFFFFFFD
    assert made.answered(answer(frame), now_s=0).errno == 0
    assert made.count == 0xFFFFFFFE
    assert made.begin(ASK, now_s=0).errno == errno.EIO


def test_busy_means_the_same_page_again():
    made = driver()
    frame = made.begin(ASK, now_s=100)
    for now_s in (100.1, 130, 160):
        assert made.answered(failed(frame, BUSY), now_s=now_s) == Again(2.0)
        again = made.again()
        assert again.body == frame.body
        assert again.head.sequence == frame.head.sequence + 1
        frame = again
    assert made.answered(answer(frame), now_s=160.1).errno == 0
    assert made.count == 2


def test_busy_for_more_than_a_minute():
    made = driver()
    frame = made.begin(ASK, now_s=100)
    assert made.answered(failed(frame, BUSY), now_s=160.001) == Outcome(errno.ETIMEDOUT, BUSY)
    assert made.wiped
    assert made.begin(ASK, now_s=170) == Outcome(errno.ENOTTY, 0xFFFFFFFF)


def test_too_few_pages():
    made = driver()
    frame = made.begin(EXTENDED, now_s=0)
    assert (frame.head.kind, frame.head.value_a) == (wire.EXT_GUEST_REQUEST, 4)
    plain = made.answered(failed(frame, INVALID_LEN, needed=5), now_s=0)
    assert (plain.head.kind, plain.head.value_a) == (wire.GUEST_REQUEST, 0)
    assert plain.body == frame.body
    found = made.answered(answer(plain), now_s=0)
    assert found == Outcome(errno.EIO, INVALID_LEN, pages=5)
    assert not made.wiped
    # The firmware has counted it, and so has the driver.
    frame = made.begin(EXTENDED, now_s=0)
    assert guest_message.peek(frame.body).sequence == 3
    found = made.answered(answer(frame, certificates=b"table"), now_s=0)
    assert (found.errno, len(found.certificates)) == (0, 4 * 4096)
    assert found.certificates.startswith(b"table\0")


def test_too_few_pages_and_then_busy():
    made = driver()
    frame = made.begin(EXTENDED, now_s=0)
    plain = made.answered(failed(frame, INVALID_LEN, needed=5), now_s=0)
    assert made.answered(failed(plain, BUSY), now_s=1) == Again(2.0)
    again = made.again()
    assert (again.head.kind, again.body) == (wire.GUEST_REQUEST, frame.body)
    assert made.answered(answer(again), now_s=3).pages == 5


def test_a_failure_behind_too_few_pages_ends_the_key():
    made = driver()
    frame = made.begin(EXTENDED, now_s=0)
    plain = made.answered(failed(frame, INVALID_LEN, needed=5), now_s=0)
    assert made.answered(failed(plain, 0x16), now_s=0) == Outcome(errno.EIO, 0x16)
    assert made.wiped


def test_invalid_length_of_a_plain_request_is_any_failure():
    made = driver()
    frame = made.begin(ASK, now_s=0)
    assert made.answered(failed(frame, INVALID_LEN, needed=5), now_s=0).errno == errno.EIO
    assert made.wiped


@pytest.mark.parametrize("exit_info", [1, 0x16, 0xFFFFFFFF, 3 << 32, 1 << 63, INVALID_LEN | 1])
def test_any_other_failure_ends_the_key(exit_info):
    made = driver()
    frame = made.begin(ASK, now_s=0)
    assert made.answered(failed(frame, exit_info), now_s=0) == Outcome(errno.EIO, exit_info)
    assert made.wiped
    assert made.begin(ASK, now_s=0).errno == errno.ENOTTY


@given(at=st.integers(0, 4095), bit=st.integers(0, 7))
@settings(max_examples=150)
def test_a_changed_answer_ends_the_key(at, bit):
    made = driver()
    frame = made.begin(ASK, now_s=0)
    good = answer(frame).body
    changed = bytearray(good)
    changed[at] ^= 1 << bit
    found = made.answered(answer(frame, bytes(changed)), now_s=0)
    if at >= guest_message.HEADER_BYTES + len(b"answer"):
        # Behind the payload nothing is looked at.
        assert found.payload.startswith(b"answer\0")
    else:
        assert found == Outcome(errno.EBADMSG, 0)
        assert made.wiped


def test_an_answer_of_before_ends_the_key():
    made = driver()
    first = made.begin(ASK, now_s=0)
    old = answer(first)
    assert made.answered(old, now_s=0).errno == 0
    second = made.begin(ASK, now_s=0)
    assert made.answered(answer(second, old.body), now_s=0).errno == errno.EBADMSG
    assert made.wiped


def test_an_answer_longer_than_the_caller_has_room_for():
    made = driver()
    frame = made.begin(Ask(3, 1, bytes(32), response_bytes=64), now_s=0)
    assert made.answered(answer(frame, payload=bytes(65)), now_s=0).errno == errno.EBADMSG
    assert made.wiped


def test_a_lost_line_ends_the_key():
    made = driver()
    assert made.lost(errno.EIO) is None
    assert made.begin(ASK, now_s=0).errno == errno.ENOTTY
    made = driver()
    made.begin(ASK, now_s=0)
    assert made.lost(errno.ETIMEDOUT).errno == errno.ETIMEDOUT
    assert (made.wiped, made.count) == (True, 2)


def test_a_cipher_that_fails_ends_the_key():
    class Broken(AesGcm):
        def encrypt(self, iv, aad, plaintext):
            raise OSError(errno.ENOMEM, "no memory")

    made = Driver(PAGE, Broken)
    assert made.begin(ASK, now_s=0).errno == errno.EIO
    assert made.wiped


def test_one_request_at_a_time():
    made = driver()
    made.begin(ASK, now_s=0)
    with pytest.raises(RuntimeError):
        made.begin(ASK, now_s=0)


def test_a_level_without_its_key():
    page = SecretsPage(vmpcks=(bytes(32), KEY, KEY, KEY))
    with pytest.raises(ProviderError) as caught:
        driver(page)
    assert caught.value.code == "vmpck-lost"


def test_secrets_are_not_shown():
    made = driver()
    frame = made.begin(ASK, now_s=0)
    found = made.answered(answer(frame, payload=b"a derived key"), now_s=0)
    assert "derived" not in repr(found)


STEPS = st.lists(
    st.tuples(st.booleans(), st.sampled_from(["good", "busy", "short", "fail", "garbage"])),
    max_size=30,
)


@given(steps=STEPS)
@settings(max_examples=200)
def test_no_number_ever_seals_two_payloads(steps):
    """Whatever the host says; the cipher of this test watches, the payload always differs."""
    aeads = []

    def watched(key):
        aeads.append(AesGcm(key))
        return aeads[-1]

    made = Driver(PAGE, watched)
    now_s = 0.0
    for turn, (extended, said) in enumerate(steps):
        ask = Ask(5, 1, turn.to_bytes(96, "little"), 4000, pages=1 if extended else None)
        found = made.begin(ask, now_s=now_s)
        page = None if isinstance(found, Outcome) else found.body
        while not isinstance(found, Outcome):
            now_s += 25
            if isinstance(found, Again):
                found = made.again()
            assert found.body == page
            heard = {
                "good": answer,
                "busy": lambda frame: failed(frame, BUSY),
                "short": lambda frame: (
                    failed(frame, INVALID_LEN, needed=2)
                    if frame.head.kind == wire.EXT_GUEST_REQUEST
                    else answer(frame)
                ),
                "fail": lambda frame: failed(frame, 0x16),
                "garbage": lambda frame: failed(frame, 0),
            }[said](found)
            found = made.answered(heard, now_s=now_s)
    numbers = [int.from_bytes(iv[:8], "little") for iv in aeads[0].sealed]
    assert numbers == list(range(1, 2 * len(numbers), 2))
