# SPDX-License-Identifier: Apache-2.0
"""The workload tree digest: what the ``workload`` event stands for.

SHA-256 over length-prefixed fields (u32 little endian lengths)::

    field("troth-workload-v1")
    for each entry, sorted by path bytes:
        field(path) field(type) field(u32 mode) field(u32 uid) field(u32 gid)
        field(u64 size) field(content) field(number of attributes, u32)
        for each attribute, sorted: field(name) field(value)

``path`` has no leading slash; ``type`` is one of ``f d l c b p s``; ``mode``
is the twelve permission bits; ``size`` counts for files and links, else 0;
``content`` is the SHA-256 of a file, the target of a link, ``major:minor`` of
a device node, else empty; attributes are the ``security.*`` ones.
(``docs/formats.md``, workload tree digest.)
"""

from __future__ import annotations

from struct import pack

from troth.abi.hashes import sha256
from troth.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

TAG = b"troth-workload-v1"


@record
class Entry:
    """One entry of the tree, as listed above; ``path`` and ``content`` are bytes."""

    path: bytes
    kind: str
    mode: int
    uid: int
    gid: int
    size_bytes: int
    content: bytes
    attributes: tuple[tuple[bytes, bytes], ...] = ()


def _field(data: bytes) -> bytes:
    return pack("<I", len(data)) + data


def tree_digest(entries: Iterable[Entry]) -> bytes:
    """The 32-byte digest over ``entries``, which may come in any order but not twice."""
    listed = {entry.path: entry for entry in entries}
    total = sha256(_field(TAG))
    for path in sorted(listed):
        entry = listed[path]
        size_bytes = entry.size_bytes if entry.kind in "fl" else 0
        total.update(
            _field(path)
            + _field(entry.kind.encode())
            + _field(pack("<I", entry.mode))
            + _field(pack("<I", entry.uid))
            + _field(pack("<I", entry.gid))
            + _field(pack("<Q", size_bytes))
            + _field(entry.content)
            + _field(pack("<I", len(entry.attributes)))
        )
        for name, value in sorted(entry.attributes):
            total.update(_field(name) + _field(value))
    return total.digest()
