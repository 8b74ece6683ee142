# SPDX-License-Identifier: Apache-2.0
"""manifest.json: what a bundle directory holds, and why each packed file is in it.

Flows from ``image`` to ``machine`` (which boots the bundle) and to people
(``troth inspect``). Fields are described in ``docs/formats.md``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.documents import strict
from troth.record import record

if TYPE_CHECKING:
    from troth.documents.strict import Reader

SCHEMA = "troth-bundle-v1"
FILE_NAME = "manifest.json"


@record
class Artefact:
    """A file of the bundle directory: ``name``, ``size_bytes``, ``sha256`` (hex)."""

    name: str
    size_bytes: int
    sha256: str


@record
class Disk:
    """An image that ``troth run`` attaches: virtio serial ``serial``, ``file`` in the bundle."""

    serial: str
    file: str


@record
class Packed:
    """One entry of the initramfs.

    ``path``: without leading slash; ``kind``: "file", "directory", "link" or
    "node"; ``mode``: permission bits; ``sha256``: of a file's content, else
    empty; ``target``: of a link, else empty; ``why``: one phrase for people.
    """

    path: str
    kind: str
    mode: int
    size_bytes: int
    sha256: str
    target: str
    why: str


@record
class Bundle:
    """The whole of manifest.json."""

    name: str
    svn: int
    troth_version: str
    kernel_release: str
    snp: str
    vtpm: str
    vtpm_kind: str
    acpi_aml: str
    compression: str
    artefacts: tuple[Artefact, ...]
    disks: tuple[Disk, ...]
    packed: tuple[Packed, ...]


def parse(data: bytes, *, where: str = FILE_NAME) -> Bundle:
    """The bundle described by ``data``; ``FormatError`` ``json-*`` where it is not one."""
    top = strict.Reader(strict.parse(data, where=where), where=where)
    top.text("schema", allowed=(SCHEMA,))
    bundle = Bundle(
        name=top.text("name"),
        svn=top.integer("svn"),
        troth_version=top.text("troth_version"),
        kernel_release=top.text("kernel_release"),
        snp=top.text("snp", allowed=("required", "simulated", "none")),
        vtpm=top.text("vtpm", allowed=("required", "optional", "none")),
        vtpm_kind=top.text("vtpm_kind", allowed=("svsm", "paravisor", "host")),
        acpi_aml=top.text("acpi_aml"),
        compression=top.text("compression", allowed=("none", "lz4", "zstd")),
        artefacts=top.each("artefacts", _artefact),
        disks=top.each("disks", lambda reader: Disk(reader.text("serial"), reader.text("file"))),
        packed=top.each("packed", _packed),
    )
    top.close()
    return bundle


def _artefact(reader: Reader) -> Artefact:
    return Artefact(
        name=reader.text("name"),
        size_bytes=reader.integer("size_bytes"),
        sha256=reader.digest("sha256", size_bytes=32),
    )


def _packed(reader: Reader) -> Packed:
    kind = reader.text("kind", allowed=("file", "directory", "link", "node"))
    return Packed(
        path=reader.text("path"),
        kind=kind,
        mode=reader.integer("mode", maximum=0o7777),
        size_bytes=reader.integer("size_bytes"),
        sha256=reader.digest("sha256", size_bytes=32) if kind == "file" else reader.text("sha256"),
        target=reader.text("target"),
        why=reader.text("why"),
    )


def print_(bundle: Bundle) -> bytes:
    """manifest.json for ``bundle``: sorted, indented, final newline."""
    tree: dict[str, object] = {"schema": SCHEMA}
    for name in bundle.__match_args__:
        value = getattr(bundle, name)
        tree[name] = (
            [{key: getattr(item, key) for key in item.__match_args__} for item in value]
            if isinstance(value, tuple)
            else value
        )
    return strict.pretty(tree)
