# SPDX-License-Identifier: Apache-2.0
"""go-sev-guest and snpguest beside ours: what each accepts and refuses, and where they differ.

Run by scripts/peers, which builds the peers; skipped, and said so, where they are
not there. Each verdict is compared. A difference is a line of the tables with
its reason, and a line that no longer holds fails as well. docs/verifying.md tells
users of them.
"""

import fnmatch
import hashlib
import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from troth.abi import snp_report
from troth.documents import appraisal_policy_toml
from troth.errors import FormatError
from troth.verify.appraise import appraise, judge_chain
from troth.verify.endorsing import endorsements
from troth.verify.policy_text import policy_text
from verifiers import cases

PEERS = Path(__file__).parents[2] / "build" / "peers"
GOSEV, SNPGUEST = PEERS / "gosev", PEERS / "bin" / "snpguest"
LIMIT_S = 60

#: pattern of cases -> (what the peer says, why it is wrong or free to say so)
GOSEV_REFUSES = {
    "Turin-*-good-*": ("1.3.6.1.4.1.3704.1.3.9", "0.15.0 knows no fmcSPL, which AMD's Turin has"),
    "Turin-*-processor-*": ("1.3.6.1.4.1.3704.1.3.9", "likewise"),
    "*-marked-*": ("malformed extension OID", "Go reads no OID with an arc above 31 bits"),
}
GOSEV_ACCEPTS = {
    "*-key-masked": ("", "a report that says MASK_CHIP_KEY has no signature, but here is one"),
    "*-ark-signature": ("", "a trusted root's own signature proves nothing; ours finds the damage"),
}
_NOT_LOOKED_AT = "snpguest leaves it to its caller"
SNPGUEST_REFUSES = {
    "*-vlek-*-v2": ("MASK_CHIP_ID", "0.11.0 takes the layout of version 2 from the chip id"),
}
SNPGUEST_ACCEPTS = {
    "*-other-chip": ("", "0.11.0 looks at the chip id of a key named VCEK, but takes SEV-* as ASK"),
    "*-flipped-reserved-330": ("", "not signed, and not looked at"),
    "*-flipped-reserved-49f": ("", "likewise"),
    "*-version-6": ("", "read as version 5: what later versions mean is not known"),
    "*-version-4294967295": ("", "likewise"),
    "*-key-none": ("", _NOT_LOOKED_AT),
    "*-key-masked": ("", _NOT_LOOKED_AT),
    "*-key-reserved": ("", _NOT_LOOKED_AT),
    "*-key-vlek-claimed": ("", _NOT_LOOKED_AT),
    "*-algorithm-[02]": ("", _NOT_LOOKED_AT),
    "*-debug": ("", _NOT_LOOKED_AT),
    "*-policy-without-bit-17": ("", _NOT_LOOKED_AT),
    "*-planted-root": ("", "it trusts the ARK that lies beside the report"),
    "*-not-yet": ("", "it knows no time"),
    "*-expired": ("", "likewise"),
    "*-ca-not-a-ca": ("", "only signatures of certificates are looked at"),
    "*-vek-critical": ("", "likewise"),
    "*-without-*.*": ("", "an extension that is not there is not compared"),
    "*-without-[1245]": ("", "likewise"),
}

pytestmark = pytest.mark.tool


def need(program):
    if not program.exists():
        pytest.skip(f"no {program.name}: scripts/peers builds it where go or cargo is")


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """Each case in a directory of its own, by name."""
    folder = tmp_path_factory.mktemp("peers")
    found = {}
    groups = [cases.good(), cases.flipped(), cases.resigned(), cases.chained(), cases.simulated()]
    if cases.made_report.VECTORS.exists():
        groups.append(cases.vectors())
    for group in groups:
        for case in group:
            assert case.name not in found
            case.write(folder / case.name)
            found[case.name] = case
    return folder, found


