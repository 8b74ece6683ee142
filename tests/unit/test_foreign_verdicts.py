# SPDX-License-Identifier: Apache-2.0
"""Verdicts about genuine evidence of Azure and of key brokers, and about forged ones (S1)."""

import base64
import hashlib
import json
import struct
from functools import cache

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

import made_appraisal as made
import made_hcl
import made_report
from made_appraisal import turned
from made_foreign import VECTORS, serde, vector
from troth.documents import appraisal_policy_toml, azure_evidence, kbs_evidence
from troth.verify.endorsing import endorsements
from troth.verify.kinds import foreign

NONCE = b"challenge"
AT = made.moment(2026, 1, 31)

POLICY = """\
schema = "troth-verify-policy-v1"
platform = "real"
deny_products = []
report_versions = [2, 3]
any_tcb_order = true
[launch]
host_data = "unused"
vmpl = [0]
[id_block]
family_ids = "unused"
image_ids = "unused"
[guest_policy]
smt = true
[reference]
{reference}
[required]
certificate-revocation = false
tcb-reported = false
tcb-committed = false
tcb-launch = false
{more}
"""


def paravisor(report, *, svn=None, **changes):
    """The reference value of the paravisor that made ``report``."""
    field = lambda name: report[made_report.FIELDS[name][0] :][: made_report.FIELDS[name][1]]  # noqa: E731
    values = {
        "id_key_digest": field("id_key_digest").hex(),
        "family_id": field("family_id").hex(),
        "image_id": field("image_id").hex(),
    } | changes
    inner = "".join(f'{name} = "{value}", ' for name, value in values.items())
    svn = int.from_bytes(field("guest_svn"), "little") if svn is None else svn
    return f"paravisor = [{{ {inner}min_guest_svn = {svn} }}]"


def pcrs(values):
    inner = ", ".join(f'{{ index = {i}, values = ["{v.hex()}"] }}' for i, v in values.items())
    return f"pcrs = [{inner}]"


@cache
def amd(*more):
    folder = VECTORS / "snp/certs"
    if not folder.exists():
        pytest.skip(f"no vectors at {folder} (set TROTH_VECTORS)")
    files = [(path.name, path.read_bytes()) for path in sorted(folder.rglob("*")) if path.is_file()]
    return endorsements.collect((*files, *more))


def judged(found, policy, *, nonce, given=None, at=AT):
    read = appraisal_policy_toml.parse(policy.encode(), where="p")
    about = foreign.Given(None, (), given or amd(), read, "00" * 32)
    return foreign.appraise(found, nonce=nonce, given=about, subject=b"x", at=at)


def states(result, *names):
    return {name: result.check(name).verdict for name in names}


# --- genuine evidence of Azure ---------------------------------------------------------------

# A nonce of nine bytes, as the samples have it, is shorter than troth asks for.
SHORT = b"challenge"


@pytest.fixture
def short_nonce(monkeypatch):
    monkeypatch.setattr(foreign.binding, "check_nonce", lambda nonce: None)


@pytest.mark.parametrize("name", ["evidence-v0.json", "evidence-v1.json"])
def test_genuine_evidence_of_azure(short_nonce, name):
    found = azure_evidence.parse(vector(f"azure/{name}"))
    expected = {index: found.quote.pcrs[index] for index in (4, 9, 11)}
    policy = POLICY.format(reference=f"{paravisor(found.report)}\n{pcrs(expected)}", more="")
    result = judged(found, policy, nonce=SHORT)
    assert turned(result) == set(), [c for c in result.checks if c.code in turned(result)]
    assert result.overall == "pass"
    assert set(states(result, "platform-kind", "binding", "boot-chain-rooted", "ak-in-tpm",
                      "ak-key", "quote-signature", "quote-fresh", "quote-pcrs",
                      "evidence-nonce", "report-data", "id-key", "vmpl",
                      "report-signature").values()) == {"pass"}  # fmt: skip
    # What the format does not carry is seen to be missing.
    assert set(states(result, "measurement", "event-log", "ak-attributes", "quote-replay",
                      "reference-values").values()) == {"not-checked"}  # fmt: skip
    assert "paravisor-report-old" in {item.name for item in result.warnings}

    # Each of these turns it.
    assert "quote-fresh" in turned(judged(found, policy, nonce=b"challengf"))
    other = pcrs(expected | {9: bytes(32)})
    policy = POLICY.format(reference=f"{paravisor(found.report)}\n{other}", more="")
    assert turned(judged(found, policy, nonce=SHORT)) == {"boot-chain-rooted"}
    policy = POLICY.format(reference=paravisor(found.report), more="")
    assert turned(judged(found, policy, nonce=SHORT)) == {"boot-chain-rooted"}


