# SPDX-License-Identifier: Apache-2.0
"""Walking file trees: names of the rootfs, and the entries a workload digest covers.

Never crosses into another file system when told not to, never follows links.
"""

from __future__ import annotations

import errno
import os
import stat

from troth.abi.hashes import sha256
from troth.linux import syscalls
from troth.measure.workload import Entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK_BYTES = 1 << 18
_KINDS = {
    stat.S_IFREG: "f",
    stat.S_IFDIR: "d",
    stat.S_IFLNK: "l",
    stat.S_IFCHR: "c",
    stat.S_IFBLK: "b",
    stat.S_IFIFO: "p",
    stat.S_IFSOCK: "s",
}
_RESOLVE_IN_ROOT = 0x10  # include/uapi/linux/openat2.h


def open_inside(root: str, path: str) -> int:
    """An O_PATH descriptor of ``path`` as a process chrooted to ``root`` would find it."""
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = os.O_PATH | os.O_CLOEXEC
        how = flags.to_bytes(8, "little") + bytes(8) + _RESOLVE_IN_ROOT.to_bytes(8, "little")
        return syscalls.openat2(directory, path, how=how)
    finally:
        os.close(directory)


def names(top: str) -> set[str]:
    """``"<kind> <path>"`` of everything below ``top`` on its own file system.

    Kinds as in ``measure.workload``; only ``f d l`` are told apart from ``o``.
    """
    found: set[str] = set()
    waiting = [""]
    while waiting:
        base = waiting.pop()
        with os.scandir(f"{top}/{base}") as listing:
            for entry in listing:
                path = base + entry.name
                if entry.is_symlink():
                    found.add("l " + path)
                elif entry.is_dir():
                    found.add("d " + path)
                    waiting.append(path + "/")
                elif entry.is_file():
                    found.add("f " + path)
                else:
                    found.add("o " + path)
    return found


def entries(root: str, path: str) -> Iterator[Entry]:
    """The tree at ``root``/``path`` for the workload digest, ``path`` itself included."""
    waiting = [path.strip("/").encode()]
    base = root.encode() + b"/"
    while waiting:
        name = waiting.pop()
        status = os.lstat(base + name)
        kind = _KINDS[stat.S_IFMT(status.st_mode)]
        content = b""
        if kind == "d":
            waiting.extend(name + b"/" + child for child in os.listdir(base + name))
        elif kind == "f":
            content = _file_digest(base + name)
        elif kind == "l":
            content = os.readlink(base + name)
        elif kind in "cb":
            content = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}".encode()
        yield Entry(
            path=name,
            kind=kind,
            mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid,
            gid=status.st_gid,
            size_bytes=status.st_size,
            content=content,
            attributes=_security(base + name),
        )


def _file_digest(path: bytes) -> bytes:
    total = sha256()
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        while chunk := os.read(fd, _CHUNK_BYTES):
            total.update(chunk)
    finally:
        os.close(fd)
    return total.digest()


def _security(path: bytes) -> tuple[tuple[bytes, bytes], ...]:
    try:
        listed = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        # The file system has no attributes at all; it cannot carry security ones either.
        return ()
    return tuple(
        (name.encode(), os.getxattr(path, name, follow_symlinks=False))
        for name in sorted(listed)
        if name.startswith("security.")
    )
