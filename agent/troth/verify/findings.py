# SPDX-License-Identifier: Apache-2.0
"""Where the checks of one appraisal are gathered, and how their hints are worded.

Serves the modules of this room that make checks. Whether a check is required
comes from the policy alone. Must never turn a check that was not made into one
that passed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.documents import check_names
from troth.documents.result import MAX_TEXT, Check
from troth.documents.verdict import FAIL, NOT_CHECKED, PASS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from troth.documents.appraisal_policy import AppraisalPolicy

#: Values that an expectation or a hint spells out; more make no line that people read.
LISTED = 8

NOTHING = "no line of a policy accepts this"

_NOT_LOOKED_AT = (
    check_names.GUEST,
    check_names.PLATFORM,
    check_names.IMAGE,
    check_names.EVIDENCE,
)


_ORDER = {name: place for place, name in enumerate(check_names.BY_NAME)}


class Findings:
    """The checks made so far under ``policy``, in their order; of ``evidence`` or a report."""

    def __init__(self, policy: AppraisalPolicy, *, evidence: bool = False) -> None:
        self.policy = policy
        self.evidence = evidence
        self._checks: list[Check] = []

    @property
    def checks(self) -> tuple[Check, ...]:
        """All of them, in the order of ``check_names``, whatever the order they were made in."""
        return tuple(sorted(self._checks, key=lambda check: _ORDER[check.code]))

    def passed(self, name: str) -> bool:
        """Whether the check ``name`` was made and passed."""
        return any(check.code == name and check.verdict == PASS for check in self._checks)

    def judge(
        self, name: str, *, good: bool, expected: str, observed: str, hint: str = NOTHING
    ) -> None:
        """A check that was made; ``hint`` counts only where it is not ``good``."""
        self.put(
            name,
            PASS if good else FAIL,
            expected=expected,
            observed=observed,
            hint="" if good else hint,
        )

    def skip(self, name: str, *, expected: str, observed: str = "", hint: str = "") -> None:
        """A check that could not be made."""
        self.put(name, NOT_CHECKED, expected=expected, observed=observed, hint=hint)

    def put(
        self,
        name: str,
        verdict: str,
        *,
        expected: str,
        observed: str,
        hint: str,
        needed: bool = False,
    ) -> None:
        """A check with its verdict; ``needed``: required here, unless the policy waives it.

        ``KeyError`` where no check has this ``name``.
        """
        check = check_names.BY_NAME[name]
        if self.policy.permissive and check.group in _NOT_LOOKED_AT:
            verdict, hint = NOT_CHECKED, "the policy is permissive"
        required = self.policy.requires(name, evidence=self.evidence)
        if needed and not self.policy.permissive:
            required = self.policy.required.get(name, True)
        waivable = required and check.needed != check_names.ALWAYS
        if verdict == NOT_CHECKED and waivable and "`" not in hint:
            hint = "; or ".join(filter(None, (hint, accepts(f"[required] {name}", "false"))))
        self._checks.append(
            Check(
                name,
                verdict,
                expected=_plain(expected),
                observed=_plain(observed),
                hint=_plain(hint),
                required=required,
            )
        )


def accepts(key: str, value: str) -> str:
    """The hint that names the one line of a policy; ``key`` has its table before it, if any."""
    return f"accepted by `{key} = {value}`"


def hex_list(values: Iterable[bytes]) -> str:
    """A TOML array of hex texts, on one line."""
    return "[" + ", ".join(f'"{value.hex()}"' for value in values) + "]"


def words(values: Iterable[object]) -> str:
    """Values as a sentence lists them; of many, the first few."""
    texts = [str(value) for value in values]
    if len(texts) > LISTED:
        texts = [*texts[:LISTED], f"and {len(texts) - LISTED} more"]
    return ", ".join(texts) or "none"


def _plain(text: str) -> str:
    """``text`` as a result may hold it: certificates and reports have words of their own."""
    text = "".join(c if c.isprintable() else "\ufffd" for c in text)
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 3]}..."
