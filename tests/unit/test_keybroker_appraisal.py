# SPDX-License-Identifier: Apache-2.0
"""Evidence appraised end to end, and every reason for which no key goes out."""

import hashlib
import json

import pytest

import made_appraisal
import made_broker as made
import made_evidence
import made_pki
from made_appraisal import with_line
from made_broker import Guest, chain_of, snp_evidence
from troth.documents import kbs
from troth.documents.jwk import EcPublicKey
from troth.documents.kbs import AttestRequest
from troth.errors import UsageError
from troth.keybroker import appraisal, classes
from troth.keybroker.appraisal import Appraiser
from troth.record import replace

NONCE = "bm9uY2Ugbm9uY2Ugbm9uY2Ugbm9uY2Ugbm9uY2Ugbm8="
POINT = EcPublicKey("P-256", bytes(32), bytes(32))


@pytest.fixture
def kept(tmp_path):
    return made.kept(tmp_path / "db")


def request_of(evidence, **changes):
    return AttestRequest(NONCE, POINT, json.dumps(evidence).encode(), **changes)


def report_data(**changes):
    return kbs.report_data(AttestRequest(NONCE, POINT, b"{}", **changes))


def judged(judge, evidence=None, *, tee="snp", at=made.AT, **changes):
    if evidence is None:
        evidence = snp_evidence(report_data(**changes))
    return judge.appraise(tee, request_of(evidence, **changes), at=at)


def test_good_evidence_of_a_simulated_guest(kept, tmp_path):
    verdict = judged(made.appraiser(kept, tmp_path))
    assert (verdict.code, verdict.detail) == ("accepted", "")
    assert (verdict.image, verdict.svn, verdict.report_id) == ("demo", 3, b"\x08" * 32)


def test_good_evidence_of_a_real_guest(tmp_path):
    kept = made.kept(tmp_path / "db", simulated=False)
    judge = made.appraiser(kept, tmp_path, simulated=False)
    good = snp_evidence(report_data(), pki=made_appraisal.pki())
    assert judged(judge, good).code == "accepted"
    # The same of a simulated processor, with its chain: another root, and marked.
    pki = made_pki.Pki("Genoa", simulated=True, number=2)
    bad = judged(judge, snp_evidence(report_data(), pki=pki, chain=chain_of(pki)))
    assert bad.code == "checks-failed"
    assert "report-signature" in bad.detail
    folder = made.certificates(tmp_path / "c2", simulated=False, without=("ark", "ca", "vek"))
    policy = appraisal.strict_policy(made.policy_text(simulated=False).encode(), where="p")
    bad = judged(Appraiser(kept, policy, folder), snp_evidence(b"", pki=pki, chain=chain_of(pki)))
    assert "certificate-root fail" in bad.detail
    assert "certificate-platform fail" in bad.detail


def test_certificates_come_with_the_evidence_or_from_the_directory(kept, tmp_path):
    policy = appraisal.strict_policy(made.policy_text().encode(), where="p")
    only_list = made.certificates(tmp_path / "certs", without=("ark", "ca", "vek"))
    judge = Appraiser(kept, policy, only_list)
    assert judged(judge).code == "checks-failed"
    chain = chain_of(made_evidence.simulated_pki())
    assert judged(judge, snp_evidence(report_data(), chain=chain)).code == "accepted"
    # Without any list nobody knows what was revoked.
    judge = Appraiser(kept, policy, None)
    bad = judged(judge, snp_evidence(report_data(), chain=chain))
    assert "certificate-revocation" in bad.detail


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"report_data": b"\x01" * 64}, "report-data"),
        ({"policy": made_evidence.GUEST_POLICY | 1 << 19}, "guest-debug"),
        ({"vmpl": 1}, "vmpl"),
        ({"host_data": b"\x01" * 32}, "host-data"),
        ({"guest_svn": 6}, "guest-svn"),
        ({"id_key_digest": b"\x07" * 48}, "id-key"),
        ({"launch_tcb": bytes.fromhex("0900000000001b54")}, "tcb-launch"),
        ({"platform_info": 0b10011110}, "platform-alias-check"),
    ],
)
def test_each_check_counts(kept, tmp_path, changes, check):
    judge = made.appraiser(kept, tmp_path)
    fields = {"report_data": report_data()} | changes
    data = fields.pop("report_data")
    verdict = judged(judge, snp_evidence(data, **fields))
    assert verdict.code == "checks-failed"
    assert f"{check} fail" in verdict.detail
    assert verdict.image == "demo"


