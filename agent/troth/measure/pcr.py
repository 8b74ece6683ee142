# SPDX-License-Identifier: Apache-2.0
"""Extending and replaying registers in software (TPM 2.0 Library part 1, section 17)."""

from __future__ import annotations

from troth.abi.hashes import BANKS, digest, zero

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from troth.documents.event_log import Event


def extend(bank: str, value: bytes, event_digest: bytes) -> bytes:
    """The register of ``bank`` after ``event_digest``."""
    return BANKS[bank][0](value + event_digest).digest()


def replay(events: Iterable[Event]) -> dict[tuple[str, int], bytes]:
    """(bank, PCR) -> value after all ``events``, for the PCRs they touch.

    A bank counts only where every event carries it: a record without a bank
    would leave that bank's value unexplained.
    """
    events = tuple(events)
    if not events:
        return {}
    banks = [bank for bank, _ in events[0].digests]
    values: dict[tuple[str, int], bytes] = {}
    for event in events:
        found = dict(event.digests)
        banks = [bank for bank in banks if bank in found]
        for bank, value in found.items():
            key = (bank, event.pcr)
            values[key] = extend(bank, values.get(key, zero(bank)), value)
    return {key: value for key, value in values.items() if key[0] in banks}


def event_digests(banks: Iterable[str], content: bytes) -> tuple[tuple[str, bytes], ...]:
    """(bank, digest of ``content``) for each of ``banks``."""
    return tuple((bank, digest(bank, content)) for bank in banks)
