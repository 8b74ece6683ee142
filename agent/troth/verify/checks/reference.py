# SPDX-License-Identifier: Apache-2.0
"""Checks of reference values, and of what they say of the launch and the image.

Serves ``verify.evidence``. What roots a guest's boot chain is a property of the
value that its launch digest matched; what the guest says of itself is compared
with it and decides nothing. Must never look into values that nobody accepted
has signed (source: DESIGN section 2; SECURITY S1, S2, S14, S21, V-a, V-h, V-m, V-n).
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from troth.documents.appraisal_policy import ACPI_AML, WEAKNESSES
from troth.documents.policy import NEVER
from troth.documents.reference_values import BOOT_CHAIN
from troth.documents.result import SIMULATED
from troth.documents.verdict import FAIL, NOT_CHECKED
from troth.record import record
from troth.signing import keys as key_files
from troth.signing import reference
from troth.verify.findings import NOTHING, accepts, words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from troth.abi.snp_report import SnpReport
    from troth.documents.policy import Policy
    from troth.documents.reference_document import Document
    from troth.documents.reference_values import LaunchValue, ReferenceValues
    from troth.signing.keys import PublicKey
    from troth.signing.reference import Judgement
    from troth.verify.findings import Findings
    from troth.verify.kinds.platform_kind import Below

UNKNOWN = "no reference values that count"
#: Checks of choices made at build, in their order.
FLAGS = ("image-simulated", *WEAKNESSES, "volume-freshness", "acpi-protection")


@record
class Matched:
    """``judgement``: of the file; ``values``: where they count, else None; ``launches``: those
    in force with the report's launch digest; ``keys``: ids of the keys that count, in hex;
    ``service``: the platform kind of what the policy itself names below the guest, or "".
    """  # noqa: D205 - the fields are the summary

    judgement: Judgement
    values: ReferenceValues | None
    launches: tuple[LaunchValue, ...]
    keys: tuple[str, ...]
    service: str = ""

    @property
    def kind(self) -> str:
        """The platform kind that the launch digest has; "" where it is not known, or is two."""
        kinds = {launch.platform for launch in self.launches}
        if self.service:
            kinds.add(self.service)
        return kinds.pop() if len(kinds) == 1 else ""


def match(
    report: SnpReport,
    document: Document,
    below: Below,
    *,
    keys: Sequence[PublicKey],
    at: int,
) -> Matched:
    """The values of ``document`` that the policy accepts, and the launches of ``report``.

    ``below``: the policy, and what it names below the guest of ``report``; ``keys``:
    public keys from files, which count only where the policy names their ids.
    Raises ``FormatError`` where ``document`` or a key of the policy is none.
    """
    policy = below.policy
    own = [
        key_files.load_public(spki, where=f"[reference] public_keys, {number + 1}")
        for number, spki in enumerate(policy.reference.public_keys)
    ]
    named = {digest.hex() for digest in policy.reference.keys}
    counting = {key.key_id: key for key in (*own, *(k for k in keys if k.key_id in named))}
    judgement = reference.judge(
        document,
        keys=tuple(counting.values()),
        at_s=at,
        min_svn=policy.reference.min_svn,
        allow_unsigned=policy.reference.allow_unsigned,
    )
    values = judgement.values
    launches: tuple[LaunchValue, ...] = ()
    if values is not None:
        launches = tuple(
            launch
            for launch in values.in_force
            if hmac.compare_digest(bytes.fromhex(launch.digest), report.measurement)
        )
    return Matched(judgement, values, launches, tuple(counting), below.kind)


def reference_checks(
    findings: Findings, matched: Matched, report: SnpReport, *, product: str | None, claimed: str
) -> None:
    """Checks from ``reference-values`` to ``platform-kind``; ``claimed``: by the evidence."""
    _values(findings, matched)
    values = matched.values
    names = ("reference-svn", "reference-launch", "reference-product", "launch-policy")
    if values is None:
        for name in (*names, "platform-kind"):
            findings.skip(name, expected=UNKNOWN)
        return
    floor = findings.policy.reference.min_svn
    findings.judge(
        "reference-svn",
        good=values.svn >= floor,
        expected=f"at least {floor}",
        observed=str(values.svn),
        hint=accepts("[reference] min_svn", str(values.svn)),
    )
    _launch(findings, matched, values, report)
    products = values.products
    findings.judge(
        "reference-product",
        good=not products or product in products,
        expected=words(products) if products else "any",
        observed=product or "an unknown one",
        hint="build the image for this processor",
    )
    wanted = {launch.policy for launch in matched.launches}
    findings.judge(
        "launch-policy",
        # Below a service the image has no say in it; [guest_policy] has.
        good=bool(matched.service) or report.policy in wanted,
        expected=f"as [guest_policy] has it, for {matched.service}"
        if matched.service
        else words(f"{policy:#x}" for policy in sorted(wanted)),
        observed=f"{report.policy:#x}",
        hint="launch the guest with the policy that its image demands",
    )
    findings.judge(
        "platform-kind",
        good=bool(matched.kind) and claimed == matched.kind,
        expected=matched.kind or "the kind of a launch digest that is known",
        observed=claimed,
    )


def _values(findings: Findings, matched: Matched) -> None:
    by_name = {item.name: item for item in matched.judgement.findings}
    failed = [by_name[name] for name in ("signature", "issued", "expires", "revoked")
              if by_name[name].verdict == FAIL]  # fmt: skip
    hint = NOTHING
    code = failed[0].code if failed else ""
    if code == "reference-unsigned":
        hint = accepts("[reference] allow_unsigned", "true")
    elif code == "reference-key" and matched.keys:
        hint = "put the key into [reference] public_keys, if it may speak for this image"
    elif code == "reference-key":
        hint = "name who may sign: [reference] public_keys, or keys and --key FILE"
    elif code in ("reference-expired", "reference-issued"):
        hint = "get newer reference values from whoever builds the image"
    said = by_name["signature"]
    findings.judge(
        "reference-values",
        good=not failed,
        expected="signed by an accepted key, and in force",
        observed="; ".join(f"[{item.code}] {item.detail}" for item in failed)
        or (said.detail if unsigned(matched) else f"signed {said.detail}"),
        hint=hint,
    )


def _launch(
    findings: Findings, matched: Matched, values: ReferenceValues, report: SnpReport
) -> None:
    digest = report.measurement.hex()
    observed = digest
    if matched.service:
        observed = f"{digest}: {matched.service}, which the policy names"
    elif matched.launches:
        observed = "; ".join(_shape(values, launch) for launch in matched.launches[:2])
    elif digest in values.revoked:
        observed = f"{digest}, which is retired"
    findings.judge(
        "reference-launch",
        good=bool(matched.launches or matched.service),
        expected=words(launch.digest for launch in values.in_force),
        observed=observed,
        hint="launch an image that the values are of; or use the values of this image",
    )


def _shape(values: ReferenceValues, launch: LaunchValue) -> str:
    """What a launch with this digest is: which image, on which machine (V-m)."""
    parts = [f"{values.image_name} svn {values.svn}", launch.file]
    if launch.vcpus:
        parts.append(f"{launch.vcpus} processors")
    if launch.cpu_types:
        parts.append(" or ".join(launch.cpu_types))
    parts += [f"reset state of {launch.vmm}", f"SEV_FEATURES {launch.guest_features:#x}"]
    return ", ".join(parts)


def rooted_by_launch(matched: Matched) -> tuple[bool, str, str]:
    """(whether the launch digest alone roots the boot chain, expected, observed)."""
    covered = {word for launch in matched.launches for word in launch.covers}
    good = bool(matched.launches) and all(item.roots_boot_chain for item in matched.launches)
    observed = f"{matched.kind or 'no known kind'}: the launch digest covers {words(covered)}"
    return good, f"{words(BOOT_CHAIN)} covered", observed


def flag_checks(findings: Findings, matched: Matched, policy: Policy | None) -> None:
    """Checks from ``image-simulated`` on: choices of whoever built the image.

    ``policy``: the guest's own, whose digest reference values vouch for; None
    where its bytes are not known.
    """
    if matched.values is None:
        for name in FLAGS:
            findings.skip(name, expected=UNKNOWN)
        return
    flags = matched.values.flags
    simulated = findings.policy.platform == SIMULATED
    findings.judge(
        "image-simulated",
        good=simulated or not flags.simulated,
        expected="either" if simulated else "made for real platforms",
        observed="made for the simulated platform" if flags.simulated else "made for real ones",
        hint=NOTHING + " but `platform`, which is for tests",
    )
    if policy is None:
        findings.skip("raw-report-data", expected="never", observed="the policy is not known")
    else:
        raw = policy.attest.raw_report_data
        said = "" if raw == NEVER else ": binding-forgeable-by-caller"
        _weakness(
            findings,
            "raw-report-data",
            good=raw == NEVER,
            expected=NEVER,
            observed=f"{raw}{said}",
        )
    lockdown, open_ = flags.lockdown or "none", flags.unauthenticated_volumes
    for name, good, expected, bad in (
        ("cipher-self-tests", not flags.cryptomgr_notests, "made", "off by cryptomgr.notests"),
        ("kernel-lockdown", lockdown != "none", "integrity or more", "none"),
        ("module-signatures", not flags.unsigned_modules, "all signed", "some are not signed"),
        ("io-errors", flags.io_error == "panic", "panic", flags.io_error),
        ("volume-integrity", not open_, "all authenticated", f"not so: {words(open_)}"),
    ):
        _weakness(findings, name, good=good, expected=expected, observed=expected if good else bad)
    _freshness(findings, flags.untracked_volumes)
    _acpi(findings, matched)


def _weakness(findings: Findings, name: str, *, good: bool, expected: str, observed: str) -> None:
    accepted = findings.policy.reference.accept
    findings.judge(
        name,
        good=good or name in accepted,
        expected="anything" if name in accepted else expected,
        observed=observed,
        hint=accepts("[reference] accept", _list((*accepted, name))),
    )


def _freshness(findings: Findings, untracked: tuple[str, ...]) -> None:
    """Not a failure: whether such a volume is old is what nobody can say (S9)."""
    expected = "counted by a broker, all that last"
    if untracked:
        findings.skip("volume-freshness", expected=expected, observed=f"not so: {words(untracked)}")
    else:
        findings.judge("volume-freshness", good=True, expected=expected, observed=expected)


def _acpi(findings: Findings, matched: Matched) -> None:
    accepted = findings.policy.reference.acpi_aml
    found = {launch.acpi_aml for launch in matched.launches}
    if not found and matched.values is not None:
        found = {matched.values.flags.acpi_aml}
    wanted = tuple(word for word in ACPI_AML if word in accepted or word in found)
    findings.judge(
        "acpi-protection",
        good=found <= set(accepted),
        expected=words(accepted),
        observed=words(sorted(found)),
        hint=accepts("[reference] acpi_aml", _list(wanted)),
    )


def _list(values: Sequence[str]) -> str:
    return "[" + ", ".join(f'"{value}"' for value in values) + "]"


def unsigned(matched: Matched) -> bool:
    """Whether the values count though nobody accepted has signed them."""
    signature = next(item for item in matched.judgement.findings if item.name == "signature")
    return signature.verdict == NOT_CHECKED
