# SPDX-License-Identifier: Apache-2.0
"""Checks of a TPM's quote inside evidence, and whether the platform needs one.

Serves ``verify.evidence``; ``verify.quote`` judges the quote itself. Where a
service between processor and guest roots the boot chain, evidence without a
whole quote fails; elsewhere the TPM is the host's, and its word is only
compared. Must never let a quote of a host's TPM root anything (source: DESIGN
section 2; SECURITY S2, S4, S7, V-c, V-o).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.documents.evidence import SERVICE_KINDS
from troth.verify import quote
from troth.verify.findings import words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from troth.documents.reference_values import Case
    from troth.verify.findings import Findings
    from troth.verify.quote import Judged

#: Firmware's, boot loader's and stub's measurements: what decides which PID 1 runs.
BOOT_CHAIN_PCRS = (4, 9, 11)


def quote_checks(findings: Findings, judged: Judged | None, *, kind: str) -> None:
    """Each check of ``verify.quote``; ``judged`` None where the evidence has no quote."""
    needed = kind in SERVICE_KINDS
    if judged is None:
        for code in quote.CODES:
            if needed:
                findings.judge(
                    code,
                    good=False,
                    expected=f"a quote, which roots the boot chain of {kind} guests",
                    observed="the evidence has none",
                )
            else:
                findings.skip(code, expected="a quote", observed="the evidence has none")
        return
    for step in judged.steps:
        findings.put(
            step.code,
            step.verdict,
            expected=step.expected,
            observed=step.observed,
            hint=step.hint,
            needed=needed,
        )


def rooted_by_quote(
    findings: Findings, judged: Judged | None, case: Case | None, *, kind: str
) -> tuple[bool, str, str]:
    """Whether the platform's own TPM roots the boot chain: (good, expected, observed).

    Called behind ``quote_checks``: every one of them must have passed, and PCR 4, 9
    and 11 must hold what reference values predict, in a bank of SHA-256 or better.
    """
    expected = f"{kind}: a quote of the platform's TPM with the predicted PCR 4, 9 and 11"
    if judged is None:
        return False, expected, "no quote"
    open_ = [code for code in quote.CODES if not findings.passed(code)]
    if open_:
        return False, expected, f"did not pass: {words(open_)}"
    return (*_predicted(judged.pcrs, case, expected),)


def _predicted(
    quoted: Mapping[tuple[str, int], bytes], case: Case | None, expected: str
) -> tuple[bool, str, str]:
    if case is None:
        return False, expected, "the guest did not boot as predicted"
    predicted = {
        (bank, index): bytes.fromhex(value)
        for bank, index, value in case.handover.pcrs
        if bank in quote.STRONG
    }
    missing = [index for index in BOOT_CHAIN_PCRS if index not in {key[1] for key in predicted}]
    if missing:
        return False, expected, f"reference values predict no PCR {words(missing)}"
    unlike = [
        f"{bank}:{index}"
        for (bank, index), value in sorted(predicted.items())
        if index in BOOT_CHAIN_PCRS and quoted.get((bank, index), value) != value
    ]
    unseen = [
        index
        for index in BOOT_CHAIN_PCRS
        if not any(key in predicted for key in quoted if key[1] == index)
    ]
    if unlike or unseen:
        return False, expected, f"other or no values in {words((*unlike, *unseen))}"
    return True, expected, "as predicted"
