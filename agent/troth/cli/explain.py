# SPDX-License-Identifier: Apache-2.0
"""``troth explain``: a result in sentences."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from troth.cli.results import sentence, stands_in_the_way
from troth.documents import result, verdict
from troth.errors import UsageError
from troth.verify.explain import EXPLANATIONS

if TYPE_CHECKING:
    from typing import Protocol

    from troth.documents.result import Check, Result

    class ExplainOptions(Protocol):
        """What the grammar gives to ``explain``."""

        result: str


def explain(options: ExplainOptions) -> int:
    """Print what kept the result from passing; 0 where the document could be read.

    Raises ``UsageError`` ``result-file``; ``FormatError`` as ``documents.result``.
    """
    try:
        with Path(options.result).open("rb") as file:
            data = file.read(result.MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(
            "result-file",
            f"cannot be read: {error.strerror}",
            where=options.result,
            hint="give the file that troth verify report|evidence --json wrote; "
            "docs/checks.md explains every check",
        ) from None
    sys.stdout.write(text(result.parse(data, where=options.result)))
    return 0


def text(judged: Result) -> str:
    """The explanation, ending in a newline."""
    blocking = [check for check in judged.checks if stands_in_the_way(check)]
    passed = sum(check.verdict == verdict.PASS for check in judged.checks)
    open_ = [
        check.code
        for check in judged.checks
        if check.verdict == verdict.NOT_CHECKED and not check.required
    ]
    lines = [f"The verdict is {judged.overall}.", _OVERALL[judged.overall], ""]
    for check in blocking:
        lines += _paragraph(check)
    lines.append(f"{passed} of {len(judged.checks)} checks passed.")
    if open_:
        lines.append(f"Not checked, and not required: {', '.join(open_)}.")
    lines += [f"Warning {item.name}: {item.text}." for item in judged.warnings]
    return "\n".join(lines) + "\n"


_OVERALL = {
    verdict.PASS: "Everything that the policy asks for was checked and holds.",
    verdict.FAIL: "Do not rely on this guest. What stood in the way:",
    verdict.PARTIAL: "Signature and certificates hold. Nothing says what runs there.",
    verdict.PASS_SIMULATED: "All checks hold, on a platform that protects nothing from its host.",
}


def _paragraph(check: Check) -> list[str]:
    known = EXPLANATIONS.get(check.code)
    lines = [f"{check.code}: {check.verdict}", f"  {sentence(check)}"]
    if known is not None:
        lines += [
            f"  What is checked: {known.meaning}",
            f"  Why: {known.why}",
            f"  What to do: {known.what_to_do}",
        ]
    if check.hint:
        lines.append(f"  Hint: {check.hint}")
    return [*lines, ""]
