# SPDX-License-Identifier: Apache-2.0
"""Where a guest's log leaves the boots that a bundle predicts."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from troth.documents import event_log
from troth.documents.policy import OPTIONAL
from troth.image import reference
from troth.measure.boot_registers import claimed_instance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from troth.documents.event_log import Event
    from troth.documents.policy import Policy

_SHOWN = 120
#: What no bundle predicts whole: the digests are keyed, and brokers have more than one key.
_OF_KEYS = (event_log.KEY_RELEASE, event_log.VOLUME_KEY)


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
    keyed = _keys_differ(events, policy)
    if keyed:
        return keyed
    events = tuple(event for event in events if event.kind not in _OF_KEYS)
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
        ended = f"ends after record {events[-1].number}" if events else "is empty: it ends"
        return f"the log {ended}, before {expected[place].kind}"
    found = events[place]
    if place >= len(expected):
        return f"record {found.number} ({found.kind}) comes after the last expected one"
    wanted = expected[place]
    return (
        f"record {found.number}: found {found.kind} in PCR {found.pcr} with"
        f" {_short(found.content)}, expected {wanted.kind} in PCR {wanted.pcr} with"
        f" {_short(wanted.content)}"
    )


def _keys_differ(events: Sequence[Event], policy: Policy) -> str:
    """The first event of a key that the policy does not have there; "" where there is none.

    Their digests, and who released a key, are a launch's; which volumes there are, in which
    order and where in the boot, is the image's.
    """
    places = [place for place, event in enumerate(events) if event.kind in _OF_KEYS]
    wanted = [(event_log.KEY_RELEASE, f" {item.key} {item.name}") for item in policy.encrypted]
    for item in policy.encrypted:
        content = event_log.volume_key_content(item.map_name, item.uuid)
        wanted.append((event_log.VOLUME_KEY, content.decode("ascii")))
    start = next(
        (
            place + 1
            for place, event in enumerate(events)
            if (event.kind, event.content) == (event_log.PHASE, event_log.ENTER_INITRD)
        ),
        len(events),
    )
    if start < len(events) and events[start].kind == event_log.INSTANCE:
        start += 1
    for place in places:
        at, found = place - start, events[place]
        if not 0 <= at < len(wanted):
            return f"record {found.number}: found {found.kind}, where no key belongs"
        kind, ending = wanted[at]
        text = found.content.decode("ascii", "replace")
        if found.kind != kind or found.pcr != event_log.PCR_OF[kind] or not text.endswith(ending):
            return (
                f"record {found.number}: found {found.kind} in PCR {found.pcr} with"
                f" {_short(found.content)}, expected {kind} of {ending.strip()!r}"
            )
    after = start + len(places)
    if len(places) < len(wanted) and after < len(events):
        found = events[after]
        if found.kind != event_log.REFUSED:
            kind, ending = wanted[len(places)]
            return (
                f"record {found.number}: found {found.kind}, expected {kind} of {ending.strip()!r}"
            )
    return ""


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
