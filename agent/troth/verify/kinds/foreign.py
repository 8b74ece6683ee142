# SPDX-License-Identifier: Apache-2.0
"""Evidence of other projects judged: a report, and at most a paravisor's claims and a quote.

Serves ``troth verify evidence --format kbs-snp|az-snp-vtpm``, and ``troth verify
report`` for a file that is a paravisor's whole report. The report is judged
as any other. Where it matched a paravisor, its claims name the key of the quote,
and the quote holds the verifier's nonce; elsewhere REPORT_DATA does. What such
evidence does not carry (an event log, the key's attributes) is not checked, and
is not required: no policy can ask a format for more than it has. Must never read
claims in a report that matched nothing (source: SECURITY S1, S2, S3; DESIGN
section 8; confidential-containers/trustee, "az_snp_vtpm", "snp").
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from troth.abi import snp_report
from troth.documents import binding, check_names, foreign
from troth.documents.platform_references import AZURE_PARAVISOR
from troth.documents.result import SIMULATED, Notice, Subject
from troth.documents.verdict import FAIL, NOT_CHECKED, PASS
from troth.record import record
from troth.verify import raw_quote
from troth.verify.appraise import conclude, judge_chain, notices, report_findings
from troth.verify.checks import reference as checks_reference
from troth.verify.endorsing import endorsements, steps
from troth.verify.endorsing.endorsements import Endorsements
from troth.verify.evidence import Asked, with_expectations
from troth.verify.findings import NOTHING, words
from troth.verify.kinds import azure, placed, platform_kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from troth.abi.snp_report import SnpReport
    from troth.documents.appraisal_policy import AppraisalPolicy
    from troth.documents.foreign import ForeignEvidence
    from troth.documents.reference_document import Document
    from troth.documents.result import Result
    from troth.signing.keys import PublicKey
    from troth.verify.checks.reference import Matched
    from troth.verify.endorsing.steps import Step
    from troth.verify.findings import Findings
    from troth.verify.kinds.platform_kind import Below

DIRECT = "direct"
#: Format -> the platform kind that evidence of it claims.
CLAIMS = {
    foreign.KBS_SNP: DIRECT,
    foreign.AZURE: AZURE_PARAVISOR,
    foreign.HCL: AZURE_PARAVISOR,
}

_NONCE = "evidence-nonce"
_SUBJECTS = {foreign.HCL: "snp-report"}


@record
class Given:
    """What the verifier has: ``document`` of reference values or None, public ``keys`` and
    ``endorsements`` from files, the ``policy`` with the SHA-256 of its file in hex.
    """  # noqa: D205 - the fields are the summary

    document: Document | None
    keys: Sequence[PublicKey]
    endorsements: Endorsements
    policy: AppraisalPolicy
    policy_sha256: str


def appraise(
    found: ForeignEvidence, *, nonce: bytes | None, given: Given, subject: bytes, at: int
) -> Result:
    """The result for ``found``.

    ``nonce``: the 16 to 64 bytes that the verifier expects bound, as they are: with
    the key broker protocol the digest of its runtime data; None where it expects
    nothing, which a strict policy fails; ``subject``: the bytes it was
    read from; ``at``: seconds since 1970. Raises ``UsageError`` ``nonce-length``;
    ``FormatError`` as ``verify.evidence.appraise`` does.
    """
    expected = None
    if nonce is not None:
        binding.check_nonce(nonce)
        expected = nonce.ljust(binding.BINDING_BYTES, b"\0")
    report = snp_report.parse(found.report, where="report")
    endorsed = _with(given.endorsements, found)
    chain = judge_chain(report, endorsed, given.policy, at=at)
    below = platform_kind.below(report, given.policy)
    matched = None
    policy = below.policy
    if given.document is not None:
        matched = checks_reference.match(report, given.document, below, keys=given.keys, at=at)
        policy = with_expectations(policy, matched, Asked(nonce or b""))
    kind = _kind(report, below, matched)
    claimed = _claimed(found, kind, given.policy)
    claims = None
    if kind == AZURE_PARAVISOR == CLAIMS[found.format]:
        claims = azure.bound(found.service, report)
    findings = report_findings(
        report,
        chain,
        policy,
        expected_report_data=claims.report_data if claims and expected else expected,
    )
    if matched is not None:
        checks_reference.reference_checks(
            findings, matched, report, product=chain.product, claimed=claimed
        )
        checks_reference.flag_checks(findings, matched, None)
    else:
        _platform_kind(findings, report, kind, claimed=claimed)
    if claims is None:
        _report_binding(findings, report, expected, kind=kind)
        _rooted_by_launch(findings, matched, kind)
    else:
        _claims_binding(findings, claims, expected, quoted=found.quote is not None)
        if found.quote is not None:
            pcrs = raw_quote.checks(findings, found.quote, claims, nonce=nonce or b"")
            _rooted_by_quote(findings, pcrs)
    _rest(findings)
    return conclude(
        findings,
        Subject(_SUBJECTS.get(found.format, "evidence"), hashlib.sha256(subject).hexdigest()),
        simulated=chain.simulated,
        policy_sha256=given.policy_sha256,
        at=at,
        warnings=(*notices(report, chain, given.policy, at=at), *_notices(claims)),
    )


def _with(given: Endorsements, found: ForeignEvidence) -> Endorsements:
    sent = endorsements.collect(found.certificates)
    known = {item.der for item in given.certificates}
    lists = {item.der for item in given.lists}
    return Endorsements(
        (*given.certificates, *(item for item in sent.certificates if item.der not in known)),
        (*given.lists, *(item for item in sent.lists if item.der not in lists)),
        (*given.foreign, *sent.foreign),
    )


def _kind(report: SnpReport, below: Below, matched: Matched | None) -> str:
    if matched is not None and matched.launches:
        return matched.kind
    if below.kind:
        return below.kind
    listed = (
        hmac.compare_digest(report.measurement, digest)
        for digest in below.policy.launch.measurements
    )
    return DIRECT if any(listed) else ""


def _claimed(found: ForeignEvidence, kind: str, policy: AppraisalPolicy) -> str:
    """The platform kind that the evidence is of: a bare report is its guest's own on both kinds."""
    claimed = CLAIMS[found.format]
    own = claimed == DIRECT and kind == SIMULATED
    return SIMULATED if own and policy.platform == SIMULATED else claimed


