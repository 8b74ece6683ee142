# SPDX-License-Identifier: Apache-2.0
"""What a boot came to: the events of its console and its end, judged.

Serves ``machine.runner`` (which fills in a ``Record``), ``machine.chart`` and
``troth run``. Pure. Must never call an ending good that QEMU
does not say was the guest's own power-off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.machine.console import Handover, Panic, Refused, Stage, WorkloadExit
from troth.record import record

if TYPE_CHECKING:
    from troth.machine.console import Event


@record
class Ending:
    """How QEMU ended.

    ``timed_out_s``: the limit that ran out, or None; ``status``: of the
    process, negative for a signal; ``reason``: of the SHUTDOWN event, empty if
    not heard; ``complaint``: QEMU's last line on standard error.
    """

    timed_out_s: float | None
    status: int
    reason: str
    complaint: str


@record
class Outcome:
    """The verdict.

    ``kind``: "handover" (the only good one), "refused", "panic", "timeout",
    "workload", "no-handover", "reboot" or "machine"; ``code``: stable, empty
    when good.
    """

    kind: str
    code: str
    message: str

    @property
    def good(self) -> bool:
        return self.kind == "handover"


class Record:
    """Everything kept of one run; ``supervised``: PID 1 stays and reports the workload's end."""

    def __init__(self, accelerator: str, *, supervised: bool) -> None:
        self.accelerator = accelerator
        self.supervised = supervised
        self.stages: list[Stage] = []
        self.handover: Handover | None = None
        self.workload: WorkloadExit | None = None
        self.refused: Refused | None = None
        self.panic: Panic | None = None
        self.ending = Ending(None, 0, "", "")
        self.duration_s = 0.0

    def take(self, event: Event) -> None:
        """Note ``event``."""
        match event:
            case Stage():
                self.stages.append(event)
            case Handover():
                self.handover = event
            case WorkloadExit() if self.supervised:
                self.workload = event
            case WorkloadExit():
                pass  # another init's text: troth's PID 1 is gone
            case Refused():
                self.refused = event
            case Panic():
                self.panic = self.panic or event

    def is_over(self) -> bool:
        """Whether the boot has failed for good, so that the guest should be ending."""
        return self.refused is not None or (self.panic is not None and self.handover is None)

    def outcome(self) -> Outcome:
        """The verdict on the run, for a guest that has ended."""
        ending = self.ending
        if self.refused is not None:
            return Outcome("refused", self.refused.code, self.refused.sentence)
        if self.panic is not None and not self._panic_denied():
            return _panicked(self.panic)
        if ending.timed_out_s is not None:
            return Outcome("timeout", "timeout", f"no end after {ending.timed_out_s:g} s")
        if ending.status != 0:
            said = ending.complaint or "it said nothing"
            return Outcome(
                "machine", "qemu-failed", f"QEMU ended with status {ending.status}: {said}"
            )
        if ending.reason.startswith("host-"):
            return Outcome(
                "machine", "qemu-stopped", f"QEMU was ended from outside: {ending.reason}"
            )
        if ending.reason == "guest-panic":
            return Outcome("panic", "kernel-panic", "the guest's kernel panicked")
        for stage in self.stages:
            if stage.code:
                return Outcome("refused", stage.code, f"the stage {stage.name} failed")
        if self.handover is None:
            last = f" after stage {self.stages[-1].name}" if self.stages else ""
            message = f"the guest ended without handover{last}"
            return Outcome("no-handover", "no-handover", message)
        if not ending.reason:
            # The guest may have been reset, or never have had a monitor to speak of.
            return Outcome("machine", "machine-end", "QEMU ended without saying why")
        if ending.reason != "guest-shutdown":
            return Outcome("reboot", "guest-reboot", "the guest reset instead of powering off")
        if self.supervised and self.workload is None:
            return Outcome("workload", "workload-lost", "PID 1 did not say how the workload ended")
        if self.workload is not None and self.workload.status != 0:
            return Outcome(
                "workload", "workload-exited", f"the workload exited with {self.workload.status}"
            )
        return Outcome("handover", "", f"handed over to {self.handover.init} and powered off")

    def _panic_denied(self) -> bool:
        # A kernel that panicked resets or hangs; it never powers off. So after the handover
        # panic text before an orderly power-off is something the workload printed.
        return self.handover is not None and self.ending.reason == "guest-shutdown"


def _panicked(panic: Panic) -> Outcome:
    if panic.code == "verity-panic":
        return Outcome("panic", panic.code, f"dm-verity met changed data: {panic.text}")
    return Outcome("panic", panic.code, f"the guest's kernel panicked: {panic.text}")


def tree(run: Record) -> dict[str, object]:
    """``run`` as the JSON object of ``troth run --json`` (docs/formats.md)."""
    outcome = run.outcome()
    return {
        "schema": "troth-run-v1",
        "outcome": outcome.kind,
        "code": outcome.code or None,
        "message": outcome.message,
        "stages": [
            {
                "name": stage.name,
                "ok": not stage.code,
                "ms": stage.milliseconds,
                "code": stage.code or None,
                "guest_s": stage.guest_s,
            }
            for stage in run.stages
        ],
        "handover": run.handover.init if run.handover else None,
        "handover_guest_s": run.handover.guest_s if run.handover else None,
        "workload_exit": run.workload.status if run.workload else None,
        "duration_s": round(run.duration_s, 3),
        "accelerator": run.accelerator,
        "shutdown": run.ending.reason or None,
    }