def test_forged_reports(kept, tmp_path):
    judge = made.appraiser(kept, tmp_path)
    evidence = snp_evidence(report_data())
    evidence["attestation_report"]["signature"]["r"][0] ^= 1
    assert "report-signature fail" in judged(judge, evidence).detail
    other = snp_evidence(report_data(), pki=made_pki.Pki("Genoa", simulated=True, number=2))
    assert "report-signature fail" in judged(judge, other).detail
    # The key that answers go to is bound, and so is what else the guest said.
    swapped = request_of(snp_evidence(report_data()))
    swapped = replace(swapped, tee_pubkey=EcPublicKey("P-256", bytes(32), b"\x01" * 32))
    assert judge.appraise("snp", swapped, at=made.AT).code == "checks-failed"
    swapped = request_of(snp_evidence(report_data()), additional_evidence="x")
    assert judge.appraise("snp", swapped, at=made.AT).code == "checks-failed"


@pytest.mark.parametrize("evidence", [{}, {"attestation_report": {}}, {"svn": "1"}])
def test_what_is_no_evidence(kept, tmp_path, evidence):
    judge = made.appraiser(kept, tmp_path)
    assert judged(judge, evidence).code == "evidence-format"
    assert judged(judge, evidence, tee="sample").code == "tee-not-taken"


def test_launches_of_no_class_and_of_retired_ones(kept, tmp_path):
    judge = made.appraiser(kept, tmp_path)
    other = snp_evidence(report_data(), measurement=b"\x05" * 48)
    verdict = judged(judge, other)
    assert (verdict.code, verdict.image, verdict.measurement) == ("class-unknown", "", b"\x05" * 48)
    classes.retire(kept, "demo", None)
    verdict = judged(judge)
    assert (verdict.code, verdict.detail) == ("class-not-active", "the class is retired")


def test_a_newer_version_takes_the_place(kept, tmp_path):
    judge = made.appraiser(kept, tmp_path)
    newer = made.with_digest(made.values(svn=4), "05" * 48)
    public = [made.signer().public]
    classes.add(kept, made.document(newer), public, pending=True, at=made.AT)
    evidence = snp_evidence(report_data(), measurement=b"\x05" * 48)
    assert judged(judge, evidence).code == "class-not-active"
    assert classes.activate(kept, "demo", None) == (4,)
    verdict = judged(judge, evidence)
    assert (verdict.code, verdict.image, verdict.svn) == ("accepted", "demo", 4)
    assert classes.retire(kept, "demo", 3) == (3,)
    assert judged(judge).code == "class-not-active"
    assert judged(judge, evidence).code == "accepted"


def test_values_that_expired_since_they_were_added(kept, tmp_path):
    judge = made.appraiser(kept, tmp_path)
    later = made_appraisal.moment(2026, 12, 2)
    assert "reference-values fail: get newer reference values" in judged(judge, at=later).detail


def test_keys_of_one_class_do_not_speak_for_another(kept, tmp_path):
    """Whoever may sign for one image could otherwise name his own launch as another's."""
    own = made.with_digest(made.values(image_name="other"), "06" * 48)
    classes.add(kept, made.document(own, 2), [made.signer(2).public], pending=False, at=made.AT)
    judge = made.appraiser(kept, tmp_path)
    assert judged(judge, snp_evidence(report_data(), measurement=b"\x06" * 48)).image == "other"
    with kept.transaction() as rows:
        rows.execute("UPDATE classes SET document = ? WHERE image = 'demo'",
                     (made.document(made.values(), 2).data,))  # fmt: skip
    assert "reference-values fail" in judged(judge).detail


