# SPDX-License-Identifier: Apache-2.0
"""Evidence against reference values: whose, since when, and what their builder chose."""

from __future__ import annotations

import hashlib

import pytest

import made_appraisal
import made_evidence as made
from judged_evidence import ASKED, QUOTE, base, judge, other_boot, signed
from made_appraisal import turned, with_line
from troth.documents import (
    dsse,
    policy_json,
    reference_values_json,
)
from troth.record import replace
from troth.signing import keys
from troth.verify.seen import Seen

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


def test_volumes_that_nobody_counts_are_not_checked():
    """Not failed: whether such a volume is an old one is what nobody can say (S9)."""
    flags = replace(made.VALUES.flags, untracked_volumes=("data", "scratch"))
    values = replace(made.VALUES, flags=flags)
    found = judge(values=values)
    check = found.check("volume-freshness")
    assert turned(found) == {"volume-freshness"}
    assert (check.verdict, check.required) == ("not-checked", True)
    assert check.observed == "not so: data, scratch"
    assert check.hint == "accepted by `[required] volume-freshness = false`"
    line = check.hint.split("`")[1]
    accepted = judge(values=values, policy=with_line(made.policy_text(), line))
    assert accepted.overall == "pass"
    assert accepted.check("volume-freshness").verdict == "not-checked"
    assert judge().check("volume-freshness").verdict == "pass"


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
