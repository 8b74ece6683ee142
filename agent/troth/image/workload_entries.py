# SPDX-License-Identifier: Apache-2.0
"""The workload tree digest from what was packed, before any guest has run.

PID 1 computes the same over the mounted root (``linux.tree``); a boot test
holds the two against each other.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from troth.errors import BuildError
from troth.image.roots.root_tree import BLOCK, CHARACTER, DIRECTORY, FIFO, FILE, LINK
from troth.measure.workload import Entry, tree_digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from troth.image.packing import entry as packed
    from troth.image.roots.root_tree import RootTree

_LETTERS = {FILE: "f", DIRECTORY: "d", LINK: "l", CHARACTER: "c", BLOCK: "b", FIFO: "p"}
_PACKED = {"file": "f", "directory": "d", "link": "l"}


def of_root(tree: RootTree, paths: tuple[str, ...]) -> bytes:
    """The 32-byte digest of ``paths`` (absolute) in ``tree``.

    Raises ``BuildError`` ``workload-link`` for a path that leads through a
    link: PID 1 binds the path itself, so it must be one. ``workload-ready``
    for one in a ready image that could not be read back exactly.
    """
    for path in paths:
        _check_doubts(tree, path.strip("/"))
    return tree_digest(item for path in paths for item in _below(tree, path.strip("/")))


def _check_doubts(tree: RootTree, top: str) -> None:
    for path, doubt in tree.doubts.items():
        if not path or path == top or path.startswith(top + "/"):
            raise BuildError(
                "workload-ready",
                f"/{top} in a ready image cannot be read back exactly:"
                f" {f'/{path} {doubt}' if path else doubt}",
                where=tree.where,
                hint="give [root] source as a directory or a tar",
            )


def _below(tree: RootTree, top: str) -> Iterator[Entry]:
    # A link would be measured as a link, and PID 1 would bind what it leads to.
    if top not in tree.entries or tree.entries[top].kind == LINK:
        raise BuildError(
            "workload-link",
            f"/{top} is a link or leads through one",
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


def check_program(entries: Sequence[packed.Entry], program: str, *, where: str = "") -> None:
    """Refuse a ``program`` (absolute) that is no executable file of the initramfs.

    Raises ``BuildError`` ``init-missing``.
    """
    found = {item.path: item for item in entries}.get(program.strip("/"))
    if found is None or found.kind != "file":
        raise BuildError(
            "init-missing",
            f"{program} {'is not packed' if found is None else f'is a {found.kind}'}",
            where=where,
            hint="[handover] supervise begins with a file of [initramfs] files, below /app",
        )
    if not found.mode & 0o111:
        raise BuildError(
            "init-missing",
            f"{program} is not executable",
            where=where,
            hint="chmod 0755 the file in [initramfs] files",
        )


def of_initramfs(
    entries: Sequence[packed.Entry], paths: tuple[str, ...], *, where: str = ""
) -> bytes:
    """The same over entries of the initramfs, for workloads that stay in it.

    Raises ``BuildError`` ``workload-missing``; ``workload-link`` for a path
    that leads through a packed link.
    """
    kinds = {item.path: item.kind for item in entries}
    tops = [path.strip("/") for path in paths]
    for top in tops:
        _check_packed(kinds, top, where)
    return tree_digest(
        Entry(
            path=item.path.encode(),
            kind=_PACKED[item.kind],
            mode=item.mode,
            uid=0,
            gid=0,
            size_bytes=len(item.target.encode()) if item.kind == "link" else len(item.data),
            content=(
                item.target.encode()
                if item.kind == "link"
                else hashlib.sha256(item.data).digest()
                if item.kind == "file"
                else b""
            ),
        )
        for item in entries
        for top in tops
        if item.path == top or item.path.startswith(top + "/")
    )


def _check_packed(kinds: dict[str, str], top: str, where: str) -> None:
    parts = top.split("/")
    above = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
    through = next((path for path in above if kinds.get(path) == "link"), "")
    if through:
        raise BuildError(
            "workload-link",
            f"/{top} is the link /{through} or leads through it",
            where=where,
            hint="name the path that the link leads to in [measure] workload",
        )
    if top not in kinds:
        raise BuildError(
            "workload-missing",
            f"/{top} is not packed",
            where=where,
            hint="without [root], [measure] workload lists paths of the initramfs, such as /app",
        )
