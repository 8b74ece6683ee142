# SPDX-License-Identifier: Apache-2.0
"""The file that ``-o`` names: written beside its place, and moved there when it is whole.

Serves the verbs that write one file. What was there before stays until then, and may be
what the verb reads. Must never put a file in the place of a device or a pipe: as
root, ``-o /dev/null`` would take that away from the whole machine.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from troth.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

# What only writing meets; any other error may be of what the block reads.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write(name: str, data: bytes) -> None:
    """Write ``data`` to the file ``name``; ``UsageError`` ``output-file``."""
    with replaced(name) as stream:
        stream.write(data)


def spare(name: str, *inputs: str | os.PathLike[str]) -> None:
    """Refuse to write ``name`` where it is one of ``inputs``, by whatever path.

    For verbs whose result is no replacement of what they read. Raises
    ``UsageError`` ``output-file``.
    """
    for path in inputs:
        try:
            same = os.path.isfile(path) and os.path.samefile(name, path)
        except OSError:
            continue
        if same:
            raise UsageError(
                "output-file",
                "cannot be written: it is read for this, and would be lost",
                where=name,
                hint="name another file",
            )


@contextlib.contextmanager
def replaced(name: str) -> Iterator[BinaryIO]:
    """A stream that becomes the file ``name`` when the block ends well; it can be read again.

    A link is followed, and stays. A pipe or a device gets the bytes at the end of
    the block. Raises ``UsageError`` ``output-file``, and what the block raises.
    """
    if _is_special(name):
        with tempfile.TemporaryFile() as stream:
            yield stream
            stream.seek(0)
            try:
                with open(name, "wb") as special:
                    shutil.copyfileobj(stream, special)
            except OSError as error:
                raise _unwritable(name, error) from None
    else:
        with _beside(name, Path(os.path.realpath(name))) as stream:
            yield stream


def _is_special(name: str) -> bool:
    """Whether ``name`` is there and neither file nor directory; the last is refused."""
    try:
        # Of the name itself: where /dev/stdout is a pipe, it leads to a path that is not there.
        mode = os.stat(name).st_mode
    except FileNotFoundError:
        mode = stat.S_IFDIR if not name or name.endswith("/") else stat.S_IFREG
    except OSError as error:
        raise _unwritable(name, error) from None
    if stat.S_ISDIR(mode):
        raise UsageError("output-file", "cannot be written: a directory", where=name)
    return not stat.S_ISREG(mode)


@contextlib.contextmanager
def _beside(name: str, target: Path) -> Iterator[BinaryIO]:
    try:
        descriptor, made = tempfile.mkstemp(prefix=f".{target.name[:100]}.", dir=target.parent)
    except OSError as error:
        raise _unwritable(name, error) from None
    temporary = Path(made)
    try:
        with os.fdopen(descriptor, "w+b") as stream:
            yield stream
            stream.flush()
        try:
            mask = os.umask(0)
            os.umask(mask)
            temporary.chmod(0o666 & ~mask)
            temporary.replace(target)
        except OSError as error:
            raise _unwritable(name, error) from None
    except OSError as error:
        if error.errno in _FULL:
            raise _unwritable(name, error) from None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _unwritable(name: str, error: OSError) -> UsageError:
    return UsageError("output-file", f"cannot be written: {error.strerror}", where=name)
