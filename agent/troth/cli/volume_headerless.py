# SPDX-License-Identifier: Apache-2.0
"""``troth volume format --format headerless``: what the host may lay out itself.

Must never make a volume whose tags nobody has written.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from troth.cli import volume_key
from troth.errors import HostError, UsageError
from troth.volumes import headerless_write

if TYPE_CHECKING:
    from troth.cli.volume_format import Options
    from troth.volumes.laid_out import LaidOut

DATA_OFFSET = "1M"


def laid_out(options: Options, uuid: str) -> LaidOut:
    """The volume ``uuid`` that the options ask for.

    Raises ``UsageError``: ``usage``, ``key-file``; ``HostError`` ``volume-tags``.
    """
    if options.raw_key:
        raise UsageError("usage", "--raw-key is a passphrase, which only --format luks2 has")
    if options.data_offset not in (None, DATA_OFFSET):
        raise UsageError("usage", f"without a header data begin at {DATA_OFFSET}")
    if options.integrity != "none":
        raise HostError(
            "volume-tags",
            f"--integrity {options.integrity}: the tags of a volume are the kernel's to write,"
            " and a guest does it at its first boot",
            hint="attach a blank disk, to a guest whose broker says that the volume is new (troth"
            ' keybroker add --volume) or whose manifest has blank = "format"; or --integrity none',
        )
    return headerless_write.new(volume_key.source(options.key_file), uuid=uuid, random=os.urandom)
