# SPDX-License-Identifier: Apache-2.0
"""How a verifier's result is shown, and with which status the command ends.

Serves the verbs of ``troth verify`` and ``troth explain``. Plain text: no
colours, since a verdict must read the same everywhere. Must never call a
partial or simulated verdict a pass.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from troth.documents import check_names, instant, result
from troth.documents.verdict import FAIL, NOT_CHECKED, PARTIAL, PASS, PASS_SIMULATED

if TYPE_CHECKING:
    from troth.documents.result import Check, Result

_OVERALL = {
    PASS: "pass: no check failed, and every required one passed",
    FAIL: "fail: see the checks marked with an arrow",
    PARTIAL: "partial: the policy is permissive; most was not looked at",
    PASS_SIMULATED: "pass-simulated: all would pass, but this platform protects nothing",
}


def exit_status(judged: Result, *, accept_simulated: bool) -> int:
    """0 where no check failed and every required one passed, and the platform is real."""
    if judged.overall == FAIL:
        return 1
    return 0 if judged.platform == result.REAL or accept_simulated else 1


def show(judged: Result, *, as_json: bool) -> None:
    """Print ``judged`` on standard output: the document, or a table for people."""
    if as_json:
        sys.stdout.write(result.print_(judged).decode())
        return
    lines = [f"{judged.subject.kind} {judged.subject.sha256}", f"at {instant.print_(judged.at)}"]
    width = max(len(check.code) for check in judged.checks)
    beside = 0
    for check in judged.checks:
        if _needs_evidence(judged, check):
            beside += 1
        else:
            lines += _lines(check, width)
    if beside:
        lines.append(f"   {NOT_CHECKED:<11}  {beside} checks need evidence, not a report alone")
    lines += [f"warning  {item.name}: {item.text}" for item in judged.warnings]
    lines.append(_OVERALL[judged.overall])
    sys.stdout.write("\n".join(lines) + "\n")


def stands_in_the_way(check: Check) -> bool:
    """Whether ``check`` keeps the whole from passing."""
    return check.verdict == FAIL or (check.required and check.verdict != PASS)


def sentence(check: Check) -> str:
    """What ``check`` found, as one sentence without its verdict."""
    known = check_names.BY_NAME.get(check.code)
    title = known.title if known is not None else check.expected
    if check.verdict == PASS:
        return f"{title}: {check.observed}" if len(check.observed) <= 60 else title
    if check.verdict == NOT_CHECKED:
        made = known is not None and known.group == check_names.CERTIFICATES
        return f"{'expected ' if made else ''}{check.expected}{_seen(check)}"
    return f"expected {check.expected}{_seen(check)}"


def _needs_evidence(judged: Result, check: Check) -> bool:
    """Whether ``check`` says no more than that a report came alone."""
    known = check_names.BY_NAME.get(check.code)
    return (
        judged.subject.kind == result.REPORT
        and known is not None
        and known.group == check_names.EVIDENCE
        and check.verdict == NOT_CHECKED
        and not check.required
    )


def _seen(check: Check) -> str:
    return f"; seen: {check.observed}" if check.observed else ""


def _lines(check: Check, width: int) -> list[str]:
    blocked = stands_in_the_way(check)
    mark = "->" if blocked else "  "
    lines = [f"{mark} {check.verdict:<11}  {check.code:<{width}}  {sentence(check)}"]
    if blocked and check.hint:
        lines.append(f"   {'':<11}  {'':<{width}}  {check.hint}")
    return lines
