# SPDX-License-Identifier: Apache-2.0
"""A tar archive, plain or compressed, into a ``RootTree``.

Serves the root image. Owners, modes, device nodes, hard links and file
capabilities are taken as recorded; what cannot be kept exactly is refused by
name. It must never write through a link or outside the tree (``RootTree`` sees
to that), and reads the archive once, front to back, with bounds on everything.
"""

from __future__ import annotations

import io
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, cast

from troth.abi import tar
from troth.errors import BuildError, FormatError
from troth.image import program
from troth.image.roots import root_tree
from troth.image.roots.root_tree import Entry, RootTree, check_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from troth.abi.tar import Member, Stream

MAX_BYTES = 64 << 30
_MAX_PADDING_BYTES = 64 << 20

#: First bytes of a compressed archive and the program that undoes it, memory bounded.
_DECOMPRESSORS = (
    (b"\x1f\x8b", ("gzip", "-dc")),
    (b"\xfd7zXZ\0", ("xz", "-dc", "--memlimit=512MiB")),
    (b"\x28\xb5\x2f\xfd", ("zstd", "-dcq", "--memory=512MB")),
)
_NODES = {tar.CHARACTER: root_tree.CHARACTER, tar.BLOCK: root_tree.BLOCK, tar.FIFO: root_tree.FIFO}
_KEPT_ATTRIBUTES = ("security.capability",)


def is_archive(head: bytes) -> bool:
    """Whether a file that begins with ``head`` (512 bytes) is a tar, plain or compressed."""
    compressed = any(head.startswith(magic) for magic, _ in _DECOMPRESSORS)
    return compressed or head[257:262] == b"ustar"


def extract(path: Path, tree: RootTree, *, limit_bytes: int = MAX_BYTES) -> None:
    """All of the archive at ``path`` into ``tree``.

    Raises ``BuildError``: the ``tree-*`` codes, ``archive-broken`` (bytes
    that are no tar, with the reason), ``archive-attribute``,
    ``archive-node``; ``HostError`` ``program-missing``.
    """
    try:
        with _plain(path) as stream:
            extract_stream(stream, tree, limit_bytes=limit_bytes)
            # What follows the end mark is padding: read it, so that the program ends well.
            drained_bytes = 0
            while (piece := stream.read(1 << 20)) and drained_bytes < _MAX_PADDING_BYTES:
                drained_bytes += len(piece)
    except FormatError as error:
        raise BuildError(
            "archive-broken",
            f"{error.message} ({error.code})",
            where=str(path),
            hint=error.hint or "the archive may be cut off or damaged: make it again",
        ) from None


@contextmanager
def _plain(path: Path) -> Iterator[Stream]:
    """The uncompressed bytes of the archive at ``path``, from a program where needed."""
    # Unbuffered: a program that shares the descriptor must begin at the file's first byte.
    with path.open("rb", buffering=0) as file:
        head = file.read(6)
        file.seek(0)
        argv = next((argv for magic, argv in _DECOMPRESSORS if head.startswith(magic)), None)
        if argv is None:
            with io.BufferedReader(file, 1 << 18) as buffered:
                yield buffered
            return
        with program.start(argv, stdin=file.fileno()) as process:
            try:
                yield cast("IO[bytes]", process.stdout)
            except BaseException:
                process.kill()
                raise
        if process.returncode != 0:
            raise FormatError("tar-truncated", f"{argv[0]} ended with {process.returncode}")


def extract_stream(stream: Stream, tree: RootTree, *, limit_bytes: int = MAX_BYTES) -> None:
    """The plain tar in ``stream`` into ``tree``; ``FormatError`` ``tar-*`` where it is none."""
    reader = tar.Reader(stream, limit_bytes=limit_bytes)
    for member in reader:
        _add(tree, reader, member)


def _add(tree: RootTree, reader: tar.Reader, member: Member) -> None:
    path = check_path(member.path, where=tree.where)
    _check_attributes(tree, member, path)
    mode, uid, gid = member.mode, member.uid, member.gid
    if member.kind == tar.DIRECTORY:
        tree.add_directory(path, Entry(root_tree.DIRECTORY, mode, uid, gid))
        return
    if not path:
        raise BuildError(
            "tree-path", "a member that is no directory names the root", where=tree.where
        )
    if member.kind == tar.FILE:
        entry = Entry(
            root_tree.FILE,
            mode,
            uid,
            gid,
            size_bytes=member.size_bytes,
            attributes=member.attributes,
        )
        tree.add_file(path, entry, reader.content())
    elif member.kind == tar.HARD_LINK:
        tree.add_hard_link(path, check_path(member.target, where=tree.where))
    elif member.kind == tar.LINK:
        tree.add_link(path, Entry(root_tree.LINK, 0o777, uid, gid, target=member.target))
    else:
        if member.kind == tar.CHARACTER and member.device == (0, 0):
            raise BuildError(
                "archive-node",
                f"{path!r} is an overlay whiteout, not a file of a root",
                where=tree.where,
                hint="flatten the image layers before making the archive",
            )
        tree.add_node(path, Entry(_NODES[member.kind], mode, uid, gid, device=member.device))


def _check_attributes(tree: RootTree, member: Member, path: str) -> None:
    names = [name for name, _ in member.attributes if name not in _KEPT_ATTRIBUTES]
    if member.acls:
        names.append("an access control list")
    if names or (member.attributes and member.kind != tar.FILE):
        listed = ", ".join(names) or member.attributes[0][0]
        raise BuildError(
            "archive-attribute",
            f"{path!r} carries {listed}, which the image would not keep",
            where=tree.where,
            hint="make the archive with --no-acls --no-selinux"
            " --xattrs --xattrs-include=security.capability",
        )
