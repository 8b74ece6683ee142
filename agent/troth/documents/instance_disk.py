# SPDX-License-Identifier: Apache-2.0
"""The disk that carries an instance configuration: where the file on it ends.

Serves PID 1 (stages devices and instance) and ``troth run``. The file begins at
the first byte of the disk, and zeros follow it. JSON text holds no zero byte,
so its end needs no field that a host could set. Must never look into the file:
that is ``documents.instance``'s, behind the comparison of its digest.

Imported by PID 1: imports nothing but the floor. Source: ``docs/instance.md``.
"""

from __future__ import annotations

from troth.errors import FormatError

#: The file as it was given, for the next init; beside it nothing of it is kept.
PATH = "/run/troth/instance.json"
MAX_BYTES = 1 << 16
#: One sector more than the longest file: what is read there tells a longer one.
READ_BYTES = MAX_BYTES + 512


def content(head: bytes) -> bytes:
    """The file on a disk whose first ``READ_BYTES`` (or all, where it is smaller) are ``head``.

    Raises ``FormatError`` ``instance-size`` for an empty disk and for a file of
    more than ``MAX_BYTES``.
    """
    found = head.rstrip(b"\0")
    check_size(found)
    return found


def check_size(data: bytes) -> None:
    """Refuse a file that no disk can carry; ``FormatError`` ``instance-size``."""
    if not 0 < len(data) <= MAX_BYTES:
        said = "it is empty" if not data else f"it has more than {MAX_BYTES} bytes"
        raise FormatError("instance-size", f"no instance configuration: {said}")
