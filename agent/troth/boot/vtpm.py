# SPDX-License-Identifier: Apache-2.0
"""The vTPM that the policy names, and the event log in front of it.

Used by stage tee, and by ``fail`` where a boot is refused before that stage.
"""

from __future__ import annotations

import os

from troth.boot.state import RUN
from troth.documents import event_log
from troth.errors import FormatError, Refusal
from troth.linux import tpm as tpm_device
from troth.registers.log import EventLog

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.boot.state import State
    from troth.registers.tpm_raw import Tpm

_TIMEOUT_S = 10.0


def open_log(state: State) -> EventLog:
    """Open both as the policy says; ``Refusal`` ``tpm-*``."""
    # It exists where stage tee has failed and the refusal is to be measured all the same.
    os.makedirs(RUN, 0o755, exist_ok=True)
    tpm, banks = _open(state)
    log = state.log = EventLog(event_log.PATH, tpm=tpm, banks=banks)
    log.adopt(state.policy.owned_pcrs)
    if tpm is None and state.policy.vtpm == "optional":
        log.measure(event_log.TPM_ABSENT, b"tpm-absent")
    return log


def open_log_to_refuse(state: State) -> str:
    """A log for the one event of a boot refused before its log was open.

    The TPM is taken as it is, whatever kind it has: what it records is a refusal.
    Returns why it cannot record it, "" where it can or the policy wants none.
    """
    os.makedirs(RUN, 0o755, exist_ok=True)
    tpm: Tpm | None = None
    banks: tuple[str, ...] = ()
    try:
        tpm = _device(state)
        if tpm is not None:
            banks = tpm.banks()
        reason = ""
    except (Refusal, FormatError) as error:
        # What could not be opened cannot be extended; the log is still written.
        tpm, reason = None, error.message
    state.log = EventLog(event_log.PATH, tpm=tpm, banks=banks)
    return reason


def _open(state: State) -> tuple[Tpm | None, tuple[str, ...]]:
    """The TPM the policy names and its banks, or (None, ()) where the policy allows none."""
    policy = state.policy
    tpm = _device(state)
    if tpm is None:
        return None, ()
    state.tpm_kind = _kind(tpm)
    if state.tpm_kind != policy.vtpm_kind:
        raise Refusal(
            "tpm-kind", f"a {state.tpm_kind} TPM where the policy expects {policy.vtpm_kind}"
        )
    banks = tpm.banks()
    if not set(banks) - {"sha1"}:
        raise Refusal("tpm-bank", "the TPM has no active bank better than SHA-1")
    if policy.attest.quote:
        state.tpm_clock = tpm.clock()
    return tpm, banks


def _device(state: State) -> Tpm | None:
    """The machine's one TPM, opened once; None where the policy allows that there is none."""
    if state.policy.vtpm == "none":
        return None
    if state.tpm is None:
        names = tpm_device.present()
        if not names:
            if state.policy.vtpm == "required":
                raise Refusal("tpm-missing", "the policy requires a TPM and there is none")
            return None
        if len(names) > 1:
            raise Refusal("tpm-ambiguous", f"{len(names)} TPMs where the policy expects one")
        try:
            state.tpm = tpm_device.TpmDevice(f"/dev/{names[0]}", timeout_s=_TIMEOUT_S)
        except OSError as error:
            raise Refusal(
                "tpm-lost", f"/dev/{names[0]} cannot be opened: {error.strerror}"
            ) from error
    from troth.registers.tpm_raw import Tpm

    return Tpm(state.tpm)


def _kind(tpm: Tpm) -> str:
    if tpm_device.driver(tpm_device.present()[0]).replace("-", "_") == "tpm_svsm":
        return "svsm"
    return "paravisor" if tpm.has_paravisor_report() else "host"
