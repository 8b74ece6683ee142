# SPDX-License-Identifier: Apache-2.0
"""Evidence of each platform kind, and quotes."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest

import made_appraisal
import made_evidence as made
import made_hcl
import made_quote
from judged_evidence import QUOTE, judge
from made_appraisal import turned, with_line
from troth.record import replace

# --- kinds and platforms ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["svsm", "azure-paravisor"])
def test_a_bare_guest_that_claims_a_service(kind):
    """S1: the guest chose REPORT_DATA, and made a manifest or claims that fit it."""
    data = made.tree(platform_kind=kind)
    manifest = b"any"
    wanted = hashlib.sha512(made.bound(data) + manifest).digest()
    forged = made.document(
        platform_kind=kind, service={"data": made.b64(manifest), "report": ""},
        report={"report_data": wanted},
    )  # fmt: skip
    found = judge(forged)
    assert {"platform-kind", "binding", "report-data"} <= turned(found)
    # Even a binding in the right place keeps the wrong kind.
    plain = judge(made.document(platform_kind=kind))
    assert turned(plain) == {"platform-kind"}


def test_a_simulated_platform_never_passes():
    pki = made.simulated_pki()
    text = with_line(made.policy_text(pki), 'platform = "simulated"')
    given = made_appraisal.collected(pki)
    launch = replace(
        made.LAUNCH, kind="simulated", platform="simulated", file="vmlinuz", memory_bytes=0
    )
    flags = replace(made.VALUES.flags, simulated=True)
    values = replace(made.VALUES, snp="simulated", launch=(launch,), flags=flags)
    data = made.document(made=pki, platform_kind="simulated")
    found = judge(data, values=values, policy=text, given=given)
    assert turned(found) == set()
    assert found.overall == "pass-simulated"
    # Under a policy for real platforms nothing of it counts.
    real = judge(data, values=values, policy=made.policy_text(pki), given=given)
    assert {"certificate-platform", "image-simulated"} <= turned(real)
    assert real.overall == "fail"


# --- quotes -------------------------------------------------------------------------------------

SHA256 = {key: value for key, value in made.pcrs().items() if key[0] == "sha256"}


def quoted(pcrs=SHA256, **words):
    return made.tpm_tree(made_quote.part(pcrs, **({"nonce": made.NONCE} | words)))


def test_a_quote_of_the_hosts_tpm_is_compared_and_roots_nothing():
    found = judge(made.document(tpm=quoted()))
    assert found.overall == "pass"
    assert {c.code for c in found.checks if c.code in QUOTE and c.verdict != "pass"} == {
        "ak-in-tpm"
    }
    # Where nothing else roots the boot, neither does it.
    bare = replace(made.VALUES, launch=(replace(made.LAUNCH, covers=()),))
    found = judge(made.document(tpm=quoted()), values=bare)
    assert turned(found) == {"boot-chain-rooted", "root-hash"}


@pytest.mark.parametrize(
    ("words", "checks"),
    [
        ({"nonce": bytes(32)}, {"quote-fresh"}),
        ({"pcrs": SHA256 | {("sha256", 14): bytes(32)}}, {"quote-replay"}),
        ({"pcrs": {("sha256", 14): SHA256["sha256", 14]}}, {"quote-banks"}),
        ({"counters": (4, 1, 4000)}, {"quote-counters"}),
        ({"ak": made_quote.Ak(attributes=0x00040472)}, {"ak-attributes"}),
    ],
)
def test_a_quote_that_does_not_hold(words, checks):
    assert turned(judge(made.document(tpm=quoted(**words)))) == checks


@pytest.mark.parametrize("name", ["ak_public", "attest", "signature", "counters"])
def test_a_quote_of_another_machine(name):
    """Put into evidence that was bound with its own."""
    tree = made.tree(tpm=quoted())
    other = quoted(ak=made_quote.Ak("p384"), counters=(5, 5, 5))
    tree["tpm"] = tree["tpm"] | {name: other[name]}
    assert {"binding", "report-data"} <= turned(judge(json.dumps(tree).encode()))
    tree["tpm"] = None
    assert turned(judge(json.dumps(tree).encode())) == {"binding", "report-data"}


def test_pcr_values_that_the_quote_does_not_cover():
    """They are not bound: the quote is what vouches for them."""
    tree = made.tree(tpm=quoted())
    tree["tpm"]["pcrs"][0]["value"] = "00" * 32
    assert turned(judge(json.dumps(tree).encode())) == {"quote-pcrs", "quote-replay"}


# --- below a paravisor --------------------------------------------------------------------------

#: What the firmware, the loader and the stub measured, in the paravisor's TPM.
BELOW = {("sha256", 4): b"\x44" * 32, ("sha256", 9): b"\x99" * 32}
PARAVISOR = f'[reference] paravisor = [{{ measurement = "{made.DIGEST}", min_guest_svn = 7 }}]'


def azure(*, pcrs=SHA256 | BELOW, bound=None, ak=None, values=None, policy=None, **changes):
    """The result for a guest of Azure's paravisor, whose TPM roots its boot chain."""
    key = made_quote.Ak(2048)
    part = quoted(pcrs, ak=ak or key)
    tree = made.tree(platform_kind="azure-paravisor", tpm=part, **changes)
    claims = made_hcl.claims(bound or made.bound(tree), ak=key.key)
    tree = made.tree(
        platform_kind="azure-paravisor", tpm=part,
        report={"report_data": made_hcl.bound(claims)}, **changes,
    )  # fmt: skip
    hardware = base64.b64decode(tree["report"])
    tree["service"] = {"data": made.b64(made_hcl.blob(claims, hardware)), "report": ""}
    case = made.case(tpm="present")
    below = tuple((bank, n, value.hex()) for (bank, n), value in sorted(BELOW.items()))
    handover = replace(case.handover, pcrs=tuple(sorted((*case.handover.pcrs, *below))))
    used = values or replace(
        made.VALUES, launch=(), platform="azure-paravisor", vtpm="required",
        vtpm_kind="paravisor", cases=(replace(case, handover=handover),),
    )  # fmt: skip
    text = policy or with_line(made.policy_text(), PARAVISOR)
    return judge(json.dumps(tree).encode(), values=used, policy=text)