def ours(case):
    """Codes of the checks that refuse ``case``; empty: accepted.

    Signature, chain, certificates and answer as the permissive policy has it, and of
    what was launched DEBUG alone: go-sev-guest too can be told to look at no more.
    """
    try:
        report = snp_report.parse(case.report)
    except FormatError as error:
        return {error.code}
    result = judged(case, report, permissive=True)
    wrong = {
        check.code
        for check in result.checks
        if check.verdict == "fail" or (check.required and check.verdict != "pass")
    }
    assert (result.overall in ("partial", "pass-simulated")) == (not wrong)
    if judged(case, report, permissive=False).check("guest-debug").verdict != "pass":
        wrong.add("guest-debug")
    return wrong


def judged(case, report, *, permissive):
    """The result under a policy that trusts ``case``'s root."""
    policy = policy_text(
        permissive=permissive, simulated="-marked-" in case.name, unprotected_acpi=False
    )
    at = policy.index("trusted_roots = ")
    end = policy.index("\n", at)
    root = hashlib.sha256(case.root).hexdigest()
    policy = f'{policy[:at]}trusted_roots = ["{root}"]{policy[end:]}'
    parsed = appraisal_policy_toml.parse(policy.encode(), where="policy.toml")
    names = cases.CHAIN[case.vlek]
    given = endorsements.collect([*zip(names, case.chain, strict=True), ("root", case.root)])
    return appraise(
        report,
        judge_chain(report, given, parsed, at=case.at),
        parsed,
        policy_sha256=hashlib.sha256(policy.encode()).hexdigest(),
        expected_report_data=case.report_data,
        at=case.at,
    )


def test_ours(room):
    _folder, found = room
    wrong = {name: said for name, case in found.items() if bool(said := ours(case)) == case.good}
    assert wrong == {}


def gosev(folder, names):
    """What go-sev-guest says against each case, "" where it accepts."""
    ran = subprocess.run(
        [GOSEV, *(folder / name for name in names)],
        capture_output=True, text=True, timeout=LIMIT_S, check=True,
    )  # fmt: skip
    rows = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [row["case"] for row in rows] == list(names)
    return {row["case"]: row["refused"] for row in rows}


def snpguest(folder, case):
    """What snpguest says against ``case``, "" where both of its commands accept."""
    place = folder / case.name
    for words in (
        ["verify", "certs", place],
        ["verify", "attestation", "-p", case.line.lower(), "-r", f"0x{case.report_data.hex()}",
         place, place / "report.bin"],
    ):  # fmt: skip
        ran = subprocess.run(
            [SNPGUEST, *words], capture_output=True, text=True, timeout=LIMIT_S, check=False,
            env={"RUST_BACKTRACE": "0"},
        )  # fmt: skip
        if ran.returncode:
            return " ".join(ran.stderr.split()) or f"status {ran.returncode}"
    return ""


def compare(found, said, different):
    """Each verdict of the peer is ours, but for the cases that ``different`` names."""
    differ = {name: words for name, words in said.items() if bool(words) == found[name].good}
    foreseen = {}
    for pattern, (words, _reason) in different.items():
        cases_of_it = fnmatch.filter(found, pattern)
        assert cases_of_it, pattern
        foreseen |= dict.fromkeys(cases_of_it, words)
    assert set(differ) == set(foreseen)
    wrong = {name: differ[name] for name, words in foreseen.items() if words not in differ[name]}
    assert wrong == {}


def test_go_sev_guest(room):
    need(GOSEV)
    folder, found = room
    compare(found, gosev(folder, found), {**GOSEV_REFUSES, **GOSEV_ACCEPTS})


def test_snpguest(room):
    need(SNPGUEST)
    folder, found = room
    with ThreadPoolExecutor(2) as pool:
        said = dict(zip(found, pool.map(partial(snpguest, folder), found.values()), strict=True))
    compare(found, said, {**SNPGUEST_REFUSES, **SNPGUEST_ACCEPTS})


@pytest.mark.vectors
def test_genuine_reports_are_among_them(room):
    _folder, found = room
    entries = cases.made_report.vectors()
    genuine = [name for name in found if name.startswith("vector-")]
    assert len(genuine) == len(entries["vectors"]) + len(entries["derived_negative"]) > 8
