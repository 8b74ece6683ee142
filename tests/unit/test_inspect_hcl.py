# SPDX-License-Identifier: Apache-2.0
"""``troth inspect`` of a paravisor's report."""

import json

import pytest

import made_hcl
from made_foreign import vector
from troth.cli.main import main


def test_a_genuine_one(tmp_path, capsys):
    path = tmp_path / "hcl.bin"
    path.write_bytes(vector("azure/hcl-report.bin"))
    assert main(["inspect", str(path), "--json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert (tree["kind"], tree["verified"], tree["claims_bound"]) == ("hcl", False, "yes")
    assert tree["keys"] == "HCLAkPub RSA 2048, HCLEkPub RSA 2048"
    assert (tree["user_data"], tree["vmpl"], tree["guest_svn"]) == ("unused", "0", "5")
    assert tree["id_key_digest"].startswith("0356215882a825279a85b300b0b74293")
    assert tree["family_id"] == "01" + "00" * 15
    assert tree["vm_configuration"]["vmUniqueId"] == "911B0EF8-9DBA-48B0-B275-4E4DF2D39252"
    assert main(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    assert "nothing in it is verified" in out
    assert "  claims secure-boot: true\n" in out


def test_claims_that_are_not_bound(tmp_path, capsys):
    path = tmp_path / "hcl.bin"
    body = made_hcl.claims(**{"vm-configuration": {"a\x1b[31m": "\x1b"}})
    path.write_bytes(made_hcl.blob(body, made_hcl.blob(b"{}")[32:1216]))
    assert main(["inspect", str(path)]) == 1
    out = capsys.readouterr().out
    assert "no: REPORT_DATA is not their digest" in out
    assert "\x1b" not in out
    assert main(["inspect", str(path), "--json"]) == 1


@pytest.mark.parametrize("data", [b"HCLA", b"HCLA" + bytes(2600)])
def test_what_does_not_read(tmp_path, capsys, data):
    path = tmp_path / "hcl.bin"
    path.write_bytes(data)
    assert main(["inspect", str(path)]) == 1
    assert "hcl-" in capsys.readouterr().err
