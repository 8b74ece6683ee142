# SPDX-License-Identifier: Apache-2.0
"""Structures of a TPM's quote: a real TPM's bytes, bytes by hand, and bytes that are wrong."""

import base64
import hashlib
import json
import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz import tpm_attest as fuzzed
from troth.abi import tpm_attest
from troth.abi.tpm_attest import Clock, EccKey, RsaKey, Selection
from troth.errors import FormatError

VECTORS = Path(os.environ.get("TROTH_VECTORS", Path(__file__).parents[3] / "shared/vectors"))


def quotes():
    path = VECTORS / "tpm/quote/quotes-swtpm.json"
    if not path.exists():
        pytest.skip(f"no vectors at {VECTORS} (set TROTH_VECTORS)")
    return json.loads(path.read_text())


def refused(parse, data, code):
    with pytest.raises(FormatError) as caught:
        parse(data, where="tpm")
    assert (caught.value.code, caught.value.where) == (code, "tpm")


@pytest.mark.vectors
@pytest.mark.parametrize("kind", ["ecc", "rsa", "rsapss"])
def test_a_real_tpm(kind):
    found = quotes()
    own = found["quotes"][kind]
    area = base64.b64decode(own["ak_tpmt_public_b64"])
    boxed = base64.b64decode(own["ak_tpm2b_public_b64"])
    assert tpm_attest.public_area(boxed) == area
    assert tpm_attest.public_2b(area) == boxed
    assert tpm_attest.name(area).hex() == own["ak_name"]
    public = tpm_attest.parse_public(area)
    assert public == tpm_attest.parse_public_2b(boxed)
    assert tpm_attest.print_public(public) == area
    named = {name for name in tpm_attest.ATTRIBUTES if public.has(name)}
    assert named == {
        "fixedTPM", "fixedParent", "sensitiveDataOrigin", "userWithAuth", "noDA",
        "restricted", "sign",
    }  # fmt: skip
    scheme = {"ecc": "ecdsa", "rsa": "rsassa", "rsapss": "rsapss"}[kind]
    assert (public.scheme, public.scheme_hash, public.symmetric) == (scheme, "sha256", None)
    attest = base64.b64decode(own["attest_b64"])
    quote = tpm_attest.parse_quote(attest)
    assert tpm_attest.print_quote(quote) == attest
    assert quote.extra_data.hex() == found["nonce_hex"]
    assert quote.selected == (Selection("sha256", tuple(range(24))),)
    values = b"".join(bytes.fromhex(found["pcrs"][str(index)]) for index in range(24))
    assert quote.digest == hashlib.sha256(values).digest()
    raw = base64.b64decode(own["tpmt_signature_b64"])
    signature = tpm_attest.parse_signature(raw)
    assert tpm_attest.print_signature(signature) == raw
    assert (signature.scheme, signature.hash) == (scheme, "sha256")
    if kind != "ecc":
        assert signature.values == (base64.b64decode(own["raw_signature_b64"]),)


@pytest.mark.vectors
def test_a_quote_of_trustee():
    path = VECTORS / "tpm/trustee/tpm_evidence.json"
    if not path.exists():
        pytest.skip(f"no vectors at {VECTORS} (set TROTH_VECTORS)")
    quote = json.loads(path.read_text())["tpm_quote"]
    raw = base64.b64decode(quote["message"])
    found = tpm_attest.parse_quote(raw)
    assert tpm_attest.print_quote(found) == raw
    (selected,) = found.selected
    values = b"".join(bytes.fromhex(quote["pcrs"][index]) for index in selected.pcrs)
    assert found.digest == hashlib.new(selected.bank, values).digest()


def test_a_quote_by_hand():
    found = tpm_attest.parse_quote(fuzzed.QUOTE)
    assert found.signer == b"\x00\x0b" + b"\x22" * 32
    assert (found.extra_data, found.digest) == (b"more", b"\x55" * 32)
    assert found.clock == Clock(1000, 7, 3, safe=True)
    assert found.firmware == 0x2019102300163636
    assert found.selected == (Selection("sha256", (11,)),)


def test_keys_by_hand():
    assert tpm_attest.parse_public(fuzzed.ECC_PUBLIC).key == EccKey(
        "p256", b"\x01" * 32, b"\x02" * 32
    )
    rsa = tpm_attest.parse_public(fuzzed.RSA_PUBLIC)
    assert rsa.key == RsaKey(2048, 0, b"\xc1" + b"\x05" * 255)
    endorsement = tpm_attest.parse_public(fuzzed.EK_PUBLIC)
    assert (endorsement.symmetric, endorsement.scheme) == ((128, 0x43), "null")
    assert endorsement.has("decrypt")
    assert not endorsement.has("sign")
    assert tpm_attest.name(b"\x00\x23\x00\x0cxyz") == (
        b"\x00\x0c" + hashlib.sha384(b"\x00\x23\x00\x0cxyz").digest()
    )


Q, E, R, S = fuzzed.QUOTE, fuzzed.ECC_PUBLIC, fuzzed.RSA_PUBLIC, fuzzed.ECDSA


