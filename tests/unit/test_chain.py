# SPDX-License-Identifier: Apache-2.0
"""Chains from a report's signature to a pinned root: genuine ones, made ones, wrong ones."""

import os
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import made_rsa
from made_pki import LINES, NOW, TURIN_CHIP, Pki, holds, ia5, integer, pem, signed, vek_key
from made_report import VECTORS, vectors
from troth.abi import snp_report
from troth.errors import FormatError, UsageError
from troth.verify.endorsing import chain as chains
from troth.verify.endorsing import endorsements
from troth.verify.endorsing.chain import CODES, chain
from troth.verify.endorsing.roots import AMD_ROOTS

ALL_PASS = dict.fromkeys(CODES, "pass")
HEX_ORDER = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffff"
    "c7634d81f4372ddf581a0db248b0a77aecec196accc52973",
    16,
)


def given_files(*blobs):
    return endorsements.collect((str(number), blob) for number, blob in enumerate(blobs))


def judged(report, *blobs, roots=(), at=NOW, simulated=False):
    return chain(
        snp_report.parse(report), given_files(*blobs), roots=roots, at=at, simulated=simulated
    )


def verdicts(result):
    assert tuple(step.code for step in result.steps) == CODES
    return {step.code: step.verdict for step in result.steps}


def step(result, code):
    return next(item for item in result.steps if item.code == code)


def of(pki, *more, **options):
    """The result for the whole of ``pki``, its list and ``more`` files."""
    options.setdefault("roots", [pki.root_sha256])
    report = options.pop("report", None) or pki.report()
    return judged(report, pki.ark, pki.ca, pki.vek, pki.revoked(9), *more, **options)


def failing(result):
    return {code for code, verdict in verdicts(result).items() if verdict == "fail"}


def open_(result):
    return {code for code, verdict in verdicts(result).items() if verdict == "not-checked"}


# --- genuine ----------------------------------------------------------------------------------


def vector(entry):
    """Report, chain files and key of one entry of the manifest."""
    folder = VECTORS / "certs" / entry["product"]
    return (
        (VECTORS / f"{entry['id']}.report.bin").read_bytes(),
        (folder / f"{entry['intermediate']}_ark.pem").read_bytes(),
        (VECTORS / f"{entry['id']}.vek.der").read_bytes(),
    )


def time_of(entry):
    return datetime.fromisoformat(entry["cert_not_before"]) + timedelta(days=1)


@pytest.mark.vectors
def test_genuine_reports_and_their_manifest():
    entries = vectors()["vectors"]
    for entry in entries:
        report, cas, vek = vector(entry)
        result = judged(report, cas, vek, roots=AMD_ROOTS.values(), at=time_of(entry))
        expected = ALL_PASS | {"certificate-revocation": "not-checked"}
        if entry["chip_id_matches_cert"] is None:
            expected["certificate-chip"] = "not-checked"
        assert verdicts(result) == expected, entry["id"]
        assert entry["report_signature_ok"]
        assert entry["cert_tcb_matches_reported"]
        assert result.product == entry["product"].capitalize()
        assert result.signer == entry["signer"].lower()
        assert result.extensions.csp_id == entry["cert_csp_id"]
        assert holds(result)
        assert not result.simulated


@pytest.mark.vectors
def test_all_chains_in_one_directory_find_their_own():
    entries = vectors()["vectors"]
    files = [blob for entry in entries for blob in vector(entry)[1:]]
    for entry in entries:
        result = judged(vector(entry)[0], *files, roots=AMD_ROOTS.values(), at=time_of(entry))
        assert holds(result), entry["id"]
        assert result.product == entry["product"].capitalize()