def test_without_a_reference_value_claims_are_never_read(short_nonce):
    found = azure_evidence.parse(vector("azure/evidence-v1.json"))
    for reference in (
        "",
        paravisor(found.report, svn=11),
        paravisor(found.report, image_id="11" * 16),
        f'svsm = [{{ measurement = "{"11" * 48}" }}]',
    ):
        result = judged(found, POLICY.format(reference=reference, more=""), nonce=SHORT)
        assert {"platform-kind", "binding", "report-data", "boot-chain-rooted"} <= turned(result)
        assert set(states(result, "ak-in-tpm", "quote-signature", "quote-pcrs").values()) == {
            "not-checked"
        }  # fmt: skip
    assert (
        "`[reference] paravisor = [{ id_key_digest"
        in judged(found, POLICY.format(reference="", more=""), nonce=SHORT)
        .check("platform-kind")
        .hint
    )


def test_a_quote_of_another_machine(short_nonce):
    """The samples are of two machines: the quote of one under the claims of the other."""
    own = azure_evidence.parse(vector("azure/evidence-v1.json"))
    quote = json.loads(vector("azure/tpm-quote-v1.json"))
    tree = json.loads(vector("azure/evidence-v1.json")) | {"tpm_quote": quote}
    policy = POLICY.format(reference=paravisor(own.report), more="")
    mixed = azure_evidence.parse(json.dumps(tree).encode())
    result = judged(mixed, policy, nonce=SHORT)
    assert states(result, "quote-signature", "quote-pcrs", "quote-fresh") == {
        "quote-signature": "fail", "quote-pcrs": "pass", "quote-fresh": "pass",
    }  # fmt: skip
    # With the report of its own machine it holds.
    tree["hcl_report"] = base64.urlsafe_b64encode(vector("azure/hcl-report.bin")).decode()
    tree["vcek"] = base64.urlsafe_b64encode(der(vector("azure/vcek.pem"))).decode()
    whole = azure_evidence.parse(json.dumps(tree).encode())
    expected = {index: whole.quote.pcrs[index] for index in (4, 9, 11)}
    policy = POLICY.format(reference=f"{paravisor(whole.report)}\n{pcrs(expected)}", more="")
    result = judged(whole, policy, nonce=SHORT)
    assert result.overall == "pass", turned(result)
    # That machine's message by itself selects one PCR, and was signed by a third key.
    tree["tpm_quote"] = quote | {
        "message": vector("azure/tpm-quote.msg").hex(),
        "signature": vector("azure/tpm-quote.sig").hex(),
    }
    result = judged(azure_evidence.parse(json.dumps(tree).encode()), policy, nonce=SHORT)
    assert states(result, "quote-signature", "quote-pcrs") == {
        "quote-signature": "fail", "quote-pcrs": "fail",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "certificate"),
    [("hcl-report.bin", "azure/vcek.pem"), ("v1", "snp/milan-v3-azure-hcl.vek.der")],
)
def test_a_paravisors_report_by_itself(name, certificate):
    if name == "v1":
        data = azure_evidence.parse(vector("azure/evidence-v1.json")).service
    else:
        data = vector(f"azure/{name}")
    found = azure_evidence.of_hcl(data)
    given = amd(("vek", vector(certificate)))
    policy = POLICY.format(reference=paravisor(found.report), more="")
    # The user data of these machines were never written: zeros.
    result = judged(found, policy, nonce=bytes(64), given=given)
    assert result.overall == "pass", turned(result)
    assert result.subject.kind == "snp-report"
    assert turned(judged(found, policy, nonce=b"\1" * 64, given=given)) == {"binding"}
    assert turned(judged(found, policy, nonce=None, given=given)) == {"report-data"}
    # Claims that were changed, whatever else holds.
    at = data.index(b"vmUniqueId")
    forged = azure_evidence.of_hcl(data[:at] + b"X" + data[at + 1 :])
    assert {"binding", "report-data"} == turned(
        judged(forged, policy, nonce=bytes(64), given=given)
    )
    assert "platform-kind" in turned(
        judged(found, POLICY.format(reference="", more=""), nonce=bytes(64), given=given)
    )


