# SPDX-License-Identifier: Apache-2.0
"""``troth verify report``: judge an SNP report offline, and say every check."""

from __future__ import annotations

import hashlib
import sys
from typing import TYPE_CHECKING

from troth.abi import hcl, snp_report
from troth.cli import verify_inputs
from troth.cli.results import exit_status, show
from troth.documents import appraisal_policy_toml, azure_evidence, binding, report_answer
from troth.verify.appraise import appraise, judge_chain
from troth.verify.kinds import foreign

if TYPE_CHECKING:
    from typing import Protocol

    class ReportOptions(Protocol):
        """What the grammar gives to ``report``."""

        file: str
        certs: str
        policy: str
        nonce: str | None
        user_data: str | None
        report_data: str | None
        at: str | None
        accept_simulated: bool
        json: bool


def report(options: ReportOptions) -> int:
    """Print the result and return 0 where it is one to rely on.

    Raises ``UsageError``: ``report-file``, ``verify-policy-*``,
    ``certs-directory``, ``nonce-length``, ``verify-option``; ``FormatError``:
    ``snp-report-*`` for a file that is no report of a known version, ``hcl-*``
    for a paravisor's that does not read, ``json-*`` and ``report-answer`` for an
    agent's answer.
    """
    expected = _expected_report_data(options)
    at = verify_inputs.moment(options.at)
    data = verify_inputs.read(options.file, report_answer.LIMIT_BYTES + 1, code="report-file")
    policy_bytes = verify_inputs.read(options.policy, 1 << 20, code="verify-policy-file")
    policy = appraisal_policy_toml.parse(policy_bytes, where=options.policy)
    given = verify_inputs.certificates(options.certs)
    policy_sha256 = hashlib.sha256(policy_bytes).hexdigest()
    if report_answer.is_answer(data):
        # Nothing beside the report counts: whoever handed the file over wrote it.
        answer = report_answer.parse(data, where=options.file)
        data = answer.service if hcl.is_report(answer.service) else answer.report
    if hcl.is_report(data):
        sys.stderr.write(
            f"troth: {options.file} is a report of Azure's paravisor: the hardware's report in it "
            "is judged, and the claims that it binds\n"
        )
        result = foreign.appraise(
            azure_evidence.of_hcl(data, where=options.file),
            nonce=expected,
            given=foreign.Given(None, (), given, policy, policy_sha256),
            subject=data,
            at=at,
        )
        show(result, as_json=options.json)
        return exit_status(result, accept_simulated=options.accept_simulated)
    found = snp_report.parse(data, where=options.file)
    result = appraise(
        found,
        judge_chain(found, given, policy, at=at),
        policy,
        policy_sha256=policy_sha256,
        expected_report_data=expected,
        at=at,
    )
    show(result, as_json=options.json)
    return exit_status(result, accept_simulated=options.accept_simulated)


def _expected_report_data(options: ReportOptions) -> bytes | None:
    if options.report_data is not None:
        if options.nonce is not None or options.user_data is not None:
            raise verify_inputs.wrong(
                "--report-data stands alone: it is nonce and user data already"
            )
        expected = verify_inputs.hex_of("--report-data", options.report_data)
        if len(expected) != binding.BINDING_BYTES:
            raise verify_inputs.wrong(f"--report-data has {len(expected)} bytes, REPORT_DATA 64")
        return expected
    if options.nonce is None:
        if options.user_data is not None:
            raise verify_inputs.wrong("--user-data needs the --nonce it was bound with")
        return None
    user_data = verify_inputs.user_data(options.user_data or "")
    return binding.report_binding(verify_inputs.hex_of("--nonce", options.nonce), user_data)
