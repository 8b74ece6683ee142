# SPDX-License-Identifier: Apache-2.0
"""The audit log: one JSON object a line for every decision, appended and never changed.

Serves the operator, who reads there why a guest was refused; the guest itself is
told a public reason only (SECURITY S41). A line about a key is on the disk before
the key leaves. Must never hold a key, a token, or a cookie; what guests sent goes
in as JSON text, cut, so that no line can be forged; what strangers sent goes in now
and then, so that none of them can fill the disk and stop the broker by that.

Format: docs/formats.md, "Audit log".
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import threading
from typing import TYPE_CHECKING

from troth.documents import instant
from troth.errors import HostError
from troth.keybroker.rate import Limit, Rate, counted_as
from troth.record import record, replace

if TYPE_CHECKING:
    from pathlib import Path

FILE_NAME = "audit.jsonl"
_MAX_TEXT = 2000
#: Some lines, since who sets a broker up fails a few times; then one a minute.
STRANGER = Limit(8, 1 / 60)
STRANGERS = Limit(200, 2)


@record
class Decided:
    """One decision. ``event``: what was asked for; ``code``: what was decided; ``peer``: address;
    ``detail``: for people; ``left_out``: how many before it were not written, see
    ``AuditLog.write_stranger``; the others where they are known.
    """  # noqa: D205 - the fields are the summary

    event: str
    code: str
    peer: str
    detail: str = ""
    left_out: int = 0
    report_id: bytes = b""
    measurement: bytes = b""
    image: str = ""
    svn: int = 0
    resource: str = ""
    state: str = ""
    generation: int = 0
    over: bytes = b""


class AuditLog:
    """Appends to the file in ``folder``. Raises ``HostError`` ``broker-audit``."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        self._lock = threading.Lock()
        self._strangers = Rate(STRANGER, STRANGERS)
        self._left_out = 0
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._fd = os.open(self._path, flags, 0o600)
        except OSError as error:
            raise self._failed(error) from None

    def write(self, entry: Decided, *, at: int, sync: bool = False) -> None:
        """Append ``entry``; ``sync``: return only when it is on the disk.

        Raises ``HostError`` ``broker-audit``: what cannot be written down must not happen.
        """
        data = line(entry, at=at)
        try:
            with self._lock:
                self._append(data)
            if sync:
                os.fdatasync(self._fd)
        except OSError as error:
            raise self._failed(error) from None

    def write_stranger(self, entry: Decided, *, at: int, now: float) -> None:
        """Append what became of evidence that no processor has signed, unless there is too much.

        ``now``: seconds of a clock that only goes forward. What is left out is counted in
        the next line that is not. Raises as ``write``.
        """
        with self._lock:
            if not self._strangers.take(counted_as(entry.peer), now=now):
                self._left_out += 1
                return
            left_out, self._left_out = self._left_out, 0
        self.write(replace(entry, left_out=left_out), at=at)

    def _append(self, data: bytes) -> None:
        """All of ``data``, or nothing: half a line would take the next one with it."""
        # An operator's command may append at the same time.
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            written = os.write(self._fd, data)
            if written != len(data):
                end = os.fstat(self._fd).st_size
                if end >= written:
                    os.ftruncate(self._fd, end - written)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """No entry may follow."""
        os.close(self._fd)

    def _failed(self, error: OSError) -> HostError:
        return HostError(
            "broker-audit", f"cannot be written: {error.strerror}", where=str(self._path)
        )


def line(entry: Decided, *, at: int) -> bytes:
    """The line of ``entry``; members that say nothing are left out."""
    tree: dict[str, object] = {"time": instant.print_(at)}
    for name in entry.__match_args__:
        value = getattr(entry, name)
        if isinstance(value, bytes):
            value = value.hex()
        if isinstance(value, str):
            value = value[:_MAX_TEXT]
        if value:
            tree[name] = value
    return json.dumps(tree, separators=(",", ":")).encode() + b"\n"
