# SPDX-License-Identifier: Apache-2.0
"""The VMSA: one page with the state a processor of an encrypted guest starts in.

Serves ``measure.vcpu`` (reset states), ``image.igvm`` (the state a file starts
Linux in) and the checks of what KVM accepts. Pure: it knows where a field is,
never what a right value is.

Source: AMD64 Architecture Programmer's Manual, volume 2, table B-4; the names
are those of Linux, ``arch/x86/include/asm/svm.h``, ``struct sev_es_save_area``.
"""

from __future__ import annotations

import struct

from troth.errors import FormatError
from troth.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SIZE_BYTES = 4096

_SEGMENT = struct.Struct("<HHIQ")


@record
class Segment:
    """A segment register or a descriptor table: selector, attributes, limit, base.

    ``attributes``: 16 bits in the packed form of the VMCB (type, S, DPL and P in
    bits 0 to 7, AVL, L, D and G in bits 8 to 11).
    """

    selector: int = 0
    attributes: int = 0
    limit: int = 0
    base: int = 0


Value = int | Segment

SEGMENTS = {
    name: index * _SEGMENT.size
    for index, name in enumerate(("es", "cs", "ss", "ds", "fs", "gs", "gdtr", "ldtr", "idtr", "tr"))
}
"""Name -> offset of each segment."""

_INTEGERS = {
    "vmpl0_ssp": (0x0A0, 8),
    "vmpl1_ssp": (0x0A8, 8),
    "vmpl2_ssp": (0x0B0, 8),
    "vmpl3_ssp": (0x0B8, 8),
    "u_cet": (0x0C0, 8),
    "vmpl": (0x0CA, 1),
    "cpl": (0x0CB, 1),
    "efer": (0x0D0, 8),
    "xss": (0x140, 8),
    "cr4": (0x148, 8),
    "cr3": (0x150, 8),
    "cr0": (0x158, 8),
    "dr7": (0x160, 8),
    "dr6": (0x168, 8),
    "rflags": (0x170, 8),
    "rip": (0x178, 8),
    "dr0": (0x180, 8),
    "dr1": (0x188, 8),
    "dr2": (0x190, 8),
    "dr3": (0x198, 8),
    "dr0_addr_mask": (0x1A0, 8),
    "dr1_addr_mask": (0x1A8, 8),
    "dr2_addr_mask": (0x1B0, 8),
    "dr3_addr_mask": (0x1B8, 8),
    "rsp": (0x1D8, 8),
    "s_cet": (0x1E0, 8),
    "ssp": (0x1E8, 8),
    "isst_addr": (0x1F0, 8),
    "rax": (0x1F8, 8),
    "star": (0x200, 8),
    "lstar": (0x208, 8),
    "cstar": (0x210, 8),
    "sfmask": (0x218, 8),
    "kernel_gs_base": (0x220, 8),
    "sysenter_cs": (0x228, 8),
    "sysenter_esp": (0x230, 8),
    "sysenter_eip": (0x238, 8),
    "cr2": (0x240, 8),
    "g_pat": (0x268, 8),
    "dbgctrl": (0x270, 8),
    "br_from": (0x278, 8),
    "br_to": (0x280, 8),
    "last_excp_from": (0x288, 8),
    "last_excp_to": (0x290, 8),
    "spec_ctrl": (0x2E0, 8),
    "pkru": (0x2E8, 4),
    "tsc_aux": (0x2EC, 4),
    "rcx": (0x308, 8),
    "rdx": (0x310, 8),
    "rbx": (0x318, 8),
    "rbp": (0x328, 8),
    "rsi": (0x330, 8),
    "rdi": (0x338, 8),
    "r8": (0x340, 8),
    "r9": (0x348, 8),
    "r10": (0x350, 8),
    "r11": (0x358, 8),
    "r12": (0x360, 8),
    "r13": (0x368, 8),
    "r14": (0x370, 8),
    "r15": (0x378, 8),
    "guest_exit_info_1": (0x390, 8),
    "guest_exit_info_2": (0x398, 8),
    "guest_exit_int_info": (0x3A0, 8),
    "guest_nrip": (0x3A8, 8),
    "sev_features": (0x3B0, 8),
    "vintr_ctrl": (0x3B8, 8),
    "guest_exit_code": (0x3C0, 8),
    "virtual_tom": (0x3C8, 8),
    "tlb_id": (0x3D0, 8),
    "pcpu_id": (0x3D8, 8),
    "event_inj": (0x3E0, 8),
    "xcr0": (0x3E8, 8),
    "x87_dp": (0x400, 8),
    "mxcsr": (0x408, 4),
    "x87_ftw": (0x40C, 2),
    "x87_fsw": (0x40E, 2),
    "x87_fcw": (0x410, 2),
    "x87_fop": (0x412, 2),
    "x87_ds": (0x414, 2),
    "x87_cs": (0x416, 2),
    "x87_rip": (0x418, 8),
    "fpreg_x87": (0x420, 80),
    "fpreg_xmm": (0x470, 256),
    "fpreg_ymm": (0x570, 256),
}

