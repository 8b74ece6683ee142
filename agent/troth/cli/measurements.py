# SPDX-License-Identifier: Apache-2.0
"""``troth measurements``: the log replayed and held against the TPM. Runs in the guest."""

from __future__ import annotations

import json
import sys

from troth.cli.status import read_state
from troth.documents import boot_state
from troth.registers import measurements

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.registers.measurements import Measurements


def run(*, as_json: bool, found: Measurements | None = None) -> int:
    """Print the measurements; 0 when log and TPM agree (or there is none), else 1.

    ``found``: what the agent says; without it log and TPM are read here.
    """
    if found is None:
        boot = boot_state.parse(read_state(boot_state.PATH))
        found = measurements.read(tpm_used=bool(boot.tpm_kind))
    sys.stdout.write(_json(found) if as_json else _table(found))
    return 1 if any(value.agrees is False for value in found.registers) else 0


def _json(found: Measurements) -> str:
    tree = {
        "events": found.events,
        "software_register": found.software_register,
        "tpm": found.tpm or "read",
        "registers": [
            {
                "bank": value.bank,
                "pcr": value.index,
                "replayed": value.replayed,
                "observed": value.observed,
                "agrees": value.agrees,
            }
            for value in found.registers
        ],
    }
    return json.dumps(tree, indent=2) + "\n"


def _table(found: Measurements) -> str:
    words = {True: "agrees", False: "DIFFERS", None: "not read"}
    lines = [
        f"{value.bank:<7} {value.index:>2}  {value.replayed}  {words[value.agrees]}"
        for value in found.registers
    ]
    lines.append(f"software register  {found.software_register}")
    lines.append(f"{found.events} events; TPM: {found.tpm or 'read'}")
    return "\n".join(lines) + "\n"
