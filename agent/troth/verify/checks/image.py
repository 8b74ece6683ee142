# SPDX-License-Identifier: Apache-2.0
"""Checks of what was launched: digest, HOST_DATA, ID block, and which instance it is.

Serves ``verify.appraise``. HOST_DATA and the ID block come from the host; the
signature of an ID key is worth what the key is worth, and an old image keeps
its signature, so a key counts only with a lowest security version. Must never
accept a digest because the report names it (source: AMD 56860, "ID Block",
"ATTESTATION_REPORT structure"; sheet snp 3.5, 4.5).
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from troth.documents.appraisal_policy import KeyPin
from troth.verify.findings import LISTED, accepts, hex_list, words

if TYPE_CHECKING:
    from troth.abi.snp_report import SnpReport
    from troth.documents.appraisal_policy import OneOf
    from troth.verify.findings import Findings

_NO_AGENT = b"\xff" * 32


def image_checks(findings: Findings, report: SnpReport) -> None:
    """All checks of the group "image"."""
    launch, block = findings.policy.launch, findings.policy.id_block
    _listed(
        findings,
        "measurement",
        found=report.measurement,
        wanted=launch.measurements,
        key="[launch] measurements",
    )
    _one_of(
        findings,
        "host-data",
        found=report.host_data,
        wanted=launch.host_data,
        key="[launch] host_data",
    )
    _block_consistent(findings, report)
    _keys(findings, report)
    for name, found, wanted, key in (
        ("family-id", report.family_id, block.family_ids, "family_ids"),
        ("image-id", report.image_id, block.image_ids, "image_ids"),
    ):
        _one_of(findings, name, found=found, wanted=wanted, key=f"[id_block] {key}")
    _svn(findings, report)
    _listed(
        findings,
        "report-id",
        found=report.report_id,
        wanted=launch.report_ids,
        key="[launch] report_ids",
    )
    _migration_agent(findings, report)


def _listed(
    findings: Findings, name: str, *, found: bytes, wanted: tuple[bytes, ...], key: str
) -> None:
    hint = _adding(key, wanted, found=found)
    if not wanted:
        findings.skip(name, expected="the policy names none", observed=found.hex(), hint=hint)
        return
    findings.judge(
        name,
        good=_among(found, wanted),
        expected=words(value.hex() for value in wanted),
        observed=found.hex(),
        hint=hint,
    )


def _among(found: bytes, wanted: tuple[bytes, ...]) -> bool:
    found_one = False
    for value in wanted:
        found_one |= hmac.compare_digest(found, value)
    return found_one


def _adding(key: str, values: tuple[bytes, ...], *, found: bytes) -> str:
    if len(values) >= LISTED:
        return f'add "{found.hex()}" to {key}'
    return accepts(key, hex_list((*values, found)))


def _one_of(findings: Findings, name: str, *, found: bytes, wanted: OneOf | None, key: str) -> None:
    """A field of zeros where it is not used."""
    unused = not any(found)
    hint = accepts(key, '"unused"')
    if not unused:
        hint = _adding(key, wanted.values if wanted is not None else (), found=found)
    if wanted is None:
        findings.skip(name, expected="the policy names none", observed=found.hex(), hint=hint)
        return
    findings.judge(
        name,
        good=unused if wanted.unused else _among(found, wanted.values),
        expected="unused" if wanted.unused else words(value.hex() for value in wanted.values),
        observed="unused" if unused else found.hex(),
        hint=hint,
    )


def _block_consistent(findings: Findings, report: SnpReport) -> None:
    has_id, has_author = any(report.id_key_digest), any(report.author_key_digest)
    problem = ""
    if report.author_key_enabled != has_author:
        problem = "AUTHOR_KEY_EN and the author key's digest disagree"
    elif has_author and not has_id:
        problem = "an author key without an ID key"
    elif not has_id and (any(report.family_id) or any(report.image_id) or report.guest_svn):
        problem = "an ID block's values without an ID key"
    findings.judge(
        "id-block",
        good=not problem,
        expected="no ID block, or a whole one",
        observed=problem or ("an ID block" if has_id else "no ID block"),
    )


def _keys(findings: Findings, report: SnpReport) -> None:
    block = findings.policy.id_block
    author = _pin_of(report.author_key_digest, block.author_keys)
    if author is not None and not block.id_keys:
        findings.judge(
            "id-key",
            good=any(report.id_key_digest),
            expected="any that the author key certified",
            observed=report.id_key_digest.hex(),
        )
    else:
        _key(
            findings,
            "id-key",
            found=report.id_key_digest,
            svn=report.guest_svn,
            pins=block.id_keys,
            key="[id_block] id_keys",
        )
    _key(
        findings,
        "author-key",
        found=report.author_key_digest,
        svn=report.guest_svn,
        pins=block.author_keys,
        key="[id_block] author_keys",
    )


def _key(
    findings: Findings, name: str, *, found: bytes, svn: int, pins: tuple[KeyPin, ...], key: str
) -> None:
    used = any(found)
    wanted = (*pins, KeyPin(found, svn)) if used else ()
    findings.judge(
        name,
        good=_pin_of(found, pins) is not None if pins else not used,
        expected=words(pin.digest.hex() for pin in pins),
        observed=found.hex() if used else "none",
        hint=accepts(key, _pins(wanted)) if len(wanted) <= LISTED else _one_more(key, wanted[-1]),
    )


def _one_more(key: str, pin: KeyPin) -> str:
    return f'add {{ digest = "{pin.digest.hex()}", min_guest_svn = {pin.min_guest_svn} }} to {key}'


def _pin_of(found: bytes, pins: tuple[KeyPin, ...]) -> KeyPin | None:
    matches = [pin for pin in pins if hmac.compare_digest(found, pin.digest)]
    return matches[0] if matches else None


def _pins(pins: tuple[KeyPin, ...]) -> str:
    inner = (
        f'{{ digest = "{pin.digest.hex()}", min_guest_svn = {pin.min_guest_svn} }}' for pin in pins
    )
    return f"[{', '.join(inner)}]"


def _svn(findings: Findings, report: SnpReport) -> None:
    block = findings.policy.id_block
    floor, hint = block.min_guest_svn, accepts("[id_block] min_guest_svn", str(report.guest_svn))
    for key, found, pins in (
        ("id_keys", report.id_key_digest, block.id_keys),
        ("author_keys", report.author_key_digest, block.author_keys),
    ):
        pin = _pin_of(found, pins)
        if pin is not None and pin.min_guest_svn > floor:
            floor = pin.min_guest_svn
            lower = (
                KeyPin(p.digest, min(p.min_guest_svn, report.guest_svn)) if p == pin else p
                for p in pins
            )
            hint = accepts(f"[id_block] {key}", _pins(tuple(lower)))
            if len(pins) > LISTED:
                hint = f"lower min_guest_svn of {found.hex()} in [id_block] {key}"
    findings.judge(
        "guest-svn",
        good=report.guest_svn >= floor,
        expected=f"at least {floor}",
        observed=str(report.guest_svn),
        hint=hint,
    )


def _migration_agent(findings: Findings, report: SnpReport) -> None:
    wanted = findings.policy.launch.report_id_ma
    found = report.report_id_ma
    none = hmac.compare_digest(found, _NO_AGENT)
    findings.judge(
        "migration-agent",
        good=none if wanted.unused else _among(found, wanted.values),
        expected="none" if wanted.unused else words(value.hex() for value in wanted.values),
        observed="none" if none else found.hex(),
        hint=accepts("[launch] report_id_ma", '"unused"')
        if none
        else _adding("[launch] report_id_ma", wanted.values, found=found),
    )
