# SPDX-License-Identifier: Apache-2.0
"""Reports appraised: one that passes, and every single thing that turns it."""

from __future__ import annotations

import re
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import made_appraisal as made
import made_pki
import made_report
from made_appraisal import FIELDS, judge, turned, with_line
from troth.documents import check_names, result
from troth.documents.result import Check
from troth.errors import FormatError
from troth.record import replace
from troth.verify.endorsing import chain
from troth.verify.policy_text import policy_text as written_policy

EVIDENCE = {c.name for c in check_names.CHECKS if c.group == check_names.EVIDENCE}
#: A VCEK has no provider.
NOT_MADE = EVIDENCE | {"provider-allowed"}
HINT = re.compile(r"`([^`]+)`")


def signed(**changes):
    return made.pki().report(**(FIELDS | changes))


# --- the one that passes --------------------------------------------------------------------


def test_a_chain_without_the_mark_reaches_pass():
    found = judge(made.base_report(), made.policy_text())
    assert found.overall == "pass"
    assert turned(found) == set()
    assert [check.code for check in found.checks] == [c.name for c in check_names.CHECKS]
    assert {c.code for c in found.checks if c.verdict != "pass"} == NOT_MADE
    assert found.warnings == ()
    assert found.platform == "real"
    assert result.parse(result.print_(found)) == found


def test_each_check_removed_or_failed_turns_the_whole():
    found = judge(made.base_report(), made.policy_text())
    for index, check in enumerate(found.checks):
        for verdict in ("fail", "not-checked"):
            checks = list(found.checks)
            checks[index] = replace(check, verdict=verdict)
            turns = verdict == "fail" or check.required
            said = result.overall(checks, permissive=False, platform="real")
            assert said == ("fail" if turns else "pass"), (check.code, verdict)


def test_the_names_of_the_chain_are_known():
    names = [c.name for c in check_names.CHECKS if c.group == check_names.CERTIFICATES]
    assert tuple(names) == chain.CODES


# --- one change of the report, signed anew ---------------------------------------------------

