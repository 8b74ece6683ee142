# SPDX-License-Identifier: Apache-2.0
"""Where the binding stands below a paravisor and a service module, and what is not believed."""

import hashlib
import struct
import uuid

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

import made_appraisal as made
import made_hcl
import made_report
from troth.abi import snp_report
from troth.documents import appraisal_policy_toml
from troth.documents.evidence import Evidence, ServicePart, TpmPart
from troth.verify.appraise import judge_chain
from troth.verify.kinds import azure, placement, svsm, two_reports

BINDING = bytes(range(100, 164))
NUMBERS = made_hcl.ak_key().public_key().public_numbers()
AK_ATTRIBUTES = 0x00050072
EK_ATTRIBUTES = 0x000300B2
VTPM = uuid.UUID("c476f1eb-0123-45a5-9641-b4e7dde5bfe3").bytes_le
LIST = uuid.UUID("63849ebb-3d92-4670-a1ff-58f9c94b87bb").bytes_le


def public(modulus=NUMBERS.n, *, attributes=AK_ATTRIBUTES, exponent=0, ek=False):
    """A TPMT_PUBLIC of an RSA-2048 key by the tables of part 2."""
    policy = bytes(32) if ek else b""
    head = struct.pack(">HHIH", 1, 0x0B, attributes, len(policy)) + policy
    head += struct.pack(">HHH", 6, 128, 0x43) if ek else struct.pack(">H", 0x10)
    head += struct.pack(">H", 0x10) if ek else struct.pack(">HH", 0x14, 0x0B)
    return head + struct.pack(">HIH", 2048, exponent, 256) + modulus.to_bytes(256, "big")


EK = public(attributes=EK_ATTRIBUTES, ek=True)


def listed(*services):
    at = 24 + 24 * len(services)
    table, body = b"", b""
    for guid, data in services:
        table += guid + struct.pack("<II", at + len(body), len(data))
        body += data
    return LIST + struct.pack("<II", at + len(body), len(services)) + table + body


def evidence(kind, service, *, ak=None, own=b""):
    tpm = None if ak is None else TpmPart(ak, b"m", b"s", (), None)
    part = None if service is None else ServicePart(service, own)
    return Evidence(
        platform_kind=kind, nonce=bytes(32), user_data=b"", channel_sha256=b"", caller="",
        report=bytes(1184), certificates=b"", event_log=b"", log_records=0, registers=(),
        tpm=tpm, service=part,
    )  # fmt: skip


def report(**fields):
    return snp_report.parse(made_report.report(**fields))


def verdict(placed):
    return placed.step.code, placed.step.verdict


# --- azure -----------------------------------------------------------------------------------


def on_azure(*, body=None, ak=None, own=b"", service=True, binding=BINDING, blob=None, **fields):
    body = made_hcl.claims(BINDING) if body is None else body
    raw = made_report.report(**({"report_data": made_hcl.bound(body)} | fields))
    data = made_hcl.blob(body, raw) if blob is None else blob(body, raw)
    given = evidence("azure-paravisor", data if service else None, ak=ak, own=own)
    return azure.place(given, snp_report.parse(raw), binding)


def test_claims_that_hold_the_binding():
    found = on_azure(ak=public())
    assert verdict(found) == ("binding", "pass")
    assert found.report_data == made_hcl.bound(made_hcl.claims(BINDING))
    assert (found.in_tpm.code, found.in_tpm.verdict) == ("ak-in-tpm", "pass")
    assert on_azure(ak=public(exponent=65537)).in_tpm.verdict == "pass"
    assert on_azure().in_tpm is None