@pytest.mark.vectors
def test_an_expired_vlek_at_a_time():
    (entry,) = (item for item in vectors()["vectors"] if item["signer"] == "VLEK")
    report, cas, vek = vector(entry)
    end = datetime.fromisoformat(entry["cert_not_after"])
    for at, verdict in ((end, "pass"), (end + timedelta(seconds=1), "fail")):
        result = judged(report, cas, vek, roots=AMD_ROOTS.values(), at=at)
        assert verdicts(result)["certificate-validity"] == verdict
        assert failing(result) <= {"certificate-validity"}


@pytest.mark.vectors
def test_swapped_keys_of_genuine_chips():
    entries = vectors()["vectors"]
    for entry, other in zip(entries, entries[1:] + entries[:1], strict=True):
        report, cas, _ = vector(entry)
        _, other_cas, vek = vector(other)
        result = judged(report, cas, other_cas, vek, roots=AMD_ROOTS.values(), at=time_of(other))
        assert not holds(result)
        assert verdicts(result)["report-signature"] != "pass", entry["id"]


@pytest.mark.vectors
def test_derived_negatives():
    manifest = vectors()
    of_id = {entry["id"]: entry for entry in manifest["vectors"]}
    for negative in manifest["derived_negative"]:
        entry = of_id[negative["use_with"]]
        data = (VECTORS / "negative" / negative["file"]).read_bytes()
        _, cas, vek = vector(entry)
        try:
            result = judged(data, cas, vek, roots=AMD_ROOTS.values(), at=time_of(entry))
        except FormatError as error:
            assert negative["file"] == "version-1.bin"
            assert error.code == "snp-report-version"
            continue
        assert failing(result) == {"report-signature"}, negative["file"]
        said = step(result, "report-signature").observed
        words = {"sig-zero": "R or S", "sig-algo-2": "algorithm 2", "sig-flip": "not by this key"}
        (word,) = (text for name, text in words.items() if negative["file"].startswith(name))
        assert word in said


@pytest.mark.vectors
def test_each_bit_of_a_genuine_report_counts():
    entry = vectors()["vectors"][0]
    report, cas, vek = vector(entry)
    for at in range(0, 0x2A0, 13):
        broken = bytearray(report)
        broken[at] ^= 0x80
        try:
            result = judged(bytes(broken), cas, vek, roots=AMD_ROOTS.values(), at=time_of(entry))
        except FormatError:
            continue
        assert "report-signature" in failing(result), hex(at)


# --- a made hierarchy that passes -------------------------------------------------------------


@pytest.mark.parametrize("line", sorted(LINES))
@pytest.mark.parametrize("vlek", [False, True])
def test_made_chains_pass(line, vlek):
    pki = Pki(line, vlek=vlek)
    result = of(pki)
    assert verdicts(result) == ALL_PASS | ({"certificate-chip": "not-checked"} if vlek else {})
    assert (result.product, result.signer) == (line, "vlek" if vlek else "vcek")
    assert holds(result)
    assert result.vek.der == pki.vek
    assert result.root.sha256 == pki.root_sha256


@pytest.mark.parametrize("line", ["Milan", "Genoa"])
def test_version_two_learns_the_line_from_the_chain(line):
    pki = Pki(line)
    result = of(pki, report=pki.report(version=2))
    assert verdicts(result) == ALL_PASS
    assert result.product == line
    assert (
        chain(snp_report.parse(pki.report(version=2)), given_files(), roots=[], at=NOW).product
        is None
    )


def test_a_naive_time_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="time zone"):
        of(Pki(), at=datetime(2026, 6, 1))  # noqa: DTZ001


# --- each step can fail by itself -------------------------------------------------------------

OTHER_CHIP = bytes(64 * [7])
SECOND = timedelta(seconds=1)