def _platform_kind(findings: Findings, report: SnpReport, kind: str, *, claimed: str) -> None:
    good = kind == claimed
    hint = NOTHING
    if not good and kind in ("", DIRECT) and claimed in platform_kind.SERVICE_KINDS:
        hint = platform_kind.hint(claimed, report)
        if kind:
            # Whoever follows hints from the top has listed it before this check was seen.
            hint = f"[launch] measurements lists it as your own guest's; {hint}"
    elif not good and not kind:
        hint = "list the launch digest in [launch] measurements, or give its reference values"
    findings.put(
        "platform-kind",
        PASS if good else FAIL,
        expected=kind or "the kind of a launch that is known",
        observed=claimed,
        hint="" if good else hint,
        needed=True,
    )


def _claims_binding(
    findings: Findings, claims: azure.Bound, expected: bytes | None, *, quoted: bool
) -> None:
    """The user data hold what was asked for; behind a quote, which holds it, they may be unused."""
    if claims.claims is None:
        step = placed.refused(claims.problem)
    elif expected is None:
        step = steps.open_(placed.BINDING, "no nonce was given", claims.claims.user_data.hex())
    else:
        own = claims.claims.user_data
        step = placed.compared(expected if quoted and not any(own) else own, expected)
    _put(findings, step)


def _report_binding(
    findings: Findings, report: SnpReport, expected: bytes | None, *, kind: str
) -> None:
    if expected is None:
        return
    step = placed.compared(report.report_data, expected)
    if kind in platform_kind.SERVICE_KINDS:
        step = placed.refused(f"REPORT_DATA of {kind} guests is not the guest's own")
    _put(findings, step)
    wanted, found = expected.hex(), report.report_data.hex()
    if step.verdict == PASS:
        _put(findings, steps.passed(_NONCE, wanted, found))
    else:
        _put(
            findings, steps.failed(_NONCE, wanted, found, NOTHING + ": it answers another request")
        )


def _put(findings: Findings, step: Step) -> None:
    findings.put(
        step.code,
        step.verdict,
        expected=step.expected,
        observed=step.observed,
        hint=step.hint,
        needed=step.verdict != NOT_CHECKED,
    )


def _rooted_by_launch(findings: Findings, matched: Matched | None, kind: str) -> None:
    if matched is None or kind not in (DIRECT, SIMULATED):
        findings.put(
            "boot-chain-rooted",
            FAIL,
            expected="reference values that say what the launch digest covers",
            observed=kind or "no launch that is known",
            hint="--reference FILE gives reference values",
            needed=True,
        )
        return
    good, expected, observed = checks_reference.rooted_by_launch(matched)
    _rooted(findings, good=good, expected=expected, observed=observed)


def _rooted_by_quote(findings: Findings, pcrs: dict[int, bytes]) -> None:
    wanted = findings.policy.reference.pcrs
    expected = f"PCR {words(raw_quote.BOOT_CHAIN)} as the policy expects"
    named = {index for index, _values in wanted}
    missing = [index for index in raw_quote.BOOT_CHAIN if index not in named]
    if missing:
        _rooted(
            findings,
            good=False,
            expected=expected,
            observed=f"the policy expects nothing of PCR {words(missing)}",
            hint="compute them from your boot loader and kernel, and name each: "
            "[reference] pcrs = [{ index = 4, values = [...] }, ...]",
        )
        return
    odd = [
        index
        for index, values in wanted
        if not any(hmac.compare_digest(pcrs.get(index, b""), value) for value in values)
    ]
    observed = f"other values in PCR {words(odd)}" if odd else "as expected"
    if not pcrs:
        observed = "no quote that counts"
    _rooted(findings, good=not odd, expected=expected, observed=observed)


def _rooted(
    findings: Findings, *, good: bool, expected: str, observed: str, hint: str = ""
) -> None:
    findings.put(
        "boot-chain-rooted",
        PASS if good else FAIL,
        expected=expected,
        observed=observed,
        hint="" if good else hint or NOTHING + ": the host chooses what boots",
        needed=True,
    )


def _rest(findings: Findings) -> None:
    """What the format does not carry is there as not checked."""
    made = {check.code for check in findings.checks}
    for check in check_names.CHECKS:
        if check.name not in made:
            findings.skip(check.name, expected="the format does not carry it")


def _notices(claims: azure.Bound | None) -> tuple[Notice, ...]:
    if claims is None or claims.claims is None or any(claims.claims.user_data):
        return ()
    return (
        Notice(
            "paravisor-report-old",
            "the paravisor's report has no user data: it was made at boot, and only the quote is "
            "fresh",
        ),
    )