FLIPS = [
    ({"version": 3, "launch_mit_vector": 0, "current_mit_vector": 0},
     {"report-version", "mitigations-launch", "mitigations-current"}),
    ({"guest_svn": 6}, {"guest-svn"}),
    ({"policy": FIELDS["policy"] | 1 << 16}, {"guest-smt"}),
    ({"policy": FIELDS["policy"] & ~(1 << 17)}, {"report-reserved"}),
    ({"policy": FIELDS["policy"] | 1 << 18}, {"guest-migration"}),
    ({"policy": FIELDS["policy"] | 1 << 19}, {"guest-debug"}),
    ({"policy": FIELDS["policy"] & ~(1 << 20)}, {"guest-single-socket"}),
    ({"policy": FIELDS["policy"] | 1 << 21}, {"guest-cxl"}),
    ({"policy": FIELDS["policy"] & ~(1 << 22)}, {"guest-aes-256-xts"}),
    ({"policy": FIELDS["policy"] & ~(1 << 23)}, {"guest-rapl"}),
    ({"policy": FIELDS["policy"] & ~(1 << 24)}, {"guest-ciphertext-hiding"}),
    ({"policy": FIELDS["policy"] & ~(1 << 25)}, {"guest-page-swap"}),
    ({"policy": FIELDS["policy"] | 1 << 26}, {"report-reserved"}),
    ({"policy": FIELDS["policy"] - 1}, {"guest-abi"}),
    ({"policy": FIELDS["policy"] - 256}, {"guest-abi"}),
    ({"family_id": b"\x01" * 15 + b"\x00"}, {"family-id"}),
    ({"family_id": bytes(16)}, {"family-id"}),
    ({"image_id": b"\x03" * 16}, {"image-id"}),
    ({"vmpl": 1}, {"vmpl"}),
    ({"vmpl": 0xFFFFFFFF}, {"vmpl"}),
    ({"signature_algo": 2}, {"signature-algorithm", "report-signature"}),
    ({"current_tcb": bytes.fromhex("0a00000000001b53")}, {"tcb-order"}),
    ({"current_tcb": bytes.fromhex("0a00010000001b54")}, {"report-reserved"}),
    ({"platform_info": FIELDS["platform_info"] | 1}, {"platform-smt"}),
    ({"platform_info": FIELDS["platform_info"] & ~2}, {"platform-tsme"}),
    ({"platform_info": FIELDS["platform_info"] & ~4}, {"platform-ecc"}),
    ({"platform_info": FIELDS["platform_info"] & ~8}, {"platform-rapl"}),
    ({"platform_info": FIELDS["platform_info"] & ~16}, {"platform-ciphertext-hiding"}),
    ({"platform_info": FIELDS["platform_info"] & ~32}, {"platform-alias-check"}),
    ({"platform_info": FIELDS["platform_info"] & ~128}, {"platform-tio"}),
    ({"platform_info": FIELDS["platform_info"] | 1 << 8}, {"platform-unknown"}),
    ({"platform_info": FIELDS["platform_info"] | 1 << 63}, {"platform-unknown"}),
    ({"key_info": 0}, {"id-block"}),
    ({"key_info": 3}, {"signing-key", "report-signature"}),
    ({"key_info": 1 | 1 << 5}, {"report-reserved"}),
    ({"report_data": b"\x03" * 63 + b"\x02"}, {"report-data"}),
    ({"measurement": b"\x04" * 47 + b"\x05"}, {"measurement"}),
    ({"host_data": b"\x05" * 31 + b"\x04"}, {"host-data"}),
    ({"host_data": bytes(32)}, {"host-data"}),
    ({"id_key_digest": b"\x06" * 47 + b"\x07"}, {"id-key"}),
    ({"id_key_digest": bytes(48)}, {"id-key", "id-block"}),
    ({"author_key_digest": b"\x07" * 47 + b"\x08"}, {"author-key"}),
    ({"author_key_digest": bytes(48), "key_info": 0}, {"author-key"}),
    ({"report_id": b"\x08" * 31 + b"\x09"}, {"report-id"}),
    ({"report_id_ma": b"\xff" * 31 + b"\xfe"}, {"migration-agent"}),
    ({"report_id_ma": bytes(32)}, {"migration-agent"}),
    ({"reported_tcb": bytes.fromhex("0a00000000001b53")}, {"certificate-tcb", "tcb-reported"}),
    ({"reported_tcb": bytes.fromhex("0a00000000001b55")}, {"certificate-tcb", "tcb-order"}),
    ({"reported_tcb": bytes.fromhex("0900000000001b54")}, {"certificate-tcb", "tcb-reported"}),
    ({"cpuid_stepping": 2}, {"tcb-reported", "tcb-committed", "tcb-launch", "firmware-current",
                             "firmware-committed", "mitigations-launch", "mitigations-current"}),
    ({"chip_id": b"\x01" * 64}, {"certificate-chip", "chip-allowed"}),
    ({"chip_id": bytes(64)}, {"certificate-chip", "chip-allowed"}),
    ({"committed_tcb": bytes.fromhex("0a00000000001a54")}, {"tcb-committed", "tcb-order"}),
    ({"committed_tcb": bytes.fromhex("0a00000000001c54")}, {"tcb-order"}),
    ({"current_build": 48}, {"firmware-current"}),
    ({"current_minor": 54}, {"firmware-current"}),
    ({"current_major": 0}, {"firmware-current"}),
    ({"committed_build": 48}, {"firmware-committed"}),
    ({"committed_minor": 54}, {"firmware-committed"}),
    ({"committed_major": 0}, {"firmware-committed"}),
    ({"launch_tcb": bytes.fromhex("0a00000000001b53")}, {"tcb-launch"}),
    ({"launch_tcb": bytes.fromhex("0a00000000001b55")}, {"tcb-order"}),
    ({"launch_mit_vector": 0b11}, {"mitigations-launch"}),
    ({"current_mit_vector": 0b111}, {"mitigations-current"}),
]  # fmt: skip
FLIP_IDS = [" ".join(f"{name} {value!r}" for name, value in changes.items())[:60]
            for changes, _ in FLIPS]  # fmt: skip
ASKED = "firmware-current", "firmware-committed", "mitigations-launch", "mitigations-current"


@pytest.mark.parametrize(("changes", "checks"), FLIPS, ids=FLIP_IDS)
def test_one_changed_field_turns_its_check(changes, checks):
    text = made.policy_text()
    for name in ASKED:  # so that silicon without a floor shows that nobody looked
        text = with_line(text, f"[required] {name} = true")
    found = judge(signed(**changes), text)
    assert turned(found) == checks
    assert found.overall == "fail"
    for code in checks:
        check = found.check(code)
        assert check.expected
        assert check.observed
        assert check.hint


