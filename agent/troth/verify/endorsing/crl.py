# SPDX-License-Identifier: Apache-2.0
"""Whether the chain's intermediate certificate is revoked.

Serves ``verify.endorsing.chain``. AMD's root signs the lists, for VCEK and VLEK alike, and
they name ASK and ASVK: report-signing keys all have the serial number 0 and are
retired by their TCB instead. A list counts only within its window, but what an
old one revokes stays revoked. Must never take a missing list for a good one.

Source: RFC 5280, section 5; AMD 57230, "CRL".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.signing.revocation_lists import list_problem
from troth.verify.endorsing.steps import FETCH, failed, open_, passed

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from troth.signing.certificates import Certificate
    from troth.signing.revocation_lists import RevocationList
    from troth.verify.endorsing.steps import Step

CODE = "certificate-revocation"

MAX_LISTS = 16
"""Of one issuer; the newest are looked at."""

_EXPECTED = "not in a current list that the root signed"


def revocation(
    lists: Iterable[RevocationList],
    *,
    root: Certificate | None,
    intermediate: Certificate | None,
    at: datetime,
) -> Step:
    """The step ``certificate-revocation`` at the aware time ``at``."""
    if root is None or intermediate is None:
        return open_(CODE, _EXPECTED, "the chain is not complete")
    named = sorted(
        (item for item in lists if item.issuer == root.subject),
        key=lambda item: item.this_update,
        reverse=True,
    )[:MAX_LISTS]
    if not named:
        return open_(CODE, _EXPECTED, "no revocation list was given", FETCH)
    problems = [(item, list_problem(item, root)) for item in named]
    genuine = [item for item, problem in problems if not problem]
    if not genuine:
        return failed(CODE, _EXPECTED, problems[0][1], FETCH)
    for item in genuine:
        for certificate in (intermediate, root):
            if certificate.serial in item.serials:
                return failed(
                    CODE,
                    _EXPECTED,
                    f"{certificate.subject_cn} (serial {certificate.serial:#x}) is revoked"
                    f" by the list of {item.this_update.isoformat()}",
                    "no line of a policy accepts this",
                )
    current = [item for item in genuine if _is_current(item, at)]
    if not current:
        return failed(CODE, _EXPECTED, f"the newest list is {_window(genuine[0])}", FETCH)
    return passed(CODE, _EXPECTED, f"not in the list {_window(current[0])}")


def _is_current(item: RevocationList, at: datetime) -> bool:
    # A list that names no end says nothing about what came after it.
    return item.next_update is not None and item.this_update <= at <= item.next_update


def _window(item: RevocationList) -> str:
    until = item.next_update.isoformat() if item.next_update is not None else "no date"
    return f"of {item.this_update.isoformat()} to {until}"
