# SPDX-License-Identifier: Apache-2.0
"""``troth verify`` and ``troth explain``: what they print, and with which status they end."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

import made_appraisal as made
import made_pki
from made_appraisal import FIELDS
from troth.cli import explain, results, verify_inputs, verify_report
from troth.documents import binding, instant, report_answer, result
from troth.documents.report_answer import ReportAnswer
from troth.errors import FormatError, UsageError

NONCE = bytes(range(32))
AT = instant.print_(made.AT)


def files(folder, *, pki=None, policy=None, **changes):
    """Report, certificates and policy in ``folder``; REPORT_DATA is of NONCE."""
    pki = pki or made.pki()
    fields = FIELDS | {"report_data": binding.report_binding(NONCE)} | changes
    (folder / "report.bin").write_bytes(pki.report(**fields))
    certs = folder / "certs"
    certs.mkdir()
    (certs / "chain.pem").write_bytes(made_pki.pem(pki.ca, pki.ark))
    (certs / "vek.der").write_bytes(pki.vek)
    (certs / "list.der").write_bytes(pki.revoked())
    (folder / "policy.toml").write_text(policy or made.policy_text(pki))
    return folder


def verify(folder, **given):
    options = {
        "file": str(folder / "report.bin"), "certs": str(folder / "certs"),
        "policy": str(folder / "policy.toml"), "nonce": NONCE.hex(), "user_data": None,
        "report_data": None, "at": AT, "accept_simulated": False, "json": False,
    }  # fmt: skip
    return verify_report.report(SimpleNamespace(**(options | given)))


def test_an_agents_answer(tmp_path, capsys):
    """The report in it is judged; what stands beside the report decides nothing."""
    files(tmp_path)
    report = (tmp_path / "report.bin").read_bytes()
    answer = ReportAnswer(
        report=report, certificates=b"", provider="sev-guest", nonce=bytes(32), user_data=b"x"
    )
    (tmp_path / "report.json").write_bytes(b"\n" + report_answer.print_(answer))
    asked = {"file": str(tmp_path / "report.json")}
    assert verify(tmp_path, **asked) == 0
    plain = capsys.readouterr().out
    assert verify(tmp_path) == 0
    assert capsys.readouterr().out == plain
    assert verify(tmp_path, nonce="00" * 32, **asked) == 1
    (tmp_path / "report.json").write_bytes(b'{"schema": "troth-report-answer-v1"}')
    with pytest.raises(FormatError) as caught:
        verify(tmp_path, **asked)
    assert caught.value.code == "json-missing"


def test_a_report_by_nonce(tmp_path, capsys):
    assert verify(files(tmp_path)) == 0
    said = capsys.readouterr()
    assert said.err == ""
    lines = said.out.splitlines()
    assert lines[1] == f"at {AT}"
    assert lines[-1].startswith("pass: ")
    assert not any(line.startswith("->") for line in lines)
    assert "\x1b" not in said.out
    assert verify(tmp_path, nonce=NONCE.hex().upper()) == 0
    assert verify(tmp_path, nonce=None, report_data=binding.report_binding(NONCE).hex()) == 0
    capsys.readouterr()
    assert verify(tmp_path, nonce="00" * 32) == 1
    out = capsys.readouterr().out
    (arrow,) = [line for line in out.splitlines() if line.startswith("->")]
    assert arrow.split()[1:3] == ["fail", "report-data"]
    assert out.splitlines()[-1].startswith("fail: ")
    assert verify(tmp_path, nonce=None) == 1
    assert "give --nonce or --report-data" in capsys.readouterr().out


def test_user_data(tmp_path):
    files(tmp_path, report_data=binding.report_binding(NONCE, b"hi"))
    assert verify(tmp_path, user_data=b"hi".hex()) == 0
    assert verify(tmp_path) == 1
    assert verify(tmp_path, user_data=b"ho".hex()) == 1


def test_json(tmp_path, capsys):
    files(tmp_path)
    assert verify(tmp_path, json=True) == 0
    printed = capsys.readouterr().out.encode()
    found = result.parse(printed)
    assert found.overall == "pass"
    assert found.at == made.AT
    assert result.print_(found) == printed
    assert json.loads(printed)["schema"] == "troth-result-v1"


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"nonce": "00" * 15}, "nonce-length"),
        ({"nonce": "00" * 65}, "nonce-length"),
        ({"nonce": ""}, "nonce-length"),
        ({"nonce": "0x" + "00" * 16}, "verify-option"),
        ({"nonce": "0" * 33}, "verify-option"),
        ({"report_data": "00" * 64}, "verify-option"),
        ({"nonce": None, "report_data": "00" * 63}, "verify-option"),
        ({"nonce": None, "report_data": "00" * 64, "user_data": "00"}, "verify-option"),
        ({"nonce": None, "user_data": "00"}, "verify-option"),
        ({"user_data": "zz"}, "verify-option"),
        ({"user_data": "00" * 4097}, "verify-option"),
        ({"at": "today"}, "verify-option"),
        ({"at": "2026-02-30T00:00:00Z"}, "verify-option"),
        ({"file": "/nowhere"}, "report-file"),
        ({"policy": "/nowhere"}, "verify-policy-file"),
        ({"certs": "/nowhere"}, "certs-directory"),
    ],
)
def test_usage(tmp_path, given, code):
    files(tmp_path)
    with pytest.raises(UsageError) as caught:
        verify(tmp_path, **given)
    assert caught.value.code == code


def test_what_is_no_report(tmp_path):
    files(tmp_path)
    (tmp_path / "report.bin").write_bytes(bytes(1184))
    with pytest.raises(FormatError) as caught:
        verify(tmp_path)
    assert caught.value.code == "snp-report-version"
    (tmp_path / "report.bin").write_bytes(made.base_report() + b"\0")
    with pytest.raises(FormatError) as caught:
        verify(tmp_path)
    assert caught.value.code == "snp-report-size"


def test_foreign_files_are_named_and_do_no_harm(tmp_path, capsys):
    files(tmp_path)
    (tmp_path / "certs" / "notes\x1b[2J.txt").write_text("hello")
    assert verify(tmp_path) == 0
    said = capsys.readouterr().err
    assert "was not used" in said
    assert "\x1b" not in said


def test_a_planted_root(tmp_path, capsys):
    """A whole chain of the attacker's own, root included, under a policy that does not name it."""
    other = made_pki.Pki("Genoa", number=2, ark={"serial": 0x777})
    files(tmp_path, pki=other, policy=made.policy_text())
    assert verify(tmp_path) == 1
    out = capsys.readouterr().out
    (arrow,) = [line for line in out.splitlines() if line.startswith("->")]
    assert arrow.split()[1:3] == ["fail", "certificate-root"]


