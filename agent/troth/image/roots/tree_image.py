# SPDX-License-Identifier: Apache-2.0
"""A ``RootTree`` as a file-system image.

Serves ``root``. mkfs takes owners, modes and devices from the file system it
reads, and only root could make those: so it runs under ``fakeroot`` with a
state file written here, which says for each inode of the copy what the tree's
entry says. Extended attributes of the copy are hidden by fakeroot; those of
the entries are set within it. So the image is the same for root and for
anybody else, and nothing of the build host's owners, labels or times gets in.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING
from uuid import UUID, uuid5

from troth.image import program
from troth.image.roots.root_tree import BLOCK, CHARACTER, MODE_BITS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from troth.image.roots.root_tree import RootTree

#: Mount data per file system: ext4 would replay a journal, which a read-only disk refuses.
OPTIONS = {"erofs": "", "squashfs": "", "ext4": "noload"}

_NAMESPACE = UUID("6f8e1d0c-2b35-5c0e-9d0c-7a4f5f0f3b11")
# Sets the attributes inside fakeroot, then becomes mkfs.
_STARTER = """\
import json, os, sys
for path, name, value in json.load(open(sys.argv[1])):
    os.setxattr(os.fsencode(path), name, bytes.fromhex(value), follow_symlinks=False)
os.execvp(sys.argv[2], sys.argv[2:])
"""


def file_system_uuid(label: str) -> str:
    """The UUID of the image called ``label``: constant, since content is named by root hash."""
    return str(uuid5(_NAMESPACE, label))


def write(
    tree: RootTree,
    output: Path,
    *,
    file_system: str,
    compression: str,
    label: str,
    mtime_s: int,
    work: Path,
) -> None:
    """Write ``tree`` to ``output``.

    ``label`` names the image (its UUID comes from it); ``work``: directory for
    scratch files. Raises ``BuildError`` ``program-failed``; ``HostError``
    ``program-missing``.
    """
    output.unlink(missing_ok=True)
    attributes = any(entry.attributes for entry in tree.entries.values())
    uuid = file_system_uuid(label)
    if file_system == "erofs":
        argv = ["mkfs.erofs", "--quiet", f"-T{mtime_s}", f"-U{uuid}"]
        argv += [f"-z{compression}"] if compression != "none" else []
        argv += [] if attributes else ["-x-1"]
        argv += [str(output), str(tree.folder)]
    elif file_system == "squashfs":
        argv = ["mksquashfs", str(tree.folder), str(output), "-noappend", "-no-progress", "-quiet"]
        argv += ["-mkfs-time", str(mtime_s), "-all-time", str(mtime_s), "-b", "131072"]
        plain = ["-noI", "-noD", "-noF", "-noX"]
        argv += plain if compression == "none" else ["-comp", compression]
        argv += [] if attributes else ["-no-xattrs"]
    else:
        from troth.image.roots import tree_ext4

        tree_ext4.write(tree, output, uuid=uuid, mtime_s=mtime_s, work=work)
        return
    run_fake(tree, argv, work=work)


def run_fake(tree: RootTree, argv: Sequence[str], *, work: Path) -> None:
    """Run ``argv`` where the copy of ``tree`` seems to have its entries' owners and modes."""
    state = work / "fakeroot.state"
    lines = []
    attributes = []
    for path, entry in tree.entries.items():
        full = os.path.join(tree.folder, path) if path else os.fspath(tree.folder)
        status = os.lstat(full)
        mode = MODE_BITS[entry.kind] | entry.mode
        device = os.makedev(*entry.device) if entry.kind in (BLOCK, CHARACTER) else 0
        lines.append(
            f"dev={status.st_dev:x},ino={status.st_ino},mode={mode:o},uid={entry.uid},"
            f"gid={entry.gid},nlink={status.st_nlink},rdev={device}\n"
        )
        attributes += [(full, name, value.hex()) for name, value in entry.attributes]
    state.write_text("".join(lines))
    command = ["fakeroot", "-i", str(state), "--"]
    if attributes:
        listed = work / "attributes.json"
        listed.write_text(json.dumps(attributes))
        command += [sys.executable, "-I", "-c", _STARTER, str(listed)]
    program.run([*command, *argv])