# --- genuine reports in the broker's form ----------------------------------------------------


def test_genuine_reports_in_the_brokers_form():
    for item in made_report.vectors()["vectors"]:
        raw = vector(f"snp/{item['id']}.report.bin")
        chain = [{"cert_type": item["signer"],
                  "data": list(vector(f"snp/{item['id']}.vek.der"))}]  # fmt: skip
        found = kbs_evidence.parse(json.dumps(serde(raw, chain=chain)).encode())
        result = judged(found, POLICY.format(reference="", more=""), nonce=raw[0x50:0x90])
        expected = "pass" if item["report_signature_ok"] else "fail"
        assert result.check("report-signature").verdict == expected, item["id"]
        # Nothing says which image it is: nothing passes.
        assert result.overall == "fail"
        assert "platform-kind" in turned(result)


# --- made ones -------------------------------------------------------------------------------

LONG = bytes(range(48))
AK = made_hcl.ak_key()


def attest(nonce, values):
    """A TPMS_ATTEST over all 24 PCRs of sha256 (part 2, 10.12)."""
    digest = hashlib.sha256(b"".join(values)).digest()
    return (
        b"\xffTCG\x80\x18" + struct.pack(">H", 34) + b"\0\x0b" + bytes(32)
        + struct.pack(">H", len(nonce)) + nonce + struct.pack(">QIIB", 1, 2, 0, 1) + bytes(8)
        + struct.pack(">IHB", 1, 0x0B, 3) + b"\xff\xff\xff" + struct.pack(">H", 32) + digest
    )  # fmt: skip


PCRS = [bytes([index]) * 32 for index in range(24)]


def azure_document(*, user_data=None, nonce=LONG, key=AK, values=PCRS, message=None, **fields):
    """Evidence of version 2, with the user data that Trustee asks for."""
    user_data = LONG.ljust(64, b"\0") if user_data is None else user_data
    body = made_hcl.claims(user_data)
    raw = made.pki().report(**(made.FIELDS | {"report_data": made_hcl.bound(body)} | fields))
    message = attest(nonce, values) if message is None else message
    signature = key.sign(message, padding.PKCS1v15(), hashes.SHA256())
    tree = {
        "version": 2,
        "hcl_report": base64.urlsafe_b64encode(made_hcl.blob(body, raw, pad=2600)).decode(),
        "tpm_quote": {"message": message.hex(), "signature": signature.hex(),
                      "pcrs": [value.hex() for value in values]},
        "vcek": base64.urlsafe_b64encode(der(made.pki().vek)).decode(),
    }  # fmt: skip
    return azure_evidence.parse(json.dumps(tree).encode()), raw


def der(certificate):
    """The first certificate of a file in PEM; DER as it is."""
    if not certificate.startswith(b"-----"):
        return certificate
    body = certificate.split(b"-----END")[0].split(b"-----")[2]
    return base64.b64decode(body)


def azure_policy(raw, *, expected=PCRS, reference=None):
    text = made.policy_text()
    own = paravisor(raw) if reference is None else reference
    own += "\n" + pcrs({index: expected[index] for index in (4, 9, 11)})
    return text.replace("[required]\n", f"[reference]\n{own}\n[required]\n")


