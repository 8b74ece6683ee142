# SPDX-License-Identifier: Apache-2.0
"""result.json: round trip, refusals, and that the verdict follows from the checks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from troth.documents import check_names, result, strict
from troth.documents.result import Check, Notice, Result, Subject
from troth.errors import FormatError
from troth.verify.explain import EXPLANATIONS

PAGE = Path(__file__).parents[2] / "docs"
BASE = Result(
    subject=Subject("snp-report", "ab" * 32),
    at=1_780_272_000,
    platform="real",
    policy_sha256="cd" * 32,
    permissive=False,
    overall="pass",
    checks=(
        Check("vmpl", "pass", "0", "0", "", required=True),
        Check("registers", "not-checked", "evidence", "", "", required=False),
    ),
    warnings=(Notice("floor-old", "the floor is old"),),
)


def edited(**changes):
    """The document of ``BASE`` with top-level values or, by ``checks``, the first check changed."""
    tree = json.loads(result.print_(BASE))
    first = changes.pop("first", {})
    tree["checks"][0] |= first
    tree |= changes
    return json.dumps(tree).encode()


def test_the_document_by_hand():
    written = """\
{
  "at": "2026-06-01T00:00:00Z",
  "checks": [
    {
      "code": "vmpl",
      "expected": "0",
      "hint": "",
      "observed": "0",
      "required": true,
      "verdict": "pass"
    },
    {
      "code": "registers",
      "expected": "evidence",
      "hint": "",
      "observed": "",
      "required": false,
      "verdict": "not-checked"
    }
  ],
  "overall": "pass",
  "platform": "real",
  "policy": {
    "permissive": false,
    "sha256": "POLICY"
  },
  "schema": "troth-result-v1",
  "subject": {
    "kind": "snp-report",
    "sha256": "SUBJECT"
  },
  "warnings": [
    {
      "code": "floor-old",
      "text": "the floor is old"
    }
  ]
}
"""
    written = written.replace("POLICY", "cd" * 32).replace("SUBJECT", "ab" * 32)
    assert result.print_(BASE).decode() == written
    assert result.parse(result.print_(BASE)) == BASE


@pytest.mark.parametrize(
    ("verdict", "required", "permissive", "platform", "overall"),
    [
        ("pass", True, False, "real", "pass"),
        ("pass", True, False, "simulated", "pass-simulated"),
        ("pass", True, True, "real", "partial"),
        ("pass", True, True, "simulated", "partial"),
        ("not-checked", False, False, "real", "pass"),
        ("not-checked", True, False, "real", "fail"),
        ("not-checked", True, True, "real", "fail"),
        ("fail", False, False, "real", "fail"),
        ("fail", False, True, "simulated", "fail"),
    ],
)
def test_overall(verdict, required, permissive, platform, overall):
    checks = [Check("vmpl", verdict, "", "", "", required), *BASE.checks[1:]]
    assert result.overall(checks, permissive=permissive, platform=platform) == overall


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (edited(overall="partial"), "result-overall"),
        (edited(overall="fail"), "result-overall"),
        (edited(first={"verdict": "fail"}), "result-overall"),
        (edited(first={"verdict": "not-checked"}), "result-overall"),
        (edited(platform="simulated"), "result-overall"),
        (edited(policy={"sha256": "cd" * 32, "permissive": True}), "result-overall"),
        (edited(checks=[]), "result-overall"),
        (edited(first={"code": "registers"}), "result-check"),
        (edited(first={"observed": "a\x1b[2Jb"}), "result-check"),
        (edited(first={"hint": "x" * 5000}), "result-check"),
        (edited(warnings=[{"code": "a\n", "text": ""}]), "result-check"),
        (edited(first={"verdict": "passed"}), "json-type"),
        (edited(first={"required": 1}), "json-type"),
        (edited(first={"extra": 1}), "json-unknown"),
        (edited(extra=1), "json-unknown"),
        (edited(policy={"sha256": "cd" * 32}), "json-missing"),
        (edited(policy={"sha256": "CD" * 32, "permissive": False}), "json-type"),
        (edited(subject={"kind": "quote", "sha256": "ab" * 32}), "json-type"),
        (edited(schema="troth-result-v2"), "json-type"),
        (edited(at="yesterday"), "time-form"),
        (b"{}", "json-missing"),
        (b"[]", "json-type"),
        (b"\xff", "json-syntax"),
        (b" " * (1 << 20) + b"{}", "json-size"),
    ],
)
def test_refusals(data, code):
    with pytest.raises(FormatError) as caught:
        result.parse(data, where="result.json")
    assert caught.value.code == code
    assert caught.value.where == "result.json"


texts = st.text(st.characters(categories=("L", "N", "P")), max_size=20)


@given(
    st.lists(
        st.tuples(texts, st.sampled_from(result.VERDICTS), texts, texts, texts, st.booleans()),
        min_size=1,
        max_size=5,
        unique_by=lambda item: item[0],
    ),
    st.booleans(),
    st.sampled_from(result.PLATFORMS),
    st.integers(0, 4_000_000_000),
)
def test_round_trip(checks, permissive, platform, at):
    made = tuple(Check(*values) for values in checks)
    whole = Result(
        subject=BASE.subject,
        at=at,
        platform=platform,
        policy_sha256=BASE.policy_sha256,
        permissive=permissive,
        overall=result.overall(made, permissive=permissive, platform=platform),
        checks=made,
    )
    assert result.parse(result.print_(whole)) == whole


@given(st.integers(0, len(result.print_(BASE)) - 1), st.binary(max_size=3))
def test_mutated_documents(at, put):
    data = result.print_(BASE)
    try:
        found = result.parse(data[:at] + put + data[at + 1 :])
    except FormatError:
        return
    assert result.parse(result.print_(found)) == found


# --- what stands in the documents ------------------------------------------------------------


def rows(text):
    """Cells of each row of the tables in ``text`` whose first cell is a word in backticks."""
    found = {}
    for line in text.splitlines():
        if line.startswith("| `"):
            cells = [cell.strip() for cell in line.strip("|\n ").split(" | ")]
            found[cells[0].strip("` ")] = cells[1:]
    return found


def test_every_check_is_explained_in_the_program_and_on_the_page():
    names = [check.name for check in check_names.CHECKS]
    assert len(set(names)) == len(names)
    assert list(EXPLANATIONS) == names
    found = rows((PAGE / "checks.md").read_text("utf-8"))
    assert list(found) == names
    for check in check_names.CHECKS:
        said = EXPLANATIONS[check.name]
        assert found[check.name] == [check.needed, said.meaning, said.why, said.what_to_do]
        for text in (said.meaning, said.why, said.what_to_do):
            assert text.endswith((".", "`"))
            assert "|" not in text


def test_the_page_lists_the_checks_by_group():
    text = (PAGE / "checks.md").read_text("utf-8")
    for group in dict.fromkeys(check.group for check in check_names.CHECKS):
        part = text.partition(f"\n## {group.capitalize()}\n")[2].partition("\n## ")[0]
        assert list(rows(part)) == [c.name for c in check_names.CHECKS if c.group == group]


def test_result_fields_are_documented():
    text = (PAGE / "formats.md").read_text("utf-8")
    part = text.partition("\n## result.json\n")[2].partition("\n## ")[0]
    tree = strict.parse(result.print_(BASE))
    leaves = set()
    for key, value in tree.items():
        if isinstance(value, dict):
            leaves |= {f"{key}.{inner}" for inner in value}
        elif isinstance(value, list):
            leaves |= {f"{key}[].{inner}" for inner in value[0]}
        else:
            leaves.add(key)
    named = {
        word.strip("` ")
        for line in part.splitlines()
        if line.startswith("| `")
        for word in line.strip("| ").split(" | ")[0].split(",")
    }
    assert named == leaves
