# SPDX-License-Identifier: Apache-2.0
"""Two reports of one guest: the service's, of VMPL 0, and the guest's own.

Serves ``verify.evidence``. What is judged under the policy is the first; the
second adds what the guest itself had signed, and counts only where it is of the
same guest on the same chip in the same state. Must never take a second report by
its fields while nobody has checked its signature (source: SECURITY S28, V-d, V-e).
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from troth.documents.verdict import FAIL, PASS
from troth.verify.endorsing import steps
from troth.verify.findings import words

if TYPE_CHECKING:
    from troth.abi.snp_report import SnpReport
    from troth.verify.endorsing.chain import ChainResult
    from troth.verify.endorsing.steps import Step

AGREE = "reports-agree"

_EXPECTED = "the guest's own report, of VMPL 1 to 3, equal in guest, launch, chip and TCB"
_OWN_VMPLS = (1, 2, 3)

#: What must be equal; HOST_DATA and the ID block too, since the launch fixes them.
FIELDS = (
    "report_id", "report_id_ma", "measurement", "policy", "chip_id", "host_data", "guest_svn",
    "family_id", "image_id", "id_key_digest", "author_key_digest", "version", "signing_key",
    "cpuid_family", "cpuid_model", "cpuid_stepping", "platform_info",
    "current_tcb", "reported_tcb", "committed_tcb", "launch_tcb",
)  # fmt: skip

#: Steps of its chain that may be open; all others must have passed.
_MAY_BE_OPEN = ("certificate-revocation", "certificate-chip")


def agree(first: SnpReport, second: SnpReport, second_chain: ChainResult, binding: bytes) -> Step:
    """Whether ``second`` is the own report of the guest that ``first`` is of.

    ``second_chain``: its signature, judged with the same certificates; ``binding``:
    the 64 bytes that the guest had signed there.
    """
    problems = [f"its {name} differs" for name in FIELDS if not _equal(first, second, name)]
    if second.vmpl not in _OWN_VMPLS:
        problems.append(f"it is of VMPL {second.vmpl}")
    if not hmac.compare_digest(second.report_data, binding):
        problems.append("its REPORT_DATA is not the binding of this evidence")
    problems += [
        f"{step.code} did not pass"
        for step in second_chain.steps
        if step.verdict == FAIL or (step.verdict != PASS and step.code not in _MAY_BE_OPEN)
    ]
    if problems:
        return steps.failed(AGREE, _EXPECTED, words(problems))
    return steps.passed(AGREE, _EXPECTED, f"its VMPL is {second.vmpl}, all else is equal")


def _equal(first: SnpReport, second: SnpReport, name: str) -> bool:
    one: object = getattr(first, name)
    other: object = getattr(second, name)
    return one == other