FIELDS: dict[str, tuple[int, int]] = {
    **{name: (offset, _SEGMENT.size) for name, offset in SEGMENTS.items()},
    **_INTEGERS,
}
"""Name -> (offset, size in bytes), ascending; what lies between is reserved."""


def encode(values: Mapping[str, Value]) -> bytes:
    """The page that has ``values`` and is zero elsewhere.

    Names are keys of ``FIELDS``; the segments take a ``Segment``, all others an
    integer of as many bits as the field has (the register files ``fpreg_*``
    included). Raises ``FormatError`` ``vmsa-field`` for another name,
    ``vmsa-value`` for a value of another kind or size.
    """
    page = bytearray(SIZE_BYTES)
    for name, value in values.items():
        if name not in FIELDS:
            raise FormatError("vmsa-field", f"a VMSA has no field {name!r}")
        offset, size_bytes = FIELDS[name]
        page[offset : offset + size_bytes] = _bytes(name, value, size_bytes=size_bytes)
    return bytes(page)


def decode(page: bytes, *, where: str = "") -> dict[str, Value]:
    """Every field of ``page``, zero or not, by ascending offset.

    Bytes outside all fields are not looked at: see ``first_reserved``. Raises
    ``FormatError`` ``vmsa-size`` where ``page`` has not 4096 bytes.
    """
    _check_size(page, where)
    return {
        name: Segment(*_SEGMENT.unpack_from(page, offset))
        if name in SEGMENTS
        else int.from_bytes(page[offset : offset + size_bytes], "little")
        for name, (offset, size_bytes) in FIELDS.items()
    }


def first_reserved(page: bytes, *, where: str = "") -> int | None:
    """The offset of the first byte of ``page`` that is not zero and in no field.

    Raises ``FormatError`` ``vmsa-size``.
    """
    _check_size(page, where)
    at = 0
    for offset, size_bytes in (*FIELDS.values(), (SIZE_BYTES, 0)):
        gap = page[at:offset]
        if any(gap):
            return at + len(gap) - len(gap.lstrip(b"\0"))
        at = offset + size_bytes
    return None


def _bytes(name: str, value: Value, *, size_bytes: int) -> bytes:
    if isinstance(value, Segment) != (name in SEGMENTS):
        kind = "a segment" if name in SEGMENTS else "an integer"
        raise FormatError("vmsa-value", f"the field {name} is {kind}")
    try:
        if isinstance(value, Segment):
            return _SEGMENT.pack(value.selector, value.attributes, value.limit, value.base)
        return value.to_bytes(size_bytes, "little")
    except (OverflowError, struct.error):
        raise FormatError("vmsa-value", f"{value} does not fit the field {name}") from None


def _check_size(page: bytes, where: str) -> None:
    if len(page) != SIZE_BYTES:
        raise FormatError(
            "vmsa-size", f"a VMSA has {SIZE_BYTES} bytes, here are {len(page)}", where=where
        )
