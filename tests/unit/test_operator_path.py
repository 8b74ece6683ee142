# SPDX-License-Identifier: Apache-2.0
"""An operator with a genuine report: from ``init-policy`` along the hints, line by line.

Nothing is known but what the verb prints. Each step takes the first check that
stands in the way and the one line that its hint names, and sees that the line
accepts this check and turns none. Where the road honestly ends, no line is offered.
"""

from __future__ import annotations

import re
import shutil
from datetime import UTC, datetime

import pytest

import made_report
from made_appraisal import with_line
from troth.cli.main import main
from troth.documents import instant, result

pytestmark = pytest.mark.vectors

LINE = re.compile(r"accepted by `([^`]+)`")
AZURE = made_report.VECTORS.parent / "azure"


def entry(name):
    return next(item for item in made_report.vectors()["vectors"] if item["id"] == name)


class Operator:
    """Files in ``folder``, and the words of one verb."""

    def __init__(self, folder, capsys, words, *, at):
        self.capsys = capsys
        self.policy = folder / "policy.toml"
        self.words = [*words, "--policy", str(self.policy), "--at", at, "--json"]
        assert main(["verify", "init-policy", "-o", str(self.policy)]) == 0
        capsys.readouterr()

    def verify(self):
        """(exit status, result)."""
        status = main(self.words)
        found = result.parse(self.capsys.readouterr().out.encode())
        assert (status == 0) == (found.overall == "pass")
        return status, found

    def follow(self):
        """The lines, and the check that no line accepts, "" where the verdict is pass."""
        lines = []
        status, found = self.verify()
        while status:
            wrong = standing(found)
            offered = [(code, LINE.findall(found.check(code).hint)) for code in wrong]
            code, hints = next((item for item in offered if item[1]), (wrong[0], []))
            if not hints:
                return lines, set(wrong)
            assert len(hints) == 1, "one check, one line"
            lines.append(hints[0])
            self.policy.write_text(with_line(self.policy.read_text(), hints[0]))
            status, found = self.verify()
            assert code not in standing(found), hints[0]
            assert set(standing(found)) < set(wrong), "a line accepts what it names, nothing else"
            assert len(lines) < 40
        return lines, set()


def standing(found):
    """Codes of the checks in the way, in their order."""
    return [
        check.code
        for check in found.checks
        if check.verdict == "fail" or (check.required and check.verdict != "pass")
    ]


def certificates(folder, name, line):
    """What the operator has of AMD: the chain of the line and the key of this report."""
    certs = folder / "certs"
    certs.mkdir()
    for path in (made_report.VECTORS / "certs" / line).iterdir():
        shutil.copyfile(path, certs / path.name)
    shutil.copyfile(made_report.VECTORS / f"{name}.vek.der", certs / "vek.der")
    return certs


def within(about):
    """Thirty days into the life of the report's key."""
    begun = datetime.fromisoformat(about["cert_not_before"]).astimezone(UTC)
    return instant.print_(round(begun.timestamp()) + 30 * 86400)


#: Report -> what its road goes over besides what all have; the last line of an honest end.
ROADS = {
    "milan-v2-virtee": {"deny_products", "[guest_policy] smt"},
    "milan-v3-vlek-aws": {"deny_products", "[launch] vmpl", "masked_chip_id"},
    "milan-v3-ms": {"deny_products", "[launch] host_data", "[id_block] id_keys"},
    "genoa-v3-ms": {"[launch] host_data", "[id_block] id_keys"},
    "milan-v3-azure-hcl": {"deny_products", "[id_block] id_keys"},
}
ALWAYS = {"[launch] measurements", "[required] certificate-revocation"}


def operator(name, tmp_path, capsys, *, data=None):
    about = entry(name)
    words = [
        "verify", "report", str(made_report.VECTORS / f"{name}.report.bin"),
        "--certs", str(certificates(tmp_path, name, about["product"])),
        "--report-data", data or about["report_data"],
    ]  # fmt: skip
    return Operator(tmp_path, capsys, words, at=within(about))


@pytest.mark.parametrize("name", ROADS)
def test_the_hints_lead_to_a_policy_for_this_guest(name, tmp_path, capsys):
    lines, wrong = operator(name, tmp_path, capsys).follow()
    assert wrong == set()
    keys = [line.partition(" = ")[0] for line in lines]
    assert len(set(keys)) == len(keys), "no line twice"
    assert ALWAYS | ROADS[name] <= set(keys)
    # A Genoa guest's road does not go over what only Milan needs.
    assert ("deny_products" in keys) == name.startswith("milan")
    assert not {"platform", "permissive", "trusted_roots"} & set(keys)


def test_all_reports_with_a_chain_have_their_road():
    assert {about["id"] for about in made_report.vectors()["vectors"]} == {
        *ROADS,
        "milan-v2-gosev-debug",
    }


def test_debug_is_the_end_of_the_road(tmp_path, capsys):
    lines, wrong = operator("milan-v2-gosev-debug", tmp_path, capsys).follow()
    assert wrong == {"guest-debug"}
    assert lines


@pytest.mark.parametrize("name", ROADS)
def test_another_nonce_is_the_end_of_the_road(name, tmp_path, capsys):
    assert operator(name, tmp_path, capsys, data="5a" * 64).follow()[1] == {"report-data"}


def test_an_operator_who_denies_milan_stops_there(tmp_path, capsys):
    """The line is offered and is the operator's to refuse: without it nothing else helps."""
    walker = operator("milan-v2-virtee", tmp_path, capsys)
    lines, _wrong = walker.follow()
    denied = next(line for line in lines if line.startswith("deny_products"))
    assert denied == "deny_products = []"
    walker.policy.write_text(with_line(walker.policy.read_text(), 'deny_products = ["Milan"]'))
    assert standing(walker.verify()[1]) == ["product-allowed"]


def paravisor(tmp_path, capsys, data):
    certs = certificates(tmp_path, "milan-v3-azure-hcl", "milan")
    shutil.copyfile(AZURE / "vcek.pem", certs / "vek.pem")
    words = [
        "verify", "report", str(AZURE / "hcl-report.bin"), "--certs", str(certs),
        "--report-data", data,
    ]  # fmt: skip
    return Operator(tmp_path, capsys, words, at="2024-06-01T00:00:00Z")


def test_a_whole_paravisors_report(tmp_path, capsys):
    """Azure's NV index as it is, made at boot: its guest wrote no user data."""
    lines, wrong = paravisor(tmp_path, capsys, "00" * 64).follow()
    assert wrong == set()
    (named,) = [line for line in lines if line.startswith("[reference] paravisor")]
    report = (AZURE / "hcl-report.bin").read_bytes()[0x20:][:1184]
    at, size = made_report.FIELDS["id_key_digest"]
    assert report[at : at + size].hex() in named


def test_a_paravisors_report_for_another_nonce(tmp_path, capsys):
    assert paravisor(tmp_path, capsys, "5a" * 64).follow()[1] == {"binding"}
