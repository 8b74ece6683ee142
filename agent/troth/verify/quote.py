# SPDX-License-Identifier: Apache-2.0
"""A TPM's quote judged: whose key signed, what for, and over which PCRs.

Serves ``verify.evidence``. Takes only the evidence's TPM part, the verifier's own
nonce and the PCRs that the event log comes to; each step is made and named in
every call. Must never let a quote by itself say that its key is in a TPM: the
platform's own proof does, or nobody (SECURITY S4); and must never count a value
of a SHA-1 bank for anything.

Source: TPM 2.0 Library, part 1, 31 ("Attestation") and part 2, 10.12; SECURITY
S3, S4, S28, V-c, V-o, V-p; docs/formats.md, "Bindings".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.abi import tpm_attest
from troth.abi.hashes import digest, zero
from troth.abi.tpm_attest import RsaKey
from troth.documents import binding, event_log
from troth.documents.verdict import FAIL
from troth.errors import FormatError
from troth.record import record
from troth.signing import tpm_signatures
from troth.verify.endorsing import steps
from troth.verify.findings import words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from troth.abi.tpm_attest import Public, Quote, Signature
    from troth.documents.evidence import TpmPart
    from troth.verify.endorsing.steps import Step

FORMAT = "quote-format"
ATTRIBUTES = "ak-attributes"
KEY = "ak-key"
IN_TPM = "ak-in-tpm"
SIGNATURE = "quote-signature"
FRESH = "quote-fresh"
PCRS = "quote-pcrs"
BANKS = "quote-banks"
REPLAY = "quote-replay"
COUNTERS = "quote-counters"
CODES = (FORMAT, ATTRIBUTES, KEY, IN_TPM, SIGNATURE, FRESH, PCRS, BANKS, REPLAY, COUNTERS)
"""Every step of ``judge``, in its order."""

STRONG = ("sha256", "sha384", "sha512")
MIN_RSA_BITS = 2048

_NEEDED = ("restricted", "sign", "fixedTPM", "fixedParent", "sensitiveDataOrigin")
_BARRED = ("decrypt",)
_EXPONENTS = (0, tpm_signatures.DEFAULT_EXPONENT)
#: What boot and agent extend, and nobody else.
_OURS = frozenset((*event_log.PCR_OF.values(), *event_log.CAPPED_PCRS, event_log.RUNTIME_PCR))
_UNREAD = "not looked at: the quote cannot be read"


@record
class Judged:
    """``steps``: one of each of ``CODES``; ``ak_name``: recomputed from the key, empty
    where that is none; ``quote``: what was signed, None where it cannot be read;
    ``pcrs``: values of strong banks, only where key, signature, nonce and digest hold.
    """  # noqa: D205 - the fields are the summary

    steps: tuple[Step, ...]
    ak_name: bytes
    quote: Quote | None
    pcrs: Mapping[tuple[str, int], bytes]


def judge(
    tpm: TpmPart,
    *,
    nonce: bytes,
    replayed: Mapping[tuple[str, int], bytes],
    in_tpm: Step | None = None,
    where: str = "",
) -> Judged:
    """The quote in ``tpm``, for the verifier's ``nonce``.

    ``replayed``: (bank, index) -> value that the event log comes to
    (``measure.pcr.replay``); ``in_tpm``: the step ``IN_TPM`` as the platform's
    proof of the key decides it, None where nothing proves it. Raises
    ``UsageError`` ``nonce-length``.
    """
    binding.check_nonce(nonce)
    try:
        public = tpm_attest.parse_public(tpm.ak_public, where=where)
        quote = tpm_attest.parse_quote(tpm.attest, where=where)
        signature = tpm_attest.parse_signature(tpm.signature, where=where)
    except FormatError as error:
        unread = steps.failed(FORMAT, "a quote, its key and its signature", _told(error))
        open_ = (steps.open_(code, "", _UNREAD) for code in CODES[1:])
        return Judged((unread, *open_), b"", None, {})
    name = tpm_attest.name(tpm.ak_public, where=where)
    values = {(pcr.bank, pcr.index): pcr.value for pcr in tpm.pcrs}
    strong = {key: value for key, value in values.items() if key[0] in STRONG}
    trusted = (
        _attributes(public),
        _key(public, signature),
        _signature(public, signature, tpm.attest),
        _fresh(quote, nonce, name),
        _pcrs(quote, signature, values),
    )
    attributes, key, signed, fresh, covered = trusted
    made = (
        steps.passed(FORMAT, "a quote, its key and its signature", "all three are whole"),
        attributes,
        key,
        in_tpm or _nobody_vouches(),
        signed,
        fresh,
        covered,
        _banks(strong, replayed),
        _replay(strong, replayed),
        _counters(quote, tpm),
    )
    held = all(step.verdict != FAIL for step in trusted)
    return Judged(made, name, quote, strong if held else {})


def _attributes(public: Public) -> Step:
    missing = [f"not {name}" for name in _NEEDED if not public.has(name)]
    missing += [name for name in _BARRED if public.has(name)]
    expected = f"{words(_NEEDED)}; not {words(_BARRED)}"
    if missing:
        # Without these a program makes the key, or has it sign bytes of its own.
        return steps.failed(ATTRIBUTES, expected, words(missing))
    return steps.passed(ATTRIBUTES, expected, "as expected")


def _key(public: Public, signature: Signature) -> Step:
    expected = (
        f"RSA of {MIN_RSA_BITS} bits or more, or ECC; one scheme, with SHA-256 or better, "
        "and the signature in it"
    )
    key = public.key
    shown = f"RSA {key.bits}" if isinstance(key, RsaKey) else f"ECC {key.curve}"
    shown += f", {public.scheme} {public.scheme_hash}".rstrip()
    weak = isinstance(key, RsaKey) and (key.bits < MIN_RSA_BITS or key.exponent not in _EXPONENTS)
    if weak or public.scheme_hash not in STRONG or public.name_algorithm not in STRONG:
        return steps.failed(KEY, expected, f"{shown}, named by {public.name_algorithm}")
    if (signature.scheme, signature.hash) != (public.scheme, public.scheme_hash):
        return steps.failed(
            KEY, expected, f"{shown}; the signature is {signature.scheme} {signature.hash}"
        )
    return steps.passed(KEY, expected, shown)


def _nobody_vouches() -> Step:
    return steps.open_(
        IN_TPM,
        "proof that the key is in the platform's TPM",
        "none: a key's own word, or its digest in guest-chosen data, proves nothing",
        "evidence of one round has no such proof on this platform kind",
    )


def _signature(public: Public, signature: Signature, attest: bytes) -> Step:
    expected = "the attestation key signed these bytes"
    if tpm_signatures.verifies(public, signature, attest):
        return steps.passed(SIGNATURE, expected, "it did")
    return steps.failed(SIGNATURE, expected, "it did not")


def _fresh(quote: Quote, nonce: bytes, name: bytes) -> Step:
    wanted = binding.quote_binding(nonce, name)
    shown = quote.extra_data.hex() or "nothing"
    if quote.extra_data == wanted:
        return steps.passed(FRESH, wanted.hex(), shown)
    return steps.failed(
        FRESH, wanted.hex(), shown, "it was made for another nonce, or asked of another key"
    )


def _pcrs(quote: Quote, signature: Signature, values: Mapping[tuple[str, int], bytes]) -> Step:
    expected = "the quote's digest is over exactly the PCR values sent"
    selected = [(item.bank, index) for item in quote.selected for index in item.pcrs]
    if not selected:
        return steps.failed(PCRS, expected, "the quote covers no PCR")
    if set(selected) != set(values):
        odd = sorted(set(selected) ^ set(values))
        named = words(f"{bank}:{index}" for bank, index in odd)
        return steps.failed(PCRS, expected, f"only one of the two has {named}")
    found = digest(signature.hash, b"".join(values[key] for key in selected))
    if found != quote.digest:
        return steps.failed(PCRS, expected, f"{quote.digest.hex()}, the values give {found.hex()}")
    return steps.passed(PCRS, expected, f"{len(selected)} values")


def _banks(
    strong: Mapping[tuple[str, int], bytes], replayed: Mapping[tuple[str, int], bytes]
) -> Step:
    expected = "every PCR that the log speaks of, in a bank of SHA-256 or better that it has too"
    # In a bank that the log lacks, a value could be anything.
    covered = {index for _bank, index in set(strong) & set(replayed)}
    missing = sorted({index for _bank, index in replayed} - covered)
    if missing or not strong:
        return steps.failed(BANKS, expected, f"not quoted so: PCR {words(missing)}")
    return steps.passed(BANKS, expected, words(sorted({bank for bank, _index in strong})))


def _replay(
    strong: Mapping[tuple[str, int], bytes], replayed: Mapping[tuple[str, int], bytes]
) -> Step:
    expected = "the log comes to the quoted values"
    shared = sorted(set(strong) & set(replayed))
    differ = [
        f"{bank}:{index}" for bank, index in shared if strong[bank, index] != replayed[bank, index]
    ]
    banks = {bank for bank, _index in replayed}
    # A register of the log's own that the log does not touch was touched by nobody.
    differ += [
        f"{bank}:{index}"
        for bank, index in sorted(set(strong) - set(replayed))
        if bank in banks and index in _OURS and strong[bank, index] != zero(bank)
    ]
    if differ:
        return steps.failed(
            REPLAY,
            expected,
            f"other values in {words(differ)}",
            "the log is not all that was measured",
        )
    if not shared:
        return steps.failed(REPLAY, expected, "the log and the quote have no PCR in common")
    return steps.passed(REPLAY, expected, f"{len(shared)} values")


def _counters(quote: Quote, tpm: TpmPart) -> Step:
    clock = quote.clock
    shown = (
        f"resets {clock.resets}, restarts {clock.restarts}, clock {clock.milliseconds} ms"
        f"{'' if clock.safe else ' (may have gone back)'}"
    )
    boot = tpm.counters
    if boot is None:
        return steps.open_(COUNTERS, "the boot kept none to compare with", shown)
    expected = (
        f"resets {boot.reset_count}, restarts {boot.restart_count}, "
        f"clock {boot.clock_ms} ms or later"
    )
    same = (clock.resets, clock.restarts) == (boot.reset_count, boot.restart_count)
    if same and clock.milliseconds >= boot.clock_ms:
        return steps.passed(COUNTERS, expected, shown)
    return steps.failed(
        COUNTERS, expected, shown, "the TPM was reset since the boot, or it is another one"
    )


def _told(error: FormatError) -> str:
    return f"[{error.code}] {error.message}"
