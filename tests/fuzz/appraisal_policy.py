# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: the verification policy. What parses never accepts DEBUG, and never waives a root."""

from __future__ import annotations

from troth.documents import appraisal_policy_toml
from troth.errors import UsageError
from troth.verify.policy_text import policy_text

SEEDS = [
    policy_text(permissive=permissive, simulated=False, unprotected_acpi=permissive).encode()
    for permissive in (False, True)
]


def fuzz(data: bytes) -> None:
    try:
        policy = appraisal_policy_toml.parse(data, where="policy.toml")
    except UsageError:
        return
    if "debug" in policy.guest_policy.permitted or not policy.requires("signing-key"):
        raise RuntimeError("a policy accepts what none may")
