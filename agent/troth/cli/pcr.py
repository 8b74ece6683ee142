# SPDX-License-Identifier: Apache-2.0
"""``troth pcr``: what registers will hold, and what a log says they held."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from troth.cli import instance_file
from troth.documents import event_log_json, policy_json, reference_values, reference_values_json
from troth.documents.policy import REQUIRED
from troth.errors import UsageError
from troth.image import compare, reference
from troth.measure import pcr, register

if TYPE_CHECKING:
    from typing import Protocol

    from troth.documents.event_log import Event
    from troth.documents.policy import Policy
    from troth.documents.reference_values import Case, Registers

    class PredictOptions(Protocol):
        """What the grammar gives to ``predict``."""

        bundle: str
        at: str
        instance: str | None
        json: bool

    class ReplayOptions(Protocol):
        """What the grammar gives to ``replay``."""

        log: str
        against: str | None
        instance: str | None
        json: bool


def predict(options: PredictOptions) -> int:
    """Print what the registers of each accepted boot hold ``--at`` a moment."""
    policy_bytes, values = _bundle(Path(options.bundle))
    policy = policy_json.parse(policy_bytes)
    workload = bytes.fromhex(values.workload) if values.workload else None
    computed = reference.cases(policy, policy_bytes=policy_bytes, workload=workload)
    if computed != values.cases:
        sys.stderr.write("troth: reference-values.json is not of this policy\n")
        return 1
    digest = _instance(options.instance, policy)
    if digest is None and reference.instance(policy) == REQUIRED:
        raise UsageError(
            "instance-needed",
            "no guest of this image boots without an instance configuration",
            hint="name it with --instance FILE",
        )
    if digest is not None:
        computed = reference.cases(
            policy, policy_bytes=policy_bytes, workload=workload, instance=digest
        )
    if options.json:
        trees = [_case_tree(case, getattr(case, options.at), digest) for case in computed]
        sys.stdout.write(json.dumps(trees, indent=2) + "\n")
        return 0
    if digest is not None:
        text = base64.b64encode(digest).decode("ascii")
        sys.stdout.write(f"instance configuration, HOST_DATA: {digest.hex()} ({text})\n")
    if policy.encrypted:
        names = ", ".join(volume.name for volume in policy.encrypted)
        sys.stdout.write(
            f"without the events of keys ({names}): they go to PCR 15 and the software register,"
            " and nobody knows their digests in advance\n"
        )
    for case in computed:
        sys.stdout.write(f"{case.form}, TPM {case.tpm}: {case.cmdline}\n")
        sys.stdout.write(_lines(getattr(case, options.at)))
    return 0


def replay(options: ReplayOptions) -> int:
    """Replay a log; with ``--against`` also find its first event that differs from a bundle's."""
    path = Path(options.log)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError("log-file", f"{error.strerror}", where=str(path)) from None
    events = event_log_json.parse(data, where=str(path))
    difference = ""
    if options.against is not None:
        policy_bytes, values = _bundle(Path(options.against))
        policy = policy_json.parse(policy_bytes)
        difference = compare.first_difference(
            events,
            policy,
            policy_bytes=policy_bytes,
            workload=bytes.fromhex(values.workload) if values.workload else None,
            instance=_instance(options.instance, policy),
        )
    elif options.instance is not None:
        raise UsageError("usage", "--instance has a meaning with --against only")
    if options.json:
        sys.stdout.write(json.dumps(_replay_tree(events, difference), indent=2) + "\n")
    else:
        for event in events:
            sys.stdout.write(f"{event.number:>3}  PCR {event.pcr:<2}  {event.kind}\n")
        sys.stdout.write(_lines(_registers(events)))
        if difference:
            sys.stdout.write(f"first difference: {difference}\n")
    return 1 if difference else 0


def _bundle(folder: Path) -> tuple[bytes, reference_values.ReferenceValues]:
    try:
        policy_bytes = (folder / "policy.json").read_bytes()
        values = (folder / reference_values.FILE_NAME).read_bytes()
    except OSError as error:
        raise UsageError(
            "bundle-missing",
            f"not a bundle: {error.filename}: {error.strerror}",
            where=str(folder),
            hint="make one with troth build",
        ) from None
    return policy_bytes, reference_values_json.parse(values, where=reference_values.FILE_NAME)


def _instance(name: str | None, policy: Policy) -> bytes | None:
    """SHA-256 of the instance configuration in the file ``name``, None where none is named."""
    if name is None:
        return None
    return hashlib.sha256(instance_file.read(name, policy.instance)).digest()


def _registers(events: tuple[Event, ...]) -> Registers:
    values = sorted(pcr.replay(events).items())
    return reference_values.Registers(
        pcrs=tuple((bank, index, value.hex()) for (bank, index), value in values),
        software=register.replay(events).hex(),
    )


def _lines(registers: Registers) -> str:
    lines = [f"  {bank:<7} {index:>2}  {value}\n" for bank, index, value in registers.pcrs]
    return "".join([*lines, f"  software    {registers.software}\n"])


def _case_tree(case: Case, registers: Registers, instance: bytes | None) -> dict[str, object]:
    return {
        "form": case.form,
        "cmdline": case.cmdline,
        "tpm": case.tpm,
        "instance": None if instance is None else instance.hex(),
        **_registers_tree(registers),
    }


def _registers_tree(registers: Registers) -> dict[str, object]:
    banks: dict[str, dict[str, str]] = {}
    for bank, index, value in registers.pcrs:
        banks.setdefault(bank, {})[str(index)] = value
    return {"pcrs": banks, "software": registers.software}


def _replay_tree(events: tuple[Event, ...], difference: str) -> dict[str, object]:
    return {
        "events": [
            {"number": event.number, "pcr": event.pcr, "type": event.kind} for event in events
        ],
        **_registers_tree(_registers(events)),
        "first_difference": difference or None,
    }