def verdict(found, policy, nonce=LONG):
    return judged(found, policy, nonce=nonce, given=made.base_endorsements(), at=made.AT)


def test_evidence_with_everything_bound():
    found, raw = azure_document()
    result = verdict(found, azure_policy(raw))
    assert result.overall == "pass", turned(result)
    assert "paravisor-report-old" not in {item.name for item in result.warnings}


OTHER = rsa.generate_private_key(65537, 2048)
# Claims that do not count name no key.
NO_KEY = {"ak-key", "ak-in-tpm", "quote-signature"}
WRONG = [
    ({"key": OTHER}, {"quote-signature"}),
    ({"nonce": LONG[:-1]}, {"quote-fresh", "evidence-nonce"}),
    ({"nonce": b""}, {"quote-fresh", "evidence-nonce"}),
    ({"user_data": b"\7" * 64}, {"binding"}),
    ({"user_data": LONG.ljust(63, b"\0") + b"\1"}, {"binding"}),
    ({"report_data": bytes(64)}, {"binding", "report-data"} | NO_KEY),
    ({"vmpl": 1}, {"binding", "vmpl"} | NO_KEY),
    ({"policy": made.FIELDS["policy"] | 1 << 19}, {"guest-debug"}),
    ({"host_data": bytes(32)}, {"host-data"}),
    ({"message": b"\xffTCG\x80\x17" + attest(LONG, PCRS)[6:]}, {"quote-format"}),
    ({"message": attest(LONG, PCRS[::-1])}, {"quote-pcrs"}),
    ({"message": attest(LONG, PCRS).replace(b"\xff\xff\xff", b"\xff\xff\x7f")}, {"quote-pcrs"}),
]


@pytest.mark.parametrize(("changes", "codes"), WRONG)
def test_each_thing_that_is_wrong(changes, codes):
    _, raw = azure_document()
    found, _ = azure_document(**changes)
    result = verdict(found, azure_policy(raw))
    # Without whole proof no PCR is believed, so nothing roots the boot chain.
    rooted = {"boot-chain-rooted"}
    assert turned(result) - rooted == codes
    unaffected = {"guest-debug", "host-data"}
    assert (turned(result) & rooted == set()) == bool(codes & unaffected or codes == {"binding"})


def test_forged_claims_in_a_report_of_a_guest_with_nothing_below():
    """S1: root of a bare guest writes SHA-256 of its own claims, with a software AK."""
    found, raw = azure_document()
    policy = made.policy_text()
    result = verdict(found, policy)
    assert result.check("measurement").verdict == "pass"
    assert {"platform-kind", "binding", "report-data", "evidence-nonce"} <= turned(result)
    assert result.check("quote-signature").verdict == "not-checked"
    # The same guest, with the paravisor's keys allowed but another family or an older SVN.
    for reference in (
        paravisor(raw, family_id="99" * 16), paravisor(raw, svn=8),
        paravisor(raw, id_key_digest="99" * 48), paravisor(raw, measurement="99" * 48),
    ):  # fmt: skip
        result = verdict(found, azure_policy(raw, reference=reference))
        assert {"platform-kind", "binding"} <= turned(result)
        assert result.overall == "fail"


def test_a_plain_report_where_a_paravisor_is_below():
    """The reverse: a claim to be direct, under the reference value of a paravisor."""
    raw = made.pki().report(**(made.FIELDS | {"report_data": LONG.ljust(64, b"\0")}))
    chain = [{"cert_type": "VCEK", "data": list(der(made.pki().vek))}]
    found = kbs_evidence.parse(json.dumps(serde(raw, chain=chain)).encode())
    plain = verdict(found, made.policy_text())
    assert turned(plain) == {"boot-chain-rooted"}
    assert plain.check("platform-kind").verdict == "pass"
    result = verdict(found, azure_policy(raw))
    assert {"platform-kind", "boot-chain-rooted"} <= turned(result)
    assert result.check("platform-kind").expected == "azure-paravisor"
