# SPDX-License-Identifier: Apache-2.0
"""A report, what the certificates say of it, and a policy give a result.

Serves ``troth verify`` and key brokers. Every check of a report is made and
named in each call, whatever the others said, so that a result shows all that
is wrong at once. Must never read a clock, a file or a name inside the report
as a rule, and must never let a check that was not made count for one that
passed (source: sheet snp 4.5; DESIGN sections 2 and 8; SECURITY S14, S15, S35).
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from troth.abi import snp_report, snp_tcb
from troth.documents import appraisal_policy, check_names, tcb_floors
from troth.documents.result import REAL, REPORT, SIMULATED, Notice, Result, Subject, overall
from troth.documents.verdict import FAIL, NOT_CHECKED
from troth.verify.checks.guest import guest_checks
from troth.verify.checks.image import image_checks
from troth.verify.checks.platform import platform_checks, silicon
from troth.verify.endorsing.chain import chain
from troth.verify.endorsing.roots import AMD_ROOTS
from troth.verify.findings import NOTHING, Findings, accepts, hex_list, words

if TYPE_CHECKING:
    from troth.abi.snp_report import SnpReport
    from troth.documents.appraisal_policy import AppraisalPolicy
    from troth.verify.endorsing.chain import ChainResult
    from troth.verify.endorsing.endorsements import Endorsements

#: Certificates that live shorter than this are warned about.
EXPIRY_DAYS = 30

_SIGNERS = (snp_report.VCEK, snp_report.VLEK)


def trusted_roots(policy: AppraisalPolicy) -> tuple[str, ...]:
    """SHA-256, in hex, of the roots that count: the policy's, and AMD's for real platforms."""
    own = tuple(digest.hex() for digest in policy.trusted_roots)
    if policy.platform == SIMULATED:
        return own
    return (*AMD_ROOTS.values(), *own)


def judge_chain(
    report: SnpReport, endorsements: Endorsements, policy: AppraisalPolicy, *, at: int
) -> ChainResult:
    """``verify.endorsing.chain.chain`` with the roots of ``policy``; ``at``: seconds since 1970."""
    return chain(
        report,
        endorsements,
        roots=trusted_roots(policy),
        at=datetime.fromtimestamp(at, UTC),
        simulated=policy.platform == SIMULATED,
    )


def appraise(
    report: SnpReport,
    judged: ChainResult,
    policy: AppraisalPolicy,
    *,
    policy_sha256: str,
    expected_report_data: bytes | None,
    at: int,
) -> Result:
    """The result for ``report`` by itself, whose chain is ``judged``.

    ``expected_report_data``: the 64 bytes that the verifier computed, or None
    where it expects nothing, which a strict policy fails; ``at``: seconds since
    1970, the same that the chain was judged at.
    """
    findings = report_findings(report, judged, policy, expected_report_data=expected_report_data)
    for check in check_names.CHECKS:
        if check.group == check_names.EVIDENCE:
            findings.skip(check.name, expected="evidence, not a report alone")
    return conclude(
        findings,
        Subject(REPORT, hashlib.sha256(report.raw).hexdigest()),
        simulated=judged.simulated,
        policy_sha256=policy_sha256,
        at=at,
        warnings=notices(report, judged, policy, at=at),
    )


def report_findings(
    report: SnpReport,
    judged: ChainResult,
    policy: AppraisalPolicy,
    *,
    expected_report_data: bytes | None,
    evidence: bool = False,
) -> Findings:
    """All checks of a report, by itself or inside ``evidence``, in their order."""
    findings = Findings(policy, evidence=evidence)
    _report_checks(findings, report, judged.product)
    _certificate_checks(findings, judged)
    _freshness(findings, report, expected_report_data)
    guest_checks(findings, report)
    platform_checks(
        findings,
        report,
        product=judged.product,
        provider=judged.extensions.csp_id if judged.extensions is not None else None,
    )
    image_checks(findings, report)
    return findings


def conclude(
    findings: Findings,
    subject: Subject,
    *,
    simulated: bool,
    policy_sha256: str,
    at: int,
    warnings: tuple[Notice, ...],
) -> Result:
    """The result that ``findings`` come to; ``simulated``: as the certificates say."""
    platform, policy = SIMULATED if simulated else REAL, findings.policy
    return Result(
        subject=subject,
        at=at,
        platform=platform,
        policy_sha256=policy_sha256,
        permissive=policy.permissive,
        overall=overall(findings.checks, permissive=policy.permissive, platform=platform),
        checks=findings.checks,
        warnings=warnings,
    )


def _report_checks(findings: Findings, report: SnpReport, product: str | None) -> None:
    versions = findings.policy.report_versions
    findings.judge(
        "report-version",
        good=report.version in versions,
        expected=words(versions),
        observed=str(report.version),
        hint=accepts("report_versions", f"[{words((*versions, report.version))}]"),
    )
    problems = [*snp_report.reserved_problems(report)]
    if product is not None:
        problems += [
            f"{name} TCB has reserved bytes"
            for name, raw in (
                ("current", report.current_tcb),
                ("reported", report.reported_tcb),
                ("committed", report.committed_tcb),
                ("launch", report.launch_tcb),
            )
            if not snp_tcb.reserved_zero(raw, product)
        ]
    findings.judge(
        "report-reserved",
        good=not problems or findings.policy.reserved_bits,
        expected="any" if findings.policy.reserved_bits else "all zero",
        observed="; ".join(problems) or "all zero",
        hint=accepts("reserved_bits", "true"),
    )
    findings.judge(
        "signature-algorithm",
        good=report.signature_algo == snp_report.ECDSA_P384_SHA384,
        expected=str(snp_report.ECDSA_P384_SHA384),
        observed=str(report.signature_algo),
    )
    masked = report.chip_key_masked
    findings.judge(
        "signing-key",
        good=report.signing_key in _SIGNERS and not masked,
        expected=" or ".join(_SIGNERS),
        observed=f"{report.signing_key}{', masked by the host' if masked else ''}",
    )


def _certificate_checks(findings: Findings, judged: ChainResult) -> None:
    for step in judged.steps:
        hint = step.hint
        if step.code == "certificate-platform" and step.verdict == FAIL:
            seen = SIMULATED if judged.simulated else REAL
            hint = accepts("platform", f'"{seen}"')
        if step.code == "certificate-root" and "`" in hint and judged.root is not None:
            known = findings.policy.trusted_roots
            hint = accepts("trusted_roots", hex_list((*known, bytes.fromhex(judged.root.sha256))))
        if step.code == "certificate-chip" and step.verdict == NOT_CHECKED:
            hint = accepts("masked_chip_id", "true")
        findings.put(
            step.code, step.verdict, expected=step.expected, observed=step.observed, hint=hint
        )


def _freshness(findings: Findings, report: SnpReport, expected: bytes | None) -> None:
    if expected is None:
        findings.skip(
            "report-data",
            expected="what binds the evidence cannot be read"
            if findings.evidence
            else "no nonce and no REPORT_DATA was given",
            observed=report.report_data.hex(),
            hint="" if findings.evidence else "give --nonce or --report-data",
        )
        return
    findings.judge(
        "report-data",
        good=hmac.compare_digest(report.report_data, expected),
        expected=expected.hex(),
        observed=report.report_data.hex(),
        hint=NOTHING + ": it answers another request",
    )


def notices(
    report: SnpReport, judged: ChainResult, policy: AppraisalPolicy, *, at: int
) -> tuple[Notice, ...]:
    """What of a report changes no verdict and should be known."""
    found = []
    moment = datetime.fromtimestamp(at, UTC)
    if policy.permissive:
        found.append(Notice("permissive", "guest, platform and image were not looked at"))
    if judged.simulated:
        found.append(Notice("simulated", "the platform is simulated and protects nothing"))
    denied_by_default = judged.product in appraisal_policy.DENIED_BY_DEFAULT
    if denied_by_default and judged.product not in policy.deny_products and not policy.permissive:
        found.append(
            Notice(
                "product-doubtful",
                f"{judged.product} is accepted, though its signing secret can be extracted by "
                "software (arXiv 2605.12990): its reports may be forged",
            )
        )
    kind = silicon(report, judged.product)
    floor = policy.tcb.get(kind) if kind is not None else None
    if floor is not None:
        days = (moment.date() - floor.dated).days
        if days > tcb_floors.MAX_AGE_DAYS:
            found.append(
                Notice(
                    "floor-old",
                    f"the floor for {kind} is {days} days old: read AMD's newer bulletins",
                )
            )
    for item in (judged.vek, judged.intermediate, judged.root):
        days = (item.not_after - moment).days if item is not None else EXPIRY_DAYS
        if item is not None and 0 <= days < EXPIRY_DAYS:
            text = f"the certificate of {item.subject_cn} expires in {days} days: get a fresh one"
            found.append(Notice("certificate-expiring", text))
    if report.unknown_platform_info:
        found.append(
            Notice(
                "platform-bits",
                f"PLATFORM_INFO has unknown bits {report.unknown_platform_info:#x}",
            )
        )
    return tuple(found)
