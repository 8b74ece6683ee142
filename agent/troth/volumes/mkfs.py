# SPDX-License-Identifier: Apache-2.0
"""An empty file system on a volume's first boot: the distribution's own program makes it.

Serves ``volumes.filling`` in the key worker, and ``volumes.laid_out`` on the host. Must never
run on anything but a map of dm-crypt or a new file: it overwrites.
"""

from __future__ import annotations

import os

from troth.errors import FormatError

#: The program's name, which the packer looks up too.
PROGRAM = "mke2fs"
PATH = f"/usr/sbin/{PROGRAM}"
#: Below this ext4 has no room for its journal.
LEAST_BYTES = 8 << 20

_CHUNK_BYTES = 1 << 20
#: Dirty pages are written out and dropped after this much, or they fill the guest's memory.
_FLUSH_BYTES = 16 << 20
# Nothing is left to be initialised later: an unwritten sector of an authenticated volume
# cannot be read. No discard: the host would learn what is in use.
_OPTIONS = "lazy_itable_init=0,lazy_journal_init=0,nodiscard"
# Of dm-crypt's sectors: smaller ones cannot be mounted there, and a small file gets smaller ones.
_BLOCK_BYTES = "4096"
_SHOWN_BYTES = 200


def zero(node: str, size_bytes: int) -> None:
    """Write zeros over all ``size_bytes`` of ``node``; they are on the disk when this returns."""
    chunk = bytes(_CHUNK_BYTES)
    fd = os.open(node, os.O_WRONLY | os.O_CLOEXEC)
    try:
        flushed = done = 0
        while done < size_bytes:
            done += os.write(fd, chunk[: size_bytes - done])
            if done - flushed >= _FLUSH_BYTES:
                os.fdatasync(fd)
                os.posix_fadvise(fd, flushed, done - flushed, os.POSIX_FADV_DONTNEED)
                flushed = done
        os.fsync(fd)
    finally:
        os.close(fd)


def make(node: str, file_system: str, *, uuid: str) -> None:
    """``file_system`` with ``uuid`` on ``node``, flushed; ``FormatError`` ``volume-mkfs``."""
    words = (
        PATH, "-q", "-F", "-t", file_system, "-b", _BLOCK_BYTES, "-U", uuid, "-E", _OPTIONS, node,
    )  # fmt: skip
    said, says = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.posix_spawn(
            PATH, words, {"LC_ALL": "C"},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, says, 1),
                (os.POSIX_SPAWN_DUP2, says, 2),
            ],
        )  # fmt: skip
    except OSError as error:
        os.close(said)
        raise FormatError("volume-mkfs", f"{PATH}: {error.strerror}") from None
    finally:
        os.close(says)
    text = b""
    while part := os.read(said, 4096):
        text = (text + part)[:_SHOWN_BYTES]
    os.close(said)
    _, status = os.waitpid(pid, 0)
    if status:
        shown = ascii(text.decode("ascii", "replace"))[1:-1]
        raise FormatError("volume-mkfs", f"{PROGRAM} ended with status {status}: {shown}")
    fd = os.open(node, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
