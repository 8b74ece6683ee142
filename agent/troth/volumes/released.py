# SPDX-License-Identifier: Apache-2.0
"""What a key source gave for one volume."""

from __future__ import annotations

from troth.record import record

#: The volume has data; it is to be formatted now; nobody says which.
IN_USE, FORMATTING, UNSTATED = "in-use", "formatting", "unstated"


@record
class Released:
    """``key``: 32 to 64 bytes; ``state``: a word of this module.

    ``generation``, ``record``: number and SHA-256 (hex) of the record that the
    broker committed last, 0 and "" where nobody counts; ``identity``: who released
    it, for the event ``key-release``; ``tcb``: the level a derived key is of, 0 else.
    """

    key: bytes
    state: str
    generation: int
    record: str
    identity: str
    tcb: int = 0
