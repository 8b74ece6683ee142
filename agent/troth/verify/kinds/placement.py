# SPDX-License-Identifier: Apache-2.0
"""Which rule says where the 64 bytes stand that bind evidence: one a platform kind.

Serves ``verify.evidence``. The kind is that of what the launch digest matched:
only behind that match may REPORT_DATA be read as a service's binding, since any
guest can write such bytes into its own report (SECURITY S1). Must never choose a
rule by what evidence says of itself.

Source: SECURITY S3; docs/formats.md, "evidence.json".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.verify.kinds import azure, placed, svsm
from troth.verify.kinds.placed import Placed

if TYPE_CHECKING:
    from collections.abc import Callable

    from troth.abi.snp_report import SnpReport
    from troth.documents.evidence import Evidence

    Rule = Callable[[Evidence, SnpReport, bytes], Placed]


def direct(_evidence: Evidence, report: SnpReport, binding: bytes) -> Placed:
    """The binding is REPORT_DATA."""
    return Placed(binding, placed.compared(report.report_data, binding))


#: Platform kind of what the launch matched -> its rule.
RULES: dict[str, Rule] = {
    "direct": direct,
    "simulated": direct,
    "svsm": svsm.place,
    "azure-paravisor": azure.place,
}


def place(evidence: Evidence, report: SnpReport, binding: bytes, *, kind: str) -> Placed:
    """Where ``binding`` must stand in ``report``; ``kind`` "" where no launch matched."""
    # Without a match nothing passes; the plain rule then shows best what is wrong.
    return RULES.get(kind, direct)(evidence, report, binding)
