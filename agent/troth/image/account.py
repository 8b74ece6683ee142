# SPDX-License-Identifier: Apache-2.0
"""What a finished build says of itself: manifest, reference values, SBOM and lock."""

from __future__ import annotations

import hashlib
import os
import tempfile
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from troth import __version__
from troth.documents import bundle, lock, reference_values, reference_values_json, sbom
from troth.errors import HostError, ManifestError
from troth.image import build, provenance, reference, wheels
from troth.image.packing import entry
from troth.image.roots import root

if TYPE_CHECKING:
    from pathlib import Path

    from troth.image.build import Made
    from troth.image.inputs.manifest_records import Manifest

#: What the manifest and the lock are called in reference values, wherever they lie.
MANIFEST_NAME = "troth.toml"
_STATED = ("vmlinuz", "initramfs", "cmdline", "policy.json", sbom.FILE_NAME)
_FILE_SYSTEM_TOOLS = {
    "erofs": ("mkfs.erofs", "fakeroot"),
    "squashfs": ("mksquashfs", "fakeroot"),
    "ext4": ("mkfs.ext4", "debugfs"),
}
_COMPRESSION_TOOLS = {"none": (), "lz4": ("lz4",), "zstd": ("zstd",)}


def write(made: Made, stage: Path, *, used: lock.Lock) -> None:
    """Write sbom.spdx.json, reference-values.json and manifest.json into ``stage``.

    ``used``: the lock of this build, whose digest the reference values state.
    """
    packed = entry.packed(made.entries)
    document = _sbom(made)
    sbom.compare_files(document, packed)
    (stage / sbom.FILE_NAME).write_bytes(document)
    images = (build.image_name(name) for name, _image in made.images)
    artefacts = [_artefact(stage, name) for name in (*_STATED, *images, *made.launches.files)]
    values = _values(made, artefacts, used)
    (stage / reference_values.FILE_NAME).write_bytes(reference_values_json.print_(values))
    artefacts.append(_artefact(stage, reference_values.FILE_NAME))
    (stage / bundle.FILE_NAME).write_bytes(_manifest(made, artefacts, packed))


def _manifest(
    made: Made, artefacts: list[bundle.Artefact], packed: tuple[bundle.Packed, ...]
) -> bytes:
    manifest = made.manifest
    return bundle.print_(
        bundle.Bundle(
            name=manifest.image.name,
            svn=manifest.image.svn,
            troth_version=__version__,
            kernel_release=made.kernel.release,
            snp=manifest.tee.snp,
            vtpm=manifest.tee.vtpm,
            vtpm_kind=manifest.tee.vtpm_kind,
            acpi_aml=made.policy.acpi_aml,
            compression=manifest.image.compression,
            artefacts=tuple(artefacts),
            # What lies inside an encrypted disk is attached as that disk, by whoever runs it.
            disks=tuple(
                bundle.Disk(name, build.image_name(name))
                for name, _image in made.images
                if name not in {volume.name for volume in manifest.encrypted}
            ),
            packed=packed,
        )
    )


def _artefact(stage: Path, name: str) -> bundle.Artefact:
    path = stage / name
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return bundle.Artefact(name=name, size_bytes=path.stat().st_size, sha256=digest)


def _values(
    made: Made, artefacts: list[bundle.Artefact], used: lock.Lock
) -> reference_values.ReferenceValues:
    policy = made.policy
    return reference_values.ReferenceValues(
        image_name=policy.image_name,
        svn=policy.svn,
        troth_version=__version__,
        platform=reference.platform(policy),
        snp=policy.snp,
        vtpm=policy.vtpm,
        vtpm_kind=policy.vtpm_kind,
        policy_sha256=hashlib.sha256(made.policy_bytes).hexdigest(),
        root_hashes=tuple((item.name, item.verity.root_hash) for item in policy.volumes),
        workload=made.workload.hex() if made.workload is not None else "",
        cases=reference.cases(policy, policy_bytes=made.policy_bytes, workload=made.workload),
        flags=reference.flags(policy, unsigned_modules=bool(made.unsigned_modules)),
        launch=made.launches.values,
        products=made.manifest.launch.products,
        artefacts=tuple((item.name, item.sha256) for item in artefacts),
        inputs=(
            (MANIFEST_NAME, made.manifest.sha256),
            (lock.FILE_NAME, hashlib.sha256(lock.print_(used)).hexdigest()),
            *made.launches.inputs,
        ),
        instance=reference.instance(policy),
    )


