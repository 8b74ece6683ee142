# SPDX-License-Identifier: Apache-2.0
"""Which machine a digest of an IGVM file was made for: how many processors, and which.

Serves whoever finds a digest in an ID block: the file does not say for what
machine it was signed. Must never replace a comparison: a digest that no machine
here has may still be that of a processor that is not known here.

Source: as of ``measure.igvm``: KVM measures the reset state of each processor
that the file does not describe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.measure import vcpu
from troth.measure.igvm import MAX_VCPUS
from troth.measure.launch import LaunchDigest
from troth.record import record

if TYPE_CHECKING:
    from troth.measure.igvm import Measured


@record
class Machine:
    """``vcpus`` processors with ``signature``; the latter None where it does not count."""

    vcpus: int
    signature: int | None

    @property
    def vcpu_type(self) -> str | None:
        """QEMU's first name of such a processor."""
        if self.signature is None:
            return None
        return next(name for name, value in vcpu.SIGNATURES.items() if value == self.signature)


def machine(measured: Measured, digest: bytes) -> Machine | None:
    """The smallest machine on which the file has ``digest``, or None.

    ``measured``: of the file for SNP and one processor. All numbers of
    processors and all of ``vcpu.SIGNATURES`` are tried, some thousand hashes.
    """
    known = {item.vp_index: item for item in measured.vmsas}
    if digest == measured.digest:
        return Machine(max(1, len(known)), None)
    if 0 not in known:
        return None
    found: list[Machine] = []
    for signature in dict.fromkeys(vcpu.SIGNATURES.values()):
        page = vcpu.reset_vmsa(
            vcpu.BSP_EIP, signature=signature, features=known[0].sev_features, bsp=False
        )
        launch = LaunchDigest(measured.digest)
        for index in range(MAX_VCPUS):
            if index in known:
                continue
            launch.vmsa(page)
            if launch.value == digest:
                found.append(Machine(index + 1, signature))
                break
    return min(found, key=lambda item: item.vcpus, default=None)
