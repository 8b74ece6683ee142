# SPDX-License-Identifier: Apache-2.0
"""Quotes judged: made by hand, made by a real TPM, and each thing that can be wrong with one."""

import base64
import hashlib
import json
import os
from pathlib import Path

import pytest

from made_quote import ATTRIBUTES, Ak, attest, part, qualifying
from troth.documents.evidence import PcrValue, TpmPart
from troth.errors import UsageError
from troth.record import replace
from troth.verify import quote
from troth.verify.endorsing import steps

VECTORS = Path(os.environ.get("TROTH_VECTORS", Path(__file__).parents[3] / "shared/vectors"))
NONCE = bytes(range(32))
PCRS = {("sha256", index): bytes([index + 1]) * 32 for index in (0, 11, 14, 15)}
REPLAYED = {key: value for key, value in PCRS.items() if key[1] != 0}


def verdicts(tpm, *, nonce=NONCE, replayed=REPLAYED, **words):
    judged = quote.judge(tpm, nonce=nonce, replayed=replayed, **words)
    assert tuple(step.code for step in judged.steps) == quote.CODES
    return {step.code: step.verdict for step in judged.steps}, judged


def failed(tpm, **words):
    found, judged = verdicts(tpm, **words)
    return {code for code, verdict in found.items() if verdict == "fail"}, judged


GOOD = dict.fromkeys(quote.CODES, "pass") | {"ak-in-tpm": "not-checked"}


@pytest.mark.parametrize(
    "ak",
    [
        Ak(),
        Ak("p384", algorithm="sha384"),
        Ak(2048),
        Ak(2048, scheme="rsapss"),
        Ak(2048, scheme="rsapss", algorithm="sha512"),
    ],
    ids=lambda ak: f"{ak.scheme}-{ak.hash}",
)
def test_good(ak):
    found, judged = verdicts(part(PCRS, nonce=NONCE, ak=ak))
    assert found == GOOD
    assert judged.ak_name == ak.name
    assert judged.pcrs == PCRS
    assert (judged.quote.clock.resets, judged.quote.clock.restarts) == (3, 1)
    counters = {step.code: step for step in judged.steps}["quote-counters"]
    assert "resets 3, restarts 1, clock 5000 ms" in counters.observed


def test_the_platform_vouches_for_the_key():
    vouched = steps.passed("ak-in-tpm", "named by the HCL report", "it is")
    assert verdicts(part(PCRS, nonce=NONCE), in_tpm=vouched)[0]["ak-in-tpm"] == "pass"


@pytest.mark.parametrize("bit", [1, 4, 5, 16, 18])
def test_attributes_that_are_missing(bit):
    found, judged = failed(part(PCRS, nonce=NONCE, ak=Ak(attributes=ATTRIBUTES & ~(1 << bit))))
    assert found == {"ak-attributes"}
    assert judged.pcrs == {}


def test_a_key_that_decrypts():
    found, _ = failed(part(PCRS, nonce=NONCE, ak=Ak(attributes=ATTRIBUTES | 1 << 17)))
    assert found == {"ak-attributes"}


@pytest.mark.parametrize("ak", [Ak(1024), Ak(algorithm="sha1")], ids=["short", "sha1"])
def test_keys_that_are_weak(ak):
    found, judged = failed(part(PCRS, nonce=NONCE, ak=ak))
    assert found == ({"ak-key"} if ak.hash == "sha256" else {"ak-key", "quote-signature"})
    assert judged.pcrs == {}


def test_an_exponent_of_three():
    ak = Ak(2048)
    ak.area = ak.area.replace(b"\x08\x00\0\0\0\0", b"\x08\x00\0\0\0\x03")
    assert "ak-key" in failed(part(PCRS, nonce=NONCE, ak=ak))[0]


def test_a_scheme_that_the_key_does_not_have():
    tpm = part(PCRS, nonce=NONCE, ak=Ak(2048, scheme="rsapss"))
    other = Ak(2048, scheme="rsassa").sign(tpm.attest)
    assert failed(replace(tpm, signature=other))[0] == {"ak-key"}