def _sbom(made: Made) -> bytes:
    foreign = {path: origin for origin, path in made.origins}
    owners = provenance.owners(foreign.values())
    troth = sbom.Package("troth", __version__, "troth")
    installed = wheels.of(foreign.values())
    packages = {troth, *(sbom.Package(*owner, "debian") for owner in owners.values())}
    packages |= {
        sbom.Package(own.package, own.version, "pypi") for own in installed.values() if own.package
    }
    kernel = made.kernel
    if kernel.package:
        packages.add(sbom.Package(kernel.package, kernel.version, "debian"))
    packages.update(made.root_packages)
    files = []
    for item in made.entries:
        if item.kind != "file":
            continue
        origin = foreign.get(item.path, "")
        package = owners.get(origin, ("", ""))[0]
        if origin in installed:
            package = installed[origin].package
        if item.path.startswith("modules/"):
            package = kernel.package
        elif "/troth/" in item.path:
            package = troth.name
        files.append(
            sbom.File(
                path=item.path,
                sha1=hashlib.sha1(item.data, usedforsecurity=False).hexdigest(),
                sha256=hashlib.sha256(item.data).hexdigest(),
                package=package,
            )
        )
    return sbom.print_(
        image_name=made.manifest.image.name,
        image_version=str(made.manifest.image.svn),
        troth_version=__version__,
        created=datetime.fromtimestamp(root.source_date_epoch(), UTC).strftime(
            "%Y-%m-%dT%H:%M:%SZ"
        ),
        packages=packages,
        files=files,
    )


def lock_of(made: Made) -> lock.Lock:
    """troth.lock for what this build really used."""
    tools = {"strip", "as", "ld", *_COMPRESSION_TOOLS[made.manifest.image.compression]}
    for _name, image in made.images:
        if not image.ready:
            tools.update(_FILE_SYSTEM_TOOLS[image.file_system])
    if made.manifest.root is not None and made.manifest.root.modules:
        tools.add("depmod")
    python = made.interpreter
    return lock.Lock(
        kernel=lock.Kernel(made.kernel.package, made.kernel.version, made.kernel.sha256),
        interpreter=lock.Interpreter(
            str(python.path), python.full_version, provenance.sha256_of(str(python.path))
        ),
        libraries=provenance.items(origin for origin, _path in made.origins),
        tools=(provenance.troth(made.troth_files), *provenance.tools(tools)),
    )


def lock_path(manifest: Manifest) -> Path:
    """Where the lock of ``manifest`` lies: beside it."""
    return manifest.path.with_name(lock.FILE_NAME)


def read_lock(manifest: Manifest) -> lock.Lock | None:
    """The lock beside ``manifest``, None where there is none yet."""
    path = lock_path(manifest)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ManifestError("lock-read", f"{error.strerror}", where=str(path)) from None
    return lock.parse(data, where=str(path))


def write_lock(manifest: Manifest, used: lock.Lock) -> None:
    """Write ``used`` beside ``manifest``, as a whole; ``HostError`` ``lock-write``."""
    path = lock_path(manifest)
    try:
        file, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(file, "wb") as stream:
                stream.write(lock.print_(used))
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise HostError(
            "lock-write",
            f"the lock cannot be written: {error.strerror}",
            where=str(path),
            hint="the manifest's directory must be writable for a build without a lock",
        ) from None
