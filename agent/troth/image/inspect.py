# SPDX-License-Identifier: Apache-2.0
"""What is in a bundle or an initramfs, and what differs between two.

Serves ``troth inspect``. Looks at what is really there: the archive, not
manifest.json, decides what is listed; the manifest only says why. It must
never write to what it inspects.
"""

from __future__ import annotations

import hashlib
import stat
from typing import TYPE_CHECKING

from troth.abi import filesystem_sb
from troth.documents import bundle as bundle_document
from troth.errors import FormatError, UsageError
from troth.image.packing import initramfs_file
from troth.record import record

if TYPE_CHECKING:
    from pathlib import Path

    from troth.abi.cpio import Member
    from troth.documents.bundle import Bundle, Packed

INITRAMFS = "initramfs"
UNKNOWN = "NOT IN MANIFEST"
_MAX_MANIFEST_BYTES = 64 << 20
_CHUNK_BYTES = 1 << 20
# What changes because of something else is compared after it.
_CAUSES = ("vmlinuz", "root.img", "volume-", INITRAMFS, "policy.json", "cmdline")


@record
class Target:
    """Something to inspect: no ``bundle`` for a single file, ``initramfs`` where there is one."""

    path: Path
    bundle: Bundle | None
    initramfs: Path | None


@record
class Listed:
    """One entry of an initramfs: ``detail`` is the target of a link or the numbers of a node.

    ``mode``: permission bits; ``sha256``: of a file, else empty; ``why``: from
    manifest.json, ``UNKNOWN`` where that does not know exactly this entry,
    empty for an initramfs without a bundle.
    """

    path: str
    kind: str
    mode: int
    size_bytes: int
    sha256: str
    detail: str
    why: str


@record
class Difference:
    """The first thing that differs: in which ``artefact``, which ``path`` of it, and ``why``.

    ``path`` is empty where the artefact is not taken apart.
    """

    artefact: str
    path: str
    why: str


def open_(path: Path) -> Target:
    """The bundle directory or file at ``path``.

    Raises ``UsageError`` ``inspect-target``; ``FormatError`` ``json-*``.
    """
    if path.is_dir():
        manifest = path / bundle_document.FILE_NAME
        if not manifest.is_file():
            raise UsageError(
                "inspect-target",
                f"holds no {bundle_document.FILE_NAME}: not a bundle directory",
                where=str(path),
            )
        with manifest.open("rb") as file:
            data = file.read(_MAX_MANIFEST_BYTES + 1)
        initramfs = path / INITRAMFS
        return Target(
            path=path,
            bundle=bundle_document.parse(data, where=str(manifest)),
            initramfs=initramfs if initramfs.is_file() else None,
        )
    if not path.is_file():
        raise UsageError("inspect-target", "is neither file nor directory", where=str(path))
    found = initramfs_file.compression_of(path) is not None
    return Target(path=path, bundle=None, initramfs=path if found else None)


def image_kind(path: Path) -> str:
    """The file system in the image at ``path``: erofs, squashfs or ext4.

    Raises ``FormatError``: ``inspect-kind`` for a file that is none of what
    troth makes, the ``filesystem-*`` codes for a broken image.
    """
    with path.open("rb") as file:
        head = file.read(filesystem_sb.HEAD_BYTES)
    try:
        return filesystem_sb.identify(head, where=str(path)).type
    except FormatError as error:
        if error.code != "filesystem-unknown":
            raise
    raise FormatError(
        "inspect-kind",
        "is neither a bundle, an initramfs, an image nor an IGVM file",
        where=str(path),
        hint="troth inspect FILE firmware reads a firmware; ONE diff OTHER compares any two files; "
        "troth verify judges reports and evidence",
    )


def _members(target: Target) -> tuple[Member, ...]:
    if target.initramfs is None:
        raise UsageError("inspect-target", "holds no initramfs", where=str(target.path))
    return initramfs_file.members(target.initramfs)


def _kind(member: Member) -> str:
    for test, name in ((stat.S_ISREG, "file"), (stat.S_ISDIR, "directory"), (stat.S_ISLNK, "link")):
        if test(member.mode):
            return name
    return "node"


def list_(target: Target) -> tuple[Listed, ...]:
    """All entries of the target's initramfs, by path.

    Raises ``UsageError`` ``inspect-target``; ``FormatError`` ``initramfs-*``, ``cpio-*``.
    """
    packed = {item.path: item for item in target.bundle.packed} if target.bundle else None
    return tuple(_listed(member, packed) for member in _members(target))


def _listed(member: Member, packed: dict[str, Packed] | None) -> Listed:
    kind = _kind(member)
    mode = stat.S_IMODE(member.mode)
    sha256 = hashlib.sha256(member.data).hexdigest() if kind == "file" else ""
    detail = ""
    if kind == "link":
        detail = member.data.decode("utf-8", "backslashreplace")
    elif kind == "node":
        detail = f"{member.device[0]}:{member.device[1]}"
    why = ""
    if packed is not None:
        known = packed.get(member.path)
        same = known is not None and (known.kind, known.mode, known.sha256) == (kind, mode, sha256)
        same = same and (kind != "link" or known is None or known.target == detail)
        why = known.why if known is not None and same else UNKNOWN
    size_bytes = len(member.data) if kind == "file" else 0
    return Listed(member.path, kind, mode, size_bytes, sha256, detail, why)


