# SPDX-License-Identifier: Apache-2.0
"""What is below a guest: reference values in the policy, and which report matches one."""

from types import SimpleNamespace

import pytest

import made_report
from made_appraisal import FIELDS, judge, pki, policy_text, turned, with_line
from troth.abi import snp_report
from troth.documents import appraisal_policy_toml
from troth.documents.appraisal_policy import KeyPin, OneOf
from troth.errors import UsageError
from troth.verify.checks.reference import Matched
from troth.verify.kinds import platform_kind

HEAD = 'schema = "troth-verify-policy-v1"\nplatform = "real"\n[reference]\n'
ID, AUTHOR, FAMILY, IMAGE = b"\x16" * 48, b"\x17" * 48, b"\x11" * 16, b"\x12" * 16
LAUNCH = b"\x14" * 48
KEYED = (
    f'paravisor = [{{ id_key_digest = "{ID.hex()}", family_id = "{FAMILY.hex()}", '
    f'image_id = "{IMAGE.hex()}", min_guest_svn = 5 }}]\n'
)
MEASURED = f'paravisor = [{{ measurement = "{LAUNCH.hex()}" }}]\n'
MODULE = f'svsm = [{{ measurement = "{LAUNCH.hex()}" }}]\n'


def read(text):
    return appraisal_policy_toml.parse((HEAD + text).encode(), where="policy.toml")


def report(**fields):
    base = {
        "measurement": LAUNCH, "id_key_digest": ID, "family_id": FAMILY, "image_id": IMAGE,
        "guest_svn": 5,
    }  # fmt: skip
    return snp_report.parse(made_report.report(**(base | fields)))


def kind(text, **fields):
    return platform_kind.below(report(**fields), read(text)).kind


# --- the policy ------------------------------------------------------------------------------


def test_tables_are_read():
    certified = (
        f'author_key_digest = "{AUTHOR.hex()}"\nfamily_id = "{"00" * 16}"\n'
        f'image_id = "{IMAGE.hex()}"\nmin_guest_svn = 0\n'
    )
    written = HEAD + "".join(
        f"[[reference.{name}]]\n{lines}"
        for name, lines in (
            ("paravisor", f'measurement = "{LAUNCH.hex()}"\nmin_guest_svn = 3\n'),
            ("paravisor", certified),
            ("svsm", f'measurement = "{LAUNCH.hex()}"\n'),
        )
    )
    found = appraisal_policy_toml.parse(written.encode(), where="p").reference
    first, second = found.paravisors
    assert (first.measurement, first.id_key_digest, first.min_guest_svn) == (LAUNCH, None, 3)
    assert (second.author_key_digest, second.family_id) == (AUTHOR, bytes(16))
    assert [item.measurement for item in found.svsms] == [LAUNCH]
    assert read("").reference.paravisors == read("").reference.svsms == ()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (KEYED.replace(f'family_id = "{FAMILY.hex()}", ', ""), "missing-key"),
        (KEYED.replace(f'image_id = "{IMAGE.hex()}", ', ""), "missing-key"),
        (KEYED.replace(", min_guest_svn = 5", ""), "missing-key"),
        (KEYED.replace("id_key_digest", "id_key"), "unknown-key"),
        (KEYED.replace(ID.hex(), "00" * 48), "value"),
        (KEYED.replace(ID.hex(), "16" * 47), "value"),
        (KEYED.replace("svn = 5", "svn = -1"), "value"),
        (KEYED.replace("svn = 5", "svn = 4294967296"), "value"),
        (MEASURED.replace(LAUNCH.hex(), "00" * 48), "value"),
        (MODULE.replace(LAUNCH.hex(), "00" * 48), "value"),
        (MODULE.replace("measurement", "digest"), "unknown-key"),
        ("svsm = [{}]\n", "missing-key"),
        ("paravisor = [{}]\n", "missing-key"),
        ('paravisor = "x"\n', "type"),
        (f"svsm = [{', '.join([MODULE[8:-2]] * 2)}]\n", "value"),
        (f"paravisor = [{', '.join([MEASURED[13:-2]] * 2)}]\n", "value"),
    ],
)
def test_policies_that_are_refused(text, code):
    with pytest.raises(UsageError) as caught:
        read(text)
    assert caught.value.code == f"verify-policy-{code}"


def test_too_many():
    many = ", ".join(f'{{ measurement = "{number:096x}" }}' for number in range(1, 258))
    with pytest.raises(UsageError):
        read(f"svsm = [{many}]\n")


# --- which report matches --------------------------------------------------------------------


def test_kinds():
    assert kind(KEYED) == kind(MEASURED) == "azure-paravisor"
    assert kind(MODULE) == "svsm"
    assert kind("") == ""
    # Two kinds at once are none: nobody can then say how REPORT_DATA is to be read.
    assert kind(MEASURED + MODULE) == ""