def test_another_keys_signature():
    tpm = part(PCRS, nonce=NONCE)
    other = part(PCRS, nonce=NONCE, ak=Ak("p384", algorithm="sha256"))
    found, judged = failed(replace(tpm, signature=other.signature))
    assert found == {"quote-signature"}
    assert judged.pcrs == {}
    # The Name is the key's own: another key with the same quote is not what was asked.
    found, judged = failed(replace(tpm, ak_public=other.ak_public, signature=other.signature))
    assert found == {"quote-signature", "quote-fresh"}
    assert judged.ak_name == Ak("p384", algorithm="sha256").name


@pytest.mark.parametrize("at", [10, 50, 90, 130])
def test_a_changed_byte(at):
    tpm = part(PCRS, nonce=NONCE)
    changed = bytearray(tpm.attest)
    changed[at] ^= 1
    found, judged = failed(replace(tpm, attest=bytes(changed)))
    assert "quote-signature" in found
    assert judged.pcrs == {}


def test_a_point_off_the_curve():
    tpm = part(PCRS, nonce=NONCE)
    area = tpm.ak_public[:-1] + bytes([tpm.ak_public[-1] ^ 1])
    assert failed(replace(tpm, ak_public=area))[0] == {"quote-signature", "quote-fresh"}


@pytest.mark.parametrize("number", [b"\0" * 32, b"\xff" * 32])
def test_numbers_of_no_signature(number):
    tpm = part(PCRS, nonce=NONCE)
    wrong = tpm.signature[:6] + number + tpm.signature[38:]
    assert failed(replace(tpm, signature=wrong))[0] == {"quote-signature"}


@pytest.mark.parametrize("words", [{"magic": 0xFF544348}, {"kind": 0x8017}, {"kind": 0x8014}])
def test_what_is_no_quote(words):
    found, judged = verdicts(part(PCRS, nonce=NONCE, **words))
    assert found == dict.fromkeys(quote.CODES, "not-checked") | {"quote-format": "fail"}
    assert (judged.quote, judged.ak_name, judged.pcrs) == (None, b"", {})
    assert "tpm-attest-" in judged.steps[0].observed


@pytest.mark.parametrize("name", ["ak_public", "attest", "signature"])
def test_what_cannot_be_read(name):
    tpm = part(PCRS, nonce=NONCE)
    for data in (b"", getattr(tpm, name)[:-1], getattr(tpm, name) + b"\0"):
        assert failed(replace(tpm, **{name: data}))[0] == {"quote-format"}


def test_the_nonce_counts():
    tpm = part(PCRS, nonce=NONCE)
    found, judged = failed(tpm, nonce=bytes(32))
    assert found == {"quote-fresh"}
    assert judged.pcrs == {}
    # The bare nonce, or another tag, is no binding.
    assert failed(part(PCRS, nonce=NONCE, extra=NONCE))[0] == {"quote-fresh"}
    assert failed(part(PCRS, nonce=NONCE, extra=b""))[0] == {"quote-fresh"}
    with pytest.raises(UsageError):
        verdicts(tpm, nonce=bytes(15))


def test_values_that_the_digest_does_not_cover():
    tpm = part(PCRS, nonce=NONCE)
    pcrs = (*tpm.pcrs[:-1], PcrValue("sha256", 15, b"\x99" * 32))
    found, judged = failed(replace(tpm, pcrs=pcrs))
    assert found == {"quote-pcrs", "quote-replay"}
    assert judged.pcrs == {}
    # One more, one less, another bank: what was signed names exactly the values sent.
    extra = PcrValue("sha256", 16, bytes(32))
    assert "quote-pcrs" in failed(replace(tpm, pcrs=(*tpm.pcrs, extra)))[0]
    assert "quote-pcrs" in failed(replace(tpm, pcrs=tpm.pcrs[1:]))[0]
    assert "quote-pcrs" in failed(replace(tpm, pcrs=()))[0]


def test_a_quote_of_nothing():
    found, _ = failed(part({}, nonce=NONCE))
    assert found == {"quote-pcrs", "quote-banks", "quote-replay"}


def test_a_bank_that_the_log_lacks_covers_nothing():
    """The log has no sha512, so what the TPM holds there is held against nothing."""
    mixed = {key: value for key, value in PCRS.items() if key[1] != 14}
    mixed |= {("sha512", 14): b"\x66" * 64}
    assert failed(part(mixed, nonce=NONCE))[0] == {"quote-banks"}


