# SPDX-License-Identifier: Apache-2.0
"""The launch digests of an image, each with the conditions it holds under.

Serves the build, which states them, and whoever recomputes them from a bundle
on another machine. What they are computed from is always the file itself, never
what somebody said of it. Sources: ``measure.igvm``, ``measure.direct_boot``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.abi import kernel_hashes
from troth.abi.igvm import file as igvm_file
from troth.documents.launch_parameters import LaunchParameters, Processors
from troth.documents.reference_values import COVERED, OVMF_WORDS, LaunchValue
from troth.errors import BuildError
from troth.image import reference
from troth.measure import direct_boot, igvm
from troth.measure.vcpu import SIGNATURES
from troth.record import record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from troth.abi.kernel_hashes import KernelHashes
    from troth.documents.launch_parameters import FirmwareParameters
    from troth.documents.policy import Policy
    from troth.image.inputs.manifest_records import Launch
    from troth.measure.igvm import Measured

#: What of the firmware its digests depend on, in the bundle: no firmware is needed later.
PARAMETERS_FILE = "firmware-parameters.json"
IGVM_FILE = "guest.igvm"

#: Until a report of real hardware showed the digest (SECURITY S30).
EXPERIMENTAL = "never launched on SNP hardware"
MAX_VALUES = 4096

_UNITS = ((1 << 30, "G"), (1 << 20, "M"))


@record
class Shape:
    """A machine that an IGVM file is made for; ``file``: its name in the bundle."""

    file: str
    vcpus: int
    memory_bytes: int


def shapes(launch: Launch) -> tuple[Shape, ...]:
    """Each number of processors with each size of memory; the first is guest.igvm."""
    pairs = [(vcpus, memory) for vcpus in launch.vcpus for memory in launch.memory_bytes]
    return tuple(
        Shape(IGVM_FILE if not index else f"guest-{vcpus}x{_size(memory)}.igvm", vcpus, memory)
        for index, (vcpus, memory) in enumerate(pairs)
    )


def _size(size_bytes: int) -> str:
    unit_bytes, letter = next(item for item in _UNITS if size_bytes % item[0] == 0)
    return f"{size_bytes // unit_bytes}{letter}"


def by_signature(cpu_types: Sequence[str]) -> dict[int, tuple[str, ...]]:
    """Signature -> the names in ``cpu_types`` that have it: they share their digests."""
    found: dict[int, tuple[str, ...]] = {}
    for name in cpu_types:
        found[SIGNATURES[name]] = (*found.get(SIGNATURES[name], ()), name)
    return found


def of_igvm(
    folder: Path, shape: Shape, *, policy: Policy, cpu_types: Sequence[str]
) -> Iterator[LaunchValue]:
    """The values of one IGVM file of the bundle in ``folder``, one for each kind of processor.

    KVM measures the reset state of further processors, which shows their
    signature; with one processor there is none.
    """
    kinds = by_signature(cpu_types) if shape.vcpus > 1 else {0: ()}
    for signature, names in kinds.items():
        measured = measure_igvm(
            folder / shape.file, vcpus=shape.vcpus, signature=signature if names else None
        )
        yield LaunchValue(
            digest=measured.digest.hex(),
            kind="igvm",
            platform="direct",
            file=shape.file,
            ovmf_hash="",
            form="plain",
            cmdline=policy.cmdline,
            vcpus=shape.vcpus,
            cpu_types=names,
            vcpu_signature=signature,
            memory_bytes=shape.memory_bytes,
            vmm="qemu",
            guest_features=measured.vmsas[0].sev_features,
            policy=measured.policy or 0,
            acpi_aml="off" if policy.acpi_aml == "off" else "measured-tables",
            covers=COVERED,
            experimental=EXPERIMENTAL,
        )


def measure_igvm(path: Path, *, vcpus: int, signature: int | None) -> Measured:
    """What a launch of the file at ``path`` measures; ``FormatError``, ``OSError``."""
    with path.open("rb") as file:
        source = igvm_file.FileSource(file.fileno(), where=str(path))
        return igvm.measure(
            igvm_file.open_(source), platform="sev-snp", vcpus=vcpus, vcpu_signature=signature
        )


def of_ovmf(
    firmware: FirmwareParameters,
    *,
    name: str,
    kernel_sha256: bytes,
    initramfs_sha256: bytes,
    policy: Policy,
    launch: Launch,
) -> Iterator[LaunchValue]:
    """The values of direct boots with the firmware called ``name``.

    One for each accepted command line, number and kind of processors, and
    features. Raises ``BuildError`` ``reference-form`` where PID 1 would refuse
    every command line that OVMF makes.
    """
    texts = [text for form, text in reference.cmdlines(policy) if form == "ovmf-direct"]
    if not texts:
        raise BuildError(
            "reference-form",
            "the policy accepts no command line that OVMF has appended to",
            hint="leave [launch] ovmf out, or accept the form ovmf-direct",
        )
    for text in texts:
        hashes = _hashes(text, kernel_sha256, initramfs_sha256)
        for vcpus in launch.vcpus:
            for signature, names in by_signature(launch.cpu_types).items():
                for features in launch.guest_features:
                    processors = Processors(vcpus, signature, names[0], "qemu", features)
                    yield LaunchValue(
                        digest=direct_boot.digest(firmware, processors, kernel=hashes).hex(),
                        kind="ovmf",
                        platform="direct",
                        file=name,
                        ovmf_hash=firmware.ovmf_hash.hex(),
                        form="ovmf-direct",
                        cmdline=text,
                        vcpus=vcpus,
                        cpu_types=names,
                        vcpu_signature=signature,
                        memory_bytes=0,
                        vmm="qemu",
                        guest_features=features,
                        policy=launch.policy,
                        acpi_aml=policy.acpi_aml,
                        covers=COVERED[:3],
                        experimental="",
                    )


def again(
    value: LaunchValue,
    folder: Path,
    *,
    firmware: FirmwareParameters | None,
    kernel_sha256: bytes,
    initramfs_sha256: bytes,
) -> str:
    """The digest of ``value``'s launch, computed from the bundle in ``folder``, in hex.

    ``firmware``: of the bundle, for values of kind "ovmf", whose absence
    is a ``BuildError`` ``reference-firmware``.
    """
    if value.kind == "igvm":
        signature = value.vcpu_signature if value.cpu_types else None
        measured = measure_igvm(folder / value.file, vcpus=value.vcpus, signature=signature)
        return measured.digest.hex()
    if firmware is None:
        raise BuildError("reference-firmware", f"the bundle holds no {PARAMETERS_FILE}")
    processors = Processors(
        value.vcpus,
        value.vcpu_signature,
        value.cpu_types[0] if value.cpu_types else "",
        value.vmm,
        value.guest_features,
    )
    hashes = _hashes(value.cmdline, kernel_sha256, initramfs_sha256)
    return direct_boot.digest(firmware, processors, kernel=hashes).hex()


def _hashes(cmdline: str, kernel_sha256: bytes, initramfs_sha256: bytes) -> KernelHashes:
    """The hashes that QEMU writes for a guest that will see ``cmdline``."""
    return kernel_hashes.KernelHashes(
        kernel=kernel_sha256,
        initrd=initramfs_sha256,
        cmdline=kernel_hashes.cmdline_sha256(cmdline.removesuffix(OVMF_WORDS)),
    )


def parameters_document(firmware: FirmwareParameters) -> LaunchParameters:
    """What stands in the bundle for the firmware file."""
    return LaunchParameters("snp:ovmf-hash", firmware.ovmf_hash, firmware, None, None)
