# SPDX-License-Identifier: Apache-2.0
"""``troth verify report``: judge an SNP report offline, and say every check."""

from __future__ import annotations

import hashlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from troth.abi import snp_report
from troth.cli.results import exit_status, show
from troth.documents import appraisal_policy_toml, binding, instant
from troth.errors import FormatError, UsageError
from troth.verify import endorsements
from troth.verify.appraise import appraise, judge_chain

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
    ``snp-report-*`` for a file that is no report of a known version.
    """
    expected = _expected_report_data(options)
    at = _at(options.at)
    data = _read(options.file, snp_report.REPORT_BYTES + 1, code="report-file")
    policy_bytes = _read(options.policy, None, code="verify-policy-file")
    policy = appraisal_policy_toml.parse(policy_bytes, where=options.policy)
    found = snp_report.parse(data, where=options.file)
    given = endorsements.read_directory(Path(options.certs))
    for name, reason in given.foreign:
        sys.stderr.write(f"troth: {_safe(name)} in {options.certs} was not used: {_safe(reason)}\n")
    result = appraise(
        found,
        judge_chain(found, given, policy, at=at),
        policy,
        policy_sha256=hashlib.sha256(policy_bytes).hexdigest(),
        expected_report_data=expected,
        at=at,
    )
    show(result, as_json=options.json)
    return exit_status(result, accept_simulated=options.accept_simulated)


def _expected_report_data(options: ReportOptions) -> bytes | None:
    if options.report_data is not None:
        if options.nonce is not None or options.user_data is not None:
            raise _wrong("--report-data stands alone: it is nonce and user data already")
        expected = _hex("--report-data", options.report_data)
        if len(expected) != binding.BINDING_BYTES:
            raise _wrong(f"--report-data has {len(expected)} bytes, REPORT_DATA 64")
        return expected
    if options.nonce is None:
        if options.user_data is not None:
            raise _wrong("--user-data needs the --nonce it was bound with")
        return None
    user_data = _hex("--user-data", options.user_data or "")
    if len(user_data) > binding.MAX_USER_DATA_BYTES:
        raise _wrong(f"--user-data has {len(user_data)} bytes, at most 4096")
    return binding.report_binding(_hex("--nonce", options.nonce), user_data)


def _hex(option: str, text: str) -> bytes:
    if len(text) % 2 or not set(text) <= set("0123456789abcdefABCDEF"):
        raise _wrong(f"{option} takes pairs of hex digits")
    return bytes.fromhex(text)


def _at(text: str | None) -> int:
    if text is None:
        return int(time.time())
    try:
        return instant.parse(text)
    except FormatError as error:
        raise UsageError("verify-option", f"--at: {error.message}", hint=error.hint) from None


def _read(name: str, limit_bytes: int | None, *, code: str) -> bytes:
    try:
        with Path(name).open("rb") as file:
            return file.read(limit_bytes if limit_bytes is not None else 1 << 20)
    except OSError as error:
        raise UsageError(code, f"cannot be read: {error.strerror}", where=name) from None


def _wrong(message: str) -> UsageError:
    return UsageError("verify-option", message, hint="see: troth verify report --help")


def _safe(text: str) -> str:
    return "".join(c if c.isprintable() else "\ufffd" for c in text)
