# SPDX-License-Identifier: Apache-2.0
"""A root (or verity volume) from a directory, a tar or a ready image, with its hash tree.

Serves ``build``: ``make_root`` gives one file, the file system padded to 4096
bytes with dm-verity superblock and tree behind it, and the tree as it went
in, for ``root_lint`` and the SBOM. The same inputs give the same bytes in any
directory, by any user: contents are copied once into a private directory, all
else is told to mkfs by ``tree_image``.

A directory belongs to whoever checked it out, so its owners become root:root
and its times ``mtime_s``; modes are kept. A tar is taken as recorded but for
times. A ready image is copied, never changed.

The salt is SHA-256 over a label, the image's and volume's names and the file
system's own SHA-256. A verity salt is public (it stands in the superblock and
the policy) and need not be random: the root hash is what is trusted, and a
second preimage of SHA-256 is as far away with a known salt as with a secret
one. It is per image, so tables made for one image serve no other, and constant
per input, so that builds are identical.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from typing import TYPE_CHECKING
from uuid import UUID

from troth.abi import filesystem_sb
from troth.errors import BuildError, FormatError, HostError
from troth.image.hashing import verity_image
from troth.image.roots import module_tree, tree_archive, tree_directory, tree_image, tree_ready
from troth.image.roots.root_tree import DIRECTORY, Entry, RootTree
from troth.record import record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from troth.image.hashing.verity_image import VerityFormat
    from troth.image.inputs.kernel import Kernel

    Progress = Callable[[int, int], None]

_LABEL = b"troth-verity-salt-v1"
#: What every root needs to have mounted over, and the mode it is made with.
ROOT_MOUNT_POINTS = (
    ("/proc", 0o755), ("/sys", 0o755), ("/dev", 0o755), ("/run", 0o755), ("/tmp", 0o1777),  # noqa: S108
)  # fmt: skip


@record
class RootRequest:
    """What to make.

    ``source``: directory, tar or image; ``volume``: "root" or the volume's
    name; ``mount_points``: absolute paths with modes that must be directories
    in it; ``kernel``: whose module tree to add, or None; ``mtime_s``: the one
    time stamp; ``where``: the manifest line that errors name.
    """

    source: Path
    image_name: str
    volume: str
    file_system: str = "erofs"
    compression: str = "none"
    mount_points: tuple[tuple[str, int], ...] = ()
    kernel: Kernel | None = None
    mtime_s: int = 0
    where: str = ""


@record
class RootImage:
    """A finished image: ``file_system`` as the kernel names it, ``options`` to mount it with.

    ``tree``: its entries and contents; ``ready``: whether it was given as an
    image; ``verity``: what ``verity_image.format_image`` said.
    """

    path: Path
    file_system: str
    options: str
    ready: bool
    tree: RootTree
    verity: VerityFormat


def source_date_epoch() -> int:
    """SOURCE_DATE_EPOCH, 0 where it is not set; ``BuildError`` ``source-date`` if it is no time."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "0")
    if not (text.isascii() and text.isdigit()) or int(text) >= 2**32:
        raise BuildError("source-date", f"SOURCE_DATE_EPOCH is no time: {text!r}")
    return int(text)


