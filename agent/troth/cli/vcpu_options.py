# SPDX-License-Identifier: Apache-2.0
"""Processors as options name them: by QEMU's name of their model, or by their signature.

Serves the verbs that measure launches. Must never choose a processor that nobody
named: a digest for another one is no use to anybody, and nothing shows it.
"""

from __future__ import annotations

from difflib import get_close_matches

from troth.errors import UsageError
from troth.measure.vcpu import SIGNATURES


def signature(vcpu_type: str | None, vcpu_sig: str | None) -> int | None:
    """The signature that ``--vcpu-type`` or ``--vcpu-sig`` asks for; None where neither does.

    Raises ``UsageError`` ``vcpu-type`` for an unknown name, ``launch-number``,
    ``launch-input`` where both are given.
    """
    if vcpu_type is not None and vcpu_sig is not None:
        raise UsageError("launch-input", "--vcpu-type and --vcpu-sig say the same thing twice")
    if vcpu_sig is not None:
        return number(vcpu_sig, "--vcpu-sig", bits=32)
    if vcpu_type is None:
        return None
    if vcpu_type not in SIGNATURES:
        near = get_close_matches(vcpu_type, SIGNATURES, n=1)
        raise UsageError(
            "vcpu-type",
            f"no processor type is called {vcpu_type!r}",
            hint=f"did you mean {near[0]}?" if near else f"one of {', '.join(SIGNATURES)}",
        )
    return SIGNATURES[vcpu_type]


def number(text: str, name: str, *, bits: int) -> int:
    """The number in ``text``: decimal digits, or hex digits behind 0x.

    ``name``: of the option. Raises ``UsageError`` ``launch-number``.
    """
    low = text.lower()
    digits, base = (low[2:], 16) if low.startswith("0x") else (low, 10)
    # Not int() alone: it takes signs, blanks, underscores and the digits of other scripts.
    if digits and len(digits) <= 20 and set(digits) <= set("0123456789abcdef"[:base]):
        value = int(digits, base)
        if value < 1 << bits:
            return value
    raise UsageError("launch-number", f"{name} {text[:40]}: it must be a number of {bits} bits")
