# SPDX-License-Identifier: Apache-2.0
"""Checks of what the host may do with the guest: its policy, and who asked for the report.

Serves ``verify.appraise``. The host chooses a guest's policy and no launch
digest covers it, so a perfect digest with DEBUG set is worth nothing. Must
read the number in the report's bytes, never one that came beside it (source:
AMD 56860, "Guest Policy"; sheet snp 3.2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.abi import snp_policy
from troth.verify.findings import NOTHING, accepts, words

if TYPE_CHECKING:
    from troth.abi.snp_report import SnpReport
    from troth.verify.findings import Findings

# Bit of the guest policy -> check.
_PERMITS = {
    "migrate_ma": "guest-migration",
    "smt": "guest-smt",
    "cxl_allow": "guest-cxl",
}
_DEMANDS = {
    "single_socket": "guest-single-socket",
    "mem_aes_256_xts": "guest-aes-256-xts",
    "rapl_dis": "guest-rapl",
    "ciphertext_hiding": "guest-ciphertext-hiding",
    "page_swap_disable": "guest-page-swap",
}


def guest_checks(findings: Findings, report: SnpReport) -> None:
    """All checks of the group "guest"."""
    wanted = findings.policy.guest_policy
    bits = {name: bool(report.policy >> bit & 1) for name, bit in snp_policy.BITS.items()}
    findings.judge(
        "guest-debug",
        good=not bits["debug"],
        expected="DEBUG off",
        observed="DEBUG on" if bits["debug"] else "DEBUG off",
        hint=NOTHING + "; `permissive = true` does not look at it, and never passes",
    )
    for name, check in _PERMITS.items():
        allowed = name in wanted.permitted
        findings.judge(
            check,
            good=allowed or not bits[name],
            expected="permitted or not" if allowed else "not permitted",
            observed="permitted" if bits[name] else "not permitted",
            hint=accepts(f"[guest_policy] {name}", "true"),
        )
    for name, check in _DEMANDS.items():
        observed = "demanded" if bits[name] else "not demanded"
        if name in wanted.demanded:
            findings.judge(
                check,
                good=bits[name],
                expected="demanded",
                observed=observed,
                hint=accepts(f"[guest_policy] {name}", "false"),
            )
        else:
            findings.skip(check, expected="the policy does not ask for it", observed=observed)
    _abi(findings, report)
    _vmpl(findings, report)


def _abi(findings: Findings, report: SnpReport) -> None:
    found = (report.policy >> 8 & 0xFF, report.policy & 0xFF)
    observed = f"{found[0]}.{found[1]}"
    floor = findings.policy.guest_policy.min_abi
    if floor is None:
        findings.skip("guest-abi", expected="the policy does not ask for it", observed=observed)
        return
    findings.judge(
        "guest-abi",
        good=found >= floor,
        expected=f"at least {floor[0]}.{floor[1]}",
        observed=observed,
        hint=accepts("[guest_policy] min_abi", f'"{observed}"'),
    )


def _vmpl(findings: Findings, report: SnpReport) -> None:
    expected = findings.policy.launch.vmpl
    hint = accepts("[launch] vmpl", f"[{report.vmpl}]") if report.vmpl <= 3 else NOTHING
    if not expected:
        findings.skip(
            "vmpl", expected="the policy names none", observed=str(report.vmpl), hint=hint
        )
        return
    findings.judge(
        "vmpl",
        good=report.vmpl in expected,
        expected=words(expected),
        observed=str(report.vmpl),
        hint=hint,
    )
