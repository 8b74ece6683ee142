# SPDX-License-Identifier: Apache-2.0
"""Files and verbs mixed up on a command line: each is told what it is, and what to do."""

import pytest

import made_appraisal as made
from troth.cli import guest
from troth.cli.main import main

NONCE = "00" * 16


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "report.bin").write_bytes(made.base_report())
    (tmp_path / "report.hex").write_text(made.base_report().hex())
    (tmp_path / "lines.hex").write_text("\n".join([made.base_report().hex()[:60]] * 40))
    (tmp_path / "header.bin").write_bytes(b"\0" * 32 + made.base_report())
    (tmp_path / "evidence.json").write_text('{"schema": "troth-evidence-v1"}')
    (tmp_path / "answer.json").write_text('{"schema": "troth-report-answer-v1"}')
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/policy.json").write_text('{"schema": "troth-policy-v1"}')
    (tmp_path / "troth.toml").write_text('[image]\nname = "shop"\n')
    (tmp_path / "next.toml").write_text('schema = "troth-verify-policy-v2"\nmore = 1\n')
    (tmp_path / "big.json").write_bytes(b" " * 100_000)
    (tmp_path / "values.json").write_text('{"schema": "troth-reference-values-v1"}')
    platform = tmp_path / "bundle.sim"
    (platform / "certs").mkdir(parents=True)
    (platform / "chip.json").write_text("{}")
    assert main(["verify", "init-policy", "-o", "policy.toml"]) == 0
    return tmp_path


REPORT = ("verify", "report")
EVIDENCE = ("verify", "evidence")


@pytest.mark.parametrize(
    ("verb", "given", "status", "said"),
    [
        (REPORT, {"file": "evidence.json"}, 1, "[json-type]"),
        (REPORT, {"file": "evidence.json"}, 1, "this is evidence: troth verify evidence"),
        (REPORT, {"file": "report.hex"}, 1, "xxd -r -p"),
        (REPORT, {"file": "lines.hex"}, 1, "xxd -r -p"),
        (REPORT, {"file": "header.bin"}, 1, "no header before it"),
        (REPORT, {"file": "/dev/null"}, 1, "no header before it"),
        (REPORT, {"policy": "bundle/policy.json"}, 2, "troth verify init-policy -o policy.toml"),
        (REPORT, {"policy": "troth.toml"}, 2, "troth verify init-policy -o policy.toml"),
        (REPORT, {"policy": "next.toml"}, 2, "[verify-policy-"),
        (REPORT, {"certs": "bundle.sim"}, 1, "no certificate is in bundle.sim; is it "),
        (REPORT, {"certs": "bundle.sim"}, 1, "chip.json in bundle.sim was not used: neither a "),
        (REPORT, {"certs": "bundle.sim/certs"}, 1, "no certificate is in bundle.sim/certs\n"),
        (REPORT, {"nonce": "zz"}, 2, "troth verify report --help"),
        (EVIDENCE, {"file": "report.bin"}, 1, "troth verify report"),
        (EVIDENCE, {"file": "answer.json"}, 1, "with a report: troth verify report"),
        (EVIDENCE, {"file": "values.json"}, 1, "troth verify evidence --reference"),
        (EVIDENCE, {"file": "evidence.json", "instance": "big.json"}, 1, "where: big.json"),
    ],
)  # fmt: skip
def test_a_verifier_is_told(place, capsys, verb, given, status, said):
    chosen = {"file": "report.bin", "nonce": NONCE, "policy": "policy.toml", "certs": "bundle"}
    chosen |= given
    words = [*verb, chosen.pop("file")]
    if verb == EVIDENCE:
        words += ["--reference", "values.json"]
    for name, value in chosen.items():
        words += [f"--{name}", value]
    assert main(words) == status
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["explain", "evidence.json"], 1, "this is evidence"),
        (["explain", "host-data"], 2, "docs/checks.md"),
        (["inspect", "report.bin"], 1, "troth verify judges reports"),
        (["measurements"], 3, "[not-booted]"),
        (["status"], 3, "[not-booted]"),
        (["evidence", "--nonce", NONCE, "--socket", "nowhere"], 3, "there: No such file"),
    ],
)
def test_outside_of_a_guest(place, capsys, words, status, said):
    assert main(words) == status
    found = capsys.readouterr().err
    assert said in found
    assert "  hint: " in found
    assert "Errno" not in found


def test_help_inside_a_guest(capsys):
    assert guest.main(["--help"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("usage: troth measurements")
    assert said.err == ""
    assert guest.main(["help"]) == 2
    assert capsys.readouterr().err == said.out
