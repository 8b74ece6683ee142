# SPDX-License-Identifier: Apache-2.0
"""A bundle directory, checked far enough to be booted.

Serves ``troth run``. Small files are compared with the manifest by digest,
disk images by size only: the guest itself verifies their content, and that is
what a run is there to show. Must never write to the bundle.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from troth.documents import bundle as bundle_document
from troth.documents import strict
from troth.documents.policy import OPTIONAL, REQUIRED, InstanceRules
from troth.errors import FormatError, UsageError
from troth.machine.qemu import DiskImage
from troth.record import record

if TYPE_CHECKING:
    from pathlib import Path

    from troth.documents.bundle import Artefact, Bundle

_POLICY = "policy.json"
_DIGESTED = ("vmlinuz", "initramfs", "cmdline", _POLICY)
_MAX_MANIFEST_BYTES = 64 << 20
_MAX_POLICY_BYTES = 64 << 20
_MAX_CMDLINE_BYTES = 64 << 10


@record
class BundleDir:
    """An opened bundle: its manifest and where its parts are.

    ``supervised``: the policy's handover is to a workload under PID 1;
    ``instance``: what the policy lets an instance configuration say, None where it takes none;
    ``network``: the guest uses one before its handover.
    """

    bundle: Bundle
    kernel: Path
    initramfs: Path
    cmdline: Path
    disks: tuple[DiskImage, ...]
    supervised: bool
    instance: InstanceRules | None
    network: bool


def open_(folder: Path) -> BundleDir:
    """The bundle in ``folder``.

    Raises ``UsageError`` ``bundle-missing``; ``FormatError`` ``bundle-file``,
    ``bundle-size``, ``bundle-digest`` and the ``json-*`` codes.
    """
    folder = folder.resolve()
    manifest = folder / bundle_document.FILE_NAME
    if not manifest.is_file():
        raise UsageError(
            "bundle-missing",
            f"no {bundle_document.FILE_NAME}: not a bundle directory",
            where=str(folder),
            hint="make one with: troth build MANIFEST -o DIR",
        )
    with manifest.open("rb") as file:
        data = file.read(_MAX_MANIFEST_BYTES + 1)
    bundle = bundle_document.parse(data, where=str(manifest))
    known = {artefact.name: artefact for artefact in bundle.artefacts}
    for artefact in bundle.artefacts:
        _check(folder, artefact)
    for name in (*_DIGESTED, *(disk.file for disk in bundle.disks)):
        if name not in known:
            raise FormatError("bundle-file", f"{name!r} is no artefact", where=str(manifest))
    supervised, instance, network = _policy(folder / _POLICY)
    return BundleDir(
        bundle=bundle,
        kernel=folder / "vmlinuz",
        initramfs=folder / "initramfs",
        cmdline=folder / "cmdline",
        disks=tuple(
            DiskImage(serial=disk.serial, path=folder / disk.file, read_only=True)
            for disk in bundle.disks
        ),
        supervised=supervised,
        instance=instance,
        network=network,
    )


def _policy(path: Path) -> tuple[bool, InstanceRules | None, bool]:
    """What a run must know of the policy at ``path``, whose digest was right."""
    with path.open("rb") as file:
        tree = strict.parse(file.read(_MAX_POLICY_BYTES + 1), where=str(path))
    top = strict.Reader(tree, where=str(path))
    kind = top.reader("handover").text("kind", allowed=("switch", "supervise"))
    rules = top.raw("instance")
    found = None if rules is None else _rules(top.reader("instance"))
    # A bundle of an older troth does not know the key.
    network = top.has("network") and top.raw("network") is not None
    return kind == "supervise", found, network


def _rules(reader: strict.Reader) -> InstanceRules:
    values = reader.reader("values")
    return InstanceRules(
        need=reader.text("need", allowed=(REQUIRED, OPTIONAL)),
        hostname=reader.boolean("hostname"),
        network=reader.texts("network"),
        brokers=reader.texts("brokers"),
        values={name: values.texts(name) for name in values.keys()},  # noqa: SIM118 - a method
    )


def _check(folder: Path, artefact: Artefact) -> None:
    if artefact.name in ("", ".", "..") or "/" in artefact.name or "\0" in artefact.name:
        raise FormatError("bundle-file", f"{artefact.name!r} is no file name", where=str(folder))
    path = folder / artefact.name
    hint = "the bundle was changed or only partly copied; build it again"
    if not path.is_file():
        raise FormatError(
            "bundle-file", "a file of the manifest is missing", where=str(path), hint=hint
        )
    size_bytes = path.stat().st_size
    if size_bytes != artefact.size_bytes:
        raise FormatError(
            "bundle-size",
            f"{size_bytes} bytes, the manifest says {artefact.size_bytes}",
            where=str(path),
            hint=hint,
        )
    if artefact.name in _DIGESTED:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != artefact.sha256:
            raise FormatError(
                "bundle-digest",
                f"SHA-256 is {digest}, the manifest says {artefact.sha256}",
                where=str(path),
                hint=hint,
            )


def read_cmdline(path: Path) -> str:
    """The kernel command line in ``path``, byte for byte but for one final newline.

    Raises ``UsageError`` ``cmdline-file``.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_CMDLINE_BYTES + 1)
    except OSError as error:
        raise UsageError("cmdline-file", error.strerror or str(error), where=str(path)) from None
    if len(data) > _MAX_CMDLINE_BYTES or b"\0" in data:
        raise UsageError("cmdline-file", "longer than 64 KiB, or holds a NUL", where=str(path))
    # surrogateescape carries any byte through to the argument unchanged.
    return data.removesuffix(b"\n").decode("utf-8", errors="surrogateescape")
