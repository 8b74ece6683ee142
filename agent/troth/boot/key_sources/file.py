# SPDX-License-Identifier: Apache-2.0
"""``file:``: a key that is packed into the image, for images that protect nothing.

Serves ``sources``. Whoever has the initramfs has the key; the manifest allows it
for images without SNP and simulated ones only. Must never follow a link.
"""

from __future__ import annotations

import os
import stat

from troth.errors import ProviderError
from troth.volumes.release import Release

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.boot.key_sources.sources import Surroundings, Wanted
    from troth.documents.key_uri import KeyUri

DIRECTORY = "/keys"
KEY_BYTES = (32, 64)


class FileSource:
    """The file ``name`` of ``directory``: the bytes of the key, 32 to 64."""

    def __init__(self, name: str, *, directory: str = DIRECTORY) -> None:
        self._name = name
        self._path = f"{directory}/{name}"

    def release(self, wanted: Wanted) -> Release:  # noqa: ARG002 - of the interface
        """The key as it is. ``ProviderError``: ``key-packed``."""
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise self._error(f"cannot be opened: {error.strerror}") from None
        try:
            is_file = stat.S_ISREG(os.fstat(fd).st_mode)
            found = bytearray(os.read(fd, KEY_BYTES[1] + 1)) if is_file else bytearray()
        finally:
            os.close(fd)
        if not KEY_BYTES[0] <= len(found) <= KEY_BYTES[1]:
            raise self._error("is no file of 32 to 64 bytes")
        return Release(found, f"file:{self._name}")

    def commit(self, generation: int, digest: str) -> None:  # noqa: ARG002 - of the interface
        """Nobody keeps generations here: ``ProviderError`` ``key-untracked``."""
        raise ProviderError("key-untracked", "file: keeps no generations")

    def _error(self, message: str) -> ProviderError:
        return ProviderError("key-packed", f"the packed key {message}", where=self._path)


def make(uri: KeyUri, surroundings: Surroundings) -> FileSource:  # noqa: ARG001
    """The packed key that ``uri`` names."""
    return FileSource(uri.name)