def test_every_field_is_flipped_above():
    flipped = {name for changes, _checks in FLIPS for name in changes}
    # Family and model choose the product, and with it the root: they have a test of their own.
    assert set(made_report.FIELDS) - flipped == {"cpuid_family", "cpuid_model", "r", "s"}


def test_every_check_of_a_report_is_turned_above():
    turned_above = {name for _changes, checks in FLIPS for name in checks}
    rest = {c.name for c in check_names.CHECKS} - turned_above - EVIDENCE
    # By certificates, by the policy, and by other products: below.
    assert rest == {
        "certificate-line", "certificate-root", "certificate-intermediate", "certificate-key",
        "certificate-validity", "certificate-revocation", "certificate-platform",
        "certificate-extensions", "product-allowed", "provider-allowed",
    }  # fmt: skip


@pytest.mark.parametrize("name", [n for n in made_report.FIELDS if n != "version"])
def test_each_field_changed_behind_the_signature(name):
    offset, size = made_report.FIELDS[name]
    for at in {offset, offset + min(size, 48) - 1}:
        data = bytearray(made.base_report())
        data[at] ^= 0x01
        found = judge(bytes(data), made.policy_text())
        assert found.overall == "fail"
        assert "report-signature" in turned(found)


def test_versions_that_no_one_knows():
    for version in (0, 1, 6, 1 << 31):
        data = version.to_bytes(4, "little") + made.base_report()[4:]
        with pytest.raises(FormatError) as caught:
            judge(data, made.policy_text())
        assert caught.value.code == "snp-report-version"


@pytest.mark.parametrize(
    ("family", "model", "checks"),
    [
        (0x19, 0x01, {"certificate-line", "product-allowed"}),
        (0x1A, 0x02, {"certificate-line", "certificate-tcb", "certificate-extensions"}),
        (0x17, 0x31, {"certificate-line", "product-allowed", "tcb-reported", "tcb-committed",
                      "tcb-launch", "tcb-order"}),
    ],
)  # fmt: skip
def test_other_processors(family, model, checks):
    found = judge(signed(cpuid_family=family, cpuid_model=model), made.policy_text())
    assert found.overall == "fail"
    assert checks <= turned(found)


# --- one change of what is beside the report -------------------------------------------------


def test_nothing_expected_is_not_a_pass():
    found = judge(made.base_report(), made.policy_text(), expected=None)
    assert turned(found) == {"report-data"}
    assert found.check("report-data").verdict == "not-checked"
    found = judge(made.base_report(), made.policy_text(), expected=b"\x03" * 63)
    assert turned(found) == {"report-data"}


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (f'trusted_roots = ["{"00" * 32}"]', "certificate-root"),
        ('deny_products = ["Genoa"]', "product-allowed"),
        ('providers = ["CN=cloud.example"]', "provider-allowed"),
        (f'chip_ids = ["{"01" * 64}"]', "chip-allowed"),
        ("report_versions = [2, 3, 4]", "report-version"),
        ("[launch] measurements = []", "measurement"),
        (f'[launch] measurements = ["{"40" * 48}"]', "measurement"),
        ('[launch] host_data = "unused"', "host-data"),
        ("[launch] vmpl = [1, 2, 3]", "vmpl"),
        (f'[launch] report_ids = ["{"09" * 32}"]', "report-id"),
        (f'[launch] report_id_ma = ["{"09" * 32}"]', "migration-agent"),
        ("[id_block] min_guest_svn = 8", "guest-svn"),
        (f'[id_block] id_keys = [{{ digest = "{"06" * 48}", min_guest_svn = 8 }}]', "guest-svn"),
        (f'[id_block] id_keys = [{{ digest = "{"16" * 48}", min_guest_svn = 1 }}]', "id-key"),
        ("[id_block] author_keys = []", "author-key"),
        ('[id_block] family_ids = "unused"', "family-id"),
        ('[id_block] image_ids = "unused"', "image-id"),
        ('[guest_policy] min_abi = "1.56"', "guest-abi"),
        ('[guest_policy] min_abi = "2.0"', "guest-abi"),
        ("[platform_info] alias_check = false", "platform-alias-check"),
        ("[platform_info] smt = true", "platform-smt"),
        ("[platform_info] tsme = false", "platform-tsme"),
        ("[platform_info] ecc = false", "platform-ecc"),
        ("[platform_info] rapl_disabled = false", "platform-rapl"),
        ("[platform_info] ciphertext_hiding = false", "platform-ciphertext-hiding"),
        ("[platform_info] tio = false", "platform-tio"),
        (f"[tcb.Genoa] reported = {made.TCB.replace('84', '85')}", "tcb-reported"),
        (f"[tcb.Genoa] committed = {made.TCB.replace('27', '28')}", "tcb-committed"),
        (f"[tcb.Genoa] launch = {made.TCB.replace('tee = 0', 'tee = 1')}", "tcb-launch"),
        ('[tcb.Genoa] firmware = "1.55.50"', "firmware-committed"),
        ("[tcb.Genoa] launch_mitigations = 0b1000", "mitigations-launch"),
        ("[tcb.Genoa] current_mitigations = 0x8000000000000000", "mitigations-current"),
        ("[required] boot-chain-rooted = true", "boot-chain-rooted"),
        ("[required] reference-values = true", "reference-values"),
    ],
)
def test_one_line_of_the_policy_turns_its_check(line, code):
    found = judge(made.base_report(), with_line(made.policy_text(), line))
    assert turned(found) == {code}
    assert found.overall == "fail"


