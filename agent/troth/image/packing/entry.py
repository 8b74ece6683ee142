# SPDX-License-Identifier: Apache-2.0
"""One entry of an initramfs, and the whole of them as an archive.

Serves ``initramfs`` and ``build``. Everything packed carries the reason why it
is in. Order, modes, owners and times never come from this machine: entries
are sorted by path, belong to root and have no time.
"""

from __future__ import annotations

import hashlib
import os
import stat
import unicodedata
from typing import TYPE_CHECKING

from troth.abi import cpio
from troth.documents.bundle import Packed
from troth.errors import BuildError
from troth.image import program
from troth.record import record

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

COMPRESSIONS = ("none", "lz4", "zstd")
_TYPES = {"file": stat.S_IFREG, "directory": stat.S_IFDIR, "link": stat.S_IFLNK}


@record
class Entry:
    """``path``: without leading slash; ``kind``: "file", "directory" or "link"; ``mode``:
    permission bits; ``data``: of a file; ``target``: of a link; ``why``: one phrase.
    """  # noqa: D205 - the fields are the summary

    path: str
    kind: str
    mode: int
    why: str
    data: bytes = b""
    target: str = ""


def file(path: str, data: bytes, why: str, *, mode: int = 0o644) -> Entry:
    """A regular file."""
    return Entry(path, "file", mode, why, data=data)


def directory(path: str, why: str, *, mode: int = 0o755) -> Entry:
    """A directory."""
    return Entry(path, "directory", mode, why)


def link(path: str, target: str, why: str) -> Entry:
    """A symbolic link."""
    return Entry(path, "link", 0o777, why, target=target)


def arrange(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """``entries`` sorted by path, parents added where nobody named them.

    Raises ``BuildError``: ``initramfs-duplicate`` (one path twice),
    ``initramfs-path`` (below something that is no directory).
    """
    found: dict[str, Entry] = {}
    for item in entries:
        if item.path in found:
            raise BuildError(
                "initramfs-duplicate",
                f"packed twice: {found[item.path].why}; {item.why}",
                where=item.path,
            )
        found[item.path] = item
    for item in tuple(found.values()):
        parent = os.path.dirname(item.path)
        while parent:
            above = found.setdefault(parent, directory(parent, f"holds {item.path}"))
            if above.kind != "directory":
                raise BuildError(
                    "initramfs-path", f"lies below a {above.kind}: {parent}", where=item.path
                )
            parent = os.path.dirname(parent)
    return tuple(found[path] for path in sorted(found))


def archive(entries: Sequence[Entry]) -> bytes:
    """The newc archive of arranged ``entries``."""
    return cpio.write(
        cpio.Member(
            item.path,
            _TYPES[item.kind] | item.mode,
            item.target.encode() if item.kind == "link" else item.data,
        )
        for item in entries
    )


def compress(data: bytes, compression: str) -> bytes:
    """``data`` as the kernel unpacks it: "none", "lz4" (legacy frame) or "zstd" (level 19).

    Raises ``BuildError`` ``initramfs-compression``; ``HostError``
    ``program-missing``.
    """
    match compression:
        case "none":
            return data
        case "lz4":
            # The kernel knows the legacy frame only.
            return program.run(["lz4", "-l", "-9", "-q", "-c", "-"], stdin=data)
        case "zstd":
            # One thread: more would cut the input into jobs and change the bytes.
            return program.run(["zstd", "-19", "-T1", "--no-progress", "-q", "-c"], stdin=data)
    raise BuildError("initramfs-compression", f"{compression!r} is not one of {COMPRESSIONS}")


def pack(entries: Sequence[Entry], *, compression: str) -> bytes:
    """The initramfs of arranged ``entries``, compressed."""
    return compress(archive(entries), compression)


def packed(entries: Sequence[Entry]) -> tuple[Packed, ...]:
    """The rows of manifest.json for ``entries``."""
    return tuple(
        Packed(
            path=item.path,
            kind=item.kind,
            mode=item.mode,
            size_bytes=len(item.data),
            sha256=hashlib.sha256(item.data).hexdigest() if item.kind == "file" else "",
            target=item.target,
            why=item.why,
        )
        for item in entries
    )


def tree(source: Path, below: str, why: str) -> tuple[Entry, ...]:
    """Directories, files and links of the directory ``source``, placed at ``below``.

    Modes are kept, owners become root, links stay as they are. Raises
    ``BuildError``: ``files-missing``, ``files-node`` (a device, socket or
    pipe), ``files-name`` (a name that is not UTF-8 or holds control
    characters), ``files-mode`` (others than its owner may write).
    """
    if not source.is_dir():
        raise BuildError("files-missing", "is no directory", where=os.fspath(source))
    found: list[Entry] = []
    pending = [(source, below)]
    try:
        while pending:
            place, path = pending.pop()
            mode = _mode(place.stat().st_mode, os.fspath(place))
            found.append(directory(path, why, mode=mode))
            with os.scandir(place) as items:
                children = sorted(items, key=lambda item: item.name)
            for item in children:
                name = _child(path, item.name)
                status = item.stat(follow_symlinks=False)
                if item.is_symlink():
                    found.append(link(name, os.readlink(item.path), why))
                elif item.is_dir():
                    pending.append((place / item.name, name))
                elif item.is_file():
                    data = (place / item.name).read_bytes()
                    found.append(file(name, data, why, mode=_mode(status.st_mode, item.path)))
                else:
                    raise BuildError(
                        "files-node", "is neither file, directory nor link", where=item.path
                    )
    except OSError as error:
        raise BuildError(
            "files-missing", f"cannot be read: {error.strerror}", where=str(error.filename)
        ) from None
    return tuple(sorted(found, key=lambda item: item.path))


def _mode(mode: int, where: str) -> int:
    # What is packed is measured: a workload that is not root must not be able to change it.
    if mode & 0o022:
        raise BuildError(
            "files-mode",
            f"has mode {stat.S_IMODE(mode):04o}: its group or everybody may write to it",
            where=where,
            hint="chmod go-w",
        )
    return stat.S_IMODE(mode)


def _child(path: str, name: str) -> str:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise BuildError("files-name", f"the name {name!r} is not UTF-8", where=path) from None
    # PID 1 gets the list of entries as lines (C0, DEL and C1 controls; U+2028 and U+2029).
    if any(unicodedata.category(c) in ("Cc", "Zl", "Zp") for c in name):
        raise BuildError("files-name", f"the name {name!r} has control characters", where=path)
    return f"{path}/{name}"
