# SPDX-License-Identifier: Apache-2.0
"""The launch digests of an image, each with the conditions it holds under.

Serves the build, which states them, and whoever recomputes them from a bundle
on another machine. What they are computed from is always the file itself, never
what somebody said of it. Sources: ``measure.igvm``, ``measure.direct_boot``.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from troth.abi import kernel_hashes, snp_policy
from troth.abi.igvm import file as igvm_file
from troth.documents.launch_parameters import LaunchParameters, Processors
from troth.documents.reference_values import (
    BOOT_CHAIN,
    COVERED,
    OVMF_WORDS,
    SIMULATED,
    LaunchValue,
)
from troth.errors import BuildError
from troth.image import reference
from troth.measure import direct_boot, igvm, simulated_launch
from troth.measure.vcpu import SIGNATURES
from troth.record import record, replace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from troth.documents.launch_parameters import FirmwareParameters
    from troth.documents.policy import Policy
    from troth.image.inputs.manifest_records import Launch

#: What of the firmware its digests depend on, in the bundle: no firmware is needed later.
PARAMETERS_FILE = "firmware-parameters.json"
IGVM_FILE = "guest.igvm"

#: Until a report of real hardware showed the digest (SECURITY S30).
EXPERIMENTAL = "never launched on SNP hardware"
NO_HARDWARE = "a simulated platform protects nothing"
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
        yield igvm_value(folder, shape, policy=policy, cpu_types=names, signature=signature)


def igvm_value(
    folder: Path, shape: Shape, *, policy: Policy, cpu_types: tuple[str, ...], signature: int
) -> LaunchValue:
    """The value of one file on one kind of processor, () for any; ``FormatError``, ``OSError``."""
    path = folder / shape.file
    with path.open("rb") as file:
        source = igvm_file.FileSource(file.fileno(), where=str(path))
        measured = igvm.measure(
            igvm_file.open_(source),
            platform="sev-snp",
            vcpus=shape.vcpus,
            vcpu_signature=signature if cpu_types else None,
        )
    return LaunchValue(
        digest=measured.digest.hex(),
        kind="igvm",
        platform="direct",
        file=shape.file,
        ovmf_hash="",
        form="plain",
        cmdline=policy.cmdline,
        vcpus=shape.vcpus,
        cpu_types=cpu_types,
        vcpu_signature=signature,
        memory_bytes=shape.memory_bytes,
        vmm="qemu",
        guest_features=measured.vmsas[0].sev_features if measured.vmsas else 0,
        policy=measured.policy or 0,
        acpi_aml="off" if policy.acpi_aml == "off" else "measured-tables",
        covers=COVERED,
        experimental=EXPERIMENTAL,
    )


@record
class DirectBoot:
    """What digests with one firmware are made of: ``name`` of the firmware, digests of files."""

    firmware: FirmwareParameters
    name: str
    kernel_sha256: bytes
    initramfs_sha256: bytes


def of_ovmf(boot: DirectBoot, *, policy: Policy, launch: Launch) -> Iterator[LaunchValue]:
    """The values of direct boots: of each accepted command line, number and kind of processors.

    Raises ``BuildError`` ``reference-form`` where PID 1 would refuse every
    command line that OVMF makes; ``FormatError`` ``firmware-hashes``.
    """
    texts = [text for form, text in reference.cmdlines(policy) if form == "ovmf-direct"]
    if not texts:
        raise BuildError(
            "reference-form",
            "the policy accepts no command line that OVMF has appended to",
            hint="leave [launch] ovmf out, or accept the form ovmf-direct",
        )
    kinds = by_signature(launch.cpu_types).items()
    for text, vcpus, (signature, names), features in itertools.product(
        texts, launch.vcpus, kinds, launch.guest_features
    ):
        processors = Processors(vcpus, signature, names[0], "qemu", features)
        yield ovmf_value(
            boot, processors, cmdline=text, cpu_types=names, policy=policy, guest=launch.policy
        )


def ovmf_value(
    boot: DirectBoot,
    processors: Processors,
    *,
    cmdline: str,
    cpu_types: tuple[str, ...],
    policy: Policy,
    guest: int,
) -> LaunchValue:
    """The value of one direct boot whose guest will see ``cmdline``; ``guest``: its SNP policy."""
    hashes = kernel_hashes.KernelHashes(
        kernel=boot.kernel_sha256,
        initrd=boot.initramfs_sha256,
        # QEMU hashes what it was given, before OVMF appends to it.
        cmdline=kernel_hashes.cmdline_sha256(cmdline.removesuffix(OVMF_WORDS)),
    )
    return LaunchValue(
        digest=direct_boot.digest(boot.firmware, processors, kernel=hashes).hex(),
        kind="ovmf",
        platform="direct",
        file=boot.name,
        ovmf_hash=boot.firmware.ovmf_hash.hex(),
        form="ovmf-direct",
        cmdline=cmdline,
        vcpus=processors.vcpus,
        cpu_types=cpu_types,
        vcpu_signature=processors.signature or 0,
        memory_bytes=0,
        vmm=processors.vmm,
        guest_features=processors.guest_features,
        policy=guest,
        acpi_aml=policy.acpi_aml,
        covers=COVERED[:3],
        experimental="",
    )


def of_simulated(folder: Path, *, policy: Policy) -> Iterator[LaunchValue]:
    """The values of a simulated launch of the bundle in ``folder``, one for each command line.

    ``troth run --sim-snp`` hands the kernel its text as it is. Raises ``BuildError``
    ``reference-launches`` where variable keys make more than a document holds.
    """
    texts = (text for form, text in reference.cmdlines(policy) if form == "plain")
    listed = list(itertools.islice(texts, MAX_VALUES + 1))
    if len(listed) > MAX_VALUES:
        raise BuildError(
            "reference-launches",
            f"variable keys make more than {MAX_VALUES} launch digests",
            hint="allow fewer values in [image] cmdline_variable",
        )
    kernel, initramfs = (folder / "vmlinuz").read_bytes(), (folder / "initramfs").read_bytes()
    for text in listed:
        yield _simulated_value(kernel, initramfs, cmdline=text, policy=policy)


def _simulated_value(
    kernel: bytes, initramfs: bytes, *, cmdline: str, policy: Policy
) -> LaunchValue:
    measured = simulated_launch.digest(kernel=kernel, initramfs=initramfs, cmdline=cmdline.encode())
    return LaunchValue(
        digest=measured.hex(),
        kind=SIMULATED,
        platform=SIMULATED,
        file="vmlinuz",
        ovmf_hash="",
        form="plain",
        cmdline=cmdline,
        vcpus=0,
        cpu_types=(),
        vcpu_signature=0,
        memory_bytes=0,
        vmm="qemu",
        guest_features=0,
        policy=snp_policy.DEFAULT,
        acpi_aml=policy.acpi_aml,
        covers=BOOT_CHAIN,
        experimental=NO_HARDWARE,
    )


def again(
    value: LaunchValue, folder: Path, *, policy: Policy, boot: DirectBoot | None
) -> LaunchValue:
    """``value`` as the bundle in ``folder`` gives it under the same conditions.

    ``boot``: for values of kind "ovmf"; without it ``BuildError``
    ``reference-firmware``. The guest policy of a direct boot is nobody's to compute.
    """
    if value.kind == "igvm":
        return igvm_value(
            folder,
            Shape(value.file, value.vcpus, value.memory_bytes),
            policy=policy,
            cpu_types=value.cpu_types,
            signature=value.vcpu_signature,
        )
    if value.kind == SIMULATED:
        return _simulated_value(
            (folder / "vmlinuz").read_bytes(),
            (folder / "initramfs").read_bytes(),
            cmdline=value.cmdline,
            policy=policy,
        )
    if boot is None:
        raise BuildError("reference-firmware", f"the bundle holds no {PARAMETERS_FILE}")
    processors = Processors(
        value.vcpus,
        value.vcpu_signature,
        value.cpu_types[0] if value.cpu_types else "",
        value.vmm,
        value.guest_features,
    )
    return ovmf_value(
        replace(boot, name=value.file),
        processors,
        cmdline=value.cmdline,
        cpu_types=value.cpu_types,
        policy=policy,
        guest=value.policy,
    )


def parameters_document(firmware: FirmwareParameters) -> LaunchParameters:
    """What stands in the bundle for the firmware file."""
    return LaunchParameters("snp:ovmf-hash", firmware.ovmf_hash, firmware, None, None)
