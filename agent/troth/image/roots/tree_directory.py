# SPDX-License-Identifier: Apache-2.0
"""A directory of the build host into a ``RootTree``, each file read once.

Serves ``root``, ``module_tree`` and verity volumes. A directory's owners and
times belong to whoever checked it out, so they are not taken over; modes are,
setuid bits and file capabilities included. It must never follow a link.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from troth.errors import BuildError
from troth.image.roots.root_tree import DIRECTORY, FILE, LINK, Entry, RootTree, check_path

if TYPE_CHECKING:
    from pathlib import Path

_KEPT_ATTRIBUTES = ("security.capability",)


def add(tree: RootTree, source: Path, *, below: str = "", leave_out: tuple[str, ...] = ()) -> None:
    """Copy the directory ``source`` into ``tree`` at ``below``, in sorted order, as root's.

    ``leave_out``: names at its top that are not copied.
    Raises ``BuildError`` ``source-file`` for what is neither file, directory nor link.
    """
    links: dict[tuple[int, int], str] = {}
    top = os.stat(source)
    tree.add_directory(below, Entry(DIRECTORY, mode=stat.S_IMODE(top.st_mode)))
    todo = [(os.fspath(source), below)]
    while todo:
        folder, inside = todo.pop()
        with os.scandir(folder) as listing:
            found = sorted(listing, key=lambda item: os.fsencode(item.name))
        for item in found:
            if inside == below and item.name in leave_out:
                continue
            path = f"{inside}/{item.name}" if inside else item.name
            check_path(path, where=tree.where)
            status = item.stat(follow_symlinks=False)
            mode = stat.S_IMODE(status.st_mode)
            if stat.S_ISDIR(status.st_mode):
                tree.add_directory(path, Entry(DIRECTORY, mode=mode))
                todo.append((item.path, path))
            elif stat.S_ISLNK(status.st_mode):
                target = os.readlink(item.path)
                tree.add_link(path, Entry(LINK, mode=0o777, target=target))
            elif stat.S_ISREG(status.st_mode):
                key = (status.st_dev, status.st_ino)
                if status.st_nlink > 1 and key in links:
                    tree.add_hard_link(path, links[key])
                    continue
                links[key] = path
                _add_file(tree, path, item.path, mode, status.st_size)
            else:
                raise BuildError(
                    "source-file",
                    f"{item.path} is a device node, fifo or socket",
                    where=tree.where,
                    hint="remove it; a tar can record device nodes",
                )


def _add_file(tree: RootTree, path: str, source: str, mode: int, size_bytes: int) -> None:
    file = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        try:
            names = [name for name in os.listxattr(file) if name in _KEPT_ATTRIBUTES]
        except OSError:  # a file system without attributes
            names = []
        attributes = tuple((name, os.getxattr(file, name)) for name in sorted(names))
        entry = Entry(FILE, mode=mode, size_bytes=size_bytes, attributes=attributes)
        tree.add_file(path, entry, file)
    finally:
        os.close(file)
