# SPDX-License-Identifier: Apache-2.0
"""Bindings: bytes written out by hand, and that every field counts."""

from __future__ import annotations

import hashlib
import re
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from troth.documents import binding
from troth.errors import FormatError, UsageError
from troth.record import replace

NONCE = bytes(range(32))
VALUES = binding.EvidenceBinding(
    nonce=NONCE,
    platform_kind="svsm",
    channel_sha256=b"\x11" * 32,
    ak_name=b"\x00\x0b" + b"\x22" * 32,
    quote_sha256=b"\x33" * 32,
    registers=(("software", b"\x44" * 48), ("pcr:sha256:11", b"\x55" * 32)),
    log_sha384=b"\x66" * 48,
    log_records=9,
    caller=b'{"uid":0}',
    user_data=b"hello",
)


PAGE = Path(__file__).parents[2] / "docs/formats.md"


def field(kind, value):
    return struct.pack("<BI", kind, len(value)) + value


def test_report_binding_by_hand():
    message = (
        b"\x02\x0f\x00\x00\x00troth-report-v1\x03\x20\x00\x00\x00" + NONCE + b"\x0c\x00\x00\x00\x00"
    )
    assert binding.report_binding(NONCE) == hashlib.sha512(message).digest()
    message = message[:-4] + b"\x02\x00\x00\x00hi"
    assert binding.report_binding(NONCE, b"hi") == hashlib.sha512(message).digest()


def test_evidence_binding_by_hand():
    registers = b"".join(
        struct.pack("<I", len(part)) + part
        for part in (b"pcr:sha256:11", b"\x55" * 32, b"software", b"\x44" * 48)
    )
    message = b"".join(
        (
            field(1, b"\x01\x00\x00\x00"),
            field(2, b"troth-evidence-v1"),
            field(3, NONCE),
            field(4, b"svsm"),
            field(5, b"\x11" * 32),
            field(6, b"\x00\x0b" + b"\x22" * 32),
            field(7, b"\x33" * 32),
            field(8, registers),
            field(9, b"\x66" * 48),
            field(10, b"\x09" + bytes(7)),
            field(11, b'{"uid":0}'),
            field(12, b"hello"),
        )
    )
    assert binding.evidence_binding(VALUES) == hashlib.sha512(message).digest()
    swapped = replace(VALUES, registers=VALUES.registers[::-1])
    assert binding.evidence_binding(swapped) == hashlib.sha512(message).digest()


def test_quote_binding_by_hand():
    name = b"\x00\x0b" + b"\x22" * 32
    message = field(2, b"troth-quote-v1") + field(3, NONCE) + field(6, name)
    assert binding.quote_binding(NONCE, name) == hashlib.sha256(message).digest()
    # A TPM takes no more than this, whatever its algorithms.
    assert len(binding.quote_binding(bytes(64), bytes(66))) == 32
    for wrong in (b"", name[:-1], bytes(67)):
        with pytest.raises(FormatError) as caught:
            binding.quote_binding(NONCE, wrong)
        assert caught.value.code == "binding-field"


CHANGES = {
    "nonce": bytes(range(1, 33)),
    "platform_kind": "direct",
    "channel_sha256": b"",
    "ak_name": b"",
    "quote_sha256": b"",
    "registers": (),
    "log_sha384": bytes(48),
    "log_records": 10,
    "caller": b"",
    "user_data": b"",
}


def test_every_field_counts():
    assert set(CHANGES) == set(binding.EvidenceBinding.__slots__)
    found = {binding.evidence_binding(VALUES)}
    for name, value in CHANGES.items():
        found.add(binding.evidence_binding(replace(VALUES, **{name: value})))
    assert len(found) == 1 + len(CHANGES)


@given(st.binary(min_size=16, max_size=64), st.binary(max_size=64), st.integers(0, 64))
def test_no_byte_moves_between_nonce_and_user_data(nonce, user_data, moved):
    """The lengths stand in the hash: what ends the nonce cannot begin the user data."""
    if 0 < moved <= len(nonce) - 16:
        other = binding.report_binding(nonce[:-moved], nonce[-moved:] + user_data)
        assert other != binding.report_binding(nonce, user_data)


@pytest.mark.parametrize("size", [0, 15, 65])
def test_nonces_of_a_wrong_length(size):
    for make in (
        lambda: binding.report_binding(bytes(size)),
        lambda: binding.evidence_binding(replace(VALUES, nonce=bytes(size))),
        lambda: binding.quote_binding(bytes(size), VALUES.ak_name),
    ):
        with pytest.raises(UsageError) as caught:
            make()
        assert caught.value.code == "nonce-length"
    binding.check_nonce(bytes(16))
    binding.check_nonce(bytes(64))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("platform_kind", "azure"),
        ("platform_kind", ""),
        ("channel_sha256", bytes(31)),
        ("ak_name", bytes(33)),
        ("ak_name", bytes(67)),
        ("quote_sha256", bytes(64)),
        ("registers", (("a", b"1"), ("a", b"2"))),
        ("registers", (("", b"1"),)),
        ("registers", (("a\n", b"1"),)),
        ("registers", (("a", b""),)),
        ("registers", (("a", bytes(65)),)),
        ("registers", tuple((f"r{n}", b"1") for n in range(65))),
        ("log_sha384", b""),
        ("log_records", -1),
        ("log_records", 1 << 64),
        ("caller", bytes(4097)),
        ("user_data", bytes(4097)),
    ],
)
def test_values_that_no_field_holds(name, value):
    with pytest.raises(FormatError) as caught:
        binding.evidence_binding(replace(VALUES, **{name: value}))
    assert caught.value.code == "binding-field"
    if name == "user_data":
        with pytest.raises(FormatError):
            binding.report_binding(NONCE, value)


def test_the_page_has_these_bytes():
    """The page's own dump of the first message, and its vectors."""
    text = PAGE.read_text("utf-8").partition("## Bindings")[2].partition("\n## ")[0]
    given = dict(re.findall(r"^(.*binding.*) = ([0-9a-f]{64,128})$", text, re.MULTILINE))
    dump = re.search(r"^```text\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert hashlib.sha512(bytes.fromhex(dump[1])).hexdigest() == given["report binding"]
    assert given == {
        "report binding": binding.report_binding(NONCE).hex(),
        "report binding, user data 6869": binding.report_binding(NONCE, b"hi").hex(),
        "evidence binding": binding.evidence_binding(VALUES).hex(),
        "quote binding": binding.quote_binding(NONCE, VALUES.ak_name).hex(),
    }
