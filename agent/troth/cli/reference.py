# SPDX-License-Identifier: Apache-2.0
"""``troth reference check`` and ``export``: values that somebody vouched for, put to use.

Serves relying parties. Must never succeed for values nobody was asked to have
signed, unless that was allowed by name, and then it says so.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from troth.cli import output_file, reference_file
from troth.documents import finding, instant, strict
from troth.documents.verdict import FAIL
from troth.errors import UsageError
from troth.image import reference_bundle, rvps

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    from troth.documents.finding import Finding

    class CheckOptions(Protocol):
        """What the grammar gives to ``check``."""

        file: str
        key: list[str]
        allow_unsigned: bool
        at: str | None
        bundle: str | None
        min_svn: int | None
        json: bool

    class ExportOptions(Protocol):
        """What the grammar gives to ``export``."""

        file: str
        form: str
        key: list[str]
        allow_unsigned: bool
        at: str | None
        output: str | None


SCHEMA = "troth-reference-check-v1"


def check(options: CheckOptions) -> int:
    """Print one line a check; 0 where none failed.

    Raises ``UsageError`` ``reference-key-missing``, ``reference-file``,
    ``time-form``, ``usage``; ``FormatError`` where the file is none of reference values.
    """
    if options.min_svn is not None and options.min_svn < 0:
        raise UsageError("usage", f"--min-svn {options.min_svn}: no image has less than 0")
    at_s = reference_file.moment(options.at, option="--at")
    judged = reference_file.judge(options, at_s=at_s, min_svn=options.min_svn)
    findings = list(judged.findings)
    if options.bundle is None:
        findings.append(finding.not_checked("bundle", "none was given to compare with"))
    elif judged.values is None:
        findings.append(finding.not_checked("bundle", "the values are not looked at"))
    else:
        findings += reference_bundle.compare(Path(options.bundle), judged.values)
    verdict = finding.verdict(findings)
    if options.json:
        tree = {
            "schema": SCHEMA,
            "at": instant.print_(at_s),
            "verdict": verdict,
            "signers": [key.key_id for key in judged.signers],
            "checks": [
                {name: getattr(item, name) for name in item.__match_args__} for item in findings
            ],
        }
        sys.stdout.write(strict.pretty(tree).decode())
    else:
        _print(findings)
        print(f"verdict: {verdict}")
    return 1 if verdict == FAIL else 0


def export(options: ExportOptions) -> int:
    """Write values in force in another verifier's form; name on standard error what it loses.

    Nothing is written, and the status is 1, where the values are not in force.
    """
    at_s = reference_file.moment(options.at, option="--at")
    judged = reference_file.judge(options, at_s=at_s)
    if judged.values is None or finding.verdict(judged.findings) == FAIL:
        _print([item for item in judged.findings if item.verdict == FAIL], sys.stderr)
        return 1
    data = rvps.message(judged.values)
    if options.output is not None:
        output_file.spare(options.output, reference_file.path_of(options.file), *options.key)
    if options.output is None:
        sys.stdout.write(data.decode())
        sys.stdout.flush()
    else:
        output_file.write(options.output, data)
    for text in rvps.losses(judged.values):
        print(f"troth: not in this form: {text}", file=sys.stderr)
    if not judged.signers:
        print("troth: exported without a verified signature, as allowed", file=sys.stderr)
    return 0


def _print(findings: Sequence[Finding], stream: object = None) -> None:
    out = sys.stdout if stream is None else sys.stderr
    for item in findings:
        code = f" [{item.code}]" if item.code else ""
        detail = f": {item.detail}" if item.detail else ""
        print(_safe(f"{item.verdict:<11} {item.name}{code}{detail}"), file=out)


def _safe(text: str) -> str:
    """``text`` without control characters: details quote the document."""
    return "".join(char if char.isprintable() else "?" for char in text)
