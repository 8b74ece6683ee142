# SPDX-License-Identifier: Apache-2.0
"""What a host says when it launches a guest, and what the chip's state is then.

Serves ``simulated.processor``, whose reports repeat it, and ``simulated.control``,
which changes it until the guest has begun. Everything is checked as firmware
would, so that no report says what no firmware can. Must never default to
anything a strict verifier would refuse, but for the guest policy's SMT bit,
which the customary policy 0x30000 has.

Source: AMD 56860 1.58, SNP_LAUNCH_START, SNP_LAUNCH_FINISH (HOST_DATA, ID block),
"ATTESTATION_REPORT"; AMD 58019 1.00 for the service module's part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.abi import snp_policy, snp_report, snp_tcb
from troth.errors import FormatError
from troth.record import record

if TYPE_CHECKING:
    from troth.abi.secrets_page import Svsm
    from troth.simulated.chip import Chip

#: Alias check complete, ECC, TSME; SMT is off.
PLATFORM_INFO = 1 << 5 | 1 << 2 | 1 << 1
FIRMWARE = (1, 55, 50)

_SIZES = {
    "measurement": 48,
    "host_data": 32,
    "family_id": 16,
    "image_id": 16,
    "id_key_digest": 48,
    "author_key_digest": 48,
}
_BITS = {
    "policy": 64,
    "guest_svn": 32,
    "platform_info": 64,
    "launch_mit_vector": 64,
    "current_mit_vector": 64,
    "tsc_scale": 64,
    "tsc_offset": 64,
    "tsc_factor": 32,
}
TCB_FIELDS = ("current_tcb", "committed_tcb", "launch_tcb")


@record
class Launch:
    """The parameters of one launch.

    ``measurement``: the launch digest; ``policy``: of the guest; ``host_data``;
    ``family_id``, ``image_id``, ``guest_svn``, ``id_key_digest``,
    ``author_key_digest``: of an ID block, zeros without one; the author's digest
    counts where ``author_key``; ``report_version``: 2 to 5; ``platform_info``;
    ``*_tcb``: 8 bytes, None for that of the chip; ``*_firmware``: (major, minor,
    build); ``*_mit_vector``: shown by version 5 only; ``mask_chip_id``,
    ``mask_chip_key``: reports without id or without signature; ``vlek``: the
    host has loaded one; ``svsm``: the guest runs below a service module;
    ``tsc_*``: what the guest is told of its time stamp counter.
    """

    measurement: bytes
    policy: int = snp_policy.DEFAULT
    host_data: bytes = bytes(32)
    family_id: bytes = bytes(16)
    image_id: bytes = bytes(16)
    guest_svn: int = 0
    id_key_digest: bytes = bytes(48)
    author_key_digest: bytes = bytes(48)
    author_key: bool = False
    report_version: int = 5
    platform_info: int = PLATFORM_INFO
    current_tcb: bytes | None = None
    committed_tcb: bytes | None = None
    launch_tcb: bytes | None = None
    current_firmware: tuple[int, ...] = FIRMWARE
    committed_firmware: tuple[int, ...] = FIRMWARE
    launch_mit_vector: int = 0b1111
    current_mit_vector: int = 0b1111
    mask_chip_id: bool = False
    mask_chip_key: bool = False
    vlek: bool = False
    svsm: Svsm | None = None
    tsc_scale: int = 1 << 32
    tsc_offset: int = 0
    tsc_factor: int = 0

    def __post_init__(self) -> None:
        for name, size_bytes in _SIZES.items():
            if len(getattr(self, name)) != size_bytes:
                raise _wrong(f"{name} has not {size_bytes} bytes")
        for name, bits in _BITS.items():
            if not 0 <= getattr(self, name) < 1 << bits:
                raise _wrong(f"{name} has not {bits} bits")
        for name in TCB_FIELDS:
            raw: bytes | None = getattr(self, name)
            if raw is not None and len(raw) != snp_tcb.TCB_BYTES:
                raise _wrong(f"{name} has not {snp_tcb.TCB_BYTES} bytes")
        for version in (self.current_firmware, self.committed_firmware):
            if len(version) != 3 or not all(0 <= number <= 0xFF for number in version):
                raise _wrong(f"{version} is no firmware version of three bytes")
        if self.report_version not in snp_report.VERSIONS:
            raise _wrong(f"no report has the version {self.report_version}")
        snp_policy.parse(self.policy)
        if self.svsm is not None and not 1 <= self.svsm.guest_vmpl <= 3:
            raise _wrong("below a service module a guest runs at VMPL 1 to 3")

    def tcbs(self, chip: Chip) -> tuple[bytes, bytes, bytes]:
        """Current, committed and launch TCB on ``chip``.

        Raises ``FormatError`` ``sim-launch``: bytes that its line reserves.
        """
        given = (self.current_tcb, self.committed_tcb, self.launch_tcb)
        current, committed, at_launch = (chip.tcb if raw is None else raw for raw in given)
        for raw in (current, committed, at_launch):
            if not snp_tcb.reserved_zero(raw, chip.product):
                raise _wrong(f"{raw.hex()} is no TCB version of {chip.product}")
        return current, committed, at_launch


def _wrong(message: str) -> FormatError:
    return FormatError("sim-launch", f"no guest is launched so: {message}")
