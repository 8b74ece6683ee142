# SPDX-License-Identifier: Apache-2.0
"""Dated floors of firmware and microcode for each kind of silicon.

Serves ``troth verify init-policy``, which writes them into a file, and the
verifier, which picks the table of the report's silicon. A floor counts only
once it stands in a policy: must never be applied behind the operator's back.

AMD signs no list of good versions; its bulletins give numbers in tables. The
pages themselves were not read for this module: the numbers are AMD's as other
verifiers quote them (for AMD-SB-3019 the bulletin's values in microsoft/CCF
issue 6812, for the others public verifiers of 2026), and where no quotation was
found, what genuine reports of that year show. ``source`` says which is which.

Microcode levels of different silicon count apart: those of Milan-X are lower
than Milan's and no worse. So a floor belongs to a kind of silicon, told by
family, model and stepping, and not to AMD's product line.
"""

from __future__ import annotations

from datetime import date

from troth.abi.snp_tcb import GENOA, MILAN, TURIN, VENICE, Tcb
from troth.record import record

MILAN_X = "Milan-X"
GENOA_X = "Genoa-X"
BERGAMO = "Bergamo"
TURIN_DENSE = "Turin-Dense"

#: Kind of silicon -> product line, whose keys sign for it. Siena is silicon of Bergamo.
SILICON = {
    MILAN: MILAN,
    MILAN_X: MILAN,
    GENOA: GENOA,
    GENOA_X: GENOA,
    BERGAMO: GENOA,
    TURIN: TURIN,
    TURIN_DENSE: TURIN,
    VENICE: VENICE,
}

#: Floors older than this are warned about: AMD publishes several bulletins a year.
MAX_AGE_DAYS = 180


@record
class Floor:
    """What firmware and microcode must at least be, as known on the day ``dated``.

    ``reported``, ``committed``, ``launch``: None demands nothing, and the check is
    then not made. ``firmware``: (major, minor, build) of current and committed
    firmware, or None. ``*_mitigations``: bits that must be set; 0 for none.
    """

    dated: date
    source: str
    reported: Tcb | None
    committed: Tcb | None
    launch: Tcb | None
    firmware: tuple[int, int, int] | None = None
    launch_mitigations: int = 0
    current_mitigations: int = 0


def silicon_of(product: str, model: int, stepping: int) -> str:
    """The kind of silicon of a processor of ``product`` with this model and stepping.

    Version 2 reports give neither: with zeros the answer is the line's first
    kind, whose floor is the highest.
    """
    if product == MILAN and stepping == 2:
        return MILAN_X
    if product == GENOA and 0xA0 <= model <= 0xAF:
        return BERGAMO
    if product == GENOA and stepping == 2:
        return GENOA_X
    if product == TURIN and 0x10 <= model <= 0x1F:
        return TURIN_DENSE
    return product


def _floor(dated: date, source: str, tcb: Tcb, firmware: tuple[int, int, int] | None) -> Floor:
    return Floor(dated, source, tcb, tcb, tcb, firmware)


_MILAN_SOURCE = (
    "snp: AMD-SB-3030 (May 2026); microcode: AMD-SB-3019; boot loader: genuine reports of 2025"
)
_GENOA_SOURCE = (
    "snp, firmware: AMD-SB-3020; microcode: AMD-SB-3027; boot loader: genuine reports of 2026"
)

#: What ``init-policy`` writes. No floor is known for silicon that is not here.
FLOORS = {
    MILAN: _floor(date(2026, 5, 12), _MILAN_SOURCE, Tcb(None, 4, 0, 0x1D, 0xDB), None),
    MILAN_X: _floor(date(2026, 5, 12), _MILAN_SOURCE, Tcb(None, 4, 0, 0x1D, 0x44), None),
    GENOA: _floor(date(2026, 10, 8), _GENOA_SOURCE, Tcb(None, 10, 0, 0x1B, 0x56), (1, 55, 49)),
    GENOA_X: _floor(date(2026, 10, 8), _GENOA_SOURCE, Tcb(None, 10, 0, 0x1B, 0x51), (1, 55, 49)),
    BERGAMO: _floor(
        date(2026, 10, 8),
        "snp, firmware: AMD-SB-3020; microcode: AMD-SB-3019, no later number was found; "
        "boot loader: genuine reports of 2026",
        Tcb(None, 10, 0, 0x1B, 0x19),
        (1, 55, 49),
    ),
    TURIN: _floor(
        date(2026, 10, 8),
        "snp: AMD-SB-3020; microcode: AMD-SB-3027; fmc, boot loader, tee: genuine reports of 2026",
        Tcb(1, 1, 1, 4, 0x51),
        None,
    ),
}
