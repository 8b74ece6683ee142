# SPDX-License-Identifier: Apache-2.0
"""``troth status``: how this guest was booted. Runs in the guest."""

from __future__ import annotations

import json
import sys

from troth.abi.hashes import sha256
from troth.documents import boot_state, policy_json
from troth.errors import HostError

POLICY = "/run/troth/runtime/etc/troth/policy.json"
_LIMIT_BYTES = 1 << 20


def run(*, as_json: bool, agent: dict[str, object] | None = None) -> int:
    """Print image, policy, volumes and stages; always 0 in a guest booted by troth.

    ``agent``: what there is to say of the agent; None in images without one.
    """
    policy_bytes = read_state(POLICY)
    policy = policy_json.parse(policy_bytes, where=POLICY)
    boot = boot_state.parse(read_state(boot_state.PATH))
    tree: dict[str, object] = {
        "image": policy.image_name,
        "svn": policy.svn,
        "policy_sha256": sha256(policy_bytes).hexdigest(),
        "handover": boot.handover,
        "snp": policy.snp,
        "vtpm": policy.vtpm,
        "tpm_kind": boot.tpm_kind,
        "events": boot.events,
        "software_register": boot.software_register,
        "host_data": boot.host_data,
        "report_id": boot.report_id,
        "volumes": [
            {"name": volume.name, "mount": volume.mount, "root_hash": volume.verity.root_hash}
            for volume in policy.volumes
        ],
        "overlay": policy.overlay,
        "workload": list(policy.workload),
        "acpi_aml": policy.acpi_aml,
        "stages": boot.stages,
        "agent": agent,
    }
    if as_json:
        sys.stdout.write(json.dumps(tree, indent=2) + "\n")
        return 0
    for key, value in tree.items():
        shown = value if isinstance(value, str | int) else json.dumps(value)
        sys.stdout.write(f"{key:<18} {shown}\n")
    return 0


def read_state(path: str) -> bytes:
    """What PID 1 left at ``path``; ``HostError`` ``not-booted`` where there is nothing."""
    try:
        with open(path, "rb") as file:
            return file.read(_LIMIT_BYTES)
    except FileNotFoundError:
        raise HostError(
            "not-booted", f"{path} is not there", hint="this machine was not booted by troth"
        ) from None