WRONG = [
    # what the hierarchy does differently, what the report says differently, what fails
    ({"ark": {"sign_lists": False}}, {}, {"certificate-revocation"}),
    ({"ark": {"signer": made_rsa.intermediate()}}, {}, {"certificate-root"}),
    ({"ark": {"usage": False}}, {},
     {"certificate-root", "certificate-intermediate", "certificate-revocation"}),
    ({"ca": {"signer": made_rsa.intermediate()}}, {}, {"certificate-intermediate"}),
    ({"ca": {"usage": False}}, {}, {"certificate-key"}),
    ({"ca": {"days": (-10, -1)}}, {}, {"certificate-validity"}),
    ({"ark": {"days": (1, 10)}}, {}, {"certificate-validity"}),
    ({"vek": {"days": (-10, -1)}}, {}, {"certificate-validity"}),
    ({"vek": {"signer": made_rsa.root()}}, {}, {"certificate-key"}),
    ({"vek": {"subject": "VCEK"}}, {}, {"certificate-key"}),
    ({"vek": {"subject": "SEV-VLEK"}}, {}, {"certificate-key"}),
    ({"vek": {"key": vek_key(2)}}, {}, {"report-signature"}),
    ({"vek": {"key": made_rsa.root()}}, {}, {"certificate-key", "report-signature"}),
    ({"vek": {"simulated": True}}, {}, {"certificate-platform"}),
    ({"ca": {"simulated": True}}, {}, {"certificate-platform"}),
    ({"ark": {"simulated": True}}, {}, {"certificate-platform"}),
    ({"extensions": {"change": {"1": integer(1)}}}, {}, {"certificate-extensions"}),
    ({"extensions": {"change": {"2": None}}}, {}, {"certificate-extensions"}),
    ({"extensions": {"change": {"4": None}}}, {}, {"certificate-extensions"}),
    ({"extensions": {"change": {"5": ia5("CN=x")}}}, {}, {"certificate-extensions"}),
    ({"extensions": {"change": {"3.5": integer(1)}}}, {}, {"certificate-tcb"}),
    ({"extensions": {"change": {"3.9": integer(1)}}}, {}, {"certificate-tcb"}),
    ({"extensions": {"levels": {"1": 11}}}, {}, {"certificate-tcb"}),
    ({"extensions": {"levels": {"2": 1}}}, {}, {"certificate-tcb"}),
    ({"extensions": {"levels": {"3": 1}}}, {}, {"certificate-tcb"}),
    ({"extensions": {"levels": {"8": 0x55}}}, {}, {"certificate-tcb"}),
    ({"extensions": {"chip": OTHER_CHIP}}, {}, {"certificate-chip"}),
    ({"extensions": {"chip": TURIN_CHIP}}, {}, {"certificate-chip"}),
    ({}, {"chip_id": OTHER_CHIP}, {"certificate-chip"}),
    ({}, {"reported_tcb": bytes.fromhex("0a00000000001b55")}, {"certificate-tcb"}),
    ({}, {"reported_tcb": bytes.fromhex("0a00010000001b54")}, {"certificate-tcb"}),
    ({}, {"cpuid_model": 0x01}, {"certificate-line"}),
    ({}, {"cpuid_model": 0x55}, {"certificate-line"}),
    ({}, {"signature_algo": 2}, {"report-signature"}),
    ({}, {"key_info": 2}, {"report-signature"}),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "fields", "fails"), WRONG)
def test_each_step_fails_by_itself(changes, fields, fails):
    pki = Pki("Genoa", **changes)
    result = of(pki, report=pki.report(**fields))
    assert failing(result) == fails
    # What cannot be read, or has no known layout, cannot be compared either.
    blind = {"certificate-extensions", "certificate-tcb", "certificate-chip"}
    unknown_line = fields.get("cpuid_model") == 0x55
    assert open_(result) <= (blind if unknown_line or blind & fails else set())
    assert not holds(result)
    for code in fails:
        item = step(result, code)
        assert item.expected
        assert item.observed


def test_turin_compares_the_fmc_too():
    pki = Pki("Turin", extensions={"levels": {"9": 2}})
    assert failing(of(pki)) == {"certificate-tcb"}
    pki = Pki("Turin", extensions={"change": {"3.9": None}})
    assert failing(of(pki)) == {"certificate-tcb"}
    pki = Pki("Turin", extensions={"change": {"1": integer(0)}})
    assert failing(of(pki)) == {"certificate-extensions"}


