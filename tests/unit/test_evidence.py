# SPDX-License-Identifier: Apache-2.0
"""Evidence judged: one that passes, and every single thing that turns it."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache

import pytest

import made_appraisal
import made_evidence as made
import made_hcl
import made_quote
from made_appraisal import turned, with_line
from troth.abi import cert_table
from troth.documents import (
    appraisal_policy_toml,
    check_names,
    dsse,
    evidence,
    policy_json,
    reference_document,
    reference_values_json,
    result,
)
from troth.record import replace
from troth.signing import keys, reference
from troth.verify.evidence import Asked, Given, appraise
from troth.verify.explain import EXPLANATIONS
from troth.verify.policy_text import policy_text as written_policy
from troth.verify.seen import Seen

ASKED = Asked(
    nonce=made.NONCE, user_data=made.USER_DATA, channel_sha256=made.CHANNEL,
)  # fmt: skip
QUOTE = {
    "quote-format", "ak-attributes", "ak-key", "ak-in-tpm", "quote-signature", "quote-fresh",
    "quote-pcrs", "quote-banks", "quote-replay", "quote-counters",
}  # fmt: skip
#: A VCEK has no provider, this guest no TPM and no second report, and nobody remembers it.
NOT_MADE = QUOTE | {"provider-allowed", "reports-agree", "log-rollback"}


@cache
def signed(values=made.VALUES, number=1):
    private = keys.load_private(made.signer(number)[0])
    return dsse.print_(reference.sign(values, [private]))


def judge(
    data=None, *, values=None, policy=None, asked=ASKED, document=None, given=None, public=(),
    at=made.AT,
):  # fmt: skip
    """The result for the document ``data``."""
    data = data or base()
    text = policy or made.policy_text()
    parsed = appraisal_policy_toml.parse(text.encode(), where="policy.toml")
    whole = Given(
        document=reference_document.read(document or signed(values or made.VALUES)),
        keys=public,
        endorsements=given or made_appraisal.base_endorsements(),
        policy=parsed,
        policy_sha256=hashlib.sha256(text.encode()).hexdigest(),
    )
    return appraise(evidence.parse(data), asked, whole, subject=data, at=at)


@cache
def base():
    return made.document()


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


def other_boot():
    return tuple(
        (kind, pcr, content.replace(b"ab" * 32, b"ba" * 32)) for kind, pcr, content in made.BOOT
    )


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


# --- reference values -------------------------------------------------------------------------

REFERENCES = [
    (replace(made.VALUES, expires="2026-04-01T00:00:00Z"), {"reference-values"}),
    (replace(made.VALUES, issued="2026-07-01T00:00:00Z"), {"reference-values"}),
    (replace(made.VALUES, revoked=(made.DIGEST,)),
     {"reference-values", "reference-launch", "launch-policy", "platform-kind",
      "boot-chain-rooted", "root-hash", "measurement"}),
    (replace(made.VALUES, svn=2), {"reference-svn"}),
    (replace(made.VALUES, products=("Turin",)), {"reference-product"}),
    (replace(made.VALUES, launch=(replace(made.LAUNCH, policy=0x30000),)), {"launch-policy"}),
    (replace(made.VALUES, launch=(replace(made.LAUNCH, digest="05" * 48),)),
     {"measurement", "reference-launch", "launch-policy", "platform-kind", "boot-chain-rooted",
      "root-hash"}),
    (replace(made.VALUES, launch=(replace(made.LAUNCH, covers=("acpi",)),)),
     {"boot-chain-rooted", "root-hash"}),
    (replace(made.VALUES, launch=(replace(made.LAUNCH, platform="svsm"),)),
     {"platform-kind", "boot-chain-rooted", "root-hash", "binding", "report-data", *QUOTE}),
    (replace(made.VALUES, launch=(replace(made.LAUNCH, platform="azure-paravisor"),)),
     {"platform-kind", "boot-chain-rooted", "root-hash", "binding", "report-data", *QUOTE}),
    (replace(made.VALUES, policy_sha256="00" * 32), {"boot-events", "root-hash",
                                                     "raw-report-data"}),
    (replace(made.VALUES, root_hashes=made.ROOTS[:1]), {"boot-events", "root-hash"}),
    (replace(made.VALUES, root_hashes=made.ROOTS[::-1]), {"boot-events", "root-hash"}),
    (replace(made.VALUES, workload="00" * 32), {"boot-events"}),
    (replace(made.VALUES, workload=""), {"boot-events"}),
    (replace(made.VALUES, cases=(made.case(cmdline=b"quiet"),),
             launch=(replace(made.LAUNCH, cmdline="quiet"),)), {"boot-events", "command-line"}),
    (replace(made.VALUES, cases=(made.case(tpm="present"),)), {"registers"}),
    (replace(made.VALUES, cases=(made.case(tpm="absent"),)), {"boot-events"}),
    (replace(made.VALUES, cases=(replace(made.case(), handover=made.case(other_boot()).handover),)),
     {"registers"}),
]  # fmt: skip


@pytest.mark.parametrize(("values", "checks"), REFERENCES)
def test_one_change_of_the_reference_values(values, checks):
    found = judge(values=values)
    assert turned(found) == checks
    assert found.overall == "fail"
    for code in checks:
        assert found.check(code).hint or found.check(code).verdict == "not-checked", code


def test_unsigned_values():
    plain = reference_values_json.print_(replace(made.VALUES, issued="", expires="", commit=""))
    found = judge(document=plain)
    assert "reference-values" in turned(found)
    assert found.overall == "fail"
    hint = found.check("reference-values").hint
    assert hint == "accepted by `[reference] allow_unsigned = true`"
    allowed = with_line(made.policy_text(), "[reference] allow_unsigned = true")
    found = judge(document=plain, policy=allowed)
    assert found.overall == "pass"
    assert "reference-unsigned" in {item.name for item in found.warnings}


def test_signed_by_nobody_that_the_policy_names():
    found = judge(document=signed(made.VALUES, 2))
    assert "reference-values" in turned(found)
    # What no accepted key has signed is not looked at.
    assert found.check("boot-events").verdict == "not-checked"
    allowed = with_line(made.policy_text(), "[reference] allow_unsigned = true")
    assert "reference-values" in turned(judge(document=signed(made.VALUES, 2), policy=allowed))


def test_keys_by_id_need_the_key_itself():
    public = keys.load_private(made.signer()[0]).public
    text = with_line(made.policy_text(), "[reference] public_keys = []")
    named = with_line(text, f'[reference] keys = ["{public.key_id}"]')
    assert judge(policy=named, public=(public,)).overall == "pass"
    assert "reference-values" in turned(judge(policy=named))
    # A key that somebody hands over and the policy does not name counts for nothing.
    assert "reference-values" in turned(judge(policy=text, public=(public,)))


def test_a_broken_signature():
    envelope = dsse.parse(signed())
    (one,) = envelope.signatures
    bad = dsse.Signature(one.key_id, one.value[:-1] + bytes([one.value[-1] ^ 1]))
    data = dsse.print_(replace(envelope, signatures=(bad,)))
    found = judge(document=data)
    assert "reference-values" in turned(found)
    assert "altered" in found.check("reference-values").observed


def test_the_policys_own_digests_count_beside_the_values():
    other = with_line(made.policy_text(), f'[launch] measurements = ["{"05" * 48}"]')
    assert turned(judge(policy=other)) == {"measurement"}


# --- the log ------------------------------------------------------------------------------------


def of_records(records, events=made.BOOT, **changes):
    """A document whose log is these records, and whose registers are those of ``events``."""
    data = made.lines(records)
    return made.document(events, event_log=made.b64(data), log_records=data.count(b"\n"), **changes)


def records(events=made.BOOT):
    return [made.record(number, event) for number, event in enumerate(events)]


def without(place):
    return (*made.BOOT[:place], *made.BOOT[place + 1 :])


def swapped(place):
    boot = list(made.BOOT)
    boot[place], boot[place + 1] = boot[place + 1], boot[place]
    return tuple(boot)


@pytest.mark.parametrize("place", range(len(made.BOOT)))
def test_each_event_once_and_in_order(place):
    for events in (without(place), (*made.BOOT[:place], made.BOOT[place], *made.BOOT[place:])):
        found = judge(made.document(events))
        assert "boot-events" in turned(found), (place, len(events))
        assert found.check("boot-events").expected.startswith("record ")
    if place < len(made.BOOT) - 1:
        assert "boot-events" in turned(judge(made.document(swapped(place))))
    kind, pcr, content = made.BOOT[place]
    moved = (*made.BOOT[:place], (kind, (pcr + 1) % 24, content), *made.BOOT[place + 1 :])
    assert "boot-events" in turned(judge(made.document(moved)))
    resettable = (*made.BOOT[:place], (kind, 23, content), *made.BOOT[place + 1 :])
    assert "boot-events" in turned(judge(made.document(resettable)))
    changed = (*made.BOOT[:place], (kind, pcr, content + b"x"), *made.BOOT[place + 1 :])
    found = judge(made.document(changed))
    assert "boot-events" in turned(found)
    assert found.check("boot-events").expected.startswith(f"record {place}, {kind}")


@pytest.mark.parametrize("event", [*made.BOOT, ("refused", 14, b"refused:x"), ("odd", 14, b"x"),
                                   ("odd", 11, b"x"), made.INSTANCE_EVENT,
                                   ("key-release", 15, b"x")])  # fmt: skip
def test_no_boot_event_behind_the_caps(event):
    found = judge(made.document((*made.BOOT, event)))
    assert "boot-events" in turned(found)
    assert found.check("boot-events").expected.startswith(f"record {len(made.BOOT)}, {event[0]}")


def test_events_of_applications_come_behind_the_boot():
    events = (*made.BOOT, made.APPLICATION, ("agent-restarted", 23, b"events=11"))
    found = judge(made.document(events))
    assert found.overall == "pass"
    assert "runtime-events" in {item.name for item in found.warnings}
    assert "boot-events" in turned(judge(made.document((made.APPLICATION, *made.BOOT))))


def test_a_workload_that_was_changed_is_named():
    boot = tuple(
        (kind, pcr, bytes(32) if kind == "workload" else content)
        for kind, pcr, content in made.BOOT
    )
    found = judge(made.document(boot))
    assert turned(found) == {"boot-events"}
    check = found.check("boot-events")
    assert check.expected == f"record 5, workload: workload in PCR 14: {made.WORKLOAD.hex()}"
    assert check.observed == f"first difference: workload in PCR 14: {'00' * 32}"


def test_a_refused_boot():
    cut = (*made.BOOT[:5], ("refused", 14, b"refused:verity-data"), *made.BOOT[6:])
    found = judge(made.document(cut))
    assert turned(found) == {"boot-events"}
    assert "refused:verity-data" in found.check("boot-events").observed


def test_a_digest_that_is_not_of_the_content():
    spoiled = records()
    spoiled[5]["digests"][0]["digest"] = "00" * 32
    found = judge(of_records(spoiled))
    assert {"event-log", "boot-events", "root-hash"} <= turned(found)
    assert "log-digest" in found.check("event-log").observed
    # In the last of the banks too.
    spoiled = records()
    spoiled[5]["digests"][1]["digest"] = "00" * 48
    assert "event-log" in turned(judge(of_records(spoiled)))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda found: [found[0] | {"recnum": 1}, *found[1:]],
        lambda found: found[1:],
        lambda found: [found[0] | {"extra": 1}, *found[1:]],
        lambda found: [found[0] | {"pcr": 24}, *found[1:]],
    ],
)
def test_logs_that_cannot_be_read(spoil):
    assert "event-log" in turned(judge(of_records(spoil(records()))))


def test_records_with_digests_only_say_nothing():
    """The digest is right; that it is of the expected content is nobody's word but the log's."""
    silent = records()
    del silent[5]["content"]["hex"]
    found = judge(of_records(silent))
    assert {"boot-events"} <= turned(found)
    assert "unverified" in found.check("boot-events").observed
    silent = records()
    silent[0]["content_type"] = "systemd"
    found = judge(of_records(silent))
    assert {"boot-events", "root-hash", "raw-report-data"} <= turned(found)


def test_foreign_records_count_for_the_sums():
    digest = {"hashAlg": "sha256", "digest": "77" * 32}
    foreign = {
        "recnum": len(made.BOOT), "pcr": 7, "digests": [digest],
        "content_type": "pcclient_std", "content": {"event_data": "policy"},
    }  # fmt: skip
    behind = of_records([*records(), foreign])
    found = judge(behind)
    assert turned(found) == {"registers"}, "the software register has one event more"
    assert "log-unverified" in {item.name for item in found.warnings}
    inside = [*records()[:4], foreign | {"recnum": 4}]
    inside += [item | {"recnum": item["recnum"] + 1} for item in records()[4:]]
    assert "boot-events" in turned(judge(of_records(inside)))


def test_a_volume_key_is_keyed_and_unverified():
    """systemd's HMAC event: its place is checked, its digests are taken, its text is not read."""
    boot = made.with_instance(event=("volume-key", 15, b"cryptsetup:data:uuid"))
    keyed = records(boot)
    at = next(n for n, item in enumerate(keyed) if item["content"]["type"] == "volume-key")
    for item in keyed[at]["digests"]:
        item["digest"] = "99" * (len(item["digest"]) // 2)
    found = judge(of_records(keyed, boot))
    assert found.overall == "pass"
    assert "log-unverified" in {item.name for item in found.warnings}


@pytest.mark.parametrize("banks", [("sha1",), ()])
def test_records_without_a_strong_digest(banks):
    """The contents are right; that they were measured is nobody's word."""
    found = judge(made.document(event_log=made.b64(made.log(banks=banks))))
    assert turned(found) == {"event-log"}
    one = records()
    one[7]["digests"] = [{"hashAlg": "sha1", "digest": hashlib.sha1(made.BOOT[7][2]).hexdigest()}]
    found = judge(of_records(one))
    assert turned(found) == {"event-log"}
    assert "record 7 has no such digest" in found.check("event-log").observed


# --- registers ----------------------------------------------------------------------------------

PRESENT = replace(made.VALUES, cases=(made.case(tpm="present"),))


def test_registers_of_a_tpm_are_compared():
    data = made.document(tpm_registers=True)
    assert judge(data, values=PRESENT).overall == "pass"
    tree = made.tree(tpm_registers=True)
    for place, item in enumerate(tree["registers"]):
        changed = list(tree["registers"])
        changed[place] = item | {"value": "00" * (len(item["value"]) // 2)}
        found = judge(made.document(registers=changed), values=PRESENT)
        assert turned(found) == {"registers"}, item["name"]
        assert item["name"] in found.check("registers").observed


def test_a_bank_of_sha_1_is_no_evidence():
    values = made.pcrs(banks=("sha1",))
    listed = [{"name": f"sha1:{n}", "value": v.hex()} for (_bank, n), v in sorted(values.items())]
    listed.sort(key=lambda item: item["name"])
    listed.append({"name": "software", "value": made.software().hex()})
    found = judge(made.document(registers=listed), values=PRESENT)
    assert turned(found) == {"registers"}
    assert "no bank of SHA-256 or better" in found.check("registers").observed


@pytest.mark.parametrize(
    "register",
    [
        {"name": "sha256:23", "value": "01" * 32},
        {"name": "mr-td", "value": "00" * 48},
        {"name": "sha256:99", "value": "00" * 32},
    ],
)
def test_registers_that_the_log_does_not_explain(register):
    own = {"name": "software", "value": made.software().hex()}
    listed = sorted([own, register], key=lambda item: item["name"])
    assert turned(judge(made.document(registers=listed))) == {"registers"}
    assert turned(judge(made.document(registers=[]))) == {"registers"}


# --- instance, state, flags ---------------------------------------------------------------------


TAKES = replace(made.VALUES, instance="optional")


def instance(data=None, *, values=TAKES, **asked):
    data = data or made.document(made.with_instance(), report={"host_data": made.INSTANCE})
    return judge(data, asked=replace(ASKED, **asked), values=values)


def test_the_instance_is_the_expected():
    assert instance(instance_sha256=made.INSTANCE).overall == "pass"
    assert turned(instance(instance_sha256=bytes(32))) == {"instance", "host-data"}
    assert turned(instance()) == {"instance", "host-data"}
    listed = with_line(made.policy_text(), f'[launch] host_data = ["{made.INSTANCE.hex()}"]')
    data = made.document(made.with_instance(), report={"host_data": made.INSTANCE})
    assert judge(data, policy=listed, values=TAKES).overall == "pass"
    # An event that HOST_DATA does not carry, and HOST_DATA that no event has.
    event = made.document(made.with_instance())
    assert turned(instance(event)) == {"instance"}
    assert turned(instance(event, instance_sha256=made.INSTANCE)) == {"instance", "host-data"}
    assert turned(instance(base(), instance_sha256=made.INSTANCE)) == {"instance", "host-data"}
    later = (*made.with_instance()[:7], made.INSTANCE_EVENT, *made.BOOT[6:])
    assert "boot-events" in turned(judge(made.document(later), values=TAKES))


def test_an_instance_event_only_where_the_image_takes_one_and_wherever_it_needs_one():
    refused = replace(made.VALUES, instance="refused")
    found = instance(values=refused, instance_sha256=made.INSTANCE)
    assert turned(found) == {"boot-events"}
    assert "record 5, instance" in found.check("boot-events").expected

    needed = replace(made.VALUES, instance="required")
    assert instance(values=needed, instance_sha256=made.INSTANCE).overall == "pass"
    found = judge(values=needed)
    assert turned(found) == {"boot-events"}
    assert "instance in PCR 14" in found.check("boot-events").expected
    # A key released before the configuration is known is none of that boot.
    key = made.with_instance(event=("key-release", 15, b"kbs:///k"))
    late = made.document(made.with_instance(made.with_instance(event=key[5]), event=key[5]))
    assert "boot-events" in turned(judge(late, values=needed))
    cut = judge(made.document(made.BOOT[:5]), values=needed)
    assert "record 5, instance" in cut.check("boot-events").expected


def test_an_instance_that_is_asked_for_and_that_the_policy_does_not_list():
    """The file came from whoever sent the evidence; which are good, the policy has said."""
    other = with_line(made.policy_text(), f'[launch] host_data = ["{"77" * 32}"]')
    data = made.document(made.with_instance(), report={"host_data": made.INSTANCE})
    asked = replace(ASKED, instance_sha256=made.INSTANCE)
    assert turned(judge(data, policy=other, values=TAKES, asked=asked)) == {"host-data"}
    both = with_line(other, f'[launch] host_data = ["{"77" * 32}", "{made.INSTANCE.hex()}"]')
    assert judge(data, policy=both, values=TAKES, asked=asked).overall == "pass"
    # Of those listed, it must be the one asked for.
    wrong = replace(ASKED, instance_sha256=bytes([0x77]) * 32)
    assert turned(judge(data, policy=both, values=TAKES, asked=wrong)) == {"instance"}


def test_host_data_of_a_launch_whose_log_says_nothing_of_it():
    """An image that takes one measures what HOST_DATA names, or does not boot."""
    data = made.document(report={"host_data": made.INSTANCE})
    listed = with_line(made.policy_text(), f'[launch] host_data = ["{made.INSTANCE.hex()}"]')
    assert turned(judge(data, policy=listed, values=TAKES)) == {"instance"}
    # To one that takes none the host may say there what it likes, and the policy has it listed.
    assert judge(data, policy=listed).overall == "pass"


@pytest.mark.parametrize(
    "caller",
    [
        'x" to nobody; accepted by `platform = "simulated"`',
        "uid=0` or accepted by `permissive = true",
        'uid=0\\" ] # ',
    ],
)
def test_the_callers_own_text_makes_no_hint(caller):
    found = judge(made.document(caller=caller))
    assert "caller" in turned(found)
    hint = found.check("caller").hint
    assert caller not in hint
    assert "accepted by" not in hint


def test_a_log_that_went_back():
    guest = made_appraisal.FIELDS["report_id"]
    events = (*made.BOOT, made.APPLICATION)

    def seen(count, value):
        return replace(ASKED, seen=Seen(guest, count, value), remembers=True)

    short = seen(len(events), made.software(events))
    assert turned(judge(asked=short)) == {"log-rollback"}
    assert judge(made.document(events), asked=short).overall == "pass"
    other = seen(len(made.BOOT), bytes(48))
    assert turned(judge(made.document(events), asked=other)) == {"log-rollback"}
    assert judge(asked=seen(len(made.BOOT), made.software())).overall == "pass"
    assert judge(asked=replace(ASKED, remembers=True)).check("log-rollback").verdict == "pass"


FLAGS = [
    ("cipher-self-tests", {"cryptomgr_notests": True}),
    ("kernel-lockdown", {"lockdown": "none"}),
    ("module-signatures", {"unsigned_modules": True}),
    ("io-errors", {"io_error": "survivable"}),
    ("volume-integrity", {"unauthenticated_volumes": ("data",)}),
]


@pytest.mark.parametrize(("code", "change"), FLAGS)
def test_choices_of_the_builder(code, change):
    values = replace(made.VALUES, flags=replace(made.VALUES.flags, **change))
    found = judge(values=values)
    assert turned(found) == {code}
    hint = found.check(code).hint
    assert hint == f'accepted by `[reference] accept = ["{code}"]`'
    line = hint.split("`")[1]
    assert judge(values=values, policy=with_line(made.policy_text(), line)).overall == "pass"


def test_acpi_and_simulated_images():
    launch = replace(made.LAUNCH, acpi_aml="unprotected")
    values = replace(made.VALUES, launch=(launch,))
    found = judge(values=values)
    assert turned(found) == {"acpi-protection"}
    line = found.check("acpi-protection").hint.split("`")[1]
    assert judge(values=values, policy=with_line(made.policy_text(), line)).overall == "pass"
    flags = replace(made.VALUES.flags, simulated=True)
    simulated = replace(made.VALUES, snp="simulated", flags=flags)
    assert turned(judge(values=simulated)) == {"image-simulated"}


def test_raw_report_data_is_told():
    policy = policy_json.parse(made.POLICY_JSON)
    for who in ("root", "group"):
        attest = replace(policy.attest, raw_report_data=who)
        data = policy_json.print_(replace(policy, attest=attest))
        boot = (("policy", 14, data), *made.BOOT[1:])
        values = replace(
            made.VALUES, policy_sha256=hashlib.sha256(data).hexdigest(), cases=(made.case(boot),)
        )
        found = judge(made.document(boot), values=values)
        assert turned(found) == {"raw-report-data"}
        assert found.check("raw-report-data").observed == f"{who}: binding-forgeable-by-caller"
        line = found.check("raw-report-data").hint.split("`")[1]
        accepted = with_line(made.policy_text(), line)
        assert judge(made.document(boot), values=values, policy=accepted).overall == "pass"


def test_variable_command_lines_by_allowed_text():
    boots = [
        tuple((k, p, words if k == "cmdline" else c) for k, p, c in made.BOOT)
        for words in (b"console=ttyS0 quiet", b"console=ttyS1 quiet", b"console=ttyS2 quiet")
    ]
    values = replace(
        made.VALUES,
        cases=tuple(made.case(boot, cmdline=boot[1][2]) for boot in boots[:2]),
        launch=(
            made.LAUNCH,
            replace(made.LAUNCH, cmdline="console=ttyS1 quiet", digest="05" * 48),
        ),
    )
    assert judge(made.document(boots[0]), values=values).overall == "pass"
    # Allowed, but not by this launch digest.
    found = judge(made.document(boots[1]), values=values)
    assert turned(found) == {"boot-events", "command-line"}
    other = made.document(boots[1], report={"measurement": bytes.fromhex("05" * 48)})
    assert judge(other, values=values).overall == "pass"
    assert turned(judge(made.document(boots[2]), values=values)) == {"boot-events", "command-line"}


def test_callers():
    found = judge(made.document(caller="uid=0 gid=0 unit=-"))
    assert turned(found) == {"caller"}
    anybody = with_line(made.policy_text(), "[reference] callers = []")
    anybody = with_line(anybody, "[required] caller = false")
    found = judge(made.document(caller="uid=0 gid=0 unit=-"), policy=anybody)
    assert found.overall == "pass"


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
