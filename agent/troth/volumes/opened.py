# SPDX-License-Identifier: Apache-2.0
"""A volume that can be read now: what the key worker says of it, and commits."""

from __future__ import annotations

from troth.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.linux.dm import Map


@record
class Opened:
    """A readable volume: its ``map``, the ``key`` in it, and what was written of it in this boot.

    ``generation``, ``digest``: of the record or header, 0 and "" where none was written.
    """

    map: Map
    key: bytes
    generation: int = 0
    digest: str = ""

    def __repr__(self) -> str:
        return f"Opened({self.map}, generation={self.generation})"