OTHER = rsa.generate_private_key(65537, 2048)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"service": False}, "no report of the paravisor"),
        ({"own": bytes(1184)}, "second report"),
        ({"binding": BINDING[::-1]}, "something in the evidence"),
        ({"body": made_hcl.claims()}, "something in the evidence"),
        ({"body": made_hcl.claims(BINDING[:63] + b"\0")}, "something in the evidence"),
        ({"report_data": BINDING}, "not the digest of these claims"),
        ({"report_data": bytes(64)}, "not the digest of these claims"),
        ({"report_data": made_hcl.bound(made_hcl.claims(BINDING))[:32] + b"\1" * 32},
         "not the digest of these claims"),
        ({"vmpl": 1}, "VMPL 1"),
        ({"vmpl": 2}, "VMPL 2"),
        ({"body": b'{"keys": []}'}, "HCLAkPub"),
        ({"body": b"{"}, "[json-syntax]"),
        ({"blob": lambda body, raw: b"HCLB" + made_hcl.blob(body, raw)[4:]}, "[hcl-magic]"),
        ({"blob": lambda body, raw: made_hcl.blob(body, raw, report_type=4)}, "type 4"),
        ({"blob": lambda body, raw: made_hcl.blob(body, raw[:-1] + b"\1")}, "another report"),
        ({"blob": lambda body, raw: made_hcl.blob(body, raw, hash_type=2)}, "not the digest"),
    ],
)  # fmt: skip
def test_claims_that_do_not_count(changes, words):
    found = on_azure(**({"ak": public()} | changes))
    assert verdict(found) == ("binding", "fail")
    assert words in found.step.observed
    if "binding" not in changes and "something" not in words:
        # The key of claims that do not count is nobody's.
        assert found.in_tpm is None or found.in_tpm.verdict == "not-checked"


@pytest.mark.parametrize(
    "ak",
    [
        public(OTHER.public_key().public_numbers().n),
        public(exponent=3),
        b"\0\1",
        struct.pack(">HHIHHHHHHH", 0x23, 0x0B, AK_ATTRIBUTES, 0, 0x10, 0x18, 0x0B, 3, 0x10, 32)
        + bytes(32) + struct.pack(">H", 32) + bytes(32),
    ],
    ids=["key", "exponent", "cut", "ecc"],
)  # fmt: skip
def test_another_key_than_the_claims_name(ak):
    found = on_azure(ak=ak)
    assert verdict(found) == ("binding", "pass")
    assert found.in_tpm.verdict == "fail"


# --- svsm ------------------------------------------------------------------------------------


def below_svsm(manifest=EK, *, binding=BINDING, service=True, **fields):
    wanted = hashlib.sha512(BINDING + manifest).digest()
    given = evidence("svsm", manifest if service else None, ak=public())
    return svsm.place(given, report(**({"report_data": wanted} | fields)), binding)


@pytest.mark.parametrize(
    "manifest", [EK, listed((VTPM, EK)), listed((bytes(16), b"x"), (VTPM, EK))]
)
def test_a_manifest_that_is_bound(manifest):
    found = below_svsm(manifest)
    assert verdict(found) == ("binding", "pass")
    assert found.report_data == hashlib.sha512(BINDING + manifest).digest()
    # One-shot evidence never proves where the attestation key is (S4).
    assert (found.in_tpm.code, found.in_tpm.verdict) == ("ak-in-tpm", "not-checked")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"service": False}, "no manifest"),
        ({"binding": BINDING[::-1]}, "something in the evidence"),
        ({"report_data": BINDING}, "something in the evidence"),
        ({"report_data": hashlib.sha512(EK + BINDING).digest()}, "something in the evidence"),
        ({"vmpl": 1}, "VMPL 1"),
        ({"manifest": b""}, "[tpm-structure]"),
        ({"manifest": struct.pack(">H", len(EK)) + EK}, "[tpm-public]"),
        ({"manifest": listed((bytes(16), EK))}, "[svsm-manifest-vtpm]"),
        ({"manifest": listed((VTPM, EK), (VTPM, EK))}, "[svsm-manifest-duplicate]"),
        ({"manifest": listed((VTPM, EK + b"\0"))}, "[tpm-structure]"),
        ({"manifest": public(ek=True, attributes=EK_ATTRIBUTES & ~2)}, "not fixedTPM"),
        ({"manifest": public(ek=True, attributes=EK_ATTRIBUTES & ~(1 << 16))}, "not restricted"),
        ({"manifest": public(ek=True, attributes=EK_ATTRIBUTES | 1 << 18)}, "sign"),
        ({"manifest": public()}, "not decrypt"),
    ],
)
def test_a_manifest_that_does_not_count(changes, words):
    found = below_svsm(**changes)
    assert verdict(found) == ("binding", "fail")
    assert words in found.step.observed
    assert found.in_tpm.verdict == "not-checked"


