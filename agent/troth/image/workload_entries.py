# SPDX-License-Identifier: Apache-2.0
"""The workload tree digest from what was packed, before any guest has run.

PID 1 computes the same over the mounted root (``linux.tree``); a boot test
holds the two against each other.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from troth.errors import BuildError
from troth.image.root_tree import BLOCK, CHARACTER, DIRECTORY, FIFO, FILE, LINK
from troth.measure.workload import Entry, tree_digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from troth.image import entry as packed
    from troth.image.root_tree import RootTree

_LETTERS = {FILE: "f", DIRECTORY: "d", LINK: "l", CHARACTER: "c", BLOCK: "b", FIFO: "p"}
_PACKED = {"file": "f", "directory": "d", "link": "l"}


def of_root(tree: RootTree, paths: tuple[str, ...]) -> bytes:
    """The 32-byte digest of ``paths`` (absolute) in ``tree``.

    Raises ``BuildError`` ``workload-link`` for a path that leads through a
    link: PID 1 binds the path itself, so it must be one.
    """
    return tree_digest(item for path in paths for item in _below(tree, path.strip("/")))


def _below(tree: RootTree, top: str) -> Iterator[Entry]:
    if top not in tree.entries:
        raise BuildError(
            "workload-link",
            f"/{top} leads through a link",
            hint="name the path that the link leads to in [measure] workload",
        )
    for path, value in tree.entries.items():
        if path != top and not path.startswith(top + "/"):
            continue
        found = tree.entries[value.same_as] if value.same_as else value
        content = b""
        if found.kind == FILE:
            content = _file_digest(tree, value.same_as or path)
        elif found.kind == LINK:
            content = found.target.encode()
        elif found.kind in (CHARACTER, BLOCK):
            content = f"{found.device[0]}:{found.device[1]}".encode()
        yield Entry(
            path=path.encode("utf-8", "surrogateescape"),
            kind=_LETTERS[found.kind],
            mode=found.mode,
            uid=found.uid,
            gid=found.gid,
            size_bytes=len(content) if found.kind == LINK else found.size_bytes,
            content=content,
            attributes=tuple(
                (name.encode(), data)
                for name, data in found.attributes
                if name.startswith("security.")
            ),
        )


def _file_digest(tree: RootTree, path: str) -> bytes:
    with tree.open(path) as file:
        return hashlib.file_digest(file, "sha256").digest()


def of_initramfs(entries: Sequence[packed.Entry], paths: tuple[str, ...]) -> bytes:
    """The same over entries of the initramfs, for workloads that stay in it."""
    return tree_digest(
        Entry(
            path=item.path.encode(),
            kind=_PACKED[item.kind],
            mode=item.mode,
            uid=0,
            gid=0,
            size_bytes=len(item.target) if item.kind == "link" else len(item.data),
            content=(
                item.target.encode()
                if item.kind == "link"
                else hashlib.sha256(item.data).digest()
                if item.kind == "file"
                else b""
            ),
        )
        for item in entries
        for path in paths
        if item.path == path.strip("/") or item.path.startswith(path.strip("/") + "/")
    )