def test_simulated_and_permissive(tmp_path, capsys):
    simulated = made_pki.Pki("Genoa", simulated=True)
    text = made.with_line(made.policy_text(simulated), 'platform = "simulated"')
    files(tmp_path, pki=simulated, policy=text)
    assert verify(tmp_path) == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("pass-simulated: ")
    assert verify(tmp_path, accept_simulated=True) == 0
    (tmp_path / "policy.toml").write_text(made.with_line(text, "permissive = true"))
    capsys.readouterr()
    assert verify(tmp_path) == 1, "a permissive policy does not make it real"
    assert capsys.readouterr().out.splitlines()[-1].startswith("partial: ")
    assert verify(tmp_path, accept_simulated=True) == 0
    (tmp_path / "report.bin").write_bytes(made.base_report())
    assert verify(tmp_path, accept_simulated=True) == 1, "a failed check stays one"


def test_a_permissive_policy_for_a_real_platform(tmp_path, capsys):
    files(tmp_path, policy=made.with_line(made.policy_text(), "permissive = true"))
    assert verify(tmp_path) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1].startswith("partial: ")
    assert "warning  permissive: " in out


def test_accept_simulated_is_no_excuse(tmp_path):
    files(tmp_path)
    assert verify(tmp_path, accept_simulated=True, nonce="00" * 16) == 1


def test_now_is_the_default_time(tmp_path, monkeypatch):
    files(tmp_path)
    monkeypatch.setattr(verify_inputs.time, "time", lambda: made.moment(2026, 6, 2) + 0.7)
    assert verify(tmp_path, at=None) == 0
    monkeypatch.setattr(verify_inputs.time, "time", lambda: made.moment(2034, 6, 2))
    assert verify(tmp_path, at=None) == 1


# --- explain ---------------------------------------------------------------------------------


def explained(folder, capsys, **given):
    capsys.readouterr()
    verify(folder, json=True, **given)
    (folder / "result.json").write_text(capsys.readouterr().out)
    assert explain.explain(SimpleNamespace(result=str(folder / "result.json"))) == 0
    return capsys.readouterr().out


def test_explain(tmp_path, capsys):
    files(tmp_path, policy=made.policy_text())
    said = explained(tmp_path, capsys)
    assert said.startswith("The verdict is pass.\n")
    assert (
        "Not checked, and not required: provider-allowed, reference-values, reference-svn" in said
    )
    assert "What to do" not in said
    said = explained(tmp_path, capsys, nonce="00" * 32)
    assert said.startswith("The verdict is fail.\nDo not rely on this guest.")
    assert "report-data: fail\n" in said
    assert "What to do: Send a nonce of your own" in said
    assert "Hint: no line of a policy accepts this" in said


def test_explain_what_cannot_be_read(tmp_path):
    with pytest.raises(UsageError) as caught:
        explain.explain(SimpleNamespace(result=str(tmp_path / "none")))
    assert caught.value.code == "result-file"
    (tmp_path / "edited").write_text("{}")
    with pytest.raises(FormatError):
        explain.explain(SimpleNamespace(result=str(tmp_path / "edited")))


def test_a_result_of_a_newer_verifier_is_explained_as_far_as_it_goes(capsys):
    check = result.Check("brand-new", "fail", "a", "b", "do c", required=True)
    found = result.Result(
        result.Subject("evidence", "ab" * 32), 0, "real", "cd" * 32, False, "fail", (check,)
    )
    assert "Hint: do c" in explain.text(found)
    results.show(found, as_json=False)
    assert "expected a; seen: b" in capsys.readouterr().out


def test_verifying_needs_no_network_and_no_builder():
    words = "import sys; from troth.cli import verify_report, explain\n"
    words += "print([m for m in sys.modules if m in ('ssl', 'urllib.request', 'troth.image')])"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, check=True)
    assert done.stdout.splitlines()[-1] == b"[]"
