# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: event logs as a verifier replays them."""

import made_evidence as made
from troth.errors import FormatError
from troth.verify import replay


def fuzz(data: bytes) -> None:
    try:
        found = replay.replay(data)
    except FormatError:
        return
    boot = replay.compare(found, made.VALUES, made.VALUES.cases)
    if (boot.case is None) == (boot.difference is None):
        raise AssertionError("a boot that is predicted and differs, or neither")
    if boot.case is not None:
        # Nothing but these contents makes these registers.
        own = replay.boot_pcrs(found, boot)
        for bank in found.banks:
            for index in replay.BOOT_PCRS:
                if own[bank, index] != made.pcrs(banks=(bank,))[bank, index]:
                    raise AssertionError("a predicted boot with other registers")
    silent = any(item.unverified and item.event.kind == "policy" for item in found.records[:1])
    if silent and boot.difference is None:
        raise AssertionError("a rule was read from a record that says nothing")


SEEDS = [made.log(), made.log((*made.with_instance(), made.APPLICATION))]
