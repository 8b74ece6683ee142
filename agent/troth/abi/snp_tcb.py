# SPDX-License-Identifier: Apache-2.0
"""Product lines of SEV-SNP processors and their TCB_VERSION.

Serves the verifier and whoever asks AMD for a certificate. A TCB is compared
part by part: must never be compared as one number, because a newer microcode
would then hide an older boot loader. The layout follows the product, never the
report's version.

Source: AMD 56860, "TCB_VERSION structure"; AMD 57230 (VCEK certificate and KDS
interface), tables of products.
"""

from __future__ import annotations

from troth.errors import FormatError
from troth.record import record

TCB_BYTES = 8

MILAN = "Milan"
GENOA = "Genoa"
TURIN = "Turin"
VENICE = "Venice"

PRODUCTS = (MILAN, GENOA, TURIN, VENICE)
"""Names of the lines as AMD's certificates and service spell them; Bergamo and Siena are Genoa."""

# Combined family -> first model, last model, line.
_MODELS: dict[int, tuple[tuple[int, int, str], ...]] = {
    0x19: ((0x00, 0x0F, MILAN), (0x10, 0x1F, GENOA), (0xA0, 0xAF, GENOA)),
    0x1A: (
        (0x00, 0x11, TURIN),
        (0x50, 0x57, VENICE),
        (0x90, 0x9F, VENICE),
        (0xA0, 0xAF, VENICE),
        (0xC0, 0xC7, VENICE),
    ),
}

# Which byte holds which part; the bytes left over are reserved.
_LEGACY = {"bootloader": 0, "tee": 1, "snp": 6, "microcode": 7}
_WITH_FMC = {"fmc": 0, "bootloader": 1, "tee": 2, "snp": 3, "microcode": 7}
_LAYOUTS = {MILAN: _LEGACY, GENOA: _LEGACY, TURIN: _WITH_FMC, VENICE: _WITH_FMC}

PARTS = ("fmc", "bootloader", "tee", "snp", "microcode")


@record
class Tcb:
    """Security patch levels, 0 to 255 each; ``fmc`` is None on products without it."""

    fmc: int | None
    bootloader: int
    tee: int
    snp: int
    microcode: int

    def below(self, floor: Tcb) -> tuple[str, ...]:
        """The names of the parts that are lower than in ``floor``; none is good.

        A part that only one of the two has counts as lower: they are of
        different products, which nothing makes comparable.
        """
        names = []
        for name in PARTS:
            own, wanted = getattr(self, name), getattr(floor, name)
            if (own is None) != (wanted is None) or (own is not None and own < wanted):
                names.append(name)
        return tuple(names)

    def at_least(self, floor: Tcb) -> bool:
        """Whether every part is as high as in ``floor``."""
        return not self.below(floor)

    def __str__(self) -> str:
        parts = [(name, getattr(self, name)) for name in PARTS]
        return " ".join(f"{name} {level}" for name, level in parts if level is not None)


def product_of(family: int, model: int) -> str | None:
    """The product line of a processor of combined ``family`` and ``model``, or None."""
    for first, last, product in _MODELS.get(family, ()):
        if first <= model <= last:
            return product
    return None


def has_fmc(product: str) -> bool:
    """Whether the TCB of ``product``, one of ``PRODUCTS``, has the part fmc."""
    return "fmc" in _LAYOUTS[product]


def decode(raw: bytes, product: str) -> Tcb:
    """The parts of the 8 bytes ``raw`` as ``product``, one of ``PRODUCTS``, lays them out.

    Raises ``FormatError``: ``snp-tcb``.
    """
    layout = _layout(product)
    if len(raw) != TCB_BYTES:
        raise FormatError("snp-tcb", f"a TCB version has {TCB_BYTES} bytes, not {len(raw)}")
    levels = {name: raw[offset] for name, offset in layout.items()}
    return Tcb(
        fmc=levels.get("fmc"),
        bootloader=levels["bootloader"],
        tee=levels["tee"],
        snp=levels["snp"],
        microcode=levels["microcode"],
    )


def encode(tcb: Tcb, product: str) -> bytes:
    """The 8 bytes of ``tcb`` as ``product`` lays them out, reserved bytes zero.

    Raises ``FormatError``: ``snp-tcb`` for a level outside a byte or a part the
    product does not have.
    """
    layout = _layout(product)
    raw = bytearray(TCB_BYTES)
    for name in PARTS:
        level: int | None = getattr(tcb, name)
        if (level is None) != (name not in layout) or not 0 <= (level or 0) <= 0xFF:
            raise FormatError("snp-tcb", f"{name} {level} cannot be in a TCB of {product}")
        if level is not None:
            raw[layout[name]] = level
    return bytes(raw)


def reserved_zero(raw: bytes, product: str) -> bool:
    """Whether the bytes of ``raw`` that ``product`` reserves are zero.

    Raises ``FormatError``: ``snp-tcb``.
    """
    return encode(decode(raw, product), product) == raw


def _layout(product: str) -> dict[str, int]:
    layout = _LAYOUTS.get(product)
    if layout is None:
        raise FormatError("snp-tcb", f"no processor is called {product!r}")
    return layout
