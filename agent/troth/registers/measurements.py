# SPDX-License-Identifier: Apache-2.0
"""What this guest has measured: the log replayed and held against the TPM.

Behind ``troth measurements`` and ``troth status`` in the guest.
"""

from __future__ import annotations

from troth.documents import event_log, event_log_json
from troth.errors import HostError, Refusal
from troth.linux import tpm as tpm_device
from troth.measure import pcr, register
from troth.record import record
from troth.registers.tpm_raw import Tpm

_TPM_TIMEOUT_S = 10.0


@record
class RegisterValue:
    """One PCR: replayed from the log, and read from the TPM ("" where it was not read)."""

    bank: str
    index: int
    replayed: str
    observed: str

    @property
    def agrees(self) -> bool | None:
        """Whether both are equal; None where the TPM was not read."""
        return None if not self.observed else self.observed == self.replayed


@record
class Measurements:
    """``tpm``: why no value was read from it, "" where values were read."""

    events: int
    software_register: str
    registers: tuple[RegisterValue, ...]
    tpm: str


def read(path: str = event_log.PATH, *, tpm_used: bool) -> Measurements:
    """The log at ``path``, against the TPM where the boot used one.

    Raises ``HostError`` ``no-event-log``, ``FormatError`` of the log.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(event_log_json.LIMIT_BYTES + 1)
    except FileNotFoundError:
        raise HostError(
            "no-event-log", f"{path} is not there", hint="this machine was not booted by troth"
        ) from None
    events = event_log_json.parse(data, where=path)
    replayed = pcr.replay(events)
    observed: dict[tuple[str, int], bytes] = {}
    reason = "not used by this boot"
    if tpm_used:
        observed, reason = _observe(tuple(replayed))
    return Measurements(
        events=len(events),
        software_register=register.replay(events).hex(),
        registers=tuple(
            RegisterValue(bank, index, value.hex(), observed.get((bank, index), b"").hex())
            for (bank, index), value in sorted(replayed.items())
        ),
        tpm=reason,
    )


def _observe(keys: tuple[tuple[str, int], ...]) -> tuple[dict[tuple[str, int], bytes], str]:
    names = tpm_device.present()
    if not names:
        return {}, "no TPM"
    node = f"/dev/tpmrm{names[0].removeprefix('tpm')}"
    try:
        device = tpm_device.TpmDevice(node, timeout_s=_TPM_TIMEOUT_S)
    except OSError as error:
        return {}, f"{node}: {error.strerror}"
    try:
        tpm = Tpm(device)
        active = tpm.banks()
        banks = tuple(bank for bank in active if any(bank == key[0] for key in keys))
        return tpm.read(banks, tuple(sorted({index for _, index in keys}))), ""
    except Refusal as error:
        return {}, error.message
    finally:
        device.close()
