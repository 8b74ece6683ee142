# SPDX-License-Identifier: Apache-2.0
"""What a service module (SVSM) says of its vTPM, held against the report that binds it.

Serves ``verify.kinds.placement``, which calls it only where the report matched a
service module's reference value (``verify.kinds.platform_kind``). REPORT_DATA is the
digest of the guest's binding and of a manifest. The manifest names the
endorsement key of the vTPM, and no more: that an attestation key is in the same
TPM takes a second round, in which the verifier encrypts a secret to the
endorsement key. The guest chose what the manifest is bound with, so a digest of an
attestation key in it proves nothing. Must never let one-shot evidence pass for
that round.

Source: AMD 58019 1.00, chapter 7 and 8; SECURITY S1, S4, S28.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from troth.abi import svsm_manifest, tpm_attest
from troth.abi.hashes import sha512
from troth.errors import FormatError
from troth.verify.endorsing import steps
from troth.verify.findings import words
from troth.verify.kinds import placed
from troth.verify.kinds.placed import IN_TPM, Placed
from troth.verify.kinds.platform_kind import SERVICE_VMPL

if TYPE_CHECKING:
    from troth.abi.snp_report import SnpReport
    from troth.abi.tpm_attest import Public
    from troth.documents.evidence import Evidence

_NEEDED = ("restricted", "decrypt", "fixedTPM", "fixedParent", "sensitiveDataOrigin")
_BARRED = ("sign",)


def place(evidence: Evidence, report: SnpReport, binding: bytes) -> Placed:
    """Where ``binding`` stands: in REPORT_DATA, hashed with a manifest that names a vTPM."""
    in_tpm = steps.open_(
        IN_TPM,
        "a secret, encrypted to the vTPM's endorsement key, that the guest could read",
        "one-shot evidence has no second round",
    )
    if evidence.service is None:
        return Placed(None, placed.refused("there is no manifest of the service module"), in_tpm)
    manifest = evidence.service.data
    wanted = sha512(binding + manifest).digest()
    problem = ""
    if hmac.compare_digest(wanted, report.report_data):
        # Only now is the manifest the module's.
        problem = _problem(manifest, report)
    if problem:
        return Placed(wanted, placed.refused(problem), in_tpm)
    return Placed(wanted, placed.compared(report.report_data, wanted), in_tpm)


def endorsement_key(manifest: bytes, *, where: str = "") -> bytes:
    """The TPMT_PUBLIC in ``manifest``: of a list the vTPM's data, of a single service the whole.

    Raises ``FormatError``: ``svsm-manifest-*``.
    """
    if not svsm_manifest.is_list(manifest):
        return manifest
    for service in svsm_manifest.parse(manifest, where=where):
        if service.guid == svsm_manifest.VTPM:
            return service.data
    raise FormatError("svsm-manifest-vtpm", "the module offers no vTPM", where=where)


def _problem(manifest: bytes, report: SnpReport) -> str:
    if report.vmpl != SERVICE_VMPL:
        return f"the report is of VMPL {report.vmpl}, where no service module is"
    try:
        return _key_problem(tpm_attest.parse_public(endorsement_key(manifest)))
    except FormatError as error:
        return f"[{error.code}] {error.message}"


def _key_problem(key: Public) -> str:
    wrong = [f"not {name}" for name in _NEEDED if not key.has(name)]
    wrong += [name for name in _BARRED if key.has(name)]
    return f"the endorsement key is {words(wrong)}" if wrong else ""