# --- S1: whose rule it is --------------------------------------------------------------------


def test_a_forged_binding_in_a_report_of_a_guest_without_anything_below():
    """A guest's root writes claims and manifests of its own, with a software AK."""
    body = made_hcl.claims(BINDING)
    forged = evidence("azure-paravisor", made_hcl.blob(body), ak=public())
    own = report(report_data=made_hcl.bound(body))
    assert placement.place(forged, own, BINDING, kind="azure-paravisor").step.verdict == "pass"
    for kind in ("direct", "simulated", "", "svsm"):
        assert placement.place(forged, own, BINDING, kind=kind).step.verdict == "fail"
    forged = evidence("svsm", EK, ak=public())
    own = report(report_data=hashlib.sha512(BINDING + EK).digest())
    assert placement.place(forged, own, BINDING, kind="svsm").step.verdict == "pass"
    for kind in ("direct", "simulated", "", "azure-paravisor"):
        assert placement.place(forged, own, BINDING, kind=kind).step.verdict == "fail"


@pytest.mark.parametrize("kind", ["svsm", "azure-paravisor"])
def test_a_plain_binding_where_a_service_is_below(kind):
    for given in (evidence("direct", None), evidence(kind, EK), evidence(kind, b"")):
        found = placement.place(given, report(report_data=BINDING), BINDING, kind=kind)
        assert found.step.verdict == "fail"


# --- two reports (S28) -----------------------------------------------------------------------


def agreement(binding=BINDING, *, first=(), given=None, raw=None, **second):
    policy = appraisal_policy_toml.parse(made.policy_text().encode(), where="p")
    base = made.FIELDS
    one = snp_report.parse(made.pki().report(**(base | dict(first))))
    if raw is None:
        raw = made.pki().report(**(base | {"vmpl": 2, "report_data": BINDING} | second))
    two = snp_report.parse(raw)
    chain = judge_chain(two, given or made.base_endorsements(), policy, at=made.AT)
    return two_reports.agree(one, two, chain, binding)


def test_two_reports_of_one_guest():
    found = agreement()
    assert (found.code, found.verdict) == ("reports-agree", "pass"), found.observed


TCB = bytes.fromhex("0a00000000001b55")


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ({"report_id": b"\x09" * 32}, "report_id"),
        ({"measurement": b"\x05" * 48}, "measurement"),
        ({"policy": made.FIELDS["policy"] | 1 << 16}, "policy"),
        ({"host_data": bytes(32)}, "host_data"),
        ({"current_tcb": TCB}, "current_tcb"),
        ({"committed_tcb": TCB}, "committed_tcb"),
        ({"launch_tcb": TCB}, "launch_tcb"),
        ({"reported_tcb": TCB}, "reported_tcb"),
        ({"chip_id": b"\x01" * 64}, "chip_id"),
        ({"guest_svn": 8}, "guest_svn"),
        ({"id_key_digest": b"\x01" * 48}, "id_key_digest"),
        ({"vmpl": 0}, "VMPL 0"),
        ({"vmpl": 4}, "VMPL 4"),
        ({"report_data": bytes(64)}, "REPORT_DATA"),
        ({"binding": BINDING[::-1]}, "REPORT_DATA"),
    ],
)
def test_each_difference_counts(second, words):
    found = agreement(**second)
    assert found.verdict == "fail"
    assert words in found.observed


def test_a_second_report_that_nobody_signed():
    raw = bytearray(made.pki().report(**(made.FIELDS | {"vmpl": 2, "report_data": BINDING})))
    raw[0x2A0] ^= 1
    found = agreement(raw=bytes(raw))
    assert found.verdict == "fail"
    assert "report-signature" in found.observed
    assert agreement(given=made.collected(made.pki(), without=("vek",))).verdict == "fail"
    assert agreement(given=made.collected(made.pki(), without=("ark",))).verdict == "fail"
    assert agreement(given=made.collected(made.pki(), without=("list",))).verdict == "pass"