def test_an_author_key_stands_for_the_id_keys_it_certified():
    text = with_line(made.policy_text(), "[id_block] id_keys = []")
    assert judge(made.base_report(), text).overall == "pass"
    other = signed(author_key_digest=b"\x17" * 48)
    assert turned(judge(other, text)) == {"id-key", "author-key"}
    lower = with_line(text, f'[id_block] author_keys = [{{ digest = "{"07" * 48}", '
                            "min_guest_svn = 8 }]")  # fmt: skip
    assert turned(judge(made.base_report(), lower)) == {"guest-svn"}


CHAINS = {
    "certificate-root": lambda: made.collected(made.pki(), without=("ark",)),
    "certificate-intermediate": lambda: made.collected(made.pki(), without=("ca",)),
    "certificate-key": lambda: made.collected(made.pki(), without=("vek",)),
    "certificate-revocation": lambda: made.collected(made.pki(), without=("list",)),
}


@pytest.mark.parametrize("code", CHAINS)
def test_what_is_missing_is_not_checked_and_counts(code):
    found = judge(made.base_report(), made.policy_text(), given=CHAINS[code]())
    assert code in turned(found)
    assert found.check(code).verdict == "not-checked"
    assert found.overall == "fail"


def test_a_revoked_intermediate():
    given = made.collected(made.pki(), revoked=(0x20002,))
    found = judge(made.base_report(), made.policy_text(), given=given)
    assert turned(found) == {"certificate-revocation"}
    waived = with_line(made.policy_text(), "[required] certificate-revocation = false")
    assert judge(made.base_report(), waived, given=given).overall == "fail", "it was checked"
    unknown = made.collected(made.pki(), without=("list",))
    assert judge(made.base_report(), waived, given=unknown).overall == "pass"


def test_time():
    text = made.policy_text()
    late = judge(made.base_report(), text, at=made.moment(2034, 1, 1))
    assert {"certificate-validity", "certificate-revocation"} <= turned(late)
    early = judge(made.base_report(), text, at=made.moment(2024, 1, 1))
    assert "certificate-validity" in turned(early)


def test_an_odd_certificate_of_the_key():
    odd = made_pki.Pki("Genoa", extensions={"change": {"1": made_pki.integer(1)}})
    found = judge(made.base_report(), made.policy_text(odd), given=made.collected(odd))
    assert turned(found) == {"certificate-extensions"}


def test_the_provider_of_a_vlek():
    vlek = made_pki.Pki("Genoa", vlek=True)
    given, report = made.collected(vlek), vlek.report(**(FIELDS | {"key_info": 5}))
    text = with_line(made.policy_text(vlek), "chip_ids = []")
    assert turned(judge(report, text, given=given)) == {"certificate-chip"}
    text = with_line(text, "masked_chip_id = true")
    assert judge(report, text, given=given).overall == "pass"
    text = with_line(text, 'providers = ["CN=cloud.example"]')
    assert judge(report, text, given=given).check("provider-allowed").verdict == "pass"
    found = judge(report, with_line(text, 'providers = ["CN=other.example"]'), given=given)
    assert turned(found) == {"provider-allowed"}
    (line,) = HINT.findall(found.check("provider-allowed").hint)
    assert judge(report, with_line(text, line), given=given).overall == "pass"


