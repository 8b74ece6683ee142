# SPDX-License-Identifier: Apache-2.0
"""The events of a good boot, in order, computed in advance.

The order is the PCR table's (DESIGN section 5). ``image`` predicts with it;
``boot`` makes the same events one by one and never calls it.
"""

from __future__ import annotations

from troth.documents import event_log
from troth.documents.event_log import Event
from troth.measure.pcr import event_digests

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.documents.policy import Policy

#: Banks a log carries when no TPM says which it has.
DEFAULT_BANKS = ("sha256", "sha384")
POINTS = ("workload", "handover")


def boot_events(
    policy: Policy,
    *,
    policy_bytes: bytes,
    cmdline: bytes,
    workload: bytes | None,
    instance: bytes | None = None,
    tpm_absent: bool = False,
    banks: tuple[str, ...] = DEFAULT_BANKS,
    point: str = "handover",
) -> tuple[Event, ...]:
    """Events up to ``point``: "workload" (before ``leave-initrd``) or "handover".

    ``policy_bytes``: policy.json; ``cmdline``: as the kernel shows it, without
    newline; ``workload``: the 32-byte tree digest, None without workload;
    ``instance``: the 32-byte digest of the instance configuration, None without one.
    """
    kinds: list[tuple[str, bytes]] = []
    if tpm_absent:
        kinds.append((event_log.TPM_ABSENT, b"tpm-absent"))
    kinds.append((event_log.POLICY, policy_bytes))
    kinds.append((event_log.CMDLINE, cmdline))
    kinds.extend(
        (event_log.VERITY, event_log.verity_content(volume.name, volume.verity.root_hash))
        for volume in policy.volumes
    )
    kinds.append((event_log.PHASE, event_log.ENTER_INITRD))
    if instance is not None:
        kinds.append((event_log.INSTANCE, instance))
    if workload is not None:
        kinds.append((event_log.WORKLOAD, workload))
    listed = [(event_log.PCR_OF[kind], kind, content) for kind, content in kinds]
    if point == "handover":
        listed.append((event_log.PCR_OF[event_log.PHASE], event_log.PHASE, event_log.LEAVE_INITRD))
        listed.extend((pcr, event_log.CAP, event_log.CAP_CONTENT) for pcr in event_log.CAPPED_PCRS)
    return tuple(
        Event(number, pcr, kind, content, event_digests(banks, content))
        for number, (pcr, kind, content) in enumerate(listed)
    )
