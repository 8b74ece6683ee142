# SPDX-License-Identifier: Apache-2.0
"""A ``RootTree`` as an ext4 image that depends on nothing but the tree.

Serves ``tree_image``. ``mkfs.ext4 -d`` takes change times and the order of
directories from the build host's file system, so the file system is made
empty and filled by ``debugfs`` in the tree's sorted order, every inode field
set. No journal: the image is read-only for life.
"""

from __future__ import annotations

import math
import os
import stat
from typing import TYPE_CHECKING

from troth.errors import BuildError
from troth.image import program
from troth.image.roots.root_tree import BLOCK, CHARACTER, DIRECTORY, FILE, LINK, MODE_BITS

if TYPE_CHECKING:
    from pathlib import Path

    from troth.image.roots.root_tree import Entry, RootTree

BLOCK_BYTES = 4096
# Without journal, room for resizing and anything else a read-only image never uses.
_FEATURES = (
    "none,ext_attr,dir_index,filetype,extent,sparse_super,large_file,huge_file,dir_nlink,"
    "extra_isize"
)


def write(tree: RootTree, output: Path, *, uuid: str, mtime_s: int, work: Path) -> None:
    """Write ``tree`` to ``output``; ``BuildError`` ``ext4-name``, ``program-failed``."""
    inodes = len(tree.entries) + 16
    content_blocks = sum(
        math.ceil(entry.size_bytes / BLOCK_BYTES) + (entry.kind == DIRECTORY) * 2
        for entry in tree.entries.values()
        if not entry.same_as
    )
    # An eighth more for extents and large directories, and the inode tables of 256 bytes each.
    blocks = content_blocks + content_blocks // 8 + inodes // 8 + 2048
    # The tools take 0 for "now": the first second stands in for it.
    time = str(max(mtime_s, 1))
    environment = program.environment({"E2FSPROGS_FAKE_TIME": time})
    program.run(
        [
            "mkfs.ext4", "-q", "-F", "-b", str(BLOCK_BYTES), "-I", "256", "-N", str(inodes),
            "-m", "0", "-O", _FEATURES, "-U", uuid, "-M", "/", "-L", "",
            "-E", f"hash_seed={uuid},root_owner=0:0,lazy_itable_init=0,nodiscard",
            str(output), f"{blocks * BLOCK_BYTES // 1024}k",
        ],
        env=environment,
    )  # fmt: skip
    script = work / "debugfs.commands"
    script.write_bytes(b"\n".join(_commands(tree, work, time)) + b"\n")
    said = program.run(["debugfs", "-w", "-f", str(script), str(output)], env=environment)
    # debugfs goes on after an error and ends with 0: what it says is all there is.
    bad = [
        line
        for line in said.decode("utf-8", "replace").splitlines()
        if line and not line.startswith(("debugfs: ", "debugfs:", "Allocated inode"))
    ]
    if bad:
        raise BuildError("program-failed", f"debugfs: {bad[0][:300]}", where=tree.where)


def _quoted(path: str, where: str) -> bytes:
    raw = os.fsencode(path)
    if b"\n" in raw or b"\r" in raw:
        raise BuildError(
            "ext4-name",
            f"the name {path!r} has a line break, which debugfs cannot be told",
            where=where,
            hint='use file_system = "erofs"',
        )
    return b'"' + raw.replace(b'"', b'""') + b'"'


def _commands(tree: RootTree, work: Path, time: str) -> list[bytes]:
    commands = [b'rmdir "/lost+found"']
    links: dict[str, int] = {}
    for path in sorted(tree.entries, key=lambda path: os.fsencode(path).split(b"/")):
        entry = tree.entries[path]
        if path and not entry.same_as:
            commands += _make(tree, path, entry)
        elif path:
            links[entry.same_as] = links.get(entry.same_as, 1) + 1
    # A hard link needs its file, which may sort after it.
    for path in sorted(tree.entries):
        entry = tree.entries[path]
        if entry.same_as:
            commands.append(
                b"ln %s %s"
                % (_quoted("/" + entry.same_as, tree.where), _quoted("/" + path, tree.where))
            )
    for path in sorted(tree.entries):
        entry = tree.entries[path]
        if not entry.same_as:
            commands += _fields(tree, path, work, time=time, links=links.get(path, 0))
    return commands


def _make(tree: RootTree, path: str, entry: Entry) -> list[bytes]:
    name = _quoted("/" + path, tree.where)
    if entry.kind == DIRECTORY:
        return [b"mkdir " + name]
    if entry.kind == FILE:
        return [b"write %s %s" % (_quoted(str(tree.folder / path), tree.where), name)]
    if entry.kind == LINK:
        return [b"symlink %s %s" % (name, _quoted(entry.target, tree.where))]
    parent, _, last = path.rpartition("/")
    kinds = {CHARACTER: b"c %d %d" % entry.device, BLOCK: b"b %d %d" % entry.device}
    # mknod makes its node in the working directory only.
    return [
        b"cd " + _quoted("/" + parent, tree.where),
        b"mknod %s %s" % (_quoted(last, tree.where), kinds.get(entry.kind, b"p")),
        b"cd /",
    ]


def _fields(tree: RootTree, path: str, work: Path, *, time: str, links: int) -> list[bytes]:
    name = _quoted("/" + path, tree.where)
    entry = tree.entries[path]
    mode = MODE_BITS[entry.kind] | stat.S_IMODE(entry.mode)
    values = {
        "mode": f"0{mode:o}", "uid": entry.uid, "gid": entry.gid, "atime": f"@{time}",
        "ctime": f"@{time}", "mtime": f"@{time}", "crtime": f"@{time}", "generation": 0,
    }  # fmt: skip
    if links:
        values["links_count"] = links
    commands = [
        b"set_inode_field %s %s %s" % (name, field.encode(), str(value).encode())
        for field, value in values.items()
    ]
    for attribute, value in entry.attributes:
        file = work / f"attribute-{value.hex()}"  # capabilities have 12 to 24 bytes
        file.write_bytes(value)
        commands.append(
            b"ea_set -f %s %s %s" % (_quoted(str(file), tree.where), name, attribute.encode())
        )
    return commands
