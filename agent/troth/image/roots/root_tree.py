# SPDX-License-Identifier: Apache-2.0
"""A file tree on its way into an image: contents in a private directory, all else in memory.

Serves the root image and verity volumes. Owners, modes, device nodes and
attributes live in ``entries`` only, so a tree is the same whoever builds it
and no setuid file or device node ever exists on the build host. Nothing can be
written outside the directory: every parent must be a directory entry of this
tree, and is opened component by component without following links.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Self

from troth.errors import BuildError
from troth.record import record

if TYPE_CHECKING:
    from collections.abc import Iterable
    from io import BufferedReader
    from pathlib import Path
    from types import TracebackType

FILE = "file"
DIRECTORY = "directory"
LINK = "link"
CHARACTER = "character"
BLOCK = "block"
FIFO = "fifo"

MODE_BITS = {
    FILE: stat.S_IFREG,
    DIRECTORY: stat.S_IFDIR,
    LINK: stat.S_IFLNK,
    CHARACTER: stat.S_IFCHR,
    BLOCK: stat.S_IFBLK,
    FIFO: stat.S_IFIFO,
}

MAX_ENTRIES = 4_000_000
_MAX_PATH_BYTES = 4095
_MAX_NAME_BYTES = 255
_MAX_DEPTH = 256
_MAX_LINKS = 40  # what the kernel follows


@record
class Entry:
    """One entry; its path is the key in ``RootTree.entries``.

    ``mode``: twelve permission bits; ``target``: of a symbolic link;
    ``device``: (major, minor) of a node; ``attributes``: extended attributes,
    sorted by name; ``same_as``: the path of the file this is a hard link to,
    which has all other values.
    """

    kind: str
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    size_bytes: int = 0
    target: str = ""
    device: tuple[int, int] = (0, 0)
    attributes: tuple[tuple[str, bytes], ...] = ()
    same_as: str = ""


def check_path(path: str, *, where: str = "") -> str:
    """``path`` relative and normalised (``./`` and a final slash taken off), or refused.

    Raises ``BuildError`` ``tree-path``. The root itself is the empty string.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    try:
        too_long = (
            len(parts) > _MAX_DEPTH
            or len(os.fsencode(path)) > _MAX_PATH_BYTES
            or any(len(os.fsencode(part)) > _MAX_NAME_BYTES for part in parts)
        )
    except UnicodeEncodeError:
        too_long = True
    if path.startswith("/") or ".." in parts or "\0" in path or too_long:
        raise BuildError(
            "tree-path",
            f"the path {path[:200]!r} is absolute, holds .. or is too long",
            where=where,
            hint="make the archive inside the root directory: tar -C ROOT -cf ROOT.tar .",
        )
    return "/".join(parts)


