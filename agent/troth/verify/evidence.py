# SPDX-License-Identifier: Apache-2.0
"""Evidence, reference values and a policy give a result.

Serves ``troth verify evidence`` and key brokers. The report is judged as if it
came alone; then everything beside it is held against what the report binds, and
against what accepted reference values say of its launch digest. Every check is
made and named in each call. Must never take a rule from evidence: what it says
of its platform selects a parser, and its log is believed as far as the launch
digest reaches (source: DESIGN sections 2 and 6; SECURITY S1 to S5, S18, S28,
V-a to V-p).
"""

from __future__ import annotations

import hmac
from hashlib import sha256
from typing import TYPE_CHECKING

from troth.abi import cert_table, snp_report, tpm_attest
from troth.documents import evidence as evidence_document
from troth.documents.appraisal_policy import OneOf
from troth.documents.evidence import SERVICE_KINDS
from troth.documents.reference_values import REFUSED
from troth.documents.result import Notice, Subject
from troth.documents.verdict import FAIL
from troth.errors import FormatError
from troth.record import record, replace
from troth.verify import quote
from troth.verify.appraise import conclude, judge_chain, notices, report_findings
from troth.verify.checks import log as checks_log
from troth.verify.checks import quote as checks_quote
from troth.verify.checks import reference as checks_reference
from troth.verify.endorsing import endorsements
from troth.verify.endorsing.endorsements import Endorsements
from troth.verify.findings import NOTHING, words
from troth.verify.kinds import placement, platform_kind, two_reports

if TYPE_CHECKING:
    from collections.abc import Sequence

    from troth.abi.snp_report import SnpReport
    from troth.documents.appraisal_policy import AppraisalPolicy
    from troth.documents.evidence import Evidence
    from troth.documents.reference_document import Document
    from troth.documents.result import Result
    from troth.signing.keys import PublicKey
    from troth.verify.checks.log import Judged
    from troth.verify.checks.reference import Matched
    from troth.verify.endorsing.steps import Step
    from troth.verify.findings import Findings
    from troth.verify.kinds.placed import Placed
    from troth.verify.seen import Seen

_QUOTES = frozenset("\"\\`'[]{}")
SUBJECT = "evidence"
SOFTWARE_LABEL = "software: trusts guest root for its whole life"


@record
class Asked:
    """What the verifier asked for, and knows. ``user_data``, ``channel_sha256``,
    ``instance_sha256``: None where nothing is expected; ``seen``: what is remembered
    of this guest, where the verifier ``remembers`` guests.
    """  # noqa: D205 - the fields are the summary

    nonce: bytes
    user_data: bytes | None = None
    channel_sha256: bytes | None = None
    instance_sha256: bytes | None = None
    seen: Seen | None = None
    remembers: bool = False


@record
class Given:
    """What the verifier was given beside the evidence: ``document`` of reference values, public
    ``keys`` from files, ``endorsements`` from a directory; and the ``policy`` with its digest.
    """  # noqa: D205 - the fields are the summary

    document: Document
    keys: Sequence[PublicKey]
    endorsements: Endorsements
    policy: AppraisalPolicy
    policy_sha256: str


def appraise(found: Evidence, asked: Asked, given: Given, *, subject: bytes, at: int) -> Result:
    """The result for ``found``.

    ``subject``: the bytes it was read from; ``at``: seconds since 1970. Raises
    ``FormatError`` ``snp-report-*`` for a report of no known version, and where
    reference values or a key of the policy are none.
    """
    report = snp_report.parse(found.report, where="report")
    endorsed, table_problem = with_table(given.endorsements, found.certificates)
    chain = judge_chain(report, endorsed, given.policy, at=at)
    below = platform_kind.below(report, given.policy)
    matched = checks_reference.match(report, given.document, below, keys=given.keys, at=at)
    log, problem = checks_log.read(found, matched)
    bound = _bound(found)
    placed = placement.place(found, report, bound, kind=matched.kind)
    findings = report_findings(
        report,
        chain,
        with_expectations(below.policy, matched, asked),
        expected_report_data=placed.report_data,
        evidence=True,
    )
    quoted = None
    if found.tpm is not None:
        replayed = log.replayed.pcrs if log.replayed is not None else {}
        quoted = quote.judge(found.tpm, nonce=asked.nonce, replayed=replayed, in_tpm=placed.in_tpm)
    checks_reference.reference_checks(
        findings, matched, report, product=chain.product, claimed=found.platform_kind
    )
    checks_quote.quote_checks(findings, quoted, kind=matched.kind)
    _rooted(findings, matched, log, quoted)
    _binding_checks(findings, found, asked, placed)
    agree = None
    if found.service is not None and found.service.report:
        own = snp_report.parse(found.service.report, where="service.report")
        own_chain = judge_chain(own, endorsed, given.policy, at=at)
        agree = two_reports.agree(report, own, own_chain, bound)
    _agree(findings, agree)
    checks_log.log_checks(
        findings, found, matched, log, problem=problem, seen=asked.seen, remembers=asked.remembers
    )
    _instance(findings, report, log, asked, takes=_takes_instance(matched))
    checks_reference.flag_checks(findings, matched, log.policy)
    return conclude(
        findings,
        Subject(SUBJECT, sha256(subject).hexdigest()),
        simulated=chain.simulated,
        policy_sha256=given.policy_sha256,
        at=at,
        warnings=(
            *notices(report, chain, given.policy, at=at),
            *_notices(matched, log, table_problem),
        ),
    )


