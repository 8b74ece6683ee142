# SPDX-License-Identifier: Apache-2.0
"""Where a guest's log leaves the boots that a bundle predicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.image import reference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from troth.documents.event_log import Event
    from troth.documents.policy import Policy

_SHOWN = 120


def first_difference(
    events: Sequence[Event], policy: Policy, *, policy_bytes: bytes, workload: bytes | None
) -> str:
    """A sentence about the first event that no accepted boot has there; "" where there is none.

    Of all accepted boots the one is taken that agrees longest. A log that ends
    before the handover (its ``cap`` records) differs where it ends: without
    them nobody knows what else was measured.
    """
    best: tuple[int, tuple[Event, ...]] = (-1, ())
    for _form, cmdline in reference.cmdlines(policy):
        for tpm in reference.tpm_states(policy):
            expected = reference.predict(
                policy,
                policy_bytes=policy_bytes,
                workload=workload,
                cmdline=cmdline,
                tpm=tpm,
                point="handover",
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
