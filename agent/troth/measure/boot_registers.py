# SPDX-License-Identifier: Apache-2.0
"""What the registers hold at one moment of a good boot, for a launch that is known.

Serves ``image.reference`` (predictions) and verifiers. Reference values are made
before anybody launches, so their cases know no instance configuration: whoever
has its digest, from a file or from the event that a log claims, computes the
registers here. Must never decide whether that digest is the right one.

Source: DESIGN section 5, the PCR table; ``docs/instance.md``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.documents import event_log
from troth.documents.reference_values import BANKS, Registers
from troth.measure import pcr, register
from troth.measure.boot_events import boot_events

if TYPE_CHECKING:
    from collections.abc import Iterable

    from troth.documents.event_log import Event
    from troth.documents.policy import Policy

_DIGEST_BYTES = 32


def boot_registers(
    policy: Policy,
    *,
    policy_bytes: bytes,
    cmdline: bytes,
    workload: bytes | None,
    instance: bytes | None,
    tpm: str,
    point: str,
) -> Registers:
    """The registers at ``point`` ("workload", "handover").

    ``policy_bytes``: policy.json; ``cmdline``: as the kernel shows it, without
    newline; ``workload``: the 32-byte tree digest or None; ``instance``: SHA-256 of
    the instance configuration (32 bytes) or None; ``tpm``: "present", "absent" or
    "unused", without PCRs for the latter two.
    """
    events = boot_events(
        policy,
        policy_bytes=policy_bytes,
        cmdline=cmdline,
        workload=workload,
        instance=instance,
        tpm_absent=tpm == "absent",
        banks=BANKS,
        point=point,
    )
    values = pcr.replay(events) if tpm == "present" else {}
    return Registers(
        pcrs=tuple((bank, index, value.hex()) for (bank, index), value in sorted(values.items())),
        software=register.replay(events).hex(),
    )


def claimed_instance(events: Iterable[Event]) -> bytes | None:
    """The digest in the first ``instance`` event of ``events``, None where there is none.

    A claim of the log: it counts where the log agrees, record for record, with
    ``boot_events`` for this digest, and where the digest is HOST_DATA of the report.
    An event whose content is no digest gives None, with which no log that holds
    the event agrees.
    """
    for event in events:
        if event.kind == event_log.INSTANCE:
            return event.content if len(event.content) == _DIGEST_BYTES else None
    return None
