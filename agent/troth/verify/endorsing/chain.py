# SPDX-License-Identifier: Apache-2.0
"""From a report's signature to a pinned root: which certificates, and does it hold.

Serves ``verify.appraise``. The certificates given may be of several chips, stale,
foreign or hostile: every chain they can form is judged, and the best one is
reported, so that one bad file beside the right one does no harm. Trust comes
from ``roots`` alone. Must never let a root count for being among the certificates.

Source: AMD 57230; AMD 56860, "ATTESTATION_REPORT"; DESIGN section 8; SECURITY
S15 and S23.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.abi import snp_report
from troth.documents.verdict import FAIL, NOT_CHECKED
from troth.record import record
from troth.verify.endorsing import links
from troth.verify.endorsing.links import Links, Path, Question

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from troth.abi.snp_report import SnpReport
    from troth.abi.vek_extensions import VekExtensions
    from troth.signing.certificates import Certificate
    from troth.verify.endorsing.endorsements import Endorsements
    from troth.verify.endorsing.steps import Step

CODES = (
    "certificate-line",
    "certificate-root",
    "certificate-intermediate",
    "certificate-key",
    "certificate-validity",
    "certificate-revocation",
    "certificate-platform",
    "certificate-extensions",
    "certificate-tcb",
    "certificate-chip",
    "report-signature",
)
"""All steps, in their order. Each is judged in every call."""

MAX_CANDIDATES = 8
"""For each place in the chain; those that fit the report best are tried."""


@record
class ChainResult:
    """The best chain and what each step said.

    ``product``: one of ``snp_tcb.PRODUCTS``, None where neither report nor
    certificates say it; ``signer``: as ``SnpReport.signing_key``; ``vek``: the
    certificate of the VCEK or VLEK, with its ``extensions``; ``simulated``:
    whether a certificate of the chain carries the mark. None: not there.
    """

    steps: tuple[Step, ...]
    product: str | None
    signer: str
    vek: Certificate | None
    intermediate: Certificate | None
    root: Certificate | None
    extensions: VekExtensions | None
    simulated: bool


def chain(
    report: SnpReport,
    endorsements: Endorsements,
    *,
    roots: Iterable[str],
    at: datetime,
    simulated: bool = False,
) -> ChainResult:
    """Judge the certificates in ``endorsements`` under ``report`` at the aware time ``at``.

    ``roots``: SHA-256 of the DER of trusted roots, lower-case hex;
    ``simulated``: whether the policy is for simulated platforms: their mark must
    be there then, and must not be there else.
    """
    if at.tzinfo is None:
        raise ValueError("the time to judge at needs a time zone")
    question = Question(report, endorsements.lists, frozenset(roots), at, simulated)
    known = Links()
    best: tuple[tuple[int, int], Path, tuple[Step, ...]] | None = None
    for path in _paths(question, endorsements.certificates):
        steps = links.judge(question, path, known)
        verdicts = [step.verdict for step in steps]
        rank = (verdicts.count(FAIL), verdicts.count(NOT_CHECKED))
        if best is None or rank < best[0]:
            best = (rank, path, steps)
        if rank[0] == 0 and len(path.present) == 3:
            break
    path = best[1] if best else Path(None, None, None)
    return ChainResult(
        steps=best[2] if best else links.judge(question, path, known),
        product=links.product(report, path.key),
        signer=report.signing_key,
        vek=path.key,
        intermediate=path.intermediate,
        root=path.root,
        extensions=links.extensions(path.key),
        simulated=any(item.simulated for item in path.present),
    )


def _paths(question: Question, given: tuple[Certificate, ...]) -> Iterable[Path]:
    """The chains that ``given`` can form by their names, the likeliest first."""
    prefix = links.PREFIX.get(question.report.signing_key)
    if prefix is None:
        return
    for key in _keys(question.report, given, prefix) or (None,):
        wanted = key.issuer_cn if key else prefix + str(links.product(question.report, None))
        intermediates = [
            item
            for item in given
            if item.is_ca
            and not item.self_issued
            and (item.subject == key.issuer if key else item.subject_cn == wanted)
        ]
        for middle in intermediates[:MAX_CANDIDATES] or (None,):
            named = f"ARK-{links.line_of(wanted)}"
            roots = [
                item
                for item in given
                if item.self_issued
                and (item.subject == middle.issuer if middle else item.subject_cn == named)
            ]
            roots.sort(key=lambda item: item.sha256 not in question.roots)
            for root in roots[:MAX_CANDIDATES] or (None,):
                yield Path(key, middle, root)


def _keys(
    report: SnpReport, given: tuple[Certificate, ...], prefix: str
) -> tuple[Certificate, ...]:
    """Certificates that may be of the report's key, those with its TCB and chip first."""
    fitting = [
        item
        for item in given
        if not item.is_ca
        and item.issuer_cn.startswith(prefix)
        and _is_vlek(item) == (report.signing_key == snp_report.VLEK)
    ]
    fitting.sort(key=lambda item: _misfit(report, item))
    return tuple(fitting[:MAX_CANDIDATES])


def _is_vlek(item: Certificate) -> bool:
    return item.issuer_cn.startswith(links.PREFIX[snp_report.VLEK])


def _misfit(report: SnpReport, item: Certificate) -> int:
    line = links.line_of(item.issuer_cn)
    said = links.extensions(item)
    if line is None or said is None:
        return 3
    other_chip = said.hwid is not None and report.chip_id != said.hwid.ljust(64, b"\0")
    return 2 * other_chip + (not links.has_tcb(report, said, line))
