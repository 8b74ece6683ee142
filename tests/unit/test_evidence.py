# SPDX-License-Identifier: Apache-2.0
"""Evidence judged: one that passes, and every single thing that turns it."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest

import made_appraisal
import made_evidence as made
from judged_evidence import ASKED, NOT_MADE, base, judge, other_boot
from made_appraisal import turned, with_line
from troth.abi import cert_table
from troth.documents import (
    appraisal_policy_toml,
    check_names,
    result,
)
from troth.record import replace
from troth.verify.evidence import Asked
from troth.verify.explain import EXPLANATIONS
from troth.verify.policy_text import policy_text as written_policy

# --- the one that passes --------------------------------------------------------------------


def test_a_chain_without_the_mark_reaches_pass():
    found = judge()
    assert turned(found) == set()
    assert found.overall == "pass"
    assert [check.code for check in found.checks] == [c.name for c in check_names.CHECKS]
    assert {c.code for c in found.checks if c.verdict != "pass"} == NOT_MADE
    assert found.subject == result.Subject("evidence", hashlib.sha256(base()).hexdigest())
    assert result.parse(result.print_(found)) == found
    (label,) = found.warnings
    assert label.text == "software: trusts guest root for its whole life"


def test_each_check_removed_or_failed_turns_the_whole():
    found = judge()
    required = {check.code for check in found.checks if check.required}
    evidence_checks = {c.name for c in check_names.CHECKS if c.group == check_names.EVIDENCE}
    assert evidence_checks - required == NOT_MADE - {"provider-allowed"}
    for index, check in enumerate(found.checks):
        for verdict in ("fail", "not-checked"):
            checks = list(found.checks)
            checks[index] = replace(check, verdict=verdict)
            turns = verdict == "fail" or check.required
            said = result.overall(checks, permissive=False, platform="real")
            assert said == ("fail" if turns else "pass"), (check.code, verdict)


def test_all_of_it_by_default():
    """What the strict policy requires of evidence needs no line in [required]."""
    policy = appraisal_policy_toml.parse(made.policy_text().encode(), where="p")
    wanted = {c.name for c in check_names.CHECKS if c.needed == "wanted"}
    for check in check_names.CHECKS:
        named = check.name in policy.required
        assert policy.requires(check.name, evidence=True) == (check.name not in wanted or named)


# --- one field of the evidence altered, behind the report's back ------------------------------

ALTERED = {
    "platform_kind": ("simulated", {"platform-kind", "binding", "report-data"}),
    "nonce": ("00" * 32, {"evidence-nonce", "binding", "report-data"}),
    "user_data": ("00", {"user-data", "binding", "report-data"}),
    "channel_key_sha256": ("11" * 32, {"channel-binding", "binding", "report-data"}),
    "caller": ("uid=0 gid=0 unit=-", {"caller", "binding", "report-data"}),
    "event_log": (made.b64(made.log((*made.BOOT, made.APPLICATION))),
                  {"event-log", "registers", "binding", "report-data"}),
    "log_records": (len(made.BOOT) + 1, {"event-log", "binding", "report-data"}),
    "registers": ([{"name": "software", "value": "00" * 48}],
                  {"registers", "binding", "report-data"}),
}  # fmt: skip


@pytest.mark.parametrize("name", ALTERED)
def test_each_field_altered_is_noticed(name):
    value, checks = ALTERED[name]
    found = judge(json.dumps(json.loads(base()) | {name: value}).encode())
    assert turned(found) == checks
    assert found.overall == "fail"


def test_every_field_is_altered_above_or_below():
    rest = set(json.loads(base())) - set(ALTERED)
    assert rest == {"schema", "report", "certificates", "tpm", "service"}


@pytest.mark.parametrize("place", [0x00, 0x50, 0x90, 0xC0, 0x140, 0x1A0, 0x2A0, 0x2E8])
def test_the_report_altered(place):
    tree = json.loads(base())
    report = bytearray(base64.b64decode(tree["report"]))
    # The lowest bit of a version would give another known version.
    report[place] ^= 0x01
    tree["report"] = made.b64(report)
    assert "report-signature" in turned(judge(json.dumps(tree).encode()))


def test_a_quote_or_service_put_in():
    tpm = {
        "ak_public": made.b64(b"key"), "attest": made.b64(b"quote"), "signature": made.b64(b"sig"),
        "pcrs": [], "counters": None,
    }  # fmt: skip
    tree = json.loads(base()) | {"tpm": tpm}
    found = judge(json.dumps(tree).encode())
    assert {"quote-format", "binding", "report-data"} <= turned(found)


def test_certificates_come_with_the_evidence_or_from_the_verifier():
    pki = made_appraisal.pki()
    table = cert_table.build(
        tuple(
            cert_table.Entry(guid, blob)
            for guid, blob in (
                (cert_table.VCEK, pki.vek),
                (cert_table.ASK, pki.ca),
                (cert_table.ARK, pki.ark),
                (cert_table.CRL, pki.revoked()),
            )
        )
    )
    nothing = made_appraisal.collected(pki, without=("ark", "ca", "vek", "list"))
    data = made.document(certificates=made.b64(table))
    assert judge(data, given=nothing).overall == "pass"
    assert {"certificate-root", "certificate-key"} <= turned(judge(base(), given=nothing))
    broken = judge(made.document(certificates=made.b64(table[:40])))
    assert broken.overall == "pass"
    assert "certificate-table" in {item.name for item in broken.warnings}


# --- parts of other machines -----------------------------------------------------------------


def test_a_log_of_another_machine():
    """The agent of a rogue guest binds what it likes; the launch digest vouches for one image."""
    found = judge(made.document(other_boot()))
    assert turned(found) == {"boot-events", "root-hash"}
    check = found.check("boot-events")
    assert check.expected.startswith("record 2, verity of volume root: ")
    assert "ab" * 32 in check.expected
    assert "ba" * 32 in check.observed


def test_registers_of_another_machine():
    values = [{"name": "software", "value": made.software(other_boot()).hex()}]
    assert turned(judge(made.document(registers=values))) == {"registers"}


def test_a_channel_key_of_another_machine():
    found = judge(asked=replace(ASKED, channel_sha256=bytes(32)))
    assert turned(found) == {"channel-binding"}
    found = judge(made.document(channel_key_sha256=""))
    assert turned(found) == {"channel-binding"}
    found = judge(asked=replace(ASKED, channel_sha256=None))
    assert turned(found) == {"channel-binding"}
    assert found.check("channel-binding").verdict == "not-checked"
    waived = with_line(made.policy_text(), "[required] channel-binding = false")
    assert judge(policy=waived, asked=replace(ASKED, channel_sha256=None)).overall == "pass"


def test_user_data_and_nonce_are_the_verifiers():
    assert turned(judge(asked=replace(ASKED, user_data=None))) == {"user-data"}
    assert turned(judge(asked=replace(ASKED, user_data=b"hellp"))) == {"user-data"}
    none = made.document(user_data="")
    assert judge(none, asked=replace(ASKED, user_data=None)).overall == "pass"
    assert turned(judge(asked=replace(ASKED, nonce=bytes(32)))) == {"evidence-nonce"}


# --- policies and hints ---


def test_a_permissive_policy_is_partial_at_best():
    text = with_line(made.policy_text(), "permissive = true")
    found = judge(policy=text)
    assert found.overall == "partial"
    assert {c.verdict for c in found.checks if c.code in ("boot-events", "binding")} == {
        "not-checked"
    }


def test_hints_name_lines_that_parse():
    """Every backticked line of a hint goes into the policy and is understood."""
    spoiled = judge(
        made.document(caller="x", channel_key_sha256=""),
        values=replace(made.VALUES, svn=1, flags=replace(made.VALUES.flags, lockdown="none")),
        asked=Asked(nonce=made.NONCE),
    )
    lines = [c.hint.split("`")[1] for c in spoiled.checks if "accepted by `" in c.hint]
    assert lines
    text = made.policy_text()
    for line in lines:
        text = with_line(text, line)
    appraisal_policy_toml.parse(text.encode(), where="policy.toml")


def test_hints_lead_from_the_written_policy_to_a_pass():
    """Line by line, as a relying party would; what no line accepts is asked for, not waived."""
    text = written_policy(permissive=False, simulated=False, unprotected_acpi=False)
    text = with_line(text, f'trusted_roots = ["{made_appraisal.pki().root_sha256}"]')
    text = with_line(text, f'[reference] public_keys = ["{made.signer()[1]}"]')
    flags = replace(
        made.VALUES.flags, io_error="survivable", cryptomgr_notests=True, unsigned_modules=True
    )
    launch = replace(made.LAUNCH, acpi_aml="unprotected")
    values = replace(made.VALUES, flags=flags, launch=(launch,))
    applied = []
    for _round in range(30):
        found = judge(policy=text, values=values)
        wrong = [check for check in found.checks if check.code in turned(found)]
        if not wrong:
            break
        line = next(check.hint.split("`")[1] for check in wrong if "accepted by `" in check.hint)
        applied.append(line)
        text = with_line(text, line)
    assert found.overall == "pass"
    assert any("accept = " in line and "io-errors" in line for line in applied)
    assert any("acpi_aml" in line for line in applied)
    # The launch digest came from the reference values, and needed no line.
    assert not any("measurements" in line for line in applied)


def test_every_check_of_evidence_is_explained():
    names = {c.name for c in check_names.CHECKS if c.group == check_names.EVIDENCE}
    assert names <= set(EXPLANATIONS)