def make_root(
    request: RootRequest, output: Path, *, work: Path, progress: Progress | None = None
) -> RootImage:
    """Make ``output`` as ``request`` says; ``work`` is an empty directory for contents.

    The caller removes ``work`` when it is done with ``RootImage.tree``. Raises
    ``BuildError``: ``source-missing``, ``source-kind``, ``source-file``,
    ``mount-point``, ``modules-present``, ``ready-image``, the ``tree-*`` and
    ``archive-*`` codes; ``HostError`` ``program-missing``, ``build-io``.
    """
    try:
        kind = source_kind(request.source, where=request.where)
        ready = kind in tree_image.OPTIONS
        if ready:
            tree = _ready(request, kind, output, work)
        else:
            tree = RootTree(work / "tree", where=request.where)
            if kind == "directory":
                tree_directory.add(tree, request.source)
            else:
                tree_archive.extract(request.source, tree)
            if request.kernel is not None:
                module_tree.add(tree, request.kernel, work=work)
            _make_mount_points(tree, request.mount_points)
            kind = request.file_system
            tree_image.write(
                tree,
                output,
                file_system=kind,
                compression=request.compression,
                label=f"{request.image_name}/{request.volume}",
                mtime_s=request.mtime_s,
                work=work,
            )
        salt, uuid = verity_identity(output, image_name=request.image_name, volume=request.volume)
        verity = verity_image.append_tree(output, salt=salt, uuid=uuid, progress=progress)
    except OSError as error:
        raise HostError(
            "build-io",
            f"cannot make the image of {request.volume!r}: {error.strerror}",
            where=str(error.filename or output),
        ) from error
    return RootImage(
        path=output,
        file_system=kind,
        options=tree_image.OPTIONS[kind],
        ready=ready,
        tree=tree,
        verity=verity,
    )


def source_kind(source: Path, *, where: str = "") -> str:
    """directory, archive, erofs, squashfs or ext4; ``BuildError`` ``source-missing|kind``.

    ``FormatError`` ``filesystem-*`` for an image that a guest could not mount.
    """
    try:
        if source.is_dir():
            return "directory"
        with source.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise BuildError(
            "source-missing",
            f"{source} cannot be read: {error.strerror}",
            where=where,
            hint="paths are relative to the manifest",
        ) from None
    if tree_archive.is_archive(head[:512]):
        return "archive"
    try:
        found = filesystem_sb.identify(head, where=str(source))
    except FormatError as error:
        if error.code != "filesystem-unknown":
            raise
    else:
        filesystem_sb.check_mountable(found, where=str(source))
        return found.type
    raise BuildError(
        "source-kind",
        f"{source} is neither directory, tar (plain, gzip, xz, zstd), erofs, squashfs nor ext4",
        where=where,
    )


def verity_identity(image: Path, *, image_name: str, volume: str) -> tuple[bytes, bytes]:
    """Salt (32 bytes) and UUID (16 bytes) for the file system in ``image``; see the module."""
    with image.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").digest()
    names = image_name.encode() + b"\0" + volume.encode() + b"\0"
    salt = hashlib.sha256(_LABEL + b"\0" + names + content).digest()
    named = hashlib.sha256(b"troth-verity-uuid-v1\0" + names + content).digest()
    return salt, UUID(bytes=named[:16], version=4).bytes


def _make_mount_points(tree: RootTree, points: Sequence[tuple[str, int]]) -> None:
    for point, mode in points:
        path = point.strip("/")
        parts = path.split("/")
        for count in range(1, len(parts) + 1):
            above = "/".join(parts[:count])
            entry = tree.entries.get(above)
            if entry is None:
                last = count == len(parts)
                tree.add_directory(above, Entry(DIRECTORY, mode=mode if last else 0o755))
            elif entry.kind != DIRECTORY:
                raise _mount_point(tree, point, f"{above!r} is a {entry.kind}")


def _mount_point(tree: RootTree, point: str, reason: str) -> BuildError:
    return BuildError(
        "mount-point",
        f"{point} cannot be mounted on: {reason}",
        where=tree.where,
        hint="mount points must be directories, reached without links",
    )


def _ready(request: RootRequest, kind: str, output: Path, work: Path) -> RootTree:
    if request.kernel is not None:
        raise BuildError(
            "ready-image",
            f"{request.source} is a ready {kind} image: modules cannot be added to it",
            where=request.where,
            hint="leave [root] modules out, or give a directory or tar",
        )
    shutil.copyfile(request.source, output)
    # Opened again below another name: a copy that changes nothing but the padding at its end.
    tree = tree_ready.read(output, kind, work=work, where=request.where)
    for point, _mode in request.mount_points:
        entry = tree.entries.get(point.strip("/"))
        if entry is None or entry.kind != DIRECTORY:
            raise _mount_point(
                tree, point, "it is missing" if entry is None else f"it is a {entry.kind}"
            )
    return tree