@settings(max_examples=30, deadline=None)
@given(st.integers(4, 1183), st.binary(min_size=1, max_size=16))
def test_no_mutated_report_passes(at, put):
    data = (made.base_report()[:at] + put + made.base_report()[at + len(put) :])[:1184]
    found = judge(data, made.policy_text())
    assert (found.overall == "pass") == (data == made.base_report())


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([2, 3, 4, 5]), st.randoms(use_true_random=False))
def test_random_reports_are_judged_and_fail(version, random):
    data = version.to_bytes(4, "little") + random.randbytes(1180)
    found = judge(data, made.policy_text())
    assert found.overall == "fail"
    assert result.parse(result.print_(found)) == found


def test_long_lists_are_cut_in_words_and_not_in_effect():
    many = [f"{number:096x}" for number in range(1, 200)]
    listed = ", ".join(f'"{text}"' for text in [*many, "04" * 48])
    text = with_line(made.policy_text(), f"[launch] measurements = [{listed}]")
    found = judge(made.base_report(), text)
    assert found.overall == "pass"
    assert "and 192 more" in found.check("measurement").expected
    found = judge(signed(measurement=b"\x44" * 48), text)
    assert found.check("measurement").hint == f'add "{"44" * 48}" to [launch] measurements'
    pins = ", ".join(f'{{ digest = "{text}", min_guest_svn = 0 }}' for text in many)
    found = judge(made.base_report(), with_line(text, f"[id_block] id_keys = [{pins}]"))
    assert turned(found) == {"id-key"}
    assert found.check("id-key").hint.startswith(f'add {{ digest = "{"06" * 48}"')
    assert result.parse(result.print_(found)) == found


def test_words_of_certificates_are_made_plain():
    odd = {"change": {"5": made_pki.ia5('a\x1b[2J`"b')}}
    vlek = made_pki.Pki("Genoa", vlek=True, extensions=odd)
    report = vlek.report(**(FIELDS | {"key_info": 5}))
    text = with_line(made.policy_text(vlek), 'providers = ["CN=x"]')
    found = judge(report, text, given=made.collected(vlek))
    assert result.parse(result.print_(found)) == found
    assert found.check("provider-allowed").verdict != "pass"


def test_the_hint_of_a_root_keeps_the_others():
    text = with_line(made.policy_text(), f'trusted_roots = ["{"00" * 32}"]')
    (line,) = HINT.findall(judge(made.base_report(), text).check("certificate-root").hint)
    assert line == f'trusted_roots = ["{"00" * 32}", "{made.pki().root_sha256}"]'
    assert judge(made.base_report(), with_line(text, line)).overall == "pass"


def test_a_simulated_platform():
    simulated = made_pki.Pki("Genoa", simulated=True)
    given, report = made.collected(simulated), simulated.report(**FIELDS)
    text = made.policy_text(simulated)
    found = judge(report, text, given=given)
    assert turned(found) == {"certificate-platform"}
    (line,) = HINT.findall(found.check("certificate-platform").hint)
    found = judge(report, with_line(text, line), given=given)
    assert (found.overall, found.platform) == ("pass-simulated", "simulated")
    assert [item.name for item in found.warnings] == ["simulated"]
    # A genuine guest is not taken for a simulated one.
    assert turned(judge(made.base_report(), with_line(made.policy_text(), line))) == {
        "certificate-platform"
    }


def test_amds_roots_do_not_count_for_simulated_platforms():
    from troth.documents import appraisal_policy_toml
    from troth.verify.appraise import trusted_roots
    from troth.verify.endorsing.roots import AMD_ROOTS

    text = made.policy_text()
    real = appraisal_policy_toml.parse(text.encode(), where="p")
    assert set(trusted_roots(real)) == {*AMD_ROOTS.values(), made.pki().root_sha256}
    other = appraisal_policy_toml.parse(text.replace('"real"', '"simulated"').encode(), where="p")
    assert trusted_roots(other) == (made.pki().root_sha256,)