def test_a_register_of_the_firmware_that_is_not_as_predicted():
    """Sent among the registers, where no quote is over it."""
    case = made.case(tpm="present")
    below = (*case.handover.pcrs, ("sha256", 4, "44" * 32))
    values = replace(made.VALUES, cases=(
        replace(case, handover=replace(case.handover, pcrs=tuple(sorted(below)))),
    ))  # fmt: skip
    plain = made.tree(tpm_registers=True)["registers"]
    for value, checks in (("44" * 32, set()), ("45" * 32, {"registers"})):
        listed = sorted([*plain, {"name": "sha256:4", "value": value}],
                        key=lambda item: item["name"])  # fmt: skip
        assert turned(judge(made.document(registers=listed), values=values)) == checks


def test_a_register_in_a_bank_that_the_log_lacks_is_held_against_nothing():
    """What PCR 14 really holds, refusal or instance, must not hide in another bank."""
    less = {key: value for key, value in (SHA256 | BELOW).items() if key[1] != 14}
    found = azure(pcrs=less | {("sha512", 14): b"\x66" * 64})
    assert turned(found) == {"quote-banks", "boot-chain-rooted", "root-hash"}


def test_events_of_applications_left_out_of_a_paravisors_log():
    found = azure(pcrs=SHA256 | BELOW | {("sha256", 23): b"\x66" * 32})
    assert turned(found) == {"quote-replay", "boot-chain-rooted", "root-hash"}


def test_a_paravisors_guest_passes_by_its_quote():
    found = azure()
    assert turned(found) == set()
    assert found.overall == "pass"
    assert found.check("ak-in-tpm").verdict == "pass"
    assert found.check("boot-chain-rooted").expected.startswith("azure-paravisor: a quote")
    assert "software-register" not in {item.name for item in found.warnings}
    for code in QUOTE:
        assert found.check(code).required


def test_a_paravisor_by_its_key_and_not_by_its_digest():
    line = (
        f'[reference] paravisor = [{{ id_key_digest = "{"06" * 48}", family_id = "{"01" * 16}", '
        f'image_id = "{"02" * 16}", min_guest_svn = 7 }}]'
    )
    found = azure(policy=with_line(made.policy_text(), line))
    assert turned(found) == set()
    assert found.check("measurement").verdict == "not-checked"
    assert turned(azure(policy=with_line(made.policy_text(), line.replace("= 7", "= 8")))) >= {
        "platform-kind"
    }


def test_a_paravisors_guest_whose_boot_chain_is_another():
    other = azure(pcrs=SHA256 | BELOW | {("sha256", 9): bytes(32)})
    assert turned(other) == {"boot-chain-rooted", "root-hash"}
    missing = azure(pcrs=SHA256 | {("sha256", 4): BELOW["sha256", 4]})
    assert turned(missing) == {"boot-chain-rooted", "root-hash", "registers"}
    unknown = replace(
        made.VALUES, launch=(), platform="azure-paravisor", vtpm="required",
        vtpm_kind="paravisor", cases=(made.case(tpm="present"),),
    )  # fmt: skip
    found = azure(values=unknown)
    assert turned(found) == {"boot-chain-rooted", "root-hash"}
    assert found.check("boot-chain-rooted").observed == "reference values predict no PCR 4, 9"


def test_claims_that_are_another_guests():
    assert turned(azure(bound=bytes(64))) == {"binding"}
    found = azure(ak=made_quote.Ak("p384"))
    assert turned(found) == {"ak-in-tpm", "boot-chain-rooted", "root-hash"}


def test_the_same_evidence_of_a_launch_that_the_policy_does_not_name():
    """S1: forged claims under a report of a bare guest."""
    found = azure(policy=made.policy_text(), values=made.VALUES)
    assert {"platform-kind", "binding", "report-data"} <= turned(found)
    assert found.overall == "fail"
