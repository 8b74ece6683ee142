# SPDX-License-Identifier: Apache-2.0
"""Where a guest's log leaves the boots that a bundle predicts."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from troth.documents.policy import OPTIONAL
from troth.image import reference
from troth.measure.boot_registers import claimed_instance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from troth.documents.event_log import Event
    from troth.documents.policy import Policy

_SHOWN = 120


def first_difference(
    events: Sequence[Event],
    policy: Policy,
    *,
    policy_bytes: bytes,
    workload: bytes | None,
    instance: bytes | None = None,
) -> str:
    """A sentence about the first event that no accepted boot has there; "" where there is none.

    Of all accepted boots the one is taken that agrees longest. A log that ends
    before the handover (its ``cap`` records) differs where it ends: without
    them nobody knows what else was measured. ``instance``: the digest of the
    instance configuration that it must be; None accepts the one that the log
    claims, in its place, where the policy takes any.
    """
    best: tuple[int, tuple[Event, ...]] = (-1, ())
    boots = itertools.product(
        reference.cmdlines(policy),
        reference.tpm_states(policy),
        _instances(events, policy, instance),
    )
    for (_form, cmdline), tpm, digest in boots:
        expected = reference.predict(
            policy,
            policy_bytes=policy_bytes,
            workload=workload,
            cmdline=cmdline,
            tpm=tpm,
            point="handover",
            instance=digest,
        )
        agreed = _agreement(events, expected)
        if agreed == len(events) == len(expected):
            return ""
        if agreed > best[0]:
            best = (agreed, expected)
    place, expected = best
    if place == len(events):
        ended = f"ends after record {place - 1}" if place else "is empty: it ends"
        return f"the log {ended}, before {expected[place].kind}"
    found = events[place]
    if place >= len(expected):
        return f"record {place} ({found.kind}) comes after the last expected one"
    wanted = expected[place]
    return (
        f"record {place}: found {found.kind} in PCR {found.pcr} with {_short(found.content)}, "
        f"expected {wanted.kind} in PCR {wanted.pcr} with {_short(wanted.content)}"
    )


def _instances(
    events: Sequence[Event], policy: Policy, instance: bytes | None
) -> tuple[bytes | None, ...]:
    """The digests of instance configurations to predict with; None is a boot without one."""
    if instance is not None or policy.instance is None:
        return (instance,)
    claimed = claimed_instance(events)
    if policy.instance.need == OPTIONAL:
        return (None,) if claimed is None else (None, claimed)
    # No boot has a digest of zeros: predicted with it, the place of the event shows.
    return (claimed or bytes(32),)


def _agreement(events: Sequence[Event], expected: Sequence[Event]) -> int:
    count = 0
    for found, wanted in zip(events, expected, strict=False):
        if (found.pcr, found.kind, found.content) != (wanted.pcr, wanted.kind, wanted.content):
            break
        count += 1
    return count


def _short(content: bytes) -> str:
    text = content.decode("latin-1") if content.isascii() else content.hex()
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")
