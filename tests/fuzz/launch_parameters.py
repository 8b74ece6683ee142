# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: the parameters of a launch; what is read prints to what is read again."""

from troth.abi.kernel_hashes import KernelHashes
from troth.abi.ovmf import CPUID, KERNEL_HASHES, Area, Section
from troth.documents import launch_parameters
from troth.documents.launch_parameters import FirmwareParameters, LaunchParameters, Processors
from troth.errors import FormatError
from troth.measure import direct_boot

_FIRMWARE = FirmwareParameters(
    ovmf_hash=bytes(48),
    size_bytes=4096,
    sections=(Section(0x810000, 4096, KERNEL_HASHES), Section(0x811000, 4096, CPUID)),
    hashes_area=Area(0x810C00, 0x400),
    ap_eip=0x80B004,
)
_WHOLE = LaunchParameters(
    mode="snp",
    digest=bytes(48),
    firmware=_FIRMWARE,
    kernel=KernelHashes(kernel=bytes(32), initrd=bytes(32), cmdline=bytes(32)),
    processors=Processors(vcpus=2, signature=0x800F12),
)
SEEDS = [
    launch_parameters.print_(_WHOLE),
    launch_parameters.print_(
        LaunchParameters(
            mode="sev", digest=bytes(32), firmware=_FIRMWARE, kernel=None, processors=None
        )
    ),
]


def fuzz(data: bytes) -> None:
    try:
        found = launch_parameters.parse(data)
    except FormatError:
        return
    if launch_parameters.parse(launch_parameters.print_(found)) != found:
        raise RuntimeError("read, printed and read again it is another document")
    if sum(section.pages for section in found.firmware.sections) > 64:
        return
    try:
        direct_boot.check(found)
    except FormatError:
        return
