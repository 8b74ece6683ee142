# SPDX-License-Identifier: Apache-2.0
"""result.json: what a verifier found, check by check.

Flows from ``troth verify`` to people, brokers and logs. Pure: the verifier
decides each verdict, ``overall`` follows from them by one rule, and a document
that says otherwise is refused. Must never be taken for evidence: it is not
signed (source: docs/formats.md, "result.json").
"""

from __future__ import annotations

from troth.documents import instant, strict
from troth.documents.verdict import FAIL, NOT_CHECKED, PARTIAL, PASS, PASS_SIMULATED
from troth.errors import FormatError
from troth.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

SCHEMA = "troth-result-v1"

VERDICTS = (PASS, FAIL, NOT_CHECKED)
OVERALL = (PASS, FAIL, PARTIAL, PASS_SIMULATED)

REAL = "real"
SIMULATED = "simulated"
PLATFORMS = (REAL, SIMULATED)
REPORT = "snp-report"
SUBJECTS = (REPORT, "evidence")

MAX_BYTES = 1 << 20
MAX_CHECKS = 1000
MAX_TEXT = 4096


@record
class Check:
    """One check: ``expected`` and ``observed`` as people read them.

    ``hint``: where it did not pass, the one line of a policy that accepts it, or
    what else to do; empty where nothing accepts it. ``required``: whether it must
    pass for the whole to pass; a check that failed always counts.
    """

    code: str
    verdict: str
    expected: str
    observed: str
    hint: str
    required: bool


@record
class Subject:
    """What was judged: one of ``SUBJECTS``, and the SHA-256 of its bytes in hex."""

    kind: str
    sha256: str


@record
class Notice:
    """Something that changes no verdict and that the reader should know; ``name`` is stable."""

    name: str
    text: str


@record
class Result:
    """A whole result.

    ``at``: seconds since 1970, the time that was judged at; ``platform``: one of
    ``PLATFORMS``, as the certificates say; ``policy_sha256``: of the policy's
    bytes in hex; ``permissive``: whether it says to be.
    """

    subject: Subject
    at: int
    platform: str
    policy_sha256: str
    permissive: bool
    overall: str
    checks: tuple[Check, ...]
    warnings: tuple[Notice, ...] = ()

    def check(self, code: str) -> Check:
        """The check of that code; ``KeyError`` where there is none."""
        for check in self.checks:
            if check.code == code:
                return check
        raise KeyError(code)


def overall(checks: Iterable[Check], *, permissive: bool, platform: str) -> str:
    """What the checks come to.

    "fail" where one failed or a required one did not pass; else "partial" where
    the policy is permissive; else "pass-simulated" on a simulated platform; else
    "pass".
    """
    for check in checks:
        if check.verdict == FAIL or (check.required and check.verdict != PASS):
            return FAIL
    if permissive:
        return PARTIAL
    return PASS if platform == REAL else PASS_SIMULATED


def print_(result: Result) -> bytes:
    """The document: sorted, indented, final newline."""
    return strict.pretty(
        {
            "schema": SCHEMA,
            "subject": {"kind": result.subject.kind, "sha256": result.subject.sha256},
            "at": instant.print_(result.at),
            "platform": result.platform,
            "policy": {"sha256": result.policy_sha256, "permissive": result.permissive},
            "overall": result.overall,
            "checks": [
                {
                    "code": check.code,
                    "verdict": check.verdict,
                    "expected": check.expected,
                    "observed": check.observed,
                    "hint": check.hint,
                    "required": check.required,
                }
                for check in result.checks
            ],
            "warnings": [{"code": item.name, "text": item.text} for item in result.warnings],
        }
    )


def parse(data: bytes, *, where: str = "") -> Result:
    """The result in ``data``.

    Raises ``FormatError``: those of ``documents.strict``, ``time-form``;
    ``result-check`` where a check is there twice or has odd text;
    ``result-overall`` where ``overall`` does not follow from the checks.
    """
    reader = strict.Reader(strict.parse(data, where=where, limit_bytes=MAX_BYTES), where=where)
    reader.text("schema", allowed=(SCHEMA,))
    subject = reader.reader("subject")
    policy = reader.reader("policy")
    result = Result(
        subject=Subject(
            subject.text("kind", allowed=SUBJECTS), subject.digest("sha256", size_bytes=32)
        ),
        at=instant.parse(reader.text("at"), where=where),
        platform=reader.text("platform", allowed=PLATFORMS),
        policy_sha256=policy.digest("sha256", size_bytes=32),
        permissive=policy.boolean("permissive"),
        overall=reader.text("overall", allowed=OVERALL),
        checks=reader.each("checks", _check),
        warnings=reader.each("warnings", lambda own: Notice(own.text("code"), own.text("text"))),
    )
    for part in (subject, policy, reader):
        part.close()
    _consistent(result, where)
    return result


def _check(reader: strict.Reader) -> Check:
    return Check(
        code=reader.text("code"),
        verdict=reader.text("verdict", allowed=VERDICTS),
        expected=reader.text("expected"),
        observed=reader.text("observed"),
        hint=reader.text("hint"),
        required=reader.boolean("required"),
    )


def _consistent(result: Result, where: str) -> None:
    codes = [check.code for check in result.checks]
    texts = [text for c in result.checks for text in (c.code, c.expected, c.observed, c.hint)]
    texts += [text for item in result.warnings for text in (item.name, item.text)]
    if len(codes) > MAX_CHECKS or len(set(codes)) != len(codes):
        raise FormatError(
            "result-check", "a check is there twice, or there are too many", where=where
        )
    for text in texts:
        if len(text) > MAX_TEXT or not text.isprintable():
            raise FormatError(
                "result-check", "a text is too long or has control characters", where=where
            )
    follows = overall(result.checks, permissive=result.permissive, platform=result.platform)
    if not result.checks or result.overall != follows:
        raise FormatError(
            "result-overall",
            f"the verdict is {result.overall!r}, but the checks come to {follows!r}",
            where=where,
            hint="the document was edited, or cut",
        )
