# SPDX-License-Identifier: Apache-2.0
"""What a source of keys gave for one volume.

Flows from ``boot.key_sources`` to the volume that is opened with it, both in the
key worker. Must never be printed with its key.
"""

from __future__ import annotations

from troth.record import record

#: The volume has data; it is to be formatted now; nobody said, so the policy decides.
IN_USE, FORMATTING, UNSAID = "in-use", "formatting", ""


@record
class Release:
    """A key, and what is known with it.

    ``key``: 32 to 64 bytes, to be zeroed by who used it; ``identity``: who gave
    it, public text for the event ``key-release``; ``state``: one of the three;
    ``tracked``: whether ``generation`` and ``digest`` (SHA-256, hex) are those of the
    last committed record and the next is to be committed, so that old states are
    refused; ``tcb`` and ``guest_svn``: what a derived key was made with, none where it
    was not.
    """

    key: bytearray
    identity: str
    state: str = UNSAID
    tracked: bool = False
    generation: int = 0
    digest: str = ""
    tcb: int | None = None
    guest_svn: int | None = None

    def __repr__(self) -> str:
        return f"Release({self.identity}, state={self.state!r}, generation={self.generation})"

    def wipe(self) -> None:
        """Zero the key. Copies that Python made of it stay until the process ends."""
        self.key[:] = bytes(len(self.key))
