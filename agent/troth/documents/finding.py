# SPDX-License-Identifier: Apache-2.0
"""One line of a judgement: what was looked at, the verdict, and why.

Serves ``troth reference check``. Must never be without a verdict: what was not
looked at says so. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.documents.verdict import FAIL, NOT_CHECKED, PARTIAL, PASS
from troth.record import record

if TYPE_CHECKING:
    from collections.abc import Iterable


@record
class Finding:
    """``name``: what was looked at; ``verdict``: ``PASS``, ``FAIL`` or ``NOT_CHECKED``.

    ``code``: stable, of docs/errors.md, for failures and else empty; ``detail``:
    one phrase for people.
    """

    name: str
    verdict: str
    code: str
    detail: str


def passed(name: str, detail: str = "") -> Finding:
    """A finding that speaks for what was looked at."""
    return Finding(name, PASS, "", detail)


def failed(name: str, code: str, detail: str) -> Finding:
    """A finding that speaks against it."""
    return Finding(name, FAIL, code, detail)


def not_checked(name: str, detail: str) -> Finding:
    """Something that was not looked at, and why."""
    return Finding(name, NOT_CHECKED, "", detail)


def verdict(findings: Iterable[Finding]) -> str:
    """``FAIL`` where one failed, else ``PARTIAL`` where one was not checked, else ``PASS``."""
    found = {finding.verdict for finding in findings}
    if FAIL in found or not found:
        return FAIL
    return PARTIAL if NOT_CHECKED in found else PASS