def test_turin_chip_ids():
    pki = Pki("Turin")
    more = pki.report(chip_id=TURIN_CHIP + b"\1" + bytes(55))
    assert failing(of(pki, report=more)) == {"certificate-chip"}
    padded = Pki("Turin", extensions={"chip": TURIN_CHIP.ljust(64, b"\0")})
    assert failing(of(padded)) == {"certificate-chip"}
    wrapped = Pki("Turin", extensions={"chip": b"\x04\x08" + TURIN_CHIP})
    assert verdicts(of(wrapped)) == ALL_PASS


def test_a_masked_chip_id_is_not_checked():
    pki = Pki("Genoa")
    result = of(pki, report=pki.report(chip_id=bytes(64)))
    assert verdicts(result) == ALL_PASS | {"certificate-chip": "not-checked"}


@pytest.mark.parametrize("key_info", [0x08, 0x0C, 0x18, 0x1C])
def test_reports_without_a_signing_key(key_info):
    result = of(Pki(), report=Pki().report(key_info=key_info))
    assert failing(result) == {"report-signature"}
    assert result.vek is None
    assert not holds(result)


@pytest.mark.parametrize(
    ("r", "s"),
    [
        (0, 0),
        (0, 1),
        (1, 0),
        (HEX_ORDER, 1),
        (1, HEX_ORDER),
        (2**384, 1),
        (1, 2**575),
        (1, 1),
    ],
)
def test_numbers_of_the_signature(r, s):
    pki = Pki()
    report = pki.report()
    report = report[:0x2A0] + r.to_bytes(72, "little") + s.to_bytes(72, "little") + report[0x330:]
    assert failing(of(pki, report=report)) == {"report-signature"}


def test_bytes_behind_the_signature():
    pki = Pki()
    report = pki.report()[:-1] + b"\1"
    assert failing(of(pki, report=report)) == {"report-signature"}


def test_a_signature_in_the_other_byte_order():
    pki = Pki()
    report = pki.report()
    turned = report[:0x2A0] + report[0x2A0:0x2E8][::-1] + report[0x2E8:0x330][::-1] + bytes(368)
    assert failing(of(pki, report=turned)) == {"report-signature"}


# --- roots ------------------------------------------------------------------------------------


def test_a_planted_root_is_not_trusted():
    pki = Pki()
    result = of(pki, roots=AMD_ROOTS.values())
    assert failing(result) == {"certificate-root"}
    assert f'trusted_roots = ["{pki.root_sha256}"]' in step(result, "certificate-root").hint
    assert not holds(result)


def test_without_roots_nothing_holds():
    assert failing(of(Pki(), roots=[])) == {"certificate-root"}


def test_a_pinned_root_that_is_not_there():
    pki = Pki()
    result = judged(pki.report(), pki.ca, pki.vek, roots=[pki.root_sha256])
    assert failing(result) == set()
    assert open_(result) == {
        "certificate-root",
        "certificate-intermediate",
        "certificate-validity",
        "certificate-revocation",
    }
    assert "troth certs fetch" in step(result, "certificate-root").hint
    assert not holds(result)


def test_a_planted_root_beside_the_pinned_one():
    pki, planted = Pki(), Pki("Genoa", ark={"key": made_rsa.intermediate()})
    for files in ((planted.ark, pki.ark), (pki.ark, planted.ark)):
        result = judged(pki.report(), *files, pki.ca, pki.vek, roots=[pki.root_sha256])
        assert failing(result) == set()
        assert result.root.der == pki.ark


def test_a_pinned_root_of_another_line():
    milan, genoa = Pki("Milan"), Pki("Genoa")
    result = judged(genoa.report(), milan.ark, genoa.ca, genoa.vek, roots=[milan.root_sha256])
    assert not holds(result)
    assert open_(result) >= {"certificate-root", "certificate-intermediate"}


