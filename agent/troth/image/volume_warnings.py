# SPDX-License-Identifier: Apache-2.0
"""What the encrypted volumes of an image do not protect from, though all is as it should be.

Serves ``troth build``, which warns, and reference values, which list it, so that a
relying party can refuse. Must never refuse by itself: each is a choice that the
manifest may make (source: SECURITY S6, S8, S9).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.documents import key_uri
from troth.documents.policy_keys import HEADERLESS, TROTH, UNAUTHENTICATED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from troth.documents.policy import Policy
    from troth.documents.policy_keys import Encrypted

_HOST_TPM = "host"


def unauthenticated(policy: Policy) -> tuple[str, ...]:
    """Names of volumes whose data the host can change; those below a verified one are verified."""
    return tuple(
        volume.name
        for volume in policy.encrypted
        if volume.integrity == UNAUTHENTICATED and volume.file_system
    )


def untracked(policy: Policy) -> tuple[str, ...]:
    """Names of volumes that last and whose generation no broker keeps.

    A LUKS2 volume is one of them with any source: its header is the same after each boot.
    """
    return tuple(
        volume.name
        for volume in policy.encrypted
        if volume.file_system
        and key_uri.parse(volume.key).scheme != key_uri.RANDOM
        and not (volume.format == HEADERLESS and _protocols(policy, volume) == {TROTH})
    )


def warnings(policy: Policy) -> tuple[str, ...]:
    """One sentence for each volume and what it lacks, beginning with both names."""
    return tuple(
        f"volume {volume.name}: {text}"
        for volume in policy.encrypted
        for text in _lacks(policy, volume)
    )


def _lacks(policy: Policy, volume: Encrypted) -> Iterator[str]:
    if _protocols(policy, volume) - {TROTH} and _is_bare(policy):
        yield (
            "key-reobtainable: a broker of protocol trustee does not end a boot, so later code"
            " with root in the guest gets the key again"
        )
    if key_uri.parse(volume.key).scheme == key_uri.SNP:
        yield (
            "chip-bound: another processor derives another key, so the data are lost with this"
            " one; keep them elsewhere too"
        )
    if volume.name in unauthenticated(policy):
        yield "unauthenticated: integrity is none, so the host can change its data unnoticed"
    if volume.name in untracked(policy):
        yield "untracked: nobody counts its boots, so the host can put back an older state"


def _is_bare(policy: Policy) -> bool:
    """Whether nothing but the report stands for the guest: no TPM that it could trust."""
    return policy.vtpm == "none" or policy.vtpm_kind == _HOST_TPM


def _protocols(policy: Policy, volume: Encrypted) -> set[str]:
    """Of the brokers that the key of ``volume`` comes from."""
    uri = key_uri.parse(volume.key)
    if uri.scheme not in key_uri.WITH_BROKER:
        return set()
    return {broker.protocol for broker in key_uri.fitting(uri, policy.brokers)}
