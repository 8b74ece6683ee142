# SPDX-License-Identifier: Apache-2.0
"""The SNP guest policy: what the host may do with a guest, as one 64-bit number.

Serves the ID block, IGVM files and whoever appraises a report, which holds the
same number. The launch digest does not cover it: the host chooses the policy,
so a relying party must look at it by itself (an ID block pins it). Must never
take a bit it does not know for granted: a new bit may permit something.

Source: SEV Secure Nested Paging Firmware ABI Specification (AMD 56860), "Guest
Policy"; bits 25:21 from its revision 1.58.
"""

from __future__ import annotations

from troth.errors import FormatError, UsageError
from troth.record import record

DEFAULT = 0x30000
"""SMT allowed and the bit that must be one: what all tools take where nothing is said."""

MUST_BE_ONE = 1 << 17
#: Name of each field of one bit -> its bit.
BITS = {
    "smt": 16,
    "migrate_ma": 18,
    "debug": 19,
    "single_socket": 20,
    "cxl_allow": 21,
    "mem_aes_256_xts": 22,
    "rapl_dis": 23,
    "ciphertext_hiding": 24,
    "page_swap_disable": 25,
}
_KNOWN = 0xFFFF | MUST_BE_ONE | sum(1 << bit for bit in BITS.values())


@record
class SnpPolicy:
    """A guest policy.

    ``abi_minor``, ``abi_major``: the oldest firmware interface the guest runs
    under, 0 to 255 each. What it permits: ``smt``: simultaneous multithreading
    may be on; ``migrate_ma``: a migration agent may be bound; ``debug``: the
    host may read and write the guest's memory; ``cxl_allow``: CXL devices may
    hold its memory. What it demands: ``single_socket``, ``mem_aes_256_xts``
    (memory encrypted with that cipher), ``rapl_dis`` (no power readings),
    ``ciphertext_hiding``, ``page_swap_disable``.
    """

    abi_minor: int = 0
    abi_major: int = 0
    smt: bool = False
    migrate_ma: bool = False
    debug: bool = False
    single_socket: bool = False
    cxl_allow: bool = False
    mem_aes_256_xts: bool = False
    rapl_dis: bool = False
    ciphertext_hiding: bool = False
    page_swap_disable: bool = False


def parse(value: int, *, where: str = "") -> SnpPolicy:
    """The policy in the number ``value``.

    Raises ``FormatError``: ``snp-policy-range`` where it has not 64 bits,
    ``snp-policy-bit-17`` where the bit that must be one is not,
    ``snp-policy-reserved`` where a bit without meaning is set.
    """
    if not 0 <= value < 1 << 64:
        raise FormatError("snp-policy-range", f"{value:#x} has not 64 bits", where=where)
    if not value & MUST_BE_ONE:
        raise FormatError(
            "snp-policy-bit-17",
            f"bit 17 of the guest policy {value:#x} must be one: no firmware launches this",
            where=where,
            hint=f"{value | MUST_BE_ONE:#x} is the same policy with the bit",
        )
    if unknown := value & ~_KNOWN:
        raise FormatError(
            "snp-policy-reserved",
            f"the guest policy {value:#x} sets reserved bits {unknown:#x}",
            where=where,
        )
    return SnpPolicy(
        abi_minor=value & 0xFF,
        abi_major=value >> 8 & 0xFF,
        **{name: bool(value >> bit & 1) for name, bit in BITS.items()},
    )


def encode(policy: SnpPolicy) -> int:
    """The number of ``policy``. Raises ``FormatError`` ``snp-policy-range``."""
    for number in (policy.abi_minor, policy.abi_major):
        if not 0 <= number <= 0xFF:
            raise FormatError("snp-policy-range", f"{number} is no ABI version of eight bits")
    value = MUST_BE_ONE | policy.abi_major << 8 | policy.abi_minor
    for name, bit in BITS.items():
        value |= bool(getattr(policy, name)) << bit
    return value


def parse_hex(text: str, *, where: str = "") -> int:
    """The number that somebody asks for in ``text``, hex digits with or without ``0x``.

    Raises ``UsageError`` ``snp-policy-syntax``, and those of ``parse`` as ``UsageError``.
    """
    digits = text.removeprefix("0x").removeprefix("0X")
    if not 1 <= len(digits) <= 16 or not set(digits) <= set("0123456789abcdefABCDEF"):
        raise UsageError(
            "snp-policy-syntax", f"{text!r} is no policy in hex, such as 0x30000", where=where
        )
    value = int(digits, 16)
    try:
        parse(value)
    except FormatError as error:
        raise UsageError(error.code, error.message, where=where, hint=error.hint) from None
    return value


def names(policy: SnpPolicy) -> tuple[str, ...]:
    """The names of the bits that are set, in their order."""
    return tuple(name for name in BITS if getattr(policy, name))


def warnings(policy: SnpPolicy) -> tuple[str, ...]:
    """One sentence for each thing in ``policy`` that takes the guest's confidentiality away."""
    found = []
    if policy.debug:
        found.append(
            "the guest policy allows DEBUG: the host can read and write all of the guest's memory"
        )
    if policy.migrate_ma:
        found.append(
            "the guest policy allows MIGRATE_MA: a migration agent of the host's choice can take "
            "the guest's memory elsewhere"
        )
    return tuple(found)
