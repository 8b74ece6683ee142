# SPDX-License-Identifier: Apache-2.0
"""What Azure's paravisor says of its guest, held against the report that binds it.

Serves ``verify.kinds.placement``, ``verify.kinds.foreign`` and ``verify report``, which call
it only where the report matched a paravisor's reference value
(``verify.kinds.platform_kind``). REPORT_DATA is the digest of the paravisor's claims.
They name the TPM's attestation key, which makes a quote by it one of this guest's
TPM, and hold the 64 bytes that the guest wrote. Must never be asked for a report
of another kind: there its guest wrote the claims.

Source: microsoft/openvmm, "openhcl_attestation_protocol"; SECURITY S1, S3, S4.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from troth.abi import hcl, tpm_attest
from troth.documents import hcl_claims
from troth.errors import FormatError
from troth.record import record
from troth.verify.endorsing import steps
from troth.verify.kinds import placed
from troth.verify.kinds.placed import IN_TPM, Placed
from troth.verify.kinds.platform_kind import SERVICE_VMPL

if TYPE_CHECKING:
    from troth.abi.snp_report import SnpReport
    from troth.documents.evidence import Evidence
    from troth.documents.hcl_claims import HclClaims, RsaKey
    from troth.verify.endorsing.steps import Step

_KEY = f"the key {hcl_claims.AK} of the paravisor's claims"
_DEFAULT_EXPONENT = 65537


@record
class Bound:
    """``report_data``: what REPORT_DATA must be, None where the paravisor's report does not
    read; ``problem``: why the claims do not count, or ""; ``claims``: None where they do not.
    """  # noqa: D205 - the fields are the summary

    report_data: bytes | None
    problem: str
    claims: HclClaims | None

    @property
    def ak(self) -> RsaKey | None:
        """The attestation key in the guest's TPM, where the claims count."""
        return None if self.claims is None else self.claims.key(hcl_claims.AK)


def bound(data: bytes, report: SnpReport) -> Bound:
    """Whether ``report`` binds the claims in ``data``, the paravisor's whole report."""
    try:
        found = hcl.parse(data)
        claims = hcl_claims.parse(found.claims)
    except FormatError as error:
        return Bound(None, f"[{error.code}] {error.message}", None)
    problem = ""
    if found.report_type != hcl.SNP:
        problem = f"a report of type {found.report_type}, not of SEV-SNP"
    elif not hmac.compare_digest(found.hardware_report, report.raw):
        problem = "the paravisor's report holds another report of the hardware"
    elif not hmac.compare_digest(found.report_data, report.report_data):
        problem = "REPORT_DATA is not the digest of these claims"
    elif report.vmpl != SERVICE_VMPL:
        problem = f"the report is of VMPL {report.vmpl}, where no paravisor is"
    elif claims.key(hcl_claims.AK) is None:
        problem = f"the claims name no key {hcl_claims.AK}"
    return Bound(found.report_data, problem, None if problem else claims)


def place(evidence: Evidence, report: SnpReport, binding: bytes) -> Placed:
    """Where ``binding`` stands: in the user data of claims that ``report`` binds."""
    if evidence.service is None:
        return Placed(None, placed.refused("there is no report of the paravisor"))
    if evidence.service.report:
        # A guest of a paravisor cannot ask the processor for one of its own.
        return Placed(None, placed.refused("a second report, which this platform does not give"))
    found = bound(evidence.service.data, report)
    in_tpm = None
    if evidence.tpm is not None:
        in_tpm = ak_in_tpm(found, evidence.tpm.ak_public)
    if found.claims is None:
        return Placed(found.report_data, placed.refused(found.problem), in_tpm)
    return Placed(found.report_data, placed.compared(found.claims.user_data, binding), in_tpm)


def ak_in_tpm(found: Bound, ak_public: bytes) -> Step:
    """The step ``ak-in-tpm``: whether ``ak_public``, a TPMT_PUBLIC, is the key of the claims."""
    if found.ak is None:
        return steps.open_(IN_TPM, _KEY, "no claims that count")
    try:
        key = tpm_attest.parse_public(ak_public).key
    except FormatError as error:
        return steps.failed(IN_TPM, _KEY, f"[{error.code}] {error.message}")
    if isinstance(key, tpm_attest.EccKey):
        return steps.failed(IN_TPM, _KEY, f"an ECC key on {key.curve}")
    same = int.from_bytes(key.modulus, "big") == found.ak.modulus
    if not same or (key.exponent or _DEFAULT_EXPONENT) != found.ak.exponent:
        return steps.failed(IN_TPM, _KEY, "another RSA key")
    return steps.passed(IN_TPM, _KEY, "the same key")
