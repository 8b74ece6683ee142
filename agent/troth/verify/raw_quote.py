# SPDX-License-Identifier: Apache-2.0
"""A quote that comes without its key, which the paravisor's claims name.

Serves ``verify.kinds.foreign``. The bare number that signs, 24 values of the bank
sha256, and the nonce as it is: what guests of Azure send. Must never give a PCR
to anybody unless signature, nonce and digest held.

Source: TPM 2.0 Library, part 2, 10.12; confidential-containers/trustee,
"az_snp_vtpm".
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from troth.abi import tpm_attest
from troth.abi.hashes import sha256
from troth.abi.tpm_attest import NO_SCHEME, Public, RsaKey, Signature
from troth.documents.verdict import PASS
from troth.errors import FormatError
from troth.signing import tpm_signatures
from troth.verify import quote
from troth.verify.endorsing import steps

if TYPE_CHECKING:
    from troth.documents.foreign import RawQuote
    from troth.documents.hcl_claims import RsaKey as ClaimedKey
    from troth.verify.endorsing.steps import Step
    from troth.verify.findings import Findings
    from troth.verify.kinds.azure import Bound

BOOT_CHAIN = (4, 9, 11)
"""What firmware, boot loader and stub measure: what decides which PID 1 runs."""

_BANK = "sha256"
_PCRS = tuple(range(24))
_KEY = f"RSA of {quote.MIN_RSA_BITS} bits or more, from the paravisor's claims"


def checks(findings: Findings, found: RawQuote, claims: Bound, *, nonce: bytes) -> dict[int, bytes]:
    """Put the checks of ``found``; index -> value of each PCR, empty unless all held."""
    made = (*_key(claims.ak), *_quote(found, claims.ak, nonce))
    for step in made:
        findings.put(
            step.code, step.verdict, expected=step.expected, observed=step.observed, hint=step.hint,
            needed=True,
        )  # fmt: skip
    fresh = next((step for step in made if step.code == quote.FRESH), None)
    if fresh is not None:
        findings.put(
            "evidence-nonce", fresh.verdict, expected=fresh.expected, observed=fresh.observed,
            hint=fresh.hint, needed=True,
        )  # fmt: skip
    held = all(step.verdict == PASS for step in made)
    return dict(zip(_PCRS, found.pcrs, strict=True)) if held else {}


def _key(named: ClaimedKey | None) -> tuple[Step, Step]:
    if named is None:
        unknown = "no claims that count"
        return steps.open_(quote.KEY, _KEY, unknown), steps.open_(quote.IN_TPM, _KEY, unknown)
    bits = named.modulus.bit_length()
    shown = f"RSA {bits}, exponent {named.exponent}"
    strong = bits >= quote.MIN_RSA_BITS and named.exponent == tpm_signatures.DEFAULT_EXPONENT
    made = steps.passed if strong else steps.failed
    return made(quote.KEY, _KEY, shown), steps.passed(
        quote.IN_TPM, "a key that the platform vouches for", "the paravisor's claims name it"
    )


def _quote(found: RawQuote, named: ClaimedKey | None, nonce: bytes) -> tuple[Step, ...]:
    try:
        read = tpm_attest.parse_quote(found.message)
    except FormatError as error:
        told = f"[{error.code}] {error.message}"
        return (steps.failed(quote.FORMAT, "a quote", told),)
    return (
        steps.passed(quote.FORMAT, "a quote", "it is whole"),
        _signature(found, named),
        _compared(quote.FRESH, nonce, read.extra_data, "it was made for another nonce"),
        _digest(found, read),
        steps.passed(quote.BANKS, "a bank of SHA-256 or better", _BANK),
    )


def _signature(found: RawQuote, named: ClaimedKey | None) -> Step:
    expected = "the attestation key signed these bytes"
    if named is None:
        return steps.open_(quote.SIGNATURE, expected, "no key that counts")
    size = (named.modulus.bit_length() + 7) // 8
    # Attributes and scheme are not in the claims; only the numbers are used here.
    key = RsaKey(8 * size, named.exponent, named.modulus.to_bytes(size, "big"))
    public = Public(_BANK, 0, b"", None, NO_SCHEME, "", key)
    signed = Signature(tpm_attest.RSASSA, _BANK, (found.signature,))
    if tpm_signatures.verifies(public, signed, found.message):
        return steps.passed(quote.SIGNATURE, expected, "it did")
    return steps.failed(quote.SIGNATURE, expected, "it did not")


def _digest(found: RawQuote, read: tpm_attest.Quote) -> Step:
    expected = "the quote is over these 24 values of the bank sha256"
    selected = tuple((item.bank, item.pcrs) for item in read.selected)
    if selected != ((_BANK, _PCRS),):
        return steps.failed(quote.PCRS, expected, "it selects other PCRs")
    if not hmac.compare_digest(sha256(b"".join(found.pcrs)).digest(), read.digest):
        return steps.failed(quote.PCRS, expected, "the values give another digest")
    return steps.passed(quote.PCRS, expected, "it is")


def _compared(code: str, wanted: bytes, found: bytes, hint: str) -> Step:
    if hmac.compare_digest(wanted, found):
        return steps.passed(code, wanted.hex(), found.hex())
    return steps.failed(code, wanted.hex(), found.hex() or "nothing", hint)
