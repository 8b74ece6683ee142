# SPDX-License-Identifier: Apache-2.0
"""One volume, opened as its policy says: headerless, LUKS2, or for this boot alone.

Serves the key worker. Must never try one way after another has failed.
"""

from __future__ import annotations

import sys

from troth.abi.keyed_digest import digest
from troth.documents import event_log, key_uri
from troth.documents.policy_keys import LUKS2
from troth.volumes import headerless

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.documents.policy_keys import Encrypted
    from troth.linux.block import Disk
    from troth.linux.dm import Control
    from troth.volumes.opened import Opened
    from troth.volumes.release import Release

LUKS2_VOLUME = "troth.volumes.luks2_volume"


def open_(control: Control, volume: Encrypted, disk: Disk, released: Release) -> Opened:
    """The readable volume. ``FormatError`` with the exact code, ``OSError`` of the kernel."""
    if volume.key.startswith(f"{key_uri.RANDOM}:"):
        return headerless.ephemeral(control, volume, disk, released)
    if volume.format == LUKS2:
        # By name, since only such images pack what reads a header.
        __import__(LUKS2_VOLUME)
        opened: Opened = sys.modules[LUKS2_VOLUME].open_(control, volume, disk, released)
        return opened
    return headerless.open_(control, volume, disk, released)


def key_event(
    volume: Encrypted, key: bytes, banks: tuple[str, ...]
) -> tuple[bytes, tuple[tuple[str, bytes], ...]]:
    """Content and digests of the ``volume-key`` event: HMACs keyed with the volume key.

    Who reads the log learns nothing of the key, and who has another key cannot make them
    (systemd, src/cryptsetup/cryptsetup.c, ``measure_volume_key``; SECURITY S36).
    """
    content = event_log.volume_key_content(volume.map_name, volume.uuid)
    return content, tuple((bank, digest(key, content, bank)) for bank in banks)
