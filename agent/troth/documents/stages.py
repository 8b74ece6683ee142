# SPDX-License-Identifier: Apache-2.0
"""The stage table: what PID 1 runs, in order, and what therefore is packed.

Read by ``boot.init``, which imports a stage when it runs it, and by the
packer, which packs the closure of exactly these modules. A stage whose
condition a policy does not meet is neither packed nor run.

Imported by PID 1: imports nothing but types.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from troth.documents.policy import Policy

#: What the handover imports by name where a policy has an agent, and the agent itself.
AGENT_START, AGENT = "troth.boot.agent", "troth.attest.agent"
#: What stage keys starts as a process of its own.
KEY_WORKER = "troth.boot.key_worker"


def _always(_policy: Policy) -> bool:
    return True


def _snp_is(value: str) -> Callable[[Policy], bool]:
    return lambda policy: policy.snp == value


def _has_volumes(policy: Policy) -> bool:
    return bool(policy.volumes)


def _has_keys(policy: Policy) -> bool:
    return bool(policy.encrypted)


def _has_disks(policy: Policy) -> bool:
    return _has_volumes(policy) or _has_keys(policy) or _takes_instance(policy)


def _takes_instance(policy: Policy) -> bool:
    return policy.instance is not None


def _needs_network(policy: Policy) -> bool:
    return policy.network is not None


def _has_workload(policy: Policy) -> bool:
    return bool(policy.workload)


def _switches(policy: Policy) -> bool:
    return policy.handover.kind == "switch"


def _supervises(policy: Policy) -> bool:
    return policy.handover.kind == "supervise"


#: (name on the console, module, condition). Each module has ``run(state)``.
STAGES: tuple[tuple[str, str, Callable[[Policy], bool]], ...] = (
    ("mounts", "troth.boot.mounts", _always),
    ("policy", "troth.boot.policy", _always),
    ("modules", "troth.boot.modules", _always),
    ("tee", "troth.boot.tee", _snp_is("none")),
    ("tee", "troth.boot.tee_snp", _snp_is("required")),
    ("tee", "troth.boot.tee_simulated", _snp_is("simulated")),
    ("devices", "troth.boot.devices", _has_disks),
    ("instance", "troth.boot.instance", _takes_instance),
    ("network", "troth.boot.network", _needs_network),
    ("keys", "troth.boot.keys", _has_keys),
    ("volumes", "troth.boot.volumes", _has_keys),
    ("verity", "troth.boot.verity", _has_volumes),
    ("root", "troth.boot.root", _has_volumes),
    ("workload", "troth.boot.workload", _has_workload),
    ("handover", "troth.boot.handover", _switches),
    ("handover", "troth.boot.supervise", _supervises),
)


def stages_of(policy: Policy) -> tuple[tuple[str, str], ...]:
    """(name, module) of the stages that ``policy`` runs, in order."""
    return tuple((name, module) for name, module, wanted in STAGES if wanted(policy))


def has_agent(policy: Policy) -> bool:
    """Whether there is something to ask an agent for: reports, or what ``[attest]`` allows."""
    return policy.snp != "none" or bool(policy.attest.group or policy.attest.extend)
