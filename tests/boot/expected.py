# SPDX-License-Identifier: Apache-2.0
"""What the build predicted, to hold against what a guest shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.documents import event_log_json, reference_values_json

if TYPE_CHECKING:
    from pathlib import Path

    from boot.machine import Boot
    from troth.documents.event_log import Event
    from troth.documents.reference_values import Registers


def at_handover(bundle: Path, cmdline: str, tpm: str) -> Registers:
    """The registers that reference-values.json predicts for one command line and TPM state."""
    data = (bundle / "reference-values.json").read_bytes()
    values = reference_values_json.parse(data)
    (case,) = [one for one in values.cases if (one.cmdline, one.tpm) == (cmdline, tpm)]
    return case.handover


def check_registers(boot: Boot, bundle: Path, *, cmdline: str, tpm: str = "present") -> None:
    """Prediction, the verb's reading and the kernel's own reading of the PCRs are one."""
    predicted = at_handover(bundle, cmdline, tpm)
    found = boot.json("verb measurements")
    assert boot.lines("status measurements") == ["0"]
    assert found["software_register"] == predicted.software
    if tpm != "present":
        assert not predicted.pcrs
        return
    wanted = {(bank, index): value for bank, index, value in predicted.pcrs}
    assert {bank for bank, _ in wanted} == {"sha1", "sha256", "sha384", "sha512"}
    assert found["tpm"] == "read"
    assert {(row["bank"], row["pcr"]): row["observed"] for row in found["registers"]} == wanted
    assert all(row["agrees"] for row in found["registers"])
    # A second opinion: sysfs, where the kernel asks the TPM itself.
    rows = [line.split(" ") for line in boot.lines("pcrs")]
    assert {(bank, int(index)): value.lower() for bank, index, value in rows} == wanted


def events(boot: Boot) -> tuple[Event, ...]:
    """The guest's event log, every digest recomputed."""
    text = boot.section("file /run/troth/event-log.jsonl") + "\n"
    return event_log_json.parse(text.encode())


def event_names(boot: Boot) -> list[str]:
    """Types of the guest's events, "cap" with its PCR."""
    return [f"cap:{one.pcr}" if one.kind == "cap" else one.kind for one in events(boot)]