def test_permissive_is_never_more_than_partial():
    text = with_line(made.policy_text(), "permissive = true")
    found = judge(made.base_report(), text)
    assert found.overall == "partial"
    assert found.check("measurement").verdict == "not-checked"
    # It does not look at DEBUG, and says so; what it does look at still counts.
    debug = judge(signed(policy=0xB0000), text)
    assert debug.overall == "partial"
    assert debug.check("guest-debug").verdict == "not-checked"
    assert "on" in debug.check("guest-debug").observed
    assert judge(made.base_report(), text, expected=bytes(64)).overall == "fail"
    assert judge(made.base_report(), text, given=made.collected(made.pki(), without=("ca",))
                 ).overall == "fail"  # fmt: skip
    data = bytearray(made.base_report())
    data[0x90] ^= 1
    assert judge(bytes(data), text).overall == "fail"


def test_warnings():
    text = made.policy_text()
    old = with_line(text, "[tcb.Genoa] dated = 2025-12-02")
    assert [w.name for w in judge(made.base_report(), old).warnings] == ["floor-old"]
    young = with_line(text, "[tcb.Genoa] dated = 2025-12-03")
    assert judge(made.base_report(), young).warnings == ()
    assert judge(made.base_report(), old).overall == "pass"
    brief = made_pki.Pki("Genoa", vek={"days": (-300, 20)})
    found = judge(brief.report(**FIELDS), made.policy_text(brief), given=made.collected(brief))
    assert [w.name for w in found.warnings] == ["certificate-expiring"]
    assert found.overall == "pass"
    bits = with_line(text, "[platform_info] unknown_bits = true")
    report = signed(platform_info=FIELDS["platform_info"] | 1 << 9)
    assert [w.name for w in judge(report, bits).warnings] == ["platform-bits"]


# --- hints -----------------------------------------------------------------------------------


def follow(report, text, *, given, expected, at):
    """Follow the hints one line at a time; the lines, and the policy they lead to."""
    lines = []
    for _round in range(60):
        found = judge(report, text, given=given, expected=expected, at=at)
        wrong = sorted(turned(found))
        if not wrong:
            return lines, text, found
        offered = HINT.findall(found.check(wrong[0]).hint)
        if not offered:
            return lines, text, found
        assert len(offered) == 1
        lines.append(offered[0])
        text = with_line(text, offered[0])
        after = judge(report, text, given=given, expected=expected, at=at)
        assert wrong[0] not in turned(after), offered[0]
        assert turned(after) < set(turned(found)), "a line accepts what it names and nothing else"
    raise AssertionError(lines)


NEVER = {
    "guest-debug", "signature-algorithm", "signing-key", "report-signature", "id-block",
    "certificate-tcb", "report-data", "certificate-line", "certificate-extensions",
}  # fmt: skip


@pytest.mark.parametrize(("changes", "checks"), FLIPS, ids=FLIP_IDS)
def test_each_hint_accepts_what_was_seen(changes, checks):
    if checks & NEVER or changes.get("vmpl", 0) > 3:
        return
    chip_masked = not any(changes.get("chip_id", b"\x01"))
    if "certificate-chip" in checks and not chip_masked:
        return
    _lines, _text, found = follow(
        signed(**changes), made.policy_text(), given=None, expected=FIELDS["report_data"],
        at=made.AT,
    )  # fmt: skip
    assert found.overall == "pass"


# --- genuine reports -------------------------------------------------------------------------


def vector(name):
    """Report, endorsements of all vectors, expected data, and the manifest's entry."""
    from troth.verify.endorsing import endorsements

    entry = next(item for item in made_report.vectors()["vectors"] if item["id"] == name)
    root = made_report.VECTORS
    files = [*root.glob("certs/*/*.pem"), *root.glob("*.vek.der")]
    given = endorsements.collect([(path.name, path.read_bytes()) for path in sorted(files)])
    report = (root / f"{name}.report.bin").read_bytes()
    at = round(datetime.fromisoformat(entry["cert_not_before"]).timestamp()) + 30 * 86400
    return report, given, bytes.fromhex(entry["report_data"]), at, entry


VECTORS = (
    "milan-v2-virtee", "milan-v2-gosev-debug", "milan-v3-vlek-aws", "milan-v3-ms",
    "genoa-v3-ms", "milan-v3-azure-hcl",
)  # fmt: skip