def content(target: Target, path: str) -> bytes:
    """The file ``path`` of the initramfs, or of the bundle directory where that has none.

    Raises ``UsageError`` ``inspect-path``.
    """
    wanted = path.strip("/")
    if target.initramfs is not None:
        for member in _members(target):
            if member.path == wanted:
                if _kind(member) not in ("file", "link"):
                    raise UsageError("inspect-path", f"is a {_kind(member)}", where=path)
                return member.data
    if (
        target.bundle is not None
        and "/" not in wanted
        and wanted in {item.name for item in target.bundle.artefacts}
    ):
        return (target.path / wanted).read_bytes()
    raise UsageError(
        "inspect-path",
        "is not packed",
        where=path,
        hint=f"list with: troth inspect {target.path} ls",
    )


def first_difference(one: Target, other: Target) -> Difference | None:
    """The first difference of two bundles or two files; None where there is none.

    Bundles are compared cause first: kernel, images, initramfs, then the
    documents made from them.
    """
    if (one.bundle is None) != (other.bundle is None):
        raise UsageError(
            "inspect-target", "a bundle and a file cannot be compared", where=str(other.path)
        )
    if one.bundle is None:
        return _compare(one, other, one.path, other.path, one.path.name)
    names = {path.name for side in (one, other) for path in side.path.iterdir() if path.is_file()}
    for name in sorted(names, key=_order):
        paths = [side.path / name for side in (one, other)]
        for path in paths:
            if not path.is_file():
                return Difference(name, "", f"is missing in {path.parent}")
        found = _compare(one, other, paths[0], paths[1], name)
        if found is not None:
            return found
    return None


def _order(name: str) -> tuple[int, str]:
    for rank, cause in enumerate(_CAUSES):
        if name == cause or (cause.endswith("-") and name.startswith(cause)):
            return rank, name
    return len(_CAUSES), name


def _compare(
    one: Target, other: Target, first: Path, second: Path, artefact: str
) -> Difference | None:
    offset = _first_offset(first, second)
    if offset is None:
        return None
    if first == one.initramfs and second == other.initramfs:
        inner = _compare_members(_members(one), _members(other), artefact)
        if inner is not None:
            return inner
        return Difference(artefact, "", f"same entries, packed otherwise from byte {offset} on")
    return Difference(artefact, "", _sizes(first.stat().st_size, second.stat().st_size, offset))


def _sizes(first_bytes: int, second_bytes: int, offset: int) -> str:
    sizes = f"{first_bytes} and {second_bytes} bytes, " if first_bytes != second_bytes else ""
    return f"{sizes}first difference at byte {offset}"


def _first_offset(first: Path, second: Path) -> int | None:
    """Offset of the first differing byte (the shorter one's end counts); None for equal files."""
    offset = 0
    with first.open("rb") as left, second.open("rb") as right:
        while True:
            one, other = left.read(_CHUNK_BYTES), right.read(_CHUNK_BYTES)
            if one != other:
                return offset + _offset(one, other)
            if not one:
                return None
            offset += len(one)


def _offset(one: bytes, other: bytes) -> int:
    shorter = min(len(one), len(other))
    # Halving keeps this fast on large equal beginnings.
    low, high = 0, shorter
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _compare_members(
    one: tuple[Member, ...], other: tuple[Member, ...], artefact: str
) -> Difference | None:
    left = {member.path: member for member in one}
    right = {member.path: member for member in other}
    for path in sorted(left.keys() | right.keys()):
        first, second = left.get(path), right.get(path)
        if first is None or second is None:
            side = "second" if first is None else "first"
            return Difference(artefact, path, f"is in the {side} one only")
        if first.mode != second.mode:
            return Difference(artefact, path, f"mode {first.mode:o} and {second.mode:o}")
        if first.data != second.data:
            offset = _offset(first.data, second.data)
            return Difference(artefact, path, _sizes(len(first.data), len(second.data), offset))
        for name in ("device", "owner", "mtime_s"):
            before, after = getattr(first, name), getattr(second, name)
            if before != after:
                return Difference(artefact, path, f"{name} {before} and {after}")
    return None


def check_artefacts(target: Target) -> tuple[str, ...]:
    """Names of the bundle's artefacts whose size or digest is not what manifest.json says."""
    if target.bundle is None:
        return ()
    wrong = []
    for artefact in target.bundle.artefacts:
        path = target.path / artefact.name
        if "/" in artefact.name or artefact.name.startswith("."):
            raise FormatError("bundle-file", f"{artefact.name!r} is no file of a bundle")
        if not path.is_file() or path.stat().st_size != artefact.size_bytes:
            wrong.append(artefact.name)
            continue
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != artefact.sha256:
                wrong.append(artefact.name)
    return tuple(wrong)
