# SPDX-License-Identifier: Apache-2.0
"""Reference values made to order: as a build leaves them, and as a signer does."""

from troth.documents.reference_values import (
    Case,
    Flags,
    LaunchValue,
    ReferenceValues,
    Registers,
)
from troth.record import replace

ONE = Registers((("sha1", 14, "3" * 40), ("sha256", 14, "1" * 64)), "4" * 96)
TWO = Registers((("sha256", 14, "2" * 64),), "5" * 96)
NONE = Registers((), "6" * 96)

IGVM = LaunchValue(
    digest="e" * 96,
    kind="igvm",
    platform="direct",
    file="guest.igvm",
    ovmf_hash="",
    form="plain",
    cmdline="console=ttyS0",
    vcpus=1,
    cpu_types=(),
    vcpu_signature=0,
    memory_bytes=1 << 30,
    vmm="qemu",
    guest_features=1,
    policy=0x30000,
    acpi_aml="measured-tables",
    covers=("kernel", "initramfs", "cmdline", "acpi"),
    experimental="never launched on SNP hardware",
)
OVMF = LaunchValue(
    digest="f" * 96,
    kind="ovmf",
    platform="direct",
    file="OVMF.amdsev.fd",
    ovmf_hash="9" * 96,
    form="ovmf-direct",
    cmdline="console=ttyS0 initrd=initrd",
    vcpus=2,
    cpu_types=("EPYC-v4", "EPYC"),
    vcpu_signature=0x800F12,
    memory_bytes=0,
    vmm="qemu",
    guest_features=0x21,
    policy=0x30000,
    acpi_aml="unprotected",
    covers=("kernel", "initramfs", "cmdline"),
    experimental="",
)
VALUES = ReferenceValues(
    image_name="demo",
    svn=3,
    troth_version="0.1.0",
    platform="none",
    snp="none",
    vtpm="required",
    vtpm_kind="host",
    policy_sha256="a" * 64,
    root_hashes=(("root", "b" * 64), ("models", "c" * 64)),
    workload="",
    cases=(
        Case("plain", "console=ttyS0", "present", ONE, TWO),
        Case("plain", "console=ttyS0", "absent", NONE, NONE),
        Case("ovmf-direct", "console=ttyS0 initrd=initrd", "present", ONE, TWO),
    ),
    flags=Flags("unprotected", True, False, "integrity", False, "panic", "tmpfs", ("/",)),
    launch=(IGVM, OVMF),
    products=("Genoa",),
    artefacts=(("vmlinuz", "1" * 64), ("initramfs", "2" * 64)),
    inputs=(("troth.toml", "7" * 64), ("OVMF.amdsev.fd", "8" * 64)),
)
SIGNED_VALUES = replace(
    VALUES,
    issued="2026-03-01T00:00:00Z",
    expires="2026-06-01T00:00:00Z",
    commit="d" * 40,
    revoked=("0" * 96,),
)
