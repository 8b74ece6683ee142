# SPDX-License-Identifier: Apache-2.0
"""Kernel, initramfs and command line of a bundle, read once and checked by digest.

Serves ``troth igvm build``. What is returned is what was hashed, so nobody can
change a file in between. Must never read more than manifest.json announces.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from troth.documents import bundle as bundle_document
from troth.errors import FormatError, UsageError
from troth.record import record

if TYPE_CHECKING:
    from pathlib import Path

    from troth.documents.bundle import Artefact

_MAX_MANIFEST_BYTES = 64 << 20
_HINT = "the bundle was changed or only partly copied; build it again"


@record
class Parts:
    """The bytes of ``vmlinuz`` and ``initramfs``, and the text of ``cmdline`` without newline.

    ``tpm``: the image uses a TPM where there is one; ``names``: of all files of
    the bundle.
    """

    kernel: bytes
    initramfs: bytes
    cmdline: str
    tpm: bool
    names: tuple[str, ...]


def read(folder: Path) -> Parts:
    """The parts of the bundle in ``folder``.

    Raises ``UsageError`` ``bundle-missing``; ``FormatError`` ``bundle-file``,
    ``bundle-size``, ``bundle-digest`` and the ``json-*`` codes.
    """
    manifest = folder / bundle_document.FILE_NAME
    try:
        with manifest.open("rb") as file:
            data = file.read(_MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise UsageError(
            "bundle-missing",
            f"no {bundle_document.FILE_NAME}: {error.strerror}",
            where=str(folder),
            hint="make one with: troth build MANIFEST -o DIR",
        ) from None
    bundle = bundle_document.parse(data, where=str(manifest))
    known = {artefact.name: artefact for artefact in bundle.artefacts}
    return Parts(
        kernel=_read(folder, known.get("vmlinuz"), "vmlinuz"),
        initramfs=_read(folder, known.get("initramfs"), "initramfs"),
        # surrogateescape carries any byte through unchanged
        cmdline=_read(folder, known.get("cmdline"), "cmdline")
        .removesuffix(b"\n")
        .decode("utf-8", "surrogateescape"),
        tpm=bundle.vtpm != "none",
        names=(bundle_document.FILE_NAME, *known),
    )


def _read(folder: Path, artefact: Artefact | None, name: str) -> bytes:
    path = folder / name
    if artefact is None:
        raise FormatError("bundle-file", f"{name!r} is no artefact", where=str(folder))
    try:
        with path.open("rb") as file:
            data = file.read(artefact.size_bytes + 1)
    except OSError as error:
        raise FormatError("bundle-file", f"{error.strerror}", where=str(path), hint=_HINT) from None
    if len(data) != artefact.size_bytes:
        raise FormatError(
            "bundle-size",
            f"not the {artefact.size_bytes} bytes that the manifest says",
            where=str(path),
            hint=_HINT,
        )
    digest = hashlib.sha256(data).hexdigest()
    if digest != artefact.sha256:
        raise FormatError(
            "bundle-digest",
            f"SHA-256 is {digest}, the manifest says {artefact.sha256}",
            where=str(path),
            hint=_HINT,
        )
    return data