def test_a_chain_of_another_line_signs_nothing():
    milan = Pki("Milan")
    genoa_report = signed(Pki("Genoa").report(), milan.key)
    result = of(milan, report=genoa_report)
    assert "certificate-line" in failing(result)


# --- several candidates -----------------------------------------------------------------------


def test_the_candidate_that_verifies_is_taken():
    good = Pki("Genoa")
    stale = Pki("Genoa", extensions={"levels": {"1": 9}})
    expired = Pki("Genoa", vek={"days": (-10, -1)})
    other_key = Pki("Genoa", number=2)
    forged = Pki("Genoa", vek={"signer": made_rsa.root()})
    old_ca = Pki("Genoa", ca={"days": (-10, -1)})
    wrong = [stale.vek, expired.vek, other_key.vek, forged.vek, old_ca.ca]
    files = [*wrong, good.vek, good.ca, good.ark, good.revoked()]
    for order in (files, files[::-1]):
        result = judged(good.report(), *order, roots=[good.root_sha256])
        assert verdicts(result) == ALL_PASS
        assert result.vek.der == good.vek
        assert result.intermediate.der == good.ca


def test_many_keys_of_other_chips_do_not_hide_the_right_one():
    good = Pki()
    others = [Pki(extensions={"chip": bytes([n]) * 64}).vek for n in range(1, 40)]
    result = judged(good.report(), *others, good.vek, good.ca, good.ark, roots=[good.root_sha256])
    assert holds(result)


def test_a_key_of_the_other_kind_is_no_candidate():
    vcek, vlek = Pki(), Pki(vlek=True)
    result = judged(vcek.report(), vlek.ark, vlek.ca, vlek.vek, roots=[vlek.root_sha256])
    assert result.vek is None
    assert "VCEK" in step(result, "certificate-key").observed
    assert not holds(result)


def test_a_vlek_may_not_sign_as_a_vcek():
    vlek = Pki(vlek=True)
    report = signed(Pki().report(), vlek.key)
    assert not holds(of(vlek, report=report))


# --- revocation -------------------------------------------------------------------------------


def revocation(pki, *lists, at=NOW):
    result = judged(pki.report(), pki.ark, pki.ca, pki.vek, *lists, roots=[pki.root_sha256], at=at)
    return step(result, "certificate-revocation")


def test_revocation():
    pki = Pki()
    assert revocation(pki).verdict == "not-checked"
    assert "fetch" in revocation(pki).hint
    assert revocation(pki, pki.revoked()).verdict == "pass"
    assert revocation(pki, pki.revoked(0x20001)).verdict == "pass"
    assert revocation(pki, pem(pki.revoked(), label="X509 CRL")).verdict == "pass"
    for serial in (0x20002, 0x20000):
        found = revocation(pki, pki.revoked(5, serial))
        assert (found.verdict, "is revoked" in found.observed) == ("fail", True)


@pytest.mark.parametrize(
    ("days", "verdict"),
    [((-1, 1), "pass"), ((0, 1), "pass"), ((-1, 0), "pass"), ((-2, -1), "fail"), ((1, 2), "fail")],
)
def test_the_window_of_a_list(days, verdict):
    pki = Pki()
    assert revocation(pki, pki.revoked(days=days)).verdict == verdict


def test_an_old_list_still_revokes():
    pki = Pki()
    old = pki.revoked(0x20002, days=(-20, -10))
    assert revocation(pki, old, pki.revoked()).verdict == "fail"


def test_lists_by_others_do_not_count():
    pki = Pki()
    forged = pki.revoked(0x20002, signer=made_rsa.intermediate())
    other = pki.revoked(0x20002, issuer="ARK-Milan")
    assert revocation(pki, forged).verdict == "fail"
    assert "signature" in revocation(pki, forged).observed
    assert revocation(pki, other).verdict == "not-checked"
    assert revocation(pki, forged, other, pki.revoked()).verdict == "pass"


