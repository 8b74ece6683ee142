# SPDX-License-Identifier: Apache-2.0
"""``troth measurements`` and ``troth status`` of the full ``troth``, where it is in a guest.

Serves the grammar's verbs; ``/run/troth/bin/troth`` has the same from ``cli.guest``.
Must decide nothing of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.cli import guest

if TYPE_CHECKING:
    from typing import Protocol

    class StateOptions(Protocol):
        """What the grammar gives."""

        json: bool


def measurements(options: StateOptions) -> int:
    """0 where log and TPM agree, else 1; ``HostError`` ``not-booted`` outside a guest."""
    return guest.shown("measurements", as_json=options.json)


def status(options: StateOptions) -> int:
    """Always 0 in a guest; ``HostError`` ``not-booted`` outside."""
    return guest.shown("status", as_json=options.json)
