# SPDX-License-Identifier: Apache-2.0
"""``random:``: a key that nobody ever sees again, for a volume that lives for one boot.

Serves ``sources``. The volume is formatted at each boot. Must never be written
anywhere.
"""

from __future__ import annotations

import os

from troth.errors import ProviderError
from troth.volumes.release import FORMATTING, Release

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.boot.key_sources.sources import Surroundings, Wanted
    from troth.documents.key_uri import KeyUri

KEY_BYTES = 64


class RandomSource:
    """A new key at each call."""

    def release(self, wanted: Wanted) -> Release:  # noqa: ARG002 - of the interface
        """64 bytes of the kernel's generator, which stage tee found to be seeded."""
        return Release(bytearray(os.urandom(KEY_BYTES)), "random", FORMATTING)

    def commit(self, generation: int, digest: str) -> None:  # noqa: ARG002 - of the interface
        """Nobody keeps generations here: ``ProviderError`` ``key-untracked``."""
        raise ProviderError("key-untracked", "random: keeps no generations")


def make(uri: KeyUri, surroundings: Surroundings) -> RandomSource:  # noqa: ARG001
    """The source ``random:``."""
    return RandomSource()
