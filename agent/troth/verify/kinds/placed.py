# SPDX-License-Identifier: Apache-2.0
"""Whether the 64 bytes that bind evidence stand where the platform kind puts them.

Serves ``verify.kinds.placement`` and the kinds' own modules. The words of the check
``binding`` are here once. Must never compare but in constant time.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from troth.record import record
from troth.verify.endorsing import steps

if TYPE_CHECKING:
    from troth.verify.endorsing.steps import Step

BINDING = "binding"
IN_TPM = "ak-in-tpm"
EXPECTED = "the report binds all fields of the evidence"


@record
class Placed:
    """``report_data``: the 64 bytes that REPORT_DATA must hold, None where nothing says which;
    ``step``: whether the binding stands where the kind has it; ``in_tpm``: the step
    ``ak-in-tpm``, as far as the platform proves it, else None.
    """  # noqa: D205 - the fields are the summary

    report_data: bytes | None
    step: Step
    in_tpm: Step | None = None


def compared(found: bytes, wanted: bytes) -> Step:
    """The step ``binding`` for the bytes ``found`` where ``wanted`` must stand."""
    if hmac.compare_digest(found, wanted):
        return steps.passed(BINDING, EXPECTED, "it does")
    return refused(
        "it does not: something in the evidence is not what the guest sent with this report"
    )


def refused(observed: str) -> Step:
    """The step ``binding``, failed."""
    return steps.failed(BINDING, EXPECTED, observed)
