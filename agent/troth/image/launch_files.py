# SPDX-License-Identifier: Apache-2.0
"""The files of a bundle that a confidential launch starts from, and their digests.

Serves the build: IGVM files for each shape of machine, and in place of a
firmware the parameters that its digests depend on. Must make the same bytes
from the same inputs, and measure what it wrote, not what it meant to write.
"""

from __future__ import annotations

import hashlib
import io
import itertools
from typing import TYPE_CHECKING

from troth.abi import snp_policy
from troth.documents import launch_parameters
from troth.documents.reference_values import SIMULATED
from troth.errors import BuildError
from troth.image import firmware, launch_values, reference
from troth.image.igvm import build as igvm_build
from troth.record import record

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

    from _typeshed import ReadableBuffer as Buffer

    from troth.documents.policy import Policy
    from troth.documents.reference_values import LaunchValue
    from troth.image.build import Progress
    from troth.image.inputs.manifest_records import Manifest
    from troth.image.launch_values import Shape


@record
class Launches:
    """``files``: names in the bundle; ``inputs``: (name, SHA-256) of what is not in it."""

    values: tuple[LaunchValue, ...] = ()
    files: tuple[str, ...] = ()
    inputs: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()


def make(manifest: Manifest, stage: Path, *, policy: Policy, progress: Progress) -> Launches:
    """Write into ``stage``, which holds kernel, initramfs and command line, what a launch needs.

    Raises ``BuildError`` ``reference-launches``, ``reference-form``,
    ``source-missing``; ``FormatError`` of the firmware; the errors of
    ``image.igvm.build``.
    """
    values: list[LaunchValue] = []
    files: list[str] = []
    inputs: list[tuple[str, str]] = []
    launch = manifest.launch
    if manifest.image.igvm:
        for shape in launch_values.shapes(launch):
            with progress.step(shape.file):
                with (stage / shape.file).open("wb") as stream:
                    write_igvm(stage, shape, policy=policy, guest_policy=launch.policy,
                               stream=stream)  # fmt: skip
                files.append(shape.file)
                values += launch_values.of_igvm(
                    stage, shape, policy=policy, cpu_types=launch.cpu_types
                )
    if launch.ovmf is not None:
        with progress.step("launch digests"):
            _check_count(manifest, policy)
            values += _of_firmware(manifest, launch.ovmf, stage, policy)
            files.append(launch_values.PARAMETERS_FILE)
            inputs.append((launch.ovmf.name, _sha256(launch.ovmf)))
    if policy.snp == SIMULATED:
        values += launch_values.of_simulated(stage, policy=policy)
    return Launches(
        values=_distinct(values),
        files=tuple(files),
        inputs=tuple(inputs),
        warnings=_warnings(manifest) if any(v.kind != SIMULATED for v in values) else (),
    )


def write_igvm(
    folder: Path, shape: Shape, *, policy: Policy, guest_policy: int, stream: BinaryIO
) -> None:
    """Write the IGVM file of ``shape`` from the kernel and initramfs in ``folder``.

    ``policy``: the bundle's, for the command line and whether a TPM is used;
    ``guest_policy``: SNP's.
    """
    igvm_build.build(
        kernel=(folder / "vmlinuz").read_bytes(),
        initramfs=(folder / "initramfs").read_bytes(),
        cmdline=policy.cmdline,
        memory_bytes=shape.memory_bytes,
        vcpus=shape.vcpus,
        policy=guest_policy,
        # As troth igvm build makes it of the same bundle.
        tpm=policy.vtpm != "none",
        stream=stream,
    )


class _Digest(io.RawIOBase):
    """Takes bytes and keeps their SHA-256 only."""

    def __init__(self) -> None:
        self.state = hashlib.sha256()

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, data: Buffer, /) -> int:
        """Take all of ``data``."""
        view = memoryview(data)
        self.state.update(view)
        return view.nbytes


def igvm_sha256(folder: Path, shape: Shape, *, policy: Policy, guest_policy: int) -> str:
    """SHA-256 (hex) of the IGVM file that the kernel and initramfs in ``folder`` make."""
    digest = _Digest()
    with io.BufferedWriter(digest) as stream:
        write_igvm(folder, shape, policy=policy, guest_policy=guest_policy, stream=stream)
    return digest.state.hexdigest()


def _of_firmware(
    manifest: Manifest, path: Path, stage: Path, policy: Policy
) -> tuple[LaunchValue, ...]:
    try:
        parameters = firmware.parameters(path)
    except OSError as error:
        raise BuildError(
            "source-missing",
            f"the firmware cannot be read: {error.strerror}",
            where=manifest.where("launch", "ovmf"),
        ) from None
    document = launch_values.parameters_document(parameters)
    (stage / launch_values.PARAMETERS_FILE).write_bytes(launch_parameters.print_(document))
    boot = launch_values.DirectBoot(
        firmware=parameters,
        name=path.name,
        kernel_sha256=bytes.fromhex(_sha256(stage / "vmlinuz")),
        initramfs_sha256=bytes.fromhex(_sha256(stage / "initramfs")),
    )
    return tuple(launch_values.of_ovmf(boot, policy=policy, launch=manifest.launch))


def _check_count(manifest: Manifest, policy: Policy) -> None:
    """Refuse more digests than a document holds before computing any."""
    launch = manifest.launch
    kinds = len(launch_values.by_signature(launch.cpu_types))
    each = len(launch.vcpus) * kinds * len(launch.guest_features)
    limit = launch_values.MAX_VALUES
    accepted = (text for form, text in reference.cmdlines(policy) if form == "ovmf-direct")
    texts = sum(1 for _ in itertools.islice(accepted, limit + 1))
    if each * texts > limit:
        raise BuildError(
            "reference-launches",
            f"the shapes and command lines make more than {limit} launch digests",
            where=manifest.where("launch", "ovmf"),
            hint="ask for fewer vcpus, cpu_types, guest_features or cmdline_variable values",
        )


def _distinct(values: list[LaunchValue]) -> tuple[LaunchValue, ...]:
    """The values, each digest once; the first to state it stays."""
    found: dict[str, LaunchValue] = {}
    for value in values:
        found.setdefault(value.digest, value)
    return tuple(found.values())


def _warnings(manifest: Manifest) -> tuple[str, ...]:
    found = list(snp_policy.warnings(snp_policy.parse(manifest.launch.policy)))
    if manifest.tee.snp == "none":
        found.append(
            '[tee] snp = "none": this guest does not demand SNP and boots without it too;'
            " only a report with one of the launch digests shows where it runs"
        )
    if manifest.image.igvm:
        found.append(f"IGVM files: {launch_values.EXPERIMENTAL}")
    return tuple(found)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
