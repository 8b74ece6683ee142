# SPDX-License-Identifier: Apache-2.0
"""The locked kernel's module tree, added to a root, with the index files modprobe reads.

Serves ``[root] modules = true``. Debian's packages carry no index (depmod runs
when they are installed), so depmod is run here over the copy in the tree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.errors import BuildError
from troth.image import program
from troth.image.roots import tree_directory
from troth.image.roots.root_tree import FILE, LINK, Entry

if TYPE_CHECKING:
    from pathlib import Path

    from troth.image.inputs.kernel import Kernel
    from troth.image.roots.root_tree import RootTree

#: Links into the build machine's kernel sources, of no use in an image.
_LEFT_OUT = ("build", "source")


def place(tree: RootTree, release: str) -> str:
    """Where the modules of ``release`` belong in ``tree``: below /usr in a usr-merged root."""
    lib = tree.entries.get("lib")
    merged = lib is None and "usr/lib" in tree.entries
    if lib is not None and lib.kind == LINK:
        merged = tree.resolve("/lib") == "usr/lib"
        if not merged:
            raise BuildError(
                "modules-place",
                f"/lib is a link to {lib.target!r}, not to usr/lib",
                where=tree.where,
            )
    return f"{'usr/' if merged else ''}lib/modules/{release}"


def add(tree: RootTree, kernel: Kernel, *, work: Path) -> None:
    """Add the modules of ``kernel`` and their index; ``work`` holds depmod's scratch files.

    Raises ``BuildError`` ``modules-present``, ``modules-place``,
    ``program-failed``; ``HostError`` ``program-missing``.
    """
    path = place(tree, kernel.release)
    if path in tree.entries:
        raise BuildError(
            "modules-present",
            f"the root already holds /{path}",
            where=tree.where,
            hint="leave [root] modules out to keep the root's own module tree",
        )
    tree_directory.add(tree, kernel.modules_dir, below=path, leave_out=_LEFT_OUT)
    if f"{path}/modules.dep" in tree.entries:
        return
    # depmod writes beside what it reads: it gets a directory of links, and settings of nobody.
    base = work / "depmod"
    index = base / "lib/modules" / kernel.release
    index.mkdir(parents=True)
    settings = work / "depmod.d"
    settings.mkdir()
    for item in sorted((tree.folder / path).iterdir()):
        (index / item.name).symlink_to(item)
    program.run(["depmod", "-b", base, "-C", settings, kernel.release])
    for file in sorted(index.iterdir()):
        if not file.is_symlink():
            data = file.read_bytes()
            entry = Entry(FILE, 0o644, size_bytes=len(data))
            tree.add_file(f"{path}/{file.name}", entry, (data,))