def test_init_data_is_host_data(kept, tmp_path):
    text = 'algorithm = "sha256"\nversion = "0.1.0"\n[data]\n'
    digest = hashlib.sha256(text.encode()).digest()
    policy = with_line(made.policy_text(), f'[launch] host_data = ["{digest.hex()}"]')
    judge = Appraiser(
        kept, appraisal.strict_policy(policy.encode(), where="p"), made.certificates(tmp_path / "c")
    )
    evidence = snp_evidence(report_data(), host_data=digest)
    assert judged(judge, evidence, init_data=text).code == "accepted"
    for other in (text + "\n", text.replace("sha256", "md5"), "algorithm = [", "x = 1"):
        assert judged(judge, evidence, init_data=other).code == "init-data"


@pytest.mark.parametrize(
    ("text", "read", "code"),
    [
        # 254 parts at most: the reader takes the square of their number.
        ('algorithm = "sha256"\n' + "a." * 253 + "b = 1", True, "accepted"),
        ('algorithm = "sha256"\n' + "a." * 254 + "b = 1", False, "init-data"),
        (
            'algorithm = "sha256"\n' + "# 34 bytes in this line of comment\n" * 120,
            False,
            "init-data",
        ),
        ('algorithm = "sha384"\n', True, "init-data"),
        ("a = " + "[" * 500, True, "init-data"),
    ],
)
def test_init_data_is_bounded(kept, tmp_path, monkeypatch, text, read, code):
    readings = []
    loads = appraisal.tomllib.loads
    digest = hashlib.sha256(text.encode()).digest()
    policy = with_line(made.policy_text(), f'[launch] host_data = ["{digest.hex()}"]')
    judge = Appraiser(
        kept, appraisal.strict_policy(policy.encode(), where="p"), made.certificates(tmp_path / "c")
    )
    monkeypatch.setattr(
        appraisal.tomllib, "loads", lambda given: readings.append(given) or loads(given)
    )
    evidence = snp_evidence(report_data(), host_data=digest)
    assert judged(judge, evidence, init_data=text).code == code
    assert readings == ([text] if read else [])
    # Of a report that nobody has signed, and with another digest, nothing is read at all.
    readings.clear()
    assert judged(judge, evidence, init_data=text + " ").code == "init-data"
    evidence["attestation_report"]["signature"]["r"][0] ^= 1
    assert judged(judge, evidence, init_data=text).code == "checks-failed"
    assert readings == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("permissive = true", "permissive"),
        ("[reference] allow_unsigned = true", "nobody has signed"),
        ("[required] report-data = false", "fresh evidence"),
        ('trusted_roots = ["{amd}"]', "AMD's root"),
    ],
)
def test_policies_that_look_away(line, said):
    line = line.replace("{amd}", appraisal.AMD_ROOTS["Genoa"])
    with pytest.raises(UsageError) as caught:
        appraisal.strict_policy(with_line(made.policy_text(), line).encode(), where="p")
    assert caught.value.code == "broker-policy"
    assert said in caught.value.message


def test_simulated_and_real_stay_apart(kept, tmp_path):
    real = appraisal.strict_policy(made.policy_text(simulated=False).encode(), where="p")
    simulated = appraisal.strict_policy(made.policy_text().encode(), where="p")
    mixed = made.certificates(tmp_path / "real", simulated=False)
    real_kept = made.kept(tmp_path / "db2", simulated=False)
    for found, policy, folder in (
        (kept, real, None),
        (kept, simulated, mixed),
        (real_kept, simulated, None),
        (real_kept, real, made.certificates(tmp_path / "sim")),
    ):
        with pytest.raises(UsageError) as caught:
            Appraiser(found, policy, folder)
        assert caught.value.code == "broker-kind"


def test_over_the_wire(kept, tmp_path):
    with made.running(kept, made.appraiser(kept, tmp_path)) as broker, broker.client() as client:
        guest = Guest(client)
        nonce = guest.auth()
        assert guest.attest(nonce, snp_evidence(guest.digest(nonce)))[0] == 200
        assert json.loads(guest.get()[1])["state"] == "formatting"
        # Evidence once more, for a new nonce.
        other = Guest(client)
        old = snp_evidence(other.digest(other.auth()))
        status, answer = other.attest(other.auth(), old)
        assert (status, answer["detail"]) == (
            401, "the evidence was not accepted; the broker's audit log says why",
        )  # fmt: skip
        last = broker.audit()[-1]
        assert (last["code"], last["image"]) == ("checks-failed", "demo")
        assert "report-data fail" in last["detail"]