class RootTree:
    """Entries by path ("" is the root), sorted when asked; contents below ``folder``.

    ``doubts``: paths of which something is not known, with what; the empty path for all.
    """

    def __init__(self, folder: Path, *, where: str = "") -> None:
        folder.mkdir(mode=0o700)
        self.folder = folder
        self.where = where
        self.entries: dict[str, Entry] = {"": Entry(DIRECTORY)}
        self.doubts: dict[str, str] = {}
        self._root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._parent = ""
        self._parent_fd = os.dup(self._root)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give up the directory of contents; entries stay."""
        os.close(self._parent_fd)
        os.close(self._root)

    def _refuse(self, code: str, message: str, *, hint: str = "") -> BuildError:
        return BuildError(code, message, where=self.where, hint=hint)

    def _place(self, path: str) -> tuple[int, str]:
        """Descriptor of the parent of ``path`` and the last component; refuses what is taken."""
        parent, _, name = path.rpartition("/")
        if path in self.entries:
            raise self._refuse("tree-duplicate", f"{path!r} occurs twice")
        if len(self.entries) >= MAX_ENTRIES:
            raise self._refuse("tree-size", f"more than {MAX_ENTRIES} entries")
        self._need_directory(parent, path)
        if parent != self._parent:
            found = os.dup(self._root)
            for part in parent.split("/") if parent else ():
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                below = os.open(part, flags, dir_fd=found)
                os.close(found)
                found = below
            os.close(self._parent_fd)
            self._parent, self._parent_fd = parent, found
        return self._parent_fd, name

    def _need_directory(self, parent: str, path: str) -> None:
        entry = self.entries.get(parent)
        if entry is None:
            # Archives may leave directories out; they get the mode that mkdir would give.
            parts = parent.split("/")
            for count in range(1, len(parts) + 1):
                above = "/".join(parts[:count])
                if above not in self.entries:
                    self.add_directory(above, Entry(DIRECTORY))
                elif self.entries[above].kind != DIRECTORY:
                    self._need_directory(above, path)
        elif entry.kind != DIRECTORY:
            raise self._refuse(
                "tree-through-link",
                f"{path!r} would be written through {parent!r}, which is a {entry.kind}",
            )

    def add_directory(self, path: str, entry: Entry) -> None:
        """Add a directory; one that is there already takes the new mode and owner."""
        old = self.entries.get(path)
        if old is None:
            parent_fd, name = self._place(path)
            os.mkdir(name, 0o700, dir_fd=parent_fd)
        elif old.kind != DIRECTORY:
            raise self._refuse("tree-duplicate", f"{path!r} occurs twice")
        self.entries[path] = entry

    def add_file(self, path: str, entry: Entry, content: Iterable[bytes] | int) -> None:
        """Add a file with ``content``: pieces, or an open descriptor to copy from."""
        parent_fd, name = self._place(path)
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        output = os.open(name, flags, 0o600, dir_fd=parent_fd)
        try:
            if isinstance(content, int):
                written = _copy(content, output)
            else:
                written = 0
                for piece in content:
                    _write(output, piece)
                    written += len(piece)
        finally:
            os.close(output)
        if written != entry.size_bytes:
            raise self._refuse(
                "tree-changed", f"{path!r} has {written} bytes, not {entry.size_bytes}"
            )
        self.entries[path] = entry

    def add_link(self, path: str, entry: Entry) -> None:
        """Add a symbolic link to ``entry.target``, whatever that is."""
        if not 0 < len(os.fsencode(entry.target)) <= _MAX_PATH_BYTES or "\0" in entry.target:
            raise self._refuse("tree-path", f"{path!r} has no target a link can have")
        parent_fd, name = self._place(path)
        os.symlink(entry.target, name, dir_fd=parent_fd)
        self.entries[path] = entry

    def add_node(self, path: str, entry: Entry) -> None:
        """Add a device node or fifo: an empty file here, a node in the image."""
        parent_fd, name = self._place(path)
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(name, flags, 0o600, dir_fd=parent_fd))
        self.entries[path] = entry

    def add_hard_link(self, path: str, other: str) -> None:
        """Add ``path`` as another name of the file ``other``, which must be there."""
        first = self.entries.get(other)
        if first is None or first.kind != FILE:
            raise self._refuse(
                "tree-hard-link", f"{path!r} is a hard link to {other!r}, which is no earlier file"
            )
        parent_fd, name = self._place(path)
        os.link(other, name, src_dir_fd=self._root, dst_dir_fd=parent_fd, follow_symlinks=False)
        self.entries[path] = Entry(
            FILE,
            mode=first.mode,
            uid=first.uid,
            gid=first.gid,
            size_bytes=first.size_bytes,
            attributes=first.attributes,
            same_as=first.same_as or other,
        )

    def resolve(self, path: str) -> str | None:
        """Where the absolute ``path`` leads inside this tree, links followed; None for nowhere."""
        todo = [part for part in reversed(path.split("/")) if part]
        at: list[str] = []
        followed = 0
        while todo:
            part = todo.pop()
            if part in ("", "."):
                continue
            if part == "..":
                at = at[:-1]
                continue
            here = "/".join((*at, part))
            entry = self.entries.get(here)
            if entry is None:
                return None
            if entry.kind == LINK:
                followed += 1
                if followed > _MAX_LINKS:
                    return None
                if entry.target.startswith("/"):
                    at = []
                todo.extend(part for part in reversed(entry.target.split("/")) if part)
            elif entry.kind != DIRECTORY and todo:
                return None
            else:
                at.append(part)
        return "/".join(at)

    def read(self, path: str, *, limit_bytes: int = 1 << 20) -> bytes:
        """The first ``limit_bytes`` of the file at ``path``, a key of ``entries``."""
        with self.open(path) as stream:
            return stream.read(limit_bytes)

    def open(self, path: str) -> BufferedReader:
        """The content of the file at ``path``, a key of ``entries``, for reading."""
        # The path is one of our own entries: no component of it is a link.
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._root)
        return os.fdopen(file, "rb")


def _write(output: int, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(output, view) :]


def _copy(source: int, output: int) -> int:
    size_bytes = 0
    while True:
        try:
            count = os.copy_file_range(source, output, 1 << 30)
        except OSError:
            # Not between these file systems, or not at all: copy by hand from where we are.
            while piece := os.read(source, 1 << 20):
                _write(output, piece)
                size_bytes += len(piece)
            return size_bytes
        if count == 0:
            return size_bytes
        size_bytes += count