def test_events_left_out_of_the_log():
    """All of one register's events, so that the log does not even speak of it."""
    for index in (23, 14):
        less = {key: value for key, value in REPLAYED.items() if key[1] != index}
        more = PCRS | {("sha256", index): b"\x66" * 32}
        assert failed(part(more, nonce=NONCE), replayed=less)[0] == {"quote-replay"}
        zero = PCRS | {("sha256", index): bytes(32)}
        assert failed(part(zero, nonce=NONCE), replayed=less)[0] == set()


def test_sha1_banks_count_for_nothing():
    sha1 = {("sha1", index): bytes([index]) * 20 for index in (11, 14, 15)}
    found, judged = failed(part(sha1, nonce=NONCE), replayed=sha1)
    assert found == {"quote-banks", "quote-replay"}
    assert judged.pcrs == {}
    # Beside a strong bank they are covered by the digest, and ignored otherwise.
    both = PCRS | sha1
    wrong = dict.fromkeys(sha1, b"w" * 20)
    found, judged = verdicts(part(both, nonce=NONCE), replayed=REPLAYED | wrong)
    assert found == GOOD
    assert judged.pcrs == PCRS


def test_two_strong_banks():
    more = {("sha384", index): bytes([index]) * 48 for index in (0, 11, 14, 15)}
    assert verdicts(part(PCRS | more, nonce=NONCE))[0] == GOOD
    wrong = REPLAYED | {("sha384", 14): bytes(48)}
    assert failed(part(PCRS | more, nonce=NONCE), replayed=wrong)[0] == {"quote-replay"}


def test_a_pcr_of_the_log_that_is_not_quoted():
    less = {key: value for key, value in PCRS.items() if key[1] != 14}
    assert failed(part(less, nonce=NONCE))[0] == {"quote-banks"}


def test_a_log_that_comes_to_something_else():
    found, judged = failed(part(PCRS, nonce=NONCE), replayed=REPLAYED | {("sha256", 14): bytes(32)})
    assert found == {"quote-replay"}
    assert "sha256:14" in judged.steps[quote.CODES.index("quote-replay")].observed
    assert failed(part(PCRS, nonce=NONCE), replayed={})[0] == {"quote-replay"}


@pytest.mark.parametrize("counters", [(4, 1, 4000), (3, 0, 4000), (3, 1, 5001)])
def test_counters_that_differ(counters):
    assert failed(part(PCRS, nonce=NONCE, counters=counters))[0] == {"quote-counters"}


def test_counters_that_nobody_kept():
    found, judged = verdicts(part(PCRS, nonce=NONCE, counters=None))
    assert found == GOOD | {"quote-counters": "not-checked"}
    assert "resets 3" in judged.steps[-1].observed


@pytest.mark.vectors
@pytest.mark.parametrize("kind", ["ecc", "rsa", "rsapss"])
def test_a_real_tpm(kind):
    """All but the nonce's binding, which this TPM's asker did not use."""
    path = VECTORS / "tpm/quote/quotes-swtpm.json"
    if not path.exists():
        pytest.skip(f"no vectors at {VECTORS} (set TROTH_VECTORS)")
    found = json.loads(path.read_text())
    own = found["quotes"][kind]
    pcrs = {("sha256", int(index)): bytes.fromhex(value) for index, value in found["pcrs"].items()}
    tpm = TpmPart(
        base64.b64decode(own["ak_tpmt_public_b64"]),
        base64.b64decode(own["attest_b64"]),
        base64.b64decode(own["tpmt_signature_b64"]),
        tuple(PcrValue(*key, value) for key, value in sorted(pcrs.items())),
        None,
    )
    failing, judged = failed(tpm, replayed={("sha256", 11): pcrs["sha256", 11]})
    assert failing == {"quote-fresh"}
    assert judged.ak_name.hex() == own["ak_name"]


def test_the_helpers_digest_is_the_tpms():
    """Guards the tests themselves: order of banks and of PCRs in the digest."""
    data = attest(PCRS, extra=qualifying(NONCE, bytes(34)))
    assert data[-32:] == hashlib.sha256(b"".join(PCRS[key] for key in sorted(PCRS))).digest()