def put(data, at, value):
    return data[:at] + value + data[at + len(value) :]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "tpm-structure"),
        (put(Q, 0, b"\xfe"), "tpm-attest-magic"),
        (put(Q, 4, b"\x80\x17"), "tpm-attest-type"),
        (put(Q, 4, b"\x80\x14"), "tpm-attest-type"),
        (put(Q, 6, b"\xff\xff"), "tpm-structure"),
        (put(Q, 6, b"\x00\x45"), "tpm-structure"),
        (put(Q, 42, b"\xff\xff"), "tpm-structure"),
        (put(Q, 42, b"\x00\x03"), "tpm-structure"),
        (put(Q, 64, b"\x02"), "tpm-structure"),
        (put(Q, 73, struct.pack(">I", 17)), "tpm-selection"),
        (put(Q, 73, b"\xff" * 4), "tpm-selection"),
        (put(Q, 73, struct.pack(">I", 2)), "tpm-structure"),
        (put(Q, 77, b"\x00\x12"), "tpm-structure"),
        (put(Q, 79, b"\x04"), "tpm-selection"),
        (put(Q, 79, b"\x00"), "tpm-selection"),
        (put(Q, 83, b"\x00\x41"), "tpm-structure"),
        (put(Q, 83, b"\x00\x1f"), "tpm-structure"),
        (Q + b"\0", "tpm-structure"),
        (Q[:73] + bytes.fromhex("00000002 000b 03 000800 000b 03 000100") + Q[83:],
         "tpm-selection"),
    ],
)  # fmt: skip
def test_quotes_refused(data, code):
    refused(tpm_attest.parse_quote, data, code)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (put(E, 0, b"\x00\x08"), "tpm-public"),
        (put(E, 2, b"\x00\x12"), "tpm-structure"),
        (put(E, 4, b"\x80"), "tpm-public"),
        (put(E, 7, b"\x73"), "tpm-public"),
        (put(E, 8, b"\x00\x01"), "tpm-public"),
        (put(E, 8, b"\xff\xff"), "tpm-structure"),
        (put(E, 10, b"\x00\x26"), "tpm-public"),
        (put(E, 12, b"\x00\x14"), "tpm-public"),
        (put(E, 12, b"\x00\x1a"), "tpm-public"),
        (put(E, 16, b"\x00\x10"), "tpm-public"),
        (put(E, 18, b"\x00\x20"), "tpm-public"),
        (put(E, 20, b"\x00\x21"), "tpm-structure"),
        (put(E, 20, b"\x00\x00"), "tpm-structure"),
        (put(E, 54, b"\x00\x21"), "tpm-structure"),
        (put(E, 54, b"\x00\x1f"), "tpm-structure"),
        (E + b"\0", "tpm-structure"),
        (put(R, 12, b"\x00\x18"), "tpm-public"),
        (put(R, 16, b"\x08\x01"), "tpm-public"),
        (put(R, 16, b"\x0c\x00"), "tpm-public"),
        (put(R, 22, b"\x02\x01"), "tpm-structure"),
        (put(R, 22, b"\x00\xff"), "tpm-public"),
        (put(R, 24, b"\x41"), "tpm-public"),
        (R[:-1] + b"\x04", "tpm-public"),
        (put(fuzzed.EK_PUBLIC, 44, b"\x00\x81"), "tpm-public"),
        (E[:20] + b"\0" * 5000, "tpm-structure"),
    ],
)
def test_keys_refused(data, code):
    refused(tpm_attest.parse_public, data, code)


@pytest.mark.parametrize(
    "data",
    [
        put(S, 0, b"\x00\x10"),
        put(S, 0, b"\x00\x1b"),
        put(S, 2, b"\x00\x10"),
        put(S, 4, b"\x00\x00"),
        put(S, 4, b"\x00\x43"),
        put(S, 38, b"\x00\x21"),
        S + b"\0",
        S[:-1],
        put(fuzzed.RSASSA, 4, b"\x02\x01"),
    ],
)
def test_signatures_refused(data):
    refused(tpm_attest.parse_signature, data, "tpm-structure")


def test_boxes_refused():
    refused(tpm_attest.public_area, b"\x00\x01", "tpm-structure")
    refused(tpm_attest.public_area, b"\x00\x01aa", "tpm-structure")
    refused(tpm_attest.public_area, b"\xff\xff" + bytes(4000), "tpm-structure")
    refused(tpm_attest.name, b"\x00\x23\x00\x99", "tpm-structure")


def test_each_cut_is_refused():
    for seed, (parse, _print) in ((Q, fuzzed.PAIRS[0]), (E, fuzzed.PAIRS[1]), (S, fuzzed.PAIRS[2])):
        for size in range(len(seed)):
            with pytest.raises(FormatError):
                parse(seed[:size])


@given(
    st.dictionaries(
        st.sampled_from(["sha1", "sha256", "sha384", "sha512"]),
        st.sets(st.integers(0, 23)),
        max_size=4,
    ),
    st.binary(max_size=64),
    st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
)
def test_quotes_print_as_they_are(selected, extra, times):
    quote = tpm_attest.Quote(
        signer=b"\x00\x0b" + bytes(32),
        extra_data=extra,
        clock=Clock(*times, safe=False),
        firmware=1,
        selected=tuple(Selection(bank, tuple(sorted(pcrs))) for bank, pcrs in selected.items()),
        digest=bytes(32),
    )
    assert tpm_attest.parse_quote(tpm_attest.print_quote(quote)) == quote


@given(st.binary(max_size=300))
def test_arbitrary_bytes(data):
    fuzzed.fuzz(data)


@given(st.sampled_from(fuzzed.SEEDS), st.integers(0, 330), st.binary(min_size=1, max_size=4))
def test_mutants(seed, at, value):
    fuzzed.fuzz(put(seed, at % len(seed), value))
