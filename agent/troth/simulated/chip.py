# SPDX-License-Identifier: Apache-2.0
"""Which chip a simulated platform claims to be.

Serves ``simulated.pki``, which certifies it, and ``simulated.processor``, whose
reports name it. One silicon a line is known, with levels that a verifier's
floors of 2026 accept. Must never be taken for a chip that exists: ids are random.

Source: AMD 57230, tables of products and of VCEK extensions; AMD 56860,
"ATTESTATION_REPORT" (CHIP_ID), "TCB_VERSION".
"""

from __future__ import annotations

import os

from troth.abi import der, snp_tcb, vek_extensions
from troth.abi.snp_tcb import Tcb
from troth.errors import FormatError
from troth.record import record

CHIP_ID_BYTES = 64
SECRET_BYTES = 32
PRODUCTS = (snp_tcb.MILAN, snp_tcb.GENOA, snp_tcb.TURIN)

#: line -> combined family, model, stepping; name in certificates; levels
_SILICON = {
    snp_tcb.MILAN: ((0x19, 0x01, 1), "Milan-B0", Tcb(None, 4, 0, 0x1D, 0xDE)),
    snp_tcb.GENOA: ((0x19, 0x11, 1), "Genoa", Tcb(None, 10, 0, 0x1D, 0x57)),
    snp_tcb.TURIN: ((0x1A, 0x02, 1), "Turin", Tcb(1, 2, 2, 5, 0x55)),
}


@record
class Chip:
    """One chip.

    ``product``: one of ``PRODUCTS``; ``family`` and ``model``: combined;
    ``chip_id``: 64 bytes, of which Turin fills eight; ``tcb``: reported, 8 bytes
    as the product lays them out; ``secret``: 32 bytes that derived keys begin with.
    """

    product: str
    family: int
    model: int
    stepping: int
    chip_id: bytes
    tcb: bytes
    secret: bytes

    def __post_init__(self) -> None:
        if self.product not in PRODUCTS:
            raise FormatError("sim-chip", f"no chip of the line {self.product!r} can be simulated")
        if snp_tcb.product_of(self.family, self.model) != self.product or not (
            0 <= self.stepping <= 0xF
        ):
            raise FormatError("sim-chip", f"family and model are not those of {self.product}")
        if len(self.chip_id) != CHIP_ID_BYTES or any(self.chip_id[self.hwid_bytes :]):
            raise FormatError("sim-chip", f"not a chip id of {self.product}")
        if not snp_tcb.reserved_zero(self.tcb, self.product):
            raise FormatError("sim-chip", f"not a TCB version of {self.product}")
        if len(self.secret) != SECRET_BYTES:
            raise FormatError("sim-chip", f"a secret of {len(self.secret)} bytes")

    def __repr__(self) -> str:
        return f"Chip({self.product!r}, {self.chip_id[:8].hex()}...)"

    @property
    def hwid_bytes(self) -> int:
        """How many bytes of the chip id are in use, and in the certificate."""
        return min(vek_extensions.HWID_BYTES) if snp_tcb.has_fmc(self.product) else CHIP_ID_BYTES

    @property
    def cpuid_eax(self) -> int:
        """EAX of CPUID function 1."""
        extended = self.family - 0xF
        return (
            extended << 20
            | self.model >> 4 << 16
            | 0xF << 8
            | (self.model & 0xF) << 4
            | (self.stepping)
        )


def new(product: str = snp_tcb.GENOA) -> Chip:
    """A chip of ``product`` that nobody has. Raises ``FormatError`` ``sim-chip``."""
    if product not in _SILICON:
        raise FormatError("sim-chip", f"no chip of the line {product!r} can be simulated")
    (family, model, stepping), _, tcb = _SILICON[product]
    hwid_bytes = min(vek_extensions.HWID_BYTES) if snp_tcb.has_fmc(product) else CHIP_ID_BYTES
    return Chip(
        product=product,
        family=family,
        model=model,
        stepping=stepping,
        chip_id=os.urandom(hwid_bytes).ljust(CHIP_ID_BYTES, b"\0"),
        tcb=snp_tcb.encode(tcb, product),
        secret=os.urandom(SECRET_BYTES),
    )


def extensions(chip: Chip, *, csp_id: str | None = None) -> tuple[tuple[str, bytes], ...]:
    """AMD's extensions in the certificate of the VCEK of ``chip``, or of ``csp_id``'s VLEK.

    Pairs of dotted OID and raw value, in AMD's order.
    """
    fmc = snp_tcb.has_fmc(chip.product)
    tcb = snp_tcb.decode(chip.tcb, chip.product)
    name = _SILICON[chip.product][1] if csp_id is None else chip.product
    found = {
        vek_extensions.STRUCT_VERSION: _integer(int(fmc)),
        vek_extensions.PRODUCT_NAME: der.encode(der.IA5_STRING, name.encode("ascii")),
    }
    for part, oid in vek_extensions.SPL.items():
        level: int | None = getattr(tcb, part)
        if level is not None:
            found[oid] = _integer(level)
    # Where there is an fmc, it took the place of the first reserved part.
    for oid in vek_extensions.RESERVED_SPL[int(fmc) :]:
        found[oid] = _integer(0)
    if csp_id is None:
        # AMD writes the id bare, without any DER around it.
        found[vek_extensions.HWID] = chip.chip_id[: chip.hwid_bytes]
    else:
        found[vek_extensions.CSP_ID] = der.encode(der.IA5_STRING, csp_id.encode("ascii"))
    return tuple(sorted(found.items()))


def _integer(level: int) -> bytes:
    raw = level.to_bytes(1, "big")
    return der.encode(der.INTEGER, raw if level < 0x80 else b"\0" + raw)
