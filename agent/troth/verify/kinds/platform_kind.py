# SPDX-License-Identifier: Apache-2.0
"""Which platform kind a report has, by the reference value that it matches.

Serves ``verify.evidence``, ``verify.kinds.foreign`` and ``verify report``. Whoever is
root in a guest without anything below it chooses REPORT_DATA, and so can write
there the digest of claims or of a manifest of his own. REPORT_DATA is therefore
read as such only where the launch itself matched a paravisor or a service module
that the relying party named. Must never look at what the evidence says it is
(source: SECURITY S1, V-a, V-e).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.documents.appraisal_policy import KeyPin, OneOf
from troth.documents.platform_references import AZURE_PARAVISOR, SVSM
from troth.record import record, replace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from troth.abi.snp_report import SnpReport
    from troth.documents.appraisal_policy import AppraisalPolicy
    from troth.documents.platform_references import ParavisorReference

SERVICE_KINDS = (AZURE_PARAVISOR, SVSM)

#: Who asks for the report whose REPORT_DATA the service chooses: the service, below the guest.
SERVICE_VMPL = 0


@record
class Below:
    """What the policy knows below the guest that made a report.

    ``kind``: one of ``SERVICE_KINDS``, "" where nothing, or where two kinds match;
    ``policy``: what the report is judged under, with the values of what matched.
    """

    kind: str
    policy: AppraisalPolicy


def below(report: SnpReport, policy: AppraisalPolicy) -> Below:
    """What ``policy`` says is below the guest of ``report``.

    Where a reference value matched, it stands for what the policy says of launch
    digest, ID block and VMPL: they are the paravisor's or the module's, and not the
    guest's image's.
    """
    paravisors = [item for item in policy.reference.paravisors if item.matches(report)]
    modules = [item for item in policy.reference.svsms if item.matches(report)]
    if bool(paravisors) == bool(modules):
        return Below("", policy)
    launch = replace(policy.launch, vmpl=(SERVICE_VMPL,))
    if modules:
        launch = replace(launch, measurements=tuple(item.measurement for item in modules))
        return Below(SVSM, replace(policy, launch=launch))
    return Below(AZURE_PARAVISOR, _of_paravisor(replace(policy, launch=launch), paravisors[0]))


def _of_paravisor(policy: AppraisalPolicy, matched: ParavisorReference) -> AppraisalPolicy:
    block, required = policy.id_block, dict(policy.required)
    launch = policy.launch
    if matched.measurement is not None:
        launch = replace(launch, measurements=(matched.measurement,))
    elif "measurement" not in required:
        # A key vouches for it, as the reference value says; the digest stays not checked.
        launch = replace(launch, measurements=())
        required["measurement"] = False
    floor = max(block.min_guest_svn, matched.min_guest_svn)
    return replace(
        policy,
        launch=launch,
        required=required,
        id_block=replace(
            block,
            id_keys=_pins(matched.id_key_digest, floor) or block.id_keys,
            author_keys=_pins(matched.author_key_digest, floor) or block.author_keys,
            family_ids=_only(matched.family_id) or block.family_ids,
            image_ids=_only(matched.image_id) or block.image_ids,
            min_guest_svn=floor,
        ),
    )


def _pins(digest: bytes | None, floor: int) -> tuple[KeyPin, ...]:
    return () if digest is None else (KeyPin(digest, floor),)


def _only(value: bytes | None) -> OneOf | None:
    if value is None:
        return None
    return OneOf(unused=False, values=(value,)) if any(value) else OneOf(unused=True, values=())


def hint(kind: str, report: SnpReport) -> str:
    """The line of a policy that would make ``report`` one of ``kind``."""
    if kind == SVSM:
        return (
            f'accepted by `[reference] svsm = [{{ measurement = "{report.measurement.hex()}" }}]`'
        )
    fields: Mapping[str, str] = {"measurement": report.measurement.hex()}
    if any(report.id_key_digest):
        fields = {
            "id_key_digest": report.id_key_digest.hex(),
            "family_id": report.family_id.hex(),
            "image_id": report.image_id.hex(),
        }
    inner = "".join(f'{name} = "{value}", ' for name, value in fields.items())
    return (
        "if the cloud publishes these values as its paravisor's: accepted by "
        f"`[reference] paravisor = [{{ {inner}min_guest_svn = {report.guest_svn} }}]`"
    )
