# SPDX-License-Identifier: Apache-2.0
"""Processors: their signatures, and the state each virtual machine monitor starts them in.

Serves every launch measurement, because the digest covers one VMSA a
processor. A wrong processor model or a wrong feature word is the most frequent
reason of a digest that does not match: must never choose either in silence.

Source: AMD CPUID specification (25481), Fn0000_0001_EAX; models from QEMU,
``target/i386/cpu.c``; reset states from QEMU and KVM (Linux 6.10 and later: the
x87 and SSE control words were 0 before), and for EC2 and GCE from what
sev-snp-measure 0.0.13 and virtee/sev found. Those two disagree about RDX on
EC2; neither is confirmed by the provider.
"""

from __future__ import annotations

from troth.abi import vmsa
from troth.abi.vmsa import Segment
from troth.documents.launch_parameters import COMPATS, MAX_VCPUS, VMMS
from troth.errors import UsageError
from troth.record import record

__all__ = [
    "BSP_EIP",
    "COMPATS",
    "MAX_VCPUS",
    "SIGNATURES",
    "SNP_ACTIVE",
    "VMMS",
    "needs_signature",
    "reset_vmsa",
    "signature",
]

BSP_EIP = 0xFFFF_FFF0
"""Where the first processor starts."""

SNP_ACTIVE = 1
"""Bit 0 of SEV_FEATURES, and the default of KVM."""


def signature(family: int, model: int, stepping: int) -> int:
    """The signature (CPUID Fn0000_0001_EAX, 32 bits) of a processor.

    ``family``: 0 to 270, ``model``: 0 to 255, ``stepping``: 0 to 15. Raises
    ``UsageError`` ``vcpu-signature`` outside that.
    """
    for noun, value, maximum in (
        ("family", family, 0xF + 0xFF),
        ("model", model, 0xFF),
        ("stepping", stepping, 0xF),
    ):
        if not 0 <= value <= maximum:
            raise UsageError("vcpu-signature", f"the {noun} {value} is not within 0 to {maximum}")
    base, extended = (family, 0) if family <= 0xF else (0xF, family - 0xF)
    return extended << 20 | (model >> 4) << 16 | base << 8 | (model & 0xF) << 4 | stepping


_NAPLES = signature(23, 1, 2)
_ROME = signature(23, 49, 0)
_MILAN = signature(25, 1, 1)
_GENOA = signature(25, 17, 0)
_TURIN = signature(26, 0, 0)

SIGNATURES = {
    "EPYC": _NAPLES,
    "EPYC-v1": _NAPLES,
    "EPYC-v2": _NAPLES,
    "EPYC-v3": _NAPLES,
    "EPYC-v4": _NAPLES,
    "EPYC-IBPB": _NAPLES,
    "EPYC-Rome": _ROME,
    "EPYC-Rome-v1": _ROME,
    "EPYC-Rome-v2": _ROME,
    "EPYC-Rome-v3": _ROME,
    "EPYC-Milan": _MILAN,
    "EPYC-Milan-v1": _MILAN,
    "EPYC-Milan-v2": _MILAN,
    "EPYC-Genoa": _GENOA,
    "EPYC-Genoa-v1": _GENOA,
    "EPYC-Turin": _TURIN,
}
"""QEMU's name of a processor model -> its signature."""


@record
class _Monitor:
    """What the monitors do differently; ``rdx`` None means the processor's signature."""

    cs: int = 0x9B
    cs_bsp: int = 0x9B
    ss: int = 0x93
    tr: int = 0x8B
    rdx: int | None = None
    g_pat: int = 0x0007_0406_0007_0406
    mxcsr: int = 0
    fcw: int = 0


_QEMU = _Monitor(mxcsr=0x1F80, fcw=0x37F)
_EC2 = _Monitor(cs_bsp=0x9A, ss=0x92, tr=0x83, rdx=0x600)
_EC2_VIRTEE = _Monitor(cs_bsp=0x9A, ss=0x92, tr=0x83, rdx=0)
_GCE = _Monitor(rdx=0x600, g_pat=0x0007_0106)


def needs_signature(vmm: str) -> bool:
    """Whether a processor's state under ``vmm`` tells which processor it is."""
    return vmm == "qemu"


def reset_vmsa(
    eip: int,
    *,
    vmm: str = "qemu",
    signature: int,
    features: int,
    compat: str = "sev-snp-measure",
    bsp: bool,
) -> bytes:
    """The VMSA page (4096 bytes) of a processor that starts at ``eip``.

    ``eip``: ``BSP_EIP``, or for others the firmware's address; ``vmm``: one of
    ``VMMS``; ``signature``: 32 bits, used by QEMU only; ``features``: the guest's
    SEV_FEATURES; ``compat``: whose answer where peers disagree, one of
    ``COMPATS``; ``bsp``: whether it is the first processor. Raises ``UsageError``
    ``vcpu-vmm``, ``FormatError`` ``vmsa-value`` for numbers that do not fit.
    """
    monitor = _monitor(vmm, compat)
    data = Segment(attributes=0x93, limit=0xFFFF)
    table = Segment(limit=0xFFFF)
    return vmsa.encode(
        {
            "es": data,
            "cs": Segment(
                selector=0xF000,
                attributes=monitor.cs_bsp if bsp else monitor.cs,
                limit=0xFFFF,
                base=eip & 0xFFFF_0000,
            ),
            "ss": Segment(attributes=monitor.ss, limit=0xFFFF),
            "ds": data,
            "fs": data,
            "gs": data,
            "gdtr": table,
            "ldtr": Segment(attributes=0x82, limit=0xFFFF),
            "idtr": table,
            "tr": Segment(attributes=monitor.tr, limit=0xFFFF),
            "efer": 0x1000,  # SVME, which KVM sets
            "cr4": 0x40,  # MCE, which KVM sets
            "cr0": 0x10,
            "dr7": 0x400,
            "dr6": 0xFFFF_0FF0,
            "rflags": 2,
            "rip": eip & 0xFFFF,
            "g_pat": monitor.g_pat,
            "rdx": signature if monitor.rdx is None else monitor.rdx,
            "sev_features": features,
            "xcr0": 1,
            "mxcsr": monitor.mxcsr,
            "x87_fcw": monitor.fcw,
        }
    )


def _monitor(vmm: str, compat: str) -> _Monitor:
    if compat not in COMPATS:
        raise UsageError("vcpu-vmm", f"{compat!r} is none of {', '.join(COMPATS)}")
    if vmm == "qemu":
        return _QEMU
    if vmm == "ec2":
        return _EC2 if compat == "sev-snp-measure" else _EC2_VIRTEE
    if vmm == "gce":
        return _GCE
    raise UsageError("vcpu-vmm", f"{vmm!r} is none of {', '.join(VMMS)}")
