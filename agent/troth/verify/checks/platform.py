# SPDX-License-Identifier: Apache-2.0
"""Checks of the machine: product, platform information, TCB, firmware, mitigations.

Serves ``verify.appraise``. Levels are compared part by part, each TCB of the
report by itself: the reported one chose the signing key, the committed one
keeps older firmware out, the one at launch made the guest. Must never compare
a TCB as one number (source: AMD 56860, "TCB_VERSION", "PLATFORM_INFO"; sheet
snp 3.1, 3.3, 4.5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.abi import snp_tcb
from troth.documents import tcb_floors
from troth.documents.appraisal_policy import PLATFORM_BITS
from troth.verify.findings import LISTED, NOTHING, accepts, hex_list, words
from troth.verify.policy_text import inline_tcb

if TYPE_CHECKING:
    from troth.abi.snp_report import FirmwareVersion, SnpReport
    from troth.abi.snp_tcb import Tcb
    from troth.documents.tcb_floors import Floor
    from troth.verify.findings import Findings

_BIT_CHECKS = {
    "alias_check": "platform-alias-check",
    "smt": "platform-smt",
    "tsme": "platform-tsme",
    "ecc": "platform-ecc",
    "rapl_disabled": "platform-rapl",
    "ciphertext_hiding": "platform-ciphertext-hiding",
    "tio": "platform-tio",
}
_NOT_ASKED = "the policy does not ask for it"


def silicon(report: SnpReport, product: str | None) -> str | None:
    """The kind of silicon that ``report`` speaks of, None where the product is not known."""
    if product is None:
        return None
    return tcb_floors.silicon_of(product, report.cpuid_model, report.cpuid_stepping)


def platform_checks(
    findings: Findings, report: SnpReport, *, product: str | None, provider: str | None
) -> None:
    """All checks of the group "platform".

    ``product`` is None where nothing says it; ``provider``: CSP id of the key's
    certificate, None where it has none.
    """
    _product(findings, product)
    _provider(findings, provider)
    _chip(findings, report)
    _platform_info(findings, report)
    kind = silicon(report, product)
    floor = findings.policy.tcb.get(kind) if kind is not None else None
    _tcbs(findings, report, product=product, kind=kind, floor=floor)
    _firmware(findings, report, kind=kind, floor=floor)
    _mitigations(findings, report, kind=kind, floor=floor)


def _product(findings: Findings, product: str | None) -> None:
    denied = findings.policy.deny_products
    remaining = ", ".join(f'"{name}"' for name in denied if name != product)
    findings.judge(
        "product-allowed",
        good=product is not None and product not in denied,
        expected=f"a known product other than {words(denied)}" if denied else "a known product",
        observed=product or "unknown",
        hint=accepts("deny_products", f"[{remaining}]") if product else NOTHING,
    )


def _provider(findings: Findings, provider: str | None) -> None:
    """A VLEK is in the hands of one cloud, so who has it is whom to trust."""
    wanted = findings.policy.providers
    observed = provider or "none: the key is of one chip"
    if not wanted:
        findings.skip("provider-allowed", expected=_NOT_ASKED, observed=observed)
        return
    # Text of a certificate that nobody may have signed: only plain words go into a hint.
    plain = provider is not None and provider.isprintable() and not set(provider) & set('"\\`')
    names = ", ".join(f'"{name}"' for name in (*wanted, provider))
    findings.judge(
        "provider-allowed",
        good=provider in wanted,
        expected=words(wanted),
        observed=observed,
        hint=accepts("providers", f"[{names}]" if plain else "[]"),
    )


def _chip(findings: Findings, report: SnpReport) -> None:
    wanted = findings.policy.chip_ids
    masked = not any(report.chip_id)
    observed = "masked" if masked else report.chip_id.hex()
    if not wanted:
        findings.skip("chip-allowed", expected=_NOT_ASKED, observed=observed)
        return
    findings.judge(
        "chip-allowed",
        good=not masked and report.chip_id in wanted,
        expected=words(chip.hex() for chip in wanted),
        observed=observed,
        hint=accepts("chip_ids", "[]")
        if masked
        else f'add "{observed}" to chip_ids'
        if len(wanted) >= LISTED
        else accepts("chip_ids", hex_list((*wanted, report.chip_id))),
    )


def _platform_info(findings: Findings, report: SnpReport) -> None:
    demanded = dict(findings.policy.platform_info.demanded)
    for name, check in _BIT_CHECKS.items():
        found = bool(report.platform_info >> PLATFORM_BITS[name] & 1)
        observed = "on" if found else "off"
        if name not in demanded:
            findings.skip(check, expected=_NOT_ASKED, observed=observed)
            continue
        findings.judge(
            check,
            good=found == demanded[name],
            expected="on" if demanded[name] else "off",
            observed=observed,
            hint=accepts(f"[platform_info] {name}", "true" if found else "false"),
        )
    allowed = findings.policy.platform_info.unknown_bits
    findings.judge(
        "platform-unknown",
        good=allowed or not report.unknown_platform_info,
        expected="any bits" if allowed else "no unknown bits",
        observed=f"{report.unknown_platform_info:#x}",
        hint=accepts("[platform_info] unknown_bits", "true"),
    )


def _tcbs(
    findings: Findings,
    report: SnpReport,
    *,
    product: str | None,
    kind: str | None,
    floor: Floor | None,
) -> None:
    if product is None or kind is None:
        for name in ("tcb-reported", "tcb-committed", "tcb-launch", "tcb-order"):
            findings.skip(name, expected="a known product", observed="unknown", hint=NOTHING)
        return
    found = {
        name: snp_tcb.decode(raw, product)
        for name, raw in (
            ("reported", report.reported_tcb),
            ("committed", report.committed_tcb),
            ("launch", report.launch_tcb),
        )
    }
    for name, tcb in found.items():
        wanted: Tcb | None = getattr(floor, name) if floor is not None else None
        check = f"tcb-{name}"
        if wanted is None:
            findings.skip(
                check,
                expected=f"the policy has no floor for {kind}",
                observed=str(tcb),
                hint=_new_floor(kind, found) if floor is None else _line(kind, name, tcb=tcb),
            )
            continue
        findings.judge(
            check,
            good=tcb.at_least(wanted),
            expected=f"{kind}, at least {wanted}",
            observed=str(tcb),
            hint=_line(kind, name, tcb=_lower(tcb, wanted)),
        )
    _order(findings, found, current=snp_tcb.decode(report.current_tcb, product))


def _order(findings: Findings, found: dict[str, Tcb], *, current: Tcb) -> None:
    ordered = (
        found["committed"].at_least(found["reported"])
        and current.at_least(found["committed"])
        and current.at_least(found["launch"])
    )
    either = findings.policy.any_tcb_order
    findings.judge(
        "tcb-order",
        good=ordered or either,
        expected="any" if either else "reported <= committed <= current, launch <= current",
        observed="in order" if ordered else f"not in order; current {current}",
        hint=accepts("any_tcb_order", "true"),
    )


def _lower(first: Tcb, second: Tcb) -> Tcb:
    """The lower level of each part; ``first`` decides which parts there are."""
    levels = {}
    for part in snp_tcb.PARTS:
        own, other = getattr(first, part), getattr(second, part)
        levels[part] = own if own is None or other is None else min(own, other)
    return snp_tcb.Tcb(**levels)


def _line(kind: str, name: str, *, tcb: Tcb) -> str:
    return accepts(f"[tcb.{kind}] {name}", inline_tcb(tcb))


def _new_floor(kind: str, found: dict[str, Tcb]) -> str:
    """A whole table on one line: the date is the operator's to set."""
    inner = ", ".join(f"{name} = {inline_tcb(tcb)}" for name, tcb in found.items())
    return accepts(f"[tcb] {kind}", f'{{ dated = 2000-01-01, source = "one report", {inner} }}')


