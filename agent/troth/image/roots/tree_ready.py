# SPDX-License-Identifier: Apache-2.0
"""A ready image as a ``RootTree``: contents unpacked for looking at, all else as a guest sees it.

Serves ``root``. Contents come from the file system's own tool, run under
``fakeroot``, since nobody but root could unpack owners and device nodes. What
it unpacks on this machine's file system is not what is in the image, so the
rest is read elsewhere: of erofs from the inodes (``abi.erofs``), of squashfs
within the same fakeroot session, of ext4 from ``debugfs``. Where that fails
the tree carries a doubt, and no workload digest is predicted from it.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from typing import TYPE_CHECKING

from troth.abi import erofs
from troth.errors import BuildError, FormatError
from troth.image import program
from troth.image.roots.root_tree import (
    BLOCK,
    CHARACTER,
    DIRECTORY,
    FIFO,
    FILE,
    LINK,
    Entry,
    RootTree,
    check_path,
)
from troth.record import record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_KINDS = {
    stat.S_IFREG: FILE,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFLNK: LINK,
    stat.S_IFCHR: CHARACTER,
    stat.S_IFBLK: BLOCK,
    stat.S_IFIFO: FIFO,
}
#: Attributes that the workload digest covers; others do not bear on what a guest may do.
_COUNTED = "security."
# Runs the tool, then says what fakeroot makes the unpacked tree look like.
_LISTER = """\
import json, os, subprocess, sys
top = os.fsencode(sys.argv[1])
subprocess.run(sys.argv[2:], check=True, stdout=sys.stderr)
rows, todo = [], [b""]
while todo:
    path = todo.pop()
    full = os.path.join(top, path) if path else top
    s = os.lstat(full)
    names = [] if not hasattr(os, "listxattr") else os.listxattr(full, follow_symlinks=False)
    names = [name for name in names if name.startswith("security.")]
    values = [[n, os.getxattr(full, n, follow_symlinks=False).hex()] for n in names]
    rows.append([os.fsdecode(path), s.st_ino, s.st_mode, s.st_uid, s.st_gid, s.st_size,
                 os.major(s.st_rdev), os.minor(s.st_rdev), sorted(values)])
    if s.st_mode & 0o170000 == 0o040000:
        todo += [os.path.join(path, name) for name in os.listdir(full)]