# --- simulated platforms ----------------------------------------------------------------------


def test_simulated_chains_need_a_policy_for_them():
    pki = Pki(simulated=True)
    refused, accepted = of(pki), of(pki, simulated=True)
    assert refused.simulated
    assert accepted.simulated
    assert failing(refused) == {"certificate-platform"}
    assert "platform" in step(refused, "certificate-platform").hint
    assert verdicts(accepted) == ALL_PASS


def test_a_policy_for_simulated_platforms_refuses_others():
    result = of(Pki(), simulated=True)
    assert failing(result) == {"certificate-platform"}
    assert not result.simulated


# --- directories ------------------------------------------------------------------------------


def test_a_directory_is_read_by_content(tmp_path):
    pki = Pki()
    (tmp_path / "a.txt").write_bytes(b"see below\n" + pem(pki.ca, pki.ark))
    (tmp_path / "b.crt").write_bytes(pki.vek)
    (tmp_path / "c").write_bytes(pki.revoked())
    (tmp_path / "notes.md").write_bytes(b"what this is for\n")
    (tmp_path / "large.bin").write_bytes(bytes(2 << 20))
    (tmp_path / ".hidden").write_bytes(b"?")
    (tmp_path / "copy.pem").write_bytes(pem(pki.vek))
    (tmp_path / "sub").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "gone").symlink_to("nowhere")
    found = endorsements.read_directory(tmp_path)
    assert sorted(item.subject_cn for item in found.certificates) == [
        "ARK-Genoa",
        "SEV-Genoa",
        "SEV-VCEK",
    ]
    assert len(found.lists) == 1
    assert sorted(name for name, _ in found.foreign) == ["gone", "large.bin", "notes.md"]
    result = chain(snp_report.parse(pki.report()), found, roots=[pki.root_sha256], at=NOW)
    assert verdicts(result) == ALL_PASS


def test_directories_that_cannot_be_read(tmp_path):
    for folder in (tmp_path / "none", tmp_path / "file"):
        (tmp_path / "file").touch()
        with pytest.raises(UsageError) as caught:
            endorsements.read_directory(folder)
        assert caught.value.code == "certs-directory"


def test_too_many_files(tmp_path, monkeypatch):
    monkeypatch.setattr(endorsements, "MAX_FILES", 2)
    for number in range(3):
        (tmp_path / str(number)).touch()
    with pytest.raises(UsageError) as caught:
        endorsements.read_directory(tmp_path)
    assert caught.value.code == "certs-directory"


def test_an_empty_directory(tmp_path):
    result = chain(
        snp_report.parse(Pki().report()),
        endorsements.read_directory(tmp_path),
        roots=AMD_ROOTS.values(),
        at=datetime.now(UTC),
    )
    assert failing(result) == set()
    assert open_(result) == set(CODES)
    assert result.product == "Genoa"
    assert not holds(result)


# --- anything ---------------------------------------------------------------------------------

PKI = Pki()


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 1183),
    st.binary(min_size=1, max_size=8),
    st.sampled_from(["report", "ark", "ca", "vek"]),
)
def test_one_changed_part_never_passes_unseen(at, change, which):
    parts = {"report": PKI.report(), "ark": PKI.ark, "ca": PKI.ca, "vek": PKI.vek}
    original = parts[which]
    at %= len(original)
    parts[which] = (original[:at] + change + original[at + len(change) :])[: len(original)]
    if parts[which] == original:
        return
    try:
        result = judged(
            parts["report"], parts["ark"], parts["ca"], parts["vek"], roots=[PKI.root_sha256]
        )
    except FormatError:
        return
    assert not holds(result)


def test_every_code_is_listed_once():
    assert len(set(CODES)) == len(CODES)
    assert chains.MAX_CANDIDATES**3 <= 512
