# SPDX-License-Identifier: Apache-2.0
"""The directory of ``--state``: one file for each guest whose evidence passed.

Serves ``troth verify evidence``. A file is replaced whole or not at all. Must
never make the directory: a mistyped path would remember nothing, and pass.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from troth.errors import UsageError
from troth.verify import seen

if TYPE_CHECKING:
    from troth.verify.seen import Seen


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
        with path.open("rb") as file:
            data = file.read(seen.LIMIT_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _wrong(f"cannot be read: {error.strerror}", path) from None
    return seen.parse(data, report_id=report_id, where=str(path))


def put(folder: str, guest: Seen) -> None:
    """Remember ``guest``. Raises ``UsageError`` ``state-directory``."""
    path = Path(folder) / seen.file_name(guest.report_id)
    # Beside the file, and of this process: two verifiers may look at one guest.
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with new.open("wb") as file:
            file.write(seen.print_(guest))
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        raise _wrong(f"cannot be written: {error.strerror}", path) from None


def _wrong(message: str, path: Path) -> UsageError:
    return UsageError("state-directory", message, where=str(path), hint="check the path and mode")