def policy_for(entry):
    """A policy written from the manifest, not from the report."""
    raw = bytes.fromhex(entry["reported_tcb"])
    tcb = f"{{ bootloader = {raw[0]}, tee = {raw[1]}, snp = {raw[6]}, microcode = {raw[7]} }}"
    unused = not any(bytes.fromhex(entry["host_data"]))
    line = entry["product"].capitalize()
    return f"""\
schema = "troth-verify-policy-v1"
platform = "real"
deny_products = []
masked_chip_id = {str(entry["chip_id_matches_cert"] is None).lower()}
[launch]
measurements = ["{entry["measurement"]}"]
vmpl = [{entry["vmpl"]}]
host_data = {'"unused"' if unused else f'["{entry["host_data"]}"]'}
[guest_policy]
smt = true
[tcb.{line}]
dated = 2025-06-01
source = "the manifest"
reported = {tcb}
committed = {tcb}
launch = {tcb}
[required]
certificate-revocation = false
family-id = false
image-id = false
"""


@pytest.mark.vectors
@pytest.mark.parametrize("name", VECTORS)
def test_vectors_give_what_their_manifest_says(name):
    report, given, data, at, entry = vector(name)
    found = judge(report, policy_for(entry), given=given, expected=data, at=at)
    wrong = {"guest-debug"} if entry["debug"] else set()
    if entry["guest_svn"]:  # an ID block, whose key the manifest does not give
        wrong.add("id-key")
    assert turned(found) == wrong
    assert found.check("report-signature").verdict == "pass"
    assert found.check("certificate-tcb").verdict == "pass"
    chip = {True: "pass", None: "not-checked"}[entry["chip_id_matches_cert"]]
    assert found.check("certificate-chip").verdict == chip


@pytest.mark.vectors
def test_all_vectors_are_judged():
    assert {entry["id"] for entry in made_report.vectors()["vectors"]} == set(VECTORS)


@pytest.mark.vectors
def test_tampered_vectors_are_refused():
    for entry in made_report.vectors()["derived_negative"]:
        report, given, data, at, about = vector(entry["use_with"])
        bad = (made_report.VECTORS / "negative" / entry["file"]).read_bytes()
        assert bad != report
        try:
            found = judge(bad, policy_for(about), given=given, expected=data, at=at)
        except FormatError as error:
            assert (entry["file"], error.code) == ("version-1.bin", "snp-report-version")
        else:
            assert found.check("report-signature").verdict == "fail", entry["file"]
            assert found.overall == "fail"


@pytest.mark.vectors
@pytest.mark.parametrize("name", ["milan-v3-vlek-aws", "genoa-v3-ms"])
def test_the_hints_of_the_strict_policy_lead_to_a_policy_for_a_cloud(name):
    report, given, data, at, _entry = vector(name)
    strict = written_policy(permissive=False, simulated=False, unprotected_acpi=False)
    lines, text, found = follow(report, strict, given=given, expected=data, at=at)
    assert found.overall == "pass"
    assert 8 <= len(lines) <= 20
    assert len({line.partition(" = ")[0] for line in lines}) == len(lines)
    # The policy made for this guest refuses another.
    other, more, data, at, _entry = vector("milan-v2-gosev-debug")
    assert judge(other, text, given=more, expected=data, at=at).overall == "fail"


@pytest.mark.vectors
def test_no_hint_leads_to_a_pass_with_debug():
    report, given, data, at, _entry = vector("milan-v2-gosev-debug")
    strict = written_policy(permissive=False, simulated=False, unprotected_acpi=False)
    _lines, _text, found = follow(report, strict, given=given, expected=data, at=at)
    assert found.overall != "pass"


@pytest.mark.vectors
def test_an_expired_key_of_a_cloud():
    report, given, data, _at, entry = vector("milan-v3-vlek-aws")
    found = judge(report, policy_for(entry), given=given, expected=data, at=made.moment(2026, 1, 1))
    assert turned(found) == {"certificate-validity"}


@pytest.mark.vectors
def test_swapped_chains():
    """Each report with the other's key only."""
    from troth.verify.endorsing import endorsements

    for name, other in (("milan-v3-ms", "milan-v3-azure-hcl"), ("genoa-v3-ms", "milan-v3-ms")):
        report, _given, data, at, entry = vector(name)
        files = [*made_report.VECTORS.glob("certs/*/*.pem"),
                 made_report.VECTORS / f"{other}.vek.der"]  # fmt: skip
        given = endorsements.collect([(path.name, path.read_bytes()) for path in files])
        found = judge(report, policy_for(entry), given=given, expected=data, at=at)
        assert found.check("report-signature").verdict == "fail"


def test_check_is_findable():
    found = judge(made.base_report(), made.policy_text())
    assert isinstance(found.check("vmpl"), Check)
    with pytest.raises(KeyError):
        found.check("nothing")
