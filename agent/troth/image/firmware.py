# SPDX-License-Identifier: Apache-2.0
"""Reads what a direct boot is made of: the firmware, the kernel, the initrd.

Serves ``troth measure launch``, ``troth inspect F firmware`` and the reference
values of direct boots. Files are read in chunks and may be larger than memory.
It must never judge: what a firmware can be used for is said, not enforced.
"""

from __future__ import annotations

import stat
from hashlib import sha256
from typing import TYPE_CHECKING

from troth.abi import ovmf
from troth.abi.kernel_hashes import EMPTY_SHA256, KernelHashes, cmdline_sha256
from troth.errors import FormatError
from troth.measure import direct_boot
from troth.record import record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from troth.abi.ovmf import Firmware
    from troth.documents.launch_parameters import FirmwareParameters

MAX_LOADED_BYTES = 2**32 - 1
"""Of a kernel or an initrd: QEMU tells the firmware their sizes in 32 bits."""

_CHUNK_BYTES = 1 << 20


@record
class Use:
    """Something a firmware may be wanted for; ``obstacle`` is why it cannot, else empty.

    ``name``: for programs; ``ability``: goes on after "it can" and "it cannot".
    """

    name: str
    ability: str
    obstacle: str


def read(path: Path, *, footer_required: bool = True) -> Firmware:
    """What the firmware at ``path`` says of itself; only its end is read.

    Raises ``FormatError`` as ``ovmf.parse``, ``OSError``.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise FormatError("firmware-size", "a firmware is a regular file", where=str(path))
    ovmf.check_size(status.st_size, where=str(path))
    with path.open("rb") as file:
        file.seek(max(0, status.st_size - ovmf.TAIL_BYTES))
        tail = file.read(ovmf.TAIL_BYTES)
    return ovmf.parse(
        tail, size_bytes=status.st_size, footer_required=footer_required, where=str(path)
    )


def chunks(path: Path) -> Iterator[bytes]:
    """The bytes of the file at ``path``, whole pages at a time."""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def ovmf_hash(path: Path, firmware: Firmware) -> bytes:
    """The launch digest (48 bytes) after the pages of ``firmware``, which is at ``path``."""
    return direct_boot.ovmf_hash(chunks(path), size_bytes=firmware.size_bytes)


def parameters(path: Path) -> FirmwareParameters:
    """All that launch digests with the firmware at ``path`` depend on.

    Raises ``FormatError`` as ``ovmf.parse``, ``OSError``.
    """
    firmware = read(path)
    return direct_boot.firmware_parameters(firmware, ovmf_hash=ovmf_hash(path, firmware))


def kernel_hashes(kernel: Path, *, initrd: Path | None, cmdline: str | None) -> KernelHashes:
    """The hashes of a kernel file, an initrd (None is an empty one) and a command line.

    Raises ``FormatError`` ``kernel-cmdline``, ``kernel-size``; ``OSError``.
    """
    return KernelHashes(
        kernel=_file_sha256(kernel),
        initrd=EMPTY_SHA256 if initrd is None else _file_sha256(initrd),
        cmdline=cmdline_sha256(cmdline),
    )


def uses(firmware: Firmware) -> tuple[Use, ...]:
    """What ``firmware`` can be used for, and what it cannot."""
    no_reset = "" if firmware.ap_eip is not None else "it has no SEV-ES reset block"
    no_metadata = "" if firmware.has_metadata else "it has no SEV metadata"
    return (
        Use(
            "snp",
            "be started as an SEV-SNP guest",
            "; ".join(why for why in (no_reset, no_metadata) if why),
        ),
        Use(
            "processors",
            "be started with more than one processor",
            "" if firmware.ap_eip else "it does not say where further processors start",
        ),
        Use(
            "snp-kernel",
            "measure kernel, initrd and command line under SEV-SNP",
            direct_boot.kernel_obstacle(firmware.hashes_area, firmware.sections),
        ),
        Use(
            "sev-kernel",
            "measure kernel, initrd and command line under SEV and SEV-ES",
            direct_boot.older_kernel_obstacle(firmware.hashes_area),
        ),
    )


def _file_sha256(path: Path) -> bytes:
    state = sha256()
    size_bytes = 0
    for chunk in chunks(path):
        size_bytes += len(chunk)
        if size_bytes > MAX_LOADED_BYTES:
            raise FormatError(
                "kernel-size",
                f"more than {MAX_LOADED_BYTES} bytes: QEMU loads no such kernel or initrd",
                where=str(path),
            )
        state.update(chunk)
    return state.digest()
