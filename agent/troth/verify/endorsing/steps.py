# SPDX-License-Identifier: Apache-2.0
"""One step of judging a certificate chain, with its verdict.

Serves ``verify.endorsing.chain`` and ``verify.appraise``, which turns each step into a
check of the result. Whether a step is required is the policy's matter, and is
not said here.
"""

from __future__ import annotations

from troth.documents.verdict import FAIL, NOT_CHECKED, PASS
from troth.record import record

FETCH = "troth certs fetch DIR --report FILE gets the certificates from AMD"


@record
class Step:
    """``code``: of ``endorsing.chain.CODES``; ``verdict``: as in results; texts for people."""

    code: str
    verdict: str
    expected: str
    observed: str
    hint: str = ""


def passed(check: str, expected: str, observed: str) -> Step:
    """A step that held."""
    return Step(check, PASS, expected, observed)


def failed(check: str, expected: str, observed: str, hint: str = "") -> Step:
    """A step that did not hold."""
    return Step(check, FAIL, expected, observed, hint)


def open_(check: str, expected: str, observed: str, hint: str = "") -> Step:
    """A step that could not be made."""
    return Step(check, NOT_CHECKED, expected, observed, hint)