def with_table(given: Endorsements, table: bytes) -> tuple[Endorsements, str]:
    """``given``, and what the host's certificate ``table`` holds; why it cannot be read, or ""."""
    try:
        entries = cert_table.parse(table)
    except FormatError as error:
        return given, f"[{error.code}] {error.message}"
    sent = endorsements.collect((entry.name, entry.blob) for entry in entries)
    known = {item.der for item in given.certificates}
    lists = {item.der for item in given.lists}
    return Endorsements(
        (*given.certificates, *(item for item in sent.certificates if item.der not in known)),
        (*given.lists, *(item for item in sent.lists if item.der not in lists)),
        given.foreign,
    ), ""


def _bound(found: Evidence) -> bytes:
    """The 64 bytes; a key without a Name counts as none, and is a failed check of its own."""
    name = b""
    if found.tpm is not None:
        try:
            name = tpm_attest.name(found.tpm.ak_public)
        except FormatError:
            name = b""
    return evidence_document.binding_of(found, ak_name=name)


def with_expectations(policy: AppraisalPolicy, matched: Matched, asked: Asked) -> AppraisalPolicy:
    """``policy`` with what is known beside it.

    The launch digests of accepted values, where it names none itself (below a service
    the digest is the service's), and the instance asked for, as HOST_DATA, where it lists none.
    """
    launch = policy.launch
    if not launch.measurements and matched.values is not None and not matched.service:
        digests = dict.fromkeys(item.digest for item in matched.values.in_force)
        launch = replace(launch, measurements=tuple(bytes.fromhex(text) for text in digests))
    wanted = asked.instance_sha256
    listed = launch.host_data is not None and not launch.host_data.unused
    # Where the policy lists which are good, a file handed over with the evidence adds none.
    if wanted is not None and not listed:
        launch = replace(launch, host_data=OneOf(unused=False, values=(wanted,)))
    return replace(policy, launch=launch)


def _rooted(findings: Findings, matched: Matched, log: Judged, quoted: quote.Judged | None) -> None:
    if matched.values is None:
        findings.skip("boot-chain-rooted", expected=checks_reference.UNKNOWN)
        return
    if matched.kind in SERVICE_KINDS:
        case = log.boot.case if log.boot is not None else None
        good, expected, observed = checks_quote.rooted_by_quote(
            findings, quoted, case, kind=matched.kind
        )
    else:
        good, expected, observed = checks_reference.rooted_by_launch(matched)
    findings.judge(
        "boot-chain-rooted",
        good=good,
        expected=expected,
        observed=observed,
        hint=NOTHING + ": the host chooses what boots",
    )


def _binding_checks(findings: Findings, found: Evidence, asked: Asked, placed: Placed) -> None:
    findings.judge(
        "evidence-nonce",
        good=hmac.compare_digest(found.nonce, asked.nonce),
        expected=asked.nonce.hex(),
        observed=found.nonce.hex(),
        hint=NOTHING + ": it answers another request",
    )
    if asked.user_data is None and found.user_data:
        findings.skip(
            "user-data",
            expected="nobody said which is expected",
            observed=found.user_data.hex(),
            hint="--user-data HEX says what must be bound",
        )
    else:
        wanted = asked.user_data or b""
        findings.judge(
            "user-data",
            good=hmac.compare_digest(found.user_data, wanted),
            expected=wanted.hex() or "none",
            observed=found.user_data.hex() or "none",
        )
    _channel(findings, found, asked)
    callers = findings.policy.reference.callers
    if callers:
        findings.judge(
            "caller",
            good=found.caller in callers,
            expected=words(callers),
            observed=found.caller or "nobody",
            # The guest's own text: it must not look like a hint, nor like more than one value.
            hint=f'add "{found.caller}" to [reference] callers'
            if found.caller and not set(found.caller) & _QUOTES
            else "if it may ask, name it in [reference] callers",
        )
    else:
        findings.skip("caller", expected="the policy names none", observed=found.caller)
    step = placed.step
    findings.put(
        step.code,
        step.verdict,
        expected=step.expected,
        observed=step.observed,
        hint=step.hint or (NOTHING if step.verdict == FAIL else ""),
    )


