# SPDX-License-Identifier: Apache-2.0
"""The superblock of dm-integrity (drivers/md/dm-integrity.c, ``struct superblock``).

The kernel writes it when it formats a device and reads it again when it opens
one; the host can change it in between. What it can reach by that is judged
before: geometry is compared with what the volume's own record says, and data
that then comes from another place fails its tags. Serves guests that open
volumes. Must never be a source of a size that is not compared.
"""

from __future__ import annotations

from struct import Struct

from troth.errors import FormatError
from troth.record import record

SUPERBLOCK_BYTES = 512
#: The kernel's own area before the data; a format begins with this much zeroed.
AREA_BYTES = 4096
_MAGIC = b"integrt\0"
# magic, version, log2 interleave, tag bytes, journal sections, provided sectors, flags,
# log2 sectors a block, log2 blocks a bitmap bit, padding, sector of the recalculation.
_FIELDS = Struct("<8sBbHIQIBB2sQ")
# Refused: 1 a journal MAC, 2 recalculating, 4 a bitmap, 32 tags inside the sectors.
_FIX_PADDING, _FIX_HMAC = 8, 16
_ALLOWED = _FIX_PADDING | _FIX_HMAC


@record
class IntegritySuperblock:
    """``tag_bytes`` of each block; ``provided_sectors``: 512-byte sectors of data it offers;
    ``block_bytes``: the size a tag stands for; ``interleave_sectors``: data between tags.
    """  # noqa: D205 - the fields are the summary

    version: int
    tag_bytes: int
    provided_sectors: int
    block_bytes: int
    interleave_sectors: int
    journal_sections: int


def parse(data: bytes) -> IntegritySuperblock:
    """The superblock in ``data``, at least 512 bytes.

    Raises ``FormatError`` ``integrity-superblock`` for anything that a volume of troth
    does not have: a bitmap, a journal MAC, tags that are still to be computed, inline tags.
    """
    if len(data) < SUPERBLOCK_BYTES or not data.startswith(_MAGIC):
        raise FormatError("integrity-superblock", "there is no superblock of dm-integrity")
    # The grain of a bitmap stands there without one, too.
    (_, version, log2_interleave, tag, sections, provided, flags, log2_block, _, pad, at) = (
        _FIELDS.unpack_from(data)
    )
    if flags & ~_ALLOWED:
        raise FormatError("integrity-superblock", f"flags {flags:#x} that no volume of ours has")
    if not 1 <= version <= 5 or pad != b"\0\0" or at:
        raise FormatError("integrity-superblock", f"version {version}, or fields it does not have")
    if not 0 <= log2_interleave <= 31 or log2_block > 3 or not provided or not 0 < tag <= 4096:
        raise FormatError("integrity-superblock", "a geometry that dm-integrity does not make")
    return IntegritySuperblock(
        version=version,
        tag_bytes=tag,
        provided_sectors=provided,
        block_bytes=512 << log2_block,
        interleave_sectors=1 << log2_interleave,
        journal_sections=sections,
    )
