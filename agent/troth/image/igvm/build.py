# SPDX-License-Identifier: Apache-2.0
"""A plain Linux IGVM file for QEMU, KVM and SEV-SNP: every page of memory, measured.

Serves ``troth igvm build`` and the bundle's ``guest.igvm``. The file says of
each page of the machine's memory what it holds at the first instruction, and
has no area that the host fills but the two pages that SNP itself defines. Must
never emit a parameter area, a header for another platform, or a page twice.

Sources: microsoft/igvm ``igvm_defs``; QEMU ``backends/igvm.c`` (which headers it
takes, and that a page without data is a NORMAL page of zeros).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.abi import bzimage, snp_policy
from troth.abi.igvm import headers as h
from troth.abi.igvm.write import write
from troth.errors import BuildError, UsageError
from troth.image.igvm import acpi, boot_params, entry, layout
from troth.measure.launch import VMSA_GPA_KVM
from troth.record import record

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from typing import BinaryIO

    from troth.image.igvm.layout import Plan, Region

VERSION = 1
MASK = 1
"""The compatibility mask of the only platform."""

# REQUIRED_MEMORY counts its bytes in 32 bits.
_REQUIRED_STEP_BYTES = 2 << 30
_PAGE = layout.PAGE_BYTES


@record
class Piece:
    """Bytes at ``gpa``, a page's address; the rest of the last page is zeros."""

    gpa: int
    data: bytes


class Image:
    """The headers of a file with their data; each iteration makes them anew.

    ``plan``: where things are.
    """

    def __init__(self, plan: Plan, pieces: tuple[Piece, ...], *, policy: int) -> None:
        self.plan = plan
        self._pieces = pieces
        self._policy = policy

    def __iter__(self) -> Iterator[tuple[h.Header, bytes]]:
        yield h.SupportedPlatform(MASK, 0, h.SEV_SNP), b""
        yield h.GuestPolicy(self._policy, MASK), b""
        for region in self.plan.ram:
            # Before the region's pages rather than before all: QEMU joins pages that follow
            # each other to runs, and no run may reach over two kinds of its memory.
            for gpa in range(region.gpa, region.end, _REQUIRED_STEP_BYTES):
                size_bytes = min(_REQUIRED_STEP_BYTES, region.end - gpa)
                yield h.RequiredMemory(gpa, MASK, size_bytes), b""
            yield from self._pages(region)
        # Last: KVM measures it when the launch is finished.
        yield h.VpContext(VMSA_GPA_KVM, MASK, 0), entry.first_state()

    def _pages(self, region: Region) -> Iterator[tuple[h.Header, bytes]]:
        at = region.gpa
        for piece in self._pieces:
            if region.gpa <= piece.gpa < region.end:
                yield from _zeros(at, piece.gpa)
                at = yield from _filled(piece)
        yield from _zeros(at, region.end)


def image(
    *,
    kernel: bytes,
    initramfs: bytes,
    cmdline: str,
    memory_bytes: int,
    vcpus: int,
    policy: int,
    tpm: bool = False,
) -> Image:
    """The file's content.

    ``kernel``: a bzImage; ``initramfs``: its bytes, may be empty; ``cmdline``:
    the whole kernel command line; ``memory_bytes``: of the machine; ``vcpus``:
    its processors, with APIC IDs from 0 on; ``policy``: the SNP guest policy;
    ``tpm``: Linux is told of a TPM, which the host may give or not.
    Raises ``UsageError``: ``igvm-memory``, ``igvm-vcpus``; ``FormatError``:
    ``bzimage-*``, ``snp-policy-*``; ``BuildError``: ``igvm-kernel`` (no 64-bit
    entry, or not loaded high), ``igvm-cmdline``, ``igvm-room``.
    """
    snp_policy.parse(policy)
    tables = acpi.tables(vcpus, tpm=tpm)
    if vcpus > 1 and "acpi=off" in cmdline.split():
        raise UsageError(
            "igvm-vcpus",
            "with acpi=off Linux finds one processor only",
            hint="--vcpus 1, or a command line without acpi=off: the tables are measured",
        )
    header = bzimage.setup_header(kernel, where="vmlinuz")
    _check_kernel(header)
    code = kernel[header.kernel_at :]
    plan = layout.plan(
        header,
        kernel_bytes=len(code),
        initramfs_bytes=len(initramfs),
        memory_bytes=memory_bytes,
    )
    pieces = (
        Piece(layout.BOOT_PARAMS, boot_params.page(header, plan, initramfs_bytes=len(initramfs))),
        Piece(layout.ENTRY, entry.page(plan.kernel)),
        Piece(layout.PAGE_TABLES, entry.page_tables()),
        Piece(layout.CMDLINE, boot_params.cmdline_page(header, cmdline)),
        Piece(layout.SETUP_DATA, boot_params.setup_data()),
        Piece(layout.CC_BLOB, boot_params.cc_blob()),
        # CPUID and SECRETS: the secure processor fills them, so they have no bytes here.
        Piece(layout.CPUID, b""),
        Piece(layout.SECRETS, b""),
        Piece(layout.FACS, tables.facs),
        Piece(layout.ACPI, tables.main),
        Piece(plan.kernel, code),
        Piece(plan.initramfs, initramfs),
    )
    return Image(plan, pieces, policy=policy)


def build(
    *,
    kernel: bytes,
    initramfs: bytes,
    cmdline: str,
    memory_bytes: int,
    vcpus: int,
    policy: int,
    stream: BinaryIO,
    tpm: bool = False,
) -> int:
    """Write the file to ``stream``; return its size in bytes. Arguments and errors: ``image``."""
    content = image(
        kernel=kernel,
        initramfs=initramfs,
        cmdline=cmdline,
        memory_bytes=memory_bytes,
        vcpus=vcpus,
        policy=policy,
        tpm=tpm,
    )
    return write(content, version=VERSION, stream=stream)


def _check_kernel(header: bzimage.SetupHeader) -> None:
    for wrong, why in (
        (not header.loadflags & bzimage.LOADED_HIGH, "it is loaded below 1 MiB"),
        (not header.xloadflags & bzimage.XLF_KERNEL_64, "it has no 64-bit entry point"),
        (header.pref_address % _PAGE != 0, f"it prefers the odd address {header.pref_address:#x}"),
    ):
        if wrong:
            raise BuildError(
                "igvm-kernel",
                f"this kernel cannot be started in 64-bit mode: {why}",
                where="vmlinuz",
                hint="use an x86-64 kernel with CONFIG_AMD_MEM_ENCRYPT",
            )


_SPECIAL = {layout.CPUID: h.CPUID_DATA, layout.SECRETS: h.SECRETS}


def _zeros(start: int, end: int) -> Iterator[tuple[h.Header, bytes]]:
    for gpa in range(start, end, _PAGE):
        yield h.PageData(gpa, MASK), b""


def _filled(piece: Piece) -> Generator[tuple[h.Header, bytes], None, int]:
    """The pages of ``piece``; the address after them."""
    if piece.gpa in _SPECIAL:
        yield h.PageData(piece.gpa, MASK, data_type=_SPECIAL[piece.gpa]), b""
        return piece.gpa + _PAGE
    gpa = piece.gpa
    view = memoryview(piece.data)
    for at in range(0, len(view), _PAGE):
        page = bytes(view[at : at + _PAGE])
        # A page of zeros needs no data: it is loaded and measured as the same NORMAL page.
        yield h.PageData(gpa, MASK), page if any(page) else b""
        gpa += _PAGE
    return gpa