def _agree(findings: Findings, agree: Step | None) -> None:
    """Whether a second report is of the same guest; nothing where there is none."""
    if agree is None:
        findings.skip(two_reports.AGREE, expected="a second report")
        return
    findings.put(
        two_reports.AGREE,
        agree.verdict,
        expected=agree.expected,
        observed=agree.observed,
        hint=agree.hint,
        needed=True,
    )


def _channel(findings: Findings, found: Evidence, asked: Asked) -> None:
    observed = found.channel_sha256.hex() or "no key is bound"
    if asked.channel_sha256 is None:
        findings.skip(
            "channel-binding",
            expected="nobody said which key the channel has",
            observed=observed,
            hint="--channel-key FILE names the key of the channel you have",
        )
        return
    findings.judge(
        "channel-binding",
        good=hmac.compare_digest(found.channel_sha256, asked.channel_sha256),
        expected=asked.channel_sha256.hex(),
        observed=observed,
        hint=NOTHING + ": another machine may have passed the evidence on",
    )


def _takes_instance(matched: Matched) -> bool:
    """Whether the image measures a configuration wherever HOST_DATA names one."""
    return matched.values is not None and matched.values.instance != REFUSED


def _instance(
    findings: Findings, report: SnpReport, log: Judged, asked: Asked, *, takes: bool
) -> None:
    name, unused = "instance", not any(report.host_data)
    if log.replayed is None:
        findings.skip(name, expected="an event log that can be read")
        return
    taken = log.instances[0] if log.instances else None
    shown = words(content.hex() for content in log.instances)
    if asked.instance_sha256 is not None:
        findings.judge(
            name,
            good=taken == asked.instance_sha256 and report.host_data == asked.instance_sha256,
            expected=asked.instance_sha256.hex(),
            observed=f"{shown}; HOST_DATA {report.host_data.hex()}",
        )
    elif taken != report.host_data and (taken is not None or (takes and not unused)):
        # The boot of an image that takes one ends without it, so a log without it is not that boot.
        findings.judge(
            name, good=False, expected=f"HOST_DATA {report.host_data.hex()}", observed=shown
        )
    elif taken is None and unused:
        findings.judge(name, good=True, expected="none", observed="none")
    else:
        listed = findings.policy.launch.host_data
        if listed is not None and report.host_data in listed.values:
            findings.judge(
                name, good=True, expected="one that [launch] host_data lists", observed=shown
            )
            return
        findings.skip(
            name,
            expected="nobody said which is expected",
            observed=f"{shown}; HOST_DATA {report.host_data.hex()}",
            hint="--instance FILE names the configuration; or list its SHA-256 in "
            "[launch] host_data",
        )


def _notices(matched: Matched, log: Judged, table_problem: str) -> tuple[Notice, ...]:
    found = []
    if matched.kind not in SERVICE_KINDS:
        found.append(Notice("software-register", SOFTWARE_LABEL))
    if matched.values is not None and checks_reference.unsigned(matched):
        found.append(
            Notice("reference-unsigned", "reference values count though nobody vouches for them")
        )
    experimental = sorted({item.experimental for item in matched.launches} - {""})
    found += [Notice("launch-experimental", text) for text in experimental]
    boot = log.boot
    if boot is not None and boot.runtime:
        found.append(
            Notice(
                "runtime-events",
                f"{boot.runtime} events after the boot, in a resettable register: they are what "
                "the guest's applications say",
            )
        )
    if boot is not None and boot.unverified:
        found.append(
            Notice(
                "log-unverified",
                f"{boot.unverified} records count for the replay, and what they say is unverified",
            )
        )
    if table_problem:
        found.append(Notice("certificate-table", f"the host's table was not used: {table_problem}"))
    return tuple(found)
