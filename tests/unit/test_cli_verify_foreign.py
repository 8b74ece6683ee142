# SPDX-License-Identifier: Apache-2.0
"""``troth verify`` for a paravisor's report and for evidence of other projects."""

import json
from types import SimpleNamespace

import pytest

import made_appraisal as made
import made_hcl
import made_pki
from made_foreign import serde, vector
from troth.cli import verify_evidence, verify_report
from troth.documents import binding, instant
from troth.errors import FormatError, UsageError

NONCE = bytes(range(32))
BINDING = binding.report_binding(NONCE)
AT = instant.print_(made.AT)
KEYS = (
    f'[reference] paravisor = [{{ id_key_digest = "{"06" * 48}", family_id = "{"01" * 16}", '
    f'image_id = "{"02" * 16}", min_guest_svn = 7 }}]'
)


@pytest.fixture
def folder(tmp_path):
    pki = made.pki()
    certs = tmp_path / "certs"
    certs.mkdir()
    (certs / "chain.pem").write_bytes(made_pki.pem(pki.ca, pki.ark))
    (certs / "vek.der").write_bytes(pki.vek)
    (certs / "list.der").write_bytes(pki.revoked())
    (tmp_path / "policy.toml").write_text(made.with_line(made.policy_text(), KEYS))
    (tmp_path / "direct.toml").write_text(made.policy_text())
    return tmp_path


def hcl_file(folder, *, user_data=BINDING, **changes):
    body = made_hcl.claims(user_data)
    fields = made.FIELDS | {"report_data": made_hcl.bound(body)} | changes
    data = made_hcl.blob(body, made.pki().report(**fields), pad=2600)
    (folder / "hcl.bin").write_bytes(data)
    return data


def report(folder, **given):
    options = {
        "file": str(folder / "hcl.bin"), "certs": str(folder / "certs"),
        "policy": str(folder / "policy.toml"), "nonce": NONCE.hex(), "user_data": None,
        "report_data": None, "at": AT, "accept_simulated": False, "json": True,
    }  # fmt: skip
    return verify_report.report(SimpleNamespace(**(options | given)))


def evidence(folder, **given):
    options = {
        "file": str(folder / "evidence.json"), "certs": str(folder / "certs"), "key": [],
        "policy": str(folder / "direct.toml"), "nonce": NONCE.hex(), "user_data": None,
        "reference": None, "channel_key": None, "instance": None, "state": None,
        "format": "kbs-snp", "at": AT, "accept_simulated": False, "json": True,
    }  # fmt: skip
    return verify_evidence.verify(SimpleNamespace(**(options | given)))


def failed(capsys):
    said = json.loads(capsys.readouterr().out)
    return {
        c["code"] for c in said["checks"]
        if c["verdict"] == "fail" or (c["required"] and c["verdict"] != "pass")
    }  # fmt: skip


def test_a_paravisors_report(folder, capsys):
    hcl_file(folder)
    assert report(folder) == 0
    said = capsys.readouterr()
    assert "report of Azure's paravisor" in said.err
    tree = json.loads(said.out)
    checks = {c["code"]: c["verdict"] for c in tree["checks"]}
    assert (tree["overall"], tree["subject"]["kind"]) == ("pass", "snp-report")
    assert {checks[n] for n in ("platform-kind", "binding", "report-data")} == {"pass"}
    # What the guest itself measured is not in a report.
    assert checks["boot-chain-rooted"] == "not-checked"
    assert report(folder, nonce=None, report_data=BINDING.hex()) == 0
    capsys.readouterr()
    assert report(folder, nonce="11" * 32) == 1
    assert failed(capsys) == {"binding"}
    assert report(folder, nonce=None) == 1
    assert failed(capsys) == {"report-data"}


def test_a_paravisors_report_that_no_reference_value_matches(folder, capsys):
    hcl_file(folder)
    assert report(folder, policy=str(folder / "direct.toml")) == 1
    # The digest is the policy's own, and yet nobody reads claims in a plain guest's report.
    assert {"platform-kind", "binding", "report-data"} <= failed(capsys)
    hcl_file(folder, guest_svn=6)
    assert report(folder) == 1
    assert {"platform-kind", "guest-svn"} <= failed(capsys)


def test_a_paravisors_report_that_was_changed(folder, capsys):
    data = hcl_file(folder)
    at = data.index(b"vmUniqueId")
    (folder / "hcl.bin").write_bytes(data[:at] + b"X" + data[at + 1 :])
    assert report(folder) == 1
    assert failed(capsys) == {"binding", "report-data"}
    (folder / "hcl.bin").write_bytes(data[:1300])
    with pytest.raises(FormatError) as caught:
        report(folder)
    assert caught.value.code == "hcl-bounds"


def test_a_brokers_evidence(folder, capsys):
    raw = made.pki().report(**(made.FIELDS | {"report_data": NONCE.ljust(64, b"\0")}))
    (folder / "evidence.json").write_text(json.dumps(serde(raw)))
    assert evidence(folder) == 1
    # All but what only reference values say.
    assert failed(capsys) == {"boot-chain-rooted"}
    assert evidence(folder, nonce="11" * 32) == 1
    assert {"binding", "report-data", "evidence-nonce"} <= failed(capsys)


def test_genuine_evidence_of_azure_answers_another_nonce(folder, capsys):
    (folder / "evidence.json").write_bytes(vector("azure/evidence-v1.json"))
    assert evidence(folder, format="az-snp-vtpm") == 1
    assert {"platform-kind", "binding"} <= failed(capsys)


@pytest.mark.parametrize(
    "given",
    [
        {"user_data": "00"},
        {"channel_key": "11" * 32},
        {"state": "/nowhere"},
        {"format": "troth"},
        {"nonce": "0"},
    ],
)
def test_options_that_do_not_go_together(folder, given):
    (folder / "evidence.json").write_text("{}")
    with pytest.raises(UsageError) as caught:
        evidence(folder, **given)
    assert caught.value.code == "verify-option"


def test_a_form_that_is_taken_for_another(folder):
    for form in ("kbs-snp", "az-snp-vtpm"):
        (folder / "evidence.json").write_text('{"schema": "troth-evidence-v1"}')
        with pytest.raises(FormatError):
            evidence(folder, format=form)
