# SPDX-License-Identifier: Apache-2.0
"""sbom.spdx.json: what was packed, as SPDX 2.3 in JSON.

Flows from ``image`` to whoever audits an image. Made of the files that are
really in the initramfs and the packages they came from, and checked against
the bundle's list by ``compare_files``. It depends on its inputs only: no
clock, no random namespace. Source: SPDX specification 2.3, clauses 6 to 11.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING
from urllib.parse import quote
from uuid import UUID

from troth.documents import strict
from troth.errors import FormatError
from troth.record import record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from troth.documents.bundle import Packed
    from troth.documents.strict import Reader

FILE_NAME = "sbom.spdx.json"
VERSION = "SPDX-2.3"
_NOT_ID = re.compile(r"[^A-Za-z0-9.-]+")


@record
class Package:
    """A source of packed files: ``origin`` is "debian", "root" (in the root image), "pypi"
    (a Python package beside troth) or "troth".
    """  # noqa: D205 - the fields are the summary

    name: str
    version: str
    origin: str


@record
class File:
    """A packed file: ``path`` in the initramfs, digests in hex, ``package`` name or empty."""

    path: str
    sha1: str
    sha256: str
    package: str


def print_(
    *,
    image_name: str,
    image_version: str,
    troth_version: str,
    created: str,
    packages: Iterable[Package],
    files: Iterable[File],
) -> bytes:
    """The document.

    ``created``: RFC 3339 time in UTC, of SOURCE_DATE_EPOCH. A file whose
    package is not among ``packages`` of origin debian, pypi or troth belongs to the
    image itself.
    """
    sorted_packages = sorted(set(packages), key=lambda item: (item.origin, item.name, item.version))
    sorted_files = sorted(files, key=lambda item: item.path)
    ids = {
        package: f"SPDXRef-Package-{number}-{_NOT_ID.sub('-', package.name)}"
        for number, package in enumerate(sorted_packages)
    }
    holders = {item.name: ids[item] for item in sorted_packages if item.origin != "root"}
    relationships = [_related("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-Image")]
    relationships += [_related("SPDXRef-Image", "CONTAINS", ids[item]) for item in sorted_packages]
    file_trees = []
    for number, file in enumerate(sorted_files):
        own_id = f"SPDXRef-File-{number}"
        file_trees.append(
            {
                "SPDXID": own_id,
                "fileName": f"./{file.path}",
                "checksums": [
                    {"algorithm": "SHA1", "checksumValue": file.sha1},
                    {"algorithm": "SHA256", "checksumValue": file.sha256},
                ],
                "licenseConcluded": "NOASSERTION",
                "copyrightText": "NOASSERTION",
            }
        )
        holder = holders.get(file.package, "SPDXRef-Image")
        relationships.append(_related(holder, "CONTAINS", own_id))
    tree: dict[str, object] = {
        "spdxVersion": VERSION,
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": image_name,
        "creationInfo": {"created": created, "creators": [f"Tool: troth-{troth_version}"]},
        "packages": [_package("SPDXRef-Image", image_name, image_version, "troth-image")]
        + [_package(ids[item], item.name, item.version, item.origin) for item in sorted_packages],
        "files": file_trees,
        "relationships": relationships,
    }
    digest = hashlib.sha256(strict.canonical(tree)).digest()
    tree["documentNamespace"] = f"urn:uuid:{UUID(bytes=digest[:16], version=5)}"
    return strict.pretty(tree)


def _related(one: str, kind: str, other: str) -> dict[str, object]:
    return {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}


def _package(own_id: str, name: str, version: str, origin: str) -> dict[str, object]:
    tree: dict[str, object] = {
        "SPDXID": own_id,
        "name": name,
        "versionInfo": version or "unknown",
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "comment": f"origin: {origin}",
    }
    kinds = {"debian": "deb/debian", "root": "deb/debian", "pypi": "pypi"}
    if origin in kinds:
        tree["externalRefs"] = [
            {
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": f"pkg:{kinds[origin]}/{quote(name)}@{quote(version)}",
            }
        ]
    return tree


def files_of(data: bytes, *, where: str = FILE_NAME) -> dict[str, str]:
    """SHA-256 by path of all files the document lists.

    Raises ``FormatError`` ``json-*``, ``sbom-version`` and ``sbom-file``. Reads
    only what ``compare_files`` needs; other members are left alone, as SPDX
    documents may carry more than ours do.
    """
    top = strict.Reader(strict.parse(data, where=where), where=where)
    if top.text("spdxVersion") != VERSION:
        raise FormatError("sbom-version", f"not {VERSION}", where=where)
    found: dict[str, str] = {}
    for path, digest in top.each("files", _file):
        if not path.startswith("./") or path[2:] in found:
            raise FormatError("sbom-file", f"{path!r} is repeated or not relative", where=where)
        found[path[2:]] = digest
    return found


def _file(reader: Reader) -> tuple[str, str]:
    reader.keys()
    sums = dict(
        reader.each("checksums", lambda item: (item.text("algorithm"), item.text("checksumValue")))
    )
    return reader.text("fileName"), sums.get("SHA256", "")


def compare_files(data: bytes, packed: Iterable[Packed], *, where: str = FILE_NAME) -> None:
    """Refuse an SBOM whose files are not exactly the ``packed`` ones, by path and digest.

    Raises ``FormatError`` ``sbom-differs`` naming the first that differs.
    """
    listed = files_of(data, where=where)
    there = {item.path: item.sha256 for item in packed if item.kind == "file"}
    for path in sorted(listed.keys() | there.keys()):
        if listed.get(path) == there.get(path):
            continue
        if path not in there:
            reason = "is listed but not packed"
        elif path not in listed:
            reason = "is packed but not listed"
        else:
            reason = f"is packed as {there[path]} but listed as {listed[path]}"
        raise FormatError("sbom-differs", f"{path} {reason}", where=where)