@pytest.mark.parametrize(
    "fields",
    [
        {"id_key_digest": bytes(48)},
        {"id_key_digest": b"\x16" * 47 + b"\x17"},
        {"family_id": b"\x11" * 15 + b"\x10"},
        {"image_id": bytes(16)},
        {"guest_svn": 4},
    ],
)
def test_each_field_of_a_key_counts(fields):
    assert kind(KEYED, **fields) == ""
    # The same under the author's key.
    fields = {name.replace("id_key", "author_key"): value for name, value in fields.items()}
    own = {"author_key_digest": AUTHOR, "id_key_digest": b"\x55" * 48}
    text = KEYED.replace("id_key_digest", "author_key_digest").replace(ID.hex(), AUTHOR.hex())
    assert kind(text, **own) == "azure-paravisor"
    assert kind(text, **(own | fields)) == ""


def test_a_launch_digest_with_and_without_more():
    assert kind(MEASURED, id_key_digest=bytes(48), guest_svn=0) == "azure-paravisor"
    assert kind(MEASURED, measurement=b"\x14" * 47 + b"\x15") == ""
    assert kind(MODULE, measurement=b"\x14" * 47 + b"\x15") == ""
    floor = MEASURED.replace(" }]", ", min_guest_svn = 6 }]")
    assert kind(floor) == ""
    assert kind(floor, guest_svn=6) == "azure-paravisor"


# --- what the report is then judged under ----------------------------------------------------


def test_the_reference_value_stands_for_launch_and_id_block():
    found = platform_kind.below(report(), read(KEYED)).policy
    assert found.id_block.id_keys == (KeyPin(ID, 5),)
    assert found.id_block.family_ids == OneOf(unused=False, values=(FAMILY,))
    assert found.id_block.image_ids == OneOf(unused=False, values=(IMAGE,))
    assert found.id_block.min_guest_svn == 5
    assert found.launch.vmpl == (0,)
    assert not found.requires("measurement")
    assert found.launch.measurements == ()
    found = platform_kind.below(report(), read(MODULE)).policy
    assert found.launch.measurements == (LAUNCH,)
    assert found.requires("measurement")
    # Nothing else is touched, and a policy that asks for the digest keeps it.
    plain = read("")
    assert platform_kind.below(report(), plain).policy is plain
    strict = read(KEYED + "[required]\nmeasurement = true\n[launch]\n"
                  f'measurements = ["{"77" * 48}"]\n')  # fmt: skip
    found = platform_kind.below(report(), strict).policy
    assert found.launch.measurements == (b"\x77" * 48,)
    assert found.requires("measurement")


def strict_with(line):
    """The whole policy of made_appraisal, with one line for what is below the guest."""
    text = with_line(policy_text(), line)
    return text.replace('"04040404', '"77777777', 1)


def test_the_whole_judgement_of_a_paravisors_report():
    fields = FIELDS | {"id_key_digest": ID, "author_key_digest": bytes(48), "key_info": 0,
                       "family_id": FAMILY, "image_id": IMAGE}  # fmt: skip
    raw = pki().report(**fields)
    text = strict_with("[reference] " + KEYED.strip().replace("svn = 5", "svn = 7"))
    text = with_line(text, "[id_block] author_keys = []")
    under = appraisal_policy_toml.parse(text.encode(), where="p")
    below = platform_kind.below(snp_report.parse(raw), under)
    assert below.kind == "azure-paravisor"
    # Without the reference value five things stand in the way; with it nothing.
    assert turned(judge(raw, text)) == {"measurement", "id-key", "family-id", "image-id"}


def test_the_hint_leads_there():
    for wanted, found in (
        ("svsm", report()),
        ("azure-paravisor", report()),
        ("azure-paravisor", report(id_key_digest=bytes(48))),
    ):
        line = platform_kind.hint(wanted, found).split("`")[1].removeprefix("[reference] ")
        assert platform_kind.below(found, read(line + "\n")).kind == wanted


# --- PCRs, and contradictions ----------------------------------------------------------------


def test_expected_pcrs():
    nine, four = f'["{"11" * 32}"]', f'["{"22" * 32}", "{"33" * 32}"]'
    text = f"pcrs = [{{ index = 9, values = {nine} }}, {{ index = 4, values = {four} }}]\n"
    assert read(text).reference.pcrs == (
        (4, (b"\x22" * 32, b"\x33" * 32)),
        (9, (b"\x11" * 32,)),
    )
    for wrong in (
        text.replace("index = 9", "index = 4"),
        text.replace("index = 9", "index = 16"),
        text.replace("index = 9", "index = 23"),
        text.replace("index = 9, ", ""),
        text.replace(f'"{"11" * 32}"', ""),
        text.replace("11" * 32, "11" * 31),
        text.replace("values", "value"),
    ):
        with pytest.raises(UsageError):
            read(wrong)


@pytest.mark.parametrize(
    ("service", "launches", "expected"),
    [
        ("", (), ""),
        ("svsm", (), "svsm"),
        ("svsm", ("svsm",), "svsm"),
        ("", ("direct",), "direct"),
        # Whoever signed the values and whoever wrote the policy disagree: nobody is believed.
        ("svsm", ("direct",), ""),
        ("azure-paravisor", ("svsm",), ""),
        ("", ("direct", "svsm"), ""),
    ],
)
def test_one_digest_with_two_kinds_has_none(service, launches, expected):
    values = tuple(SimpleNamespace(platform=name) for name in launches)
    assert Matched(None, None, values, (), service).kind == expected
