# SPDX-License-Identifier: Apache-2.0
"""The directory of ``--state``: one file for each guest whose evidence passed.

Serves ``troth verify evidence``. A file is replaced whole or not at all. Must
never make the directory: a mistyped path would remember nothing, and pass. Must
never wait for what lies there, write through a link, or remember less than it did.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

from troth.errors import UsageError
from troth.verify import seen

if TYPE_CHECKING:
    from troth.verify.seen import Seen

TURN_S = 5.0
_POLL_S = 0.02
# A pipe must not make us wait, nor a link lead elsewhere.
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


def find(folder: str, report_id: bytes) -> Seen | None:
    """What is remembered of the guest ``report_id``, None where it is new.

    Raises ``UsageError`` ``state-directory``; ``FormatError`` for a file that is none.
    """
    path = Path(folder) / seen.file_name(report_id)
    if not Path(folder).is_dir():
        raise UsageError(
            "state-directory", "is no directory", where=folder, hint="make it, once, and keep it"
        )
    try:
        fd = os.open(path, _READ)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _wrong(f"cannot be read: {error.strerror}", path) from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise _wrong("is no file", path)
        data = os.read(fd, seen.LIMIT_BYTES + 1)
    finally:
        os.close(fd)
    return seen.parse(data, report_id=report_id, where=str(path))


def put(folder: str, guest: Seen) -> None:
    """Remember ``guest``, unless a longer log is remembered meanwhile.

    Raises as ``find`` does.
    """
    path = Path(folder) / seen.file_name(guest.report_id)
    # Beside the file, and of this process: two verifiers may look at one guest.
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _wrong(f"cannot be opened: {error.strerror}", Path(folder)) from None
    try:
        _take(lock, path)
        known = find(folder, guest.report_id)
        if known is not None and known.records > guest.records:
            return
        new.unlink(missing_ok=True)
        with open(os.open(new, _NEW, 0o644), "wb") as file:
            file.write(seen.print_(guest))
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        raise _wrong(f"cannot be written: {error.strerror}", path) from None
    finally:
        os.close(lock)


def _take(lock: int, path: Path) -> None:
    """The turn among verifiers that remember; each needs it for a moment."""
    deadline_s = time.monotonic() + TURN_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline_s:
                raise _wrong("another process keeps the directory locked", path) from None
            time.sleep(_POLL_S)
        else:
            return


def _wrong(message: str, path: Path) -> UsageError:
    return UsageError("state-directory", message, where=str(path), hint="check the path and mode")