json.dump(rows, sys.stdout)
"""
_ROW = re.compile(rb"/(\d+)/([0-7]{6})/(-?\d+)/(-?\d+)/([^/]+)/(\d*)/")
_ATTRIBUTE = re.compile(rb"  (\S+) \(\d+\)(?: = .*)?")
_VALUE = re.compile(rb"(\S+) \((\d+)\) = ([0-9a-f ]*)")
# Numbers above 255 are in the second form of fs/ext4/inode.c, which is noted in front.
_DEVICE = re.compile(rb"(?:\(New-style\) )?Device major/minor number: (\d+):(\d+) ")


@record
class _Found:
    """What an image says of one path; ``number``: the same for all names of one file."""

    path: str
    number: int
    mode: int
    uid: int
    gid: int
    size_bytes: int
    device: tuple[int, int]
    attributes: tuple[tuple[str, bytes], ...]


class _UnreadableError(Exception):
    """Metadata that the tools do not say in a way that can be relied on."""


def read(image: Path, file_system: str, *, work: Path, where: str = "") -> RootTree:
    """The tree in a ready ``image``, as a guest will see it.

    Paths whose metadata or content could not be had are named in the tree's
    ``doubts``. Raises ``BuildError`` ``ready-image``; ``HostError`` ``program-missing``.
    """
    tree = RootTree(work / "ready", where=where)
    folder = os.fspath(tree.folder)
    said = b""
    try:
        if file_system == "erofs":
            argv = ["fsck.erofs", f"--extract={folder}", "--overwrite", "--no-preserve"]
            program.run(["fakeroot", "--", *argv, str(image)])
        elif file_system == "squashfs":
            argv = ["unsquashfs", "-quiet", "-no-progress", "-force", "-dest", folder, str(image)]
            python = [sys.executable, "-I", "-c", _LISTER, folder]
            said = program.run(["fakeroot", "--", *python, *argv])
        else:
            argv = ["debugfs", "-R", f'rdump / "{folder}"', str(image)]
            program.run(["fakeroot", "--", *argv])
    except BuildError as error:
        raise BuildError(
            "ready-image", f"not a sound {file_system} image: {error.message}", where=where
        ) from None
    try:
        if file_system == "erofs":
            found = list(_erofs(image))
        elif file_system == "squashfs":
            found = list(_listed(said))
        else:
            found = list(_ext4(image, work))
    except _UnreadableError as error:
        tree.doubts[""] = str(error)
        found = list(_unpacked(tree))
    _fill(tree, found)
    return tree


def _fill(tree: RootTree, found: list[_Found]) -> None:
    first: dict[int, str] = {}
    for item in sorted(found, key=lambda item: item.path):
        check_path(item.path, where=tree.where)
        kind = _KINDS.get(stat.S_IFMT(item.mode))
        if kind is None:
            tree.doubts[item.path] = "is a socket"
            continue
        place = os.path.join(tree.folder, item.path)
        target = ""
        try:
            if kind == LINK:
                target = os.readlink(place)
            elif kind == FILE and os.lstat(place).st_size != item.size_bytes:
                tree.doubts[item.path] = "was not unpacked whole"
        except OSError as error:
            tree.doubts[item.path] = f"was not unpacked: {error.strerror}"
        tree.entries[item.path] = Entry(
            kind,
            mode=stat.S_IMODE(item.mode),
            uid=item.uid,
            gid=item.gid,
            size_bytes=item.size_bytes if kind == FILE else 0,
            target=target,
            device=item.device if kind in (CHARACTER, BLOCK) else (0, 0),
            attributes=item.attributes,
            same_as=first.get(item.number, "") if kind == FILE else "",
        )
        if kind == FILE:
            first.setdefault(item.number, item.path)


def _erofs(image: Path) -> Iterator[_Found]:
    try:
        with image.open("rb") as file:
            for path, inode in erofs.walk(file, where=str(image)):
                counted = tuple(pair for pair in inode.attributes if pair[0].startswith(_COUNTED))
                yield _Found(
                    os.fsdecode(path), inode.number, inode.mode, inode.uid, inode.gid,
                    inode.size_bytes, inode.device, counted,
                )  # fmt: skip
    except FormatError as error:
        raise _UnreadableError(error.message) from None


def _listed(said: bytes) -> Iterator[_Found]:
    for path, number, mode, uid, gid, size_bytes, major, minor, values in json.loads(said):
        attributes = tuple((name, bytes.fromhex(value)) for name, value in values)
        yield _Found(path, number, mode, uid, gid, size_bytes, (major, minor), attributes)


def _unpacked(tree: RootTree) -> Iterator[_Found]:
    """Names and kinds at least, for everything that asks for no more."""
    todo = [""]
    while todo:
        path = todo.pop()
        full = os.path.join(tree.folder, path) if path else os.fspath(tree.folder)
        status = os.lstat(full)
        yield _Found(path, status.st_ino, status.st_mode, 0, 0, status.st_size, (0, 0), ())
        if stat.S_ISDIR(status.st_mode):
            todo += [os.path.join(path, name) for name in os.listdir(full)]


def _ext4(image: Path, work: Path) -> Iterator[_Found]:
    found = list(_rows(image, work))
    nodes = {
        item.number for item in found if _KINDS.get(stat.S_IFMT(item.mode)) in (BLOCK, CHARACTER)
    }
    numbers = sorted({item.number for item in found})
    verbs = [f"{'stat' if number in nodes else 'ea_list'} <{number}>" for number in numbers]
    devices: dict[int, tuple[int, int]] = {}
    asked: list[tuple[int, str]] = []
    for number, lines in zip(numbers, _debugfs(image, work, verbs), strict=True):
        if number in nodes:
            shown = [match for line in lines if (match := _DEVICE.match(line))]
            if len(shown) != 1:
                raise _UnreadableError(f"debugfs does not say which device inode {number} is")
            devices[number] = (int(shown[0][1]), int(shown[0][2]))
            begin = next((n for n, s in enumerate(lines) if s == b"Extended attributes:"), None)
            lines = [] if begin is None else lines[begin:]  # noqa: PLW2901 - what is left of them
        names = [match[1] for line in lines if (match := _ATTRIBUTE.fullmatch(line))]
        if number not in nodes and lines and len(names) != len(lines) - 1:
            raise _UnreadableError(f"inode {number} has attributes that debugfs cannot show")
        asked += [
            (number, name.decode("ascii", "surrogateescape"))
            for name in names
            if name.startswith(_COUNTED.encode())
        ]
    values = _values(image, work, asked)
    for item in found:
        yield _Found(
            item.path, item.number, item.mode, item.uid, item.gid, item.size_bytes,
            devices.get(item.number, (0, 0)), tuple(sorted(values.get(item.number, ()))),
        )  # fmt: skip


def _rows(image: Path, work: Path) -> Iterator[_Found]:
    """All entries, directory by directory, a depth at a time."""
    level = [("", 2)]  # the root of every ext file system
    seen = {2}
    top = True
    while level:
        listings = _debugfs(image, work, [f"ls -p <{number}>" for _, number in level])
        below = []
        for (path, own), lines in zip(level, listings, strict=True):
            itself = False
            for line in lines:
                match = _ROW.fullmatch(line)
                if match is None:
                    raise _UnreadableError(f"/{path} has a name that debugfs cannot show")
                number, mode = int(match[1]), int(match[2], 8)
                uid, gid = int(match[3]) % 2**32, int(match[4]) % 2**32
                name, size_bytes = os.fsdecode(match[5]), int(match[6] or 0)
                if name == ".":
                    itself = number == own
                    if top:
                        yield _Found("", number, mode, uid, gid, 0, (0, 0), ())
                    continue
                if name == "..":
                    continue
                inside = f"{path}/{name}" if path else name
                yield _Found(inside, number, mode, uid, gid, size_bytes, (0, 0), ())
                if stat.S_ISDIR(mode):
                    if number in seen:
                        raise _UnreadableError(f"/{inside} is a directory with two names")
                    seen.add(number)
                    below.append((inside, number))
            if not itself:
                raise _UnreadableError(f"debugfs cannot list /{path}")
        level, top = below, False


def _values(
    image: Path, work: Path, asked: list[tuple[int, str]]
) -> dict[int, list[tuple[str, bytes]]]:
    if any(not re.fullmatch(r"[!#-~]+", name) for _, name in asked):
        raise _UnreadableError("an attribute has a name that debugfs cannot be told")
    found: dict[int, list[tuple[str, bytes]]] = {}
    verbs = [f'ea_get -x <{number}> "{name}"' for number, name in asked]
    for (number, name), lines in zip(asked, _debugfs(image, work, verbs), strict=True):
        match = _VALUE.fullmatch(b"".join(lines))
        data = bytes.fromhex(match[3].decode()) if match else b""
        if match is None or match[1] != name.encode() or len(data) != int(match[2]):
            raise _UnreadableError(f"debugfs does not say the value of {name}")
        found.setdefault(number, []).append((name, data))
    return found


def _debugfs(image: Path, work: Path, commands: list[str]) -> list[list[bytes]]:
    """The lines that each of ``commands`` gives."""
    script = work / "debugfs.queries"
    script.write_text("".join(f"{command}\n" for command in commands))
    said = program.run(["debugfs", "-f", str(script), str(image)]) if commands else b""
    answers: list[list[bytes]] = []
    expected = iter(commands)
    for line in said.split(b"\n"):
        if line.startswith(b"debugfs: "):
            if line.removeprefix(b"debugfs: ").decode("utf-8", "replace") != next(expected, None):
                raise _UnreadableError("debugfs answers something else than it was asked")
            answers.append([])
        elif line.strip() and answers:
            answers[-1].append(line.rstrip(b" "))
    if len(answers) != len(commands):
        raise _UnreadableError("debugfs does not answer all that it was asked")
    return answers
