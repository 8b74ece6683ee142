# SPDX-License-Identifier: Apache-2.0
"""The launch digest of a direct boot: OVMF, its metadata, kernel hashes, processors.

Serves ``troth measure launch`` and the reference values of direct boots. Pure
sums over what callers have read: it opens no file. The order of updates follows
the firmware file and the monitor, and must never be made tidier than they are.

The digest covers kernel, initrd and command line only where their hashes are
measured. On EC2 and GCE it covers the provider's firmware and nothing else.

Source: QEMU, ``target/i386/sev.c`` (order, page types, hashes); for EC2 and GCE
sev-snp-measure 0.0.13, ``guest.py``, since their providers publish none.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from troth.abi import kernel_hashes, ovmf
from troth.abi.kernel_hashes import TABLE_BYTES
from troth.documents.launch_parameters import FirmwareParameters
from troth.errors import FormatError, UsageError
from troth.measure import launch, vcpu
from troth.measure.launch import PAGE_BYTES, LaunchDigest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from troth.abi.kernel_hashes import KernelHashes
    from troth.abi.ovmf import Area, Firmware, Section
    from troth.documents.launch_parameters import LaunchParameters, Processors


def ovmf_hash(chunks: Iterable[bytes], *, size_bytes: int) -> bytes:
    """The launch digest (48 bytes) after the firmware's own pages.

    ``chunks``: the file's ``size_bytes`` bytes in order, each but the last whole
    pages. Raises ``FormatError`` ``firmware-size`` where they are not as many,
    ``launch-page`` where a chunk is not whole pages.
    """
    ovmf.check_size(size_bytes)
    digest = LaunchDigest()
    gpa = ovmf.END_GPA - size_bytes
    for chunk in chunks:
        if gpa + len(chunk) > ovmf.END_GPA:
            break
        digest.region(gpa, chunk)
        gpa += len(chunk)
    else:
        if gpa == ovmf.END_GPA:
            return digest.value
    raise FormatError("firmware-size", "the firmware changed while it was read")


def firmware_parameters(firmware: Firmware, *, ovmf_hash: bytes) -> FirmwareParameters:
    """What of ``firmware`` its digests depend on; ``ovmf_hash``: of its pages."""
    return FirmwareParameters(
        ovmf_hash=ovmf_hash,
        size_bytes=firmware.size_bytes,
        sections=firmware.sections,
        hashes_area=firmware.hashes_area,
        ap_eip=firmware.ap_eip,
    )


def digest(
    firmware: FirmwareParameters, processors: Processors, *, kernel: KernelHashes | None = None
) -> bytes:
    """The launch digest (48 bytes) of an SNP guest.

    ``kernel``: what the host gives with ``-kernel`` and ``kernel-hashes=on``, None
    for a boot from disk. The firmware's pages are not read again, so that many
    shapes of one firmware cost a few hundred hashes each. Raises ``FormatError``:
    ``firmware-hashes`` (no place for a kernel's hashes), ``firmware-reset`` (no
    address for processors); ``UsageError`` ``vcpu-vmm``, ``vcpu-count``,
    ``vcpu-type``.
    """
    state = LaunchDigest(firmware.ovmf_hash)
    if kernel is not None:
        _refuse_kernel(kernel_obstacle(firmware.hashes_area, firmware.sections))
    # EC2 adds the CPUID page behind all others.
    late = [item for item in firmware.sections if item.kind == ovmf.CPUID]
    for section in firmware.sections:
        if processors.vmm != "ec2" or section.kind != ovmf.CPUID:
            _section(state, section, firmware=firmware, kernel=kernel, vmm=processors.vmm)
    if processors.vmm == "ec2":
        for section in late:
            state.update(launch.CPUID, section.gpa)
    for page in vmsa_pages(firmware.ap_eip, processors):
        state.vmsa(page)
    return state.value


def kernel_obstacle(area: Area | None, sections: Iterable[Section]) -> str:
    """Why a firmware cannot measure a kernel under SNP, or empty text.

    QEMU refuses to start what is refused here.
    """
    found = [section for section in sections if section.kind == ovmf.KERNEL_HASHES]
    if not found:
        return "its metadata has no section for kernel hashes"
    obstacle = older_kernel_obstacle(area)
    if obstacle or area is None:
        return obstacle
    offset = area.gpa % PAGE_BYTES
    if (
        found[0].pages != 1
        or area.gpa - offset != found[0].gpa
        or offset + TABLE_BYTES > PAGE_BYTES
    ):
        return "the area for kernel hashes is not inside the one page of their section"
    return ""


def older_kernel_obstacle(area: Area | None) -> str:
    """Why a firmware cannot measure a kernel under SEV and SEV-ES, or empty text."""
    if area is None or not area.gpa:
        return "it has no area for kernel hashes"
    if area.size_bytes < TABLE_BYTES:
        return f"its area for kernel hashes has {area.size_bytes} bytes, {TABLE_BYTES} are needed"
    return ""


def older_digest(
    chunks: Iterable[bytes],
    *,
    hashes_area: Area | None,
    ap_eip: int | None = None,
    kernel: KernelHashes | None = None,
    processors: Processors | None = None,
) -> bytes:
    """The launch digest (SHA-256, 32 bytes) of a guest under SEV or SEV-ES.

    ``chunks``: the firmware in order; ``processors``: under SEV-ES, whose VMSA
    pages are measured too, with no features; None under SEV. Raises as ``digest``.
    """
    state = hashlib.sha256()
    for chunk in chunks:
        state.update(chunk)
    if kernel is not None:
        _refuse_kernel(older_kernel_obstacle(hashes_area))
        state.update(kernel_hashes.table(kernel))
    if processors is not None:
        for page in vmsa_pages(ap_eip, processors, features=0):
            state.update(page)
    return state.digest()


def vmsa_pages(
    ap_eip: int | None, processors: Processors, *, features: int | None = None
) -> Iterator[bytes]:
    """The VMSA page of each processor, the first one's first; the others have one and the same.

    ``features``: instead of the guest's. Raises ``FormatError`` ``firmware-reset``,
    ``UsageError`` ``vcpu-count``, ``vcpu-type``, ``vcpu-vmm``.
    """
    vcpus = processors.vcpus
    if not 1 <= vcpus <= vcpu.MAX_VCPUS:
        raise UsageError("vcpu-count", f"{vcpus} processors, possible are 1 to {vcpu.MAX_VCPUS}")
    if processors.signature is None and vcpu.needs_signature(processors.vmm):
        raise UsageError(
            "vcpu-type", "the state of the processors depends on their model, which is not given"
        )
    if ap_eip is None:
        raise FormatError(
            "firmware-reset",
            "this firmware has no SEV-ES reset block, so that no monitor starts it",
            hint="name a firmware built for SEV-ES and SEV-SNP",
        )
    if vcpus > 1 and not ap_eip:
        raise FormatError(
            "firmware-reset",
            "this firmware does not say where further processors start",
            hint="measure one processor, or name a firmware built for SEV-ES and SEV-SNP",
        )

    def page(eip: int, *, bsp: bool) -> bytes:
        return vcpu.reset_vmsa(
            eip,
            vmm=processors.vmm,
            signature=processors.signature or 0,
            features=processors.guest_features if features is None else features,
            compat=processors.compat,
            bsp=bsp,
        )

    first = page(vcpu.BSP_EIP, bsp=True)
    further = page(ap_eip, bsp=False)
    return (first if number == 0 else further for number in range(vcpus))


def check(parameters: LaunchParameters, *, where: str = "") -> None:
    """Refuse a document whose digest is not that of its own parameters.

    Digests of older SEV cover bytes that no document holds: they are not checked.
    Raises ``FormatError`` ``launch-parameters``, and as ``digest``.
    """
    firmware, processors = parameters.firmware, parameters.processors
    found = parameters.digest
    if parameters.mode == "snp:ovmf-hash":
        found = firmware.ovmf_hash
    elif parameters.mode == "snp" and processors is not None:
        found = digest(firmware, processors, kernel=parameters.kernel)
    if found != parameters.digest:
        raise FormatError(
            "launch-parameters",
            "the digest is not that of the parameters beside it",
            where=where,
            hint="the document was edited: print it again from the firmware file",
        )


def _section(
    state: LaunchDigest,
    section: Section,
    *,
    firmware: FirmwareParameters,
    kernel: KernelHashes | None,
    vmm: str,
) -> None:
    if section.kind == ovmf.KERNEL_HASHES and kernel is not None:
        state.normal(section.gpa, _hashes_page(firmware.hashes_area, kernel))
        return
    page_type = launch.ZERO
    if section.kind == ovmf.SECRETS:
        page_type = launch.SECRETS
    elif section.kind == ovmf.CPUID:
        page_type = launch.CPUID
    elif section.kind == ovmf.SEC_MEM and vmm == "gce":
        page_type = launch.UNMEASURED
    state.update(page_type, section.gpa, pages=section.pages)


def _hashes_page(area: Area | None, kernel: KernelHashes) -> bytes:
    offset = 0 if area is None else area.gpa % PAGE_BYTES
    return (bytes(offset) + kernel_hashes.table(kernel)).ljust(PAGE_BYTES, b"\0")


def _refuse_kernel(obstacle: str) -> None:
    if obstacle:
        raise FormatError(
            "firmware-hashes",
            f"this firmware cannot measure a kernel: {obstacle}",
            hint="OVMF built from OvmfPkg/AmdSev/AmdSevX64.dsc can",
        )