def _firmware(
    findings: Findings, report: SnpReport, *, kind: str | None, floor: Floor | None
) -> None:
    wanted = floor.firmware if floor is not None else None
    both = (report.current_firmware, report.committed_firmware)
    lowest = min(both, key=_numbers)
    for name, found in zip(("firmware-current", "firmware-committed"), both, strict=True):
        if wanted is None:
            findings.skip(name, expected=_NOT_ASKED, observed=str(found))
            continue
        findings.judge(
            name,
            good=_numbers(found) >= wanted,
            expected="at least " + ".".join(str(number) for number in wanted),
            observed=str(found),
            hint=accepts(f"[tcb.{kind}] firmware", f'"{lowest}"'),
        )


def _numbers(version: FirmwareVersion) -> tuple[int, int, int]:
    return (version.major, version.minor, version.build)


def _mitigations(
    findings: Findings, report: SnpReport, *, kind: str | None, floor: Floor | None
) -> None:
    for name, found in (
        ("launch", report.launch_mit_vector),
        ("current", report.current_mit_vector),
    ):
        key = f"{name}_mitigations"
        wanted: int = getattr(floor, key) if floor is not None else 0
        if not wanted:
            findings.skip(f"mitigations-{name}", expected=_NOT_ASKED, observed=f"{found:#x}")
            continue
        findings.judge(
            f"mitigations-{name}",
            good=wanted & ~found == 0,
            expected=f"all bits of {wanted:#x}",
            observed=f"{found:#x}",
            hint=accepts(f"[tcb.{kind}] {key}", f"{wanted & found:#x}"),
        )
