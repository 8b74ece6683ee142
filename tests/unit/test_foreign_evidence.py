# SPDX-License-Identifier: Apache-2.0
"""Evidence as confidential-containers writes it: genuine documents, and every odd one."""

import base64
import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import made_report
from fuzz import foreign_evidence as fuzzed
from made_foreign import serde, vector
from troth.documents import azure_evidence, foreign, kbs_evidence
from troth.errors import FormatError


def code_of(parse, tree):
    with pytest.raises(FormatError) as caught:
        parse(tree if isinstance(tree, bytes) else json.dumps(tree).encode(), where="e.json")
    assert caught.value.where == "e.json"
    return caught.value.code


# --- az-snp-vtpm -----------------------------------------------------------------------------


def test_genuine_documents_of_both_forms():
    first = azure_evidence.parse(vector("azure/evidence-v0.json"))
    second = azure_evidence.parse(vector("azure/evidence-v1.json"))
    report = vector("snp/milan-v3-azure-hcl.report.bin")
    tree = json.loads(vector("azure/evidence-v1.json"))
    assert second.report == report
    # The same content, signed twice.
    assert first.report[:672] == report[:672]
    assert first.report != report
    assert [len(found.service) for found in (first, second)] == [2600, 2600]
    for found in (first, second):
        assert (found.format, len(found.quote.pcrs)) == ("az-snp-vtpm", 24)
        assert found.quote.message.startswith(b"\xffTCG\x80\x18")
        assert b"challenge" in found.quote.message
        assert len(found.quote.signature) == 256
    assert second.quote.message.hex() == tree["tpm_quote"]["message"]
    assert second.certificates == (("vcek", vector("snp/milan-v3-azure-hcl.vek.der")),)
    assert b"BEGIN CERTIFICATE" in first.certificates[0][1]


def test_version_2_is_written_as_version_1():
    tree = fuzzed.numbered()
    assert azure_evidence.parse(json.dumps(tree | {"version": 2}).encode()) == azure_evidence.parse(
        json.dumps(tree).encode()
    )
    bare = tree | {"vcek": "AA", "hcl_report": tree["hcl_report"].rstrip("=")}
    assert azure_evidence.parse(json.dumps(bare).encode()) == azure_evidence.parse(
        json.dumps(tree).encode()
    )


def changed(tree, path, value):
    tree = copy.deepcopy(tree)
    place = tree
    for key in path[:-1]:
        place = place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return tree


TDX = bytearray(fuzzed.blob())
TDX[1216 + 8] = 4
FOREIGN, UNKNOWN, MISSING, TYPE = "foreign-evidence", "json-unknown", "json-missing", "json-type"
AZURE = [
    (fuzzed.numbered(), ("version",), 3, TYPE),
    (fuzzed.numbered(), ("version",), 0, FOREIGN),
    (fuzzed.numbered(), ("version",), "1", TYPE),
    # The version decides: without a number it would have to be the first form.
    (fuzzed.numbered(), ("version",), None, MISSING),
    (fuzzed.first(), ("version",), 1, MISSING),
    (fuzzed.numbered(), ("report",), [0], UNKNOWN),
    (fuzzed.numbered(), ("vcek",), "", FOREIGN),
    (fuzzed.numbered(), ("vcek",), "AB==", FOREIGN),
    (fuzzed.numbered(), ("vcek",), "A+==", FOREIGN),
    (fuzzed.numbered(), ("vcek",), "AA=", FOREIGN),
    (fuzzed.numbered(), ("vcek",), "é" * 4, FOREIGN),
    (fuzzed.numbered(), ("vcek",), "A" * 100000, FOREIGN),
    (fuzzed.numbered(), ("hcl_report",), "AA==", FOREIGN),
    (fuzzed.numbered(), ("hcl_report",), base64.urlsafe_b64encode(bytes(2600)).decode(),
     "hcl-magic"),
    (fuzzed.numbered(), ("hcl_report",), base64.urlsafe_b64encode(TDX).decode(), FOREIGN),
    (fuzzed.numbered(), ("tpm_quote", "pcrs"), ["00" * 32] * 23, FOREIGN),
    (fuzzed.numbered(), ("tpm_quote", "pcrs"), ["00" * 31] * 24, FOREIGN),
    (fuzzed.numbered(), ("tpm_quote", "pcrs"), ["zz" * 32] * 24, FOREIGN),
    (fuzzed.numbered(), ("tpm_quote", "pcrs"), [[0] * 32] * 24, FOREIGN),
    (fuzzed.numbered(), ("tpm_quote", "message"), "00" * 15, FOREIGN),
    (fuzzed.numbered(), ("tpm_quote", "message"), "0" * 33, FOREIGN),
    (fuzzed.numbered(), ("tpm_quote", "message"), "00" * 1025, FOREIGN),
    (fuzzed.numbered(), ("tpm_quote", "signature"), "00" * 255, FOREIGN),
    (fuzzed.numbered(), ("tpm_quote", "signature"), "00" * 513, FOREIGN),
    (fuzzed.numbered(), ("tpm_quote", "more"), 1, UNKNOWN),
    (fuzzed.first(), ("report",), [0] * 16385, FOREIGN),
    (fuzzed.first(), ("report",), [256] * 2600, FOREIGN),
    (fuzzed.first(), ("report",), [True] * 2600, FOREIGN),
    (fuzzed.first(), ("report",), "AA", FOREIGN),
    (fuzzed.first(), ("vcek",), "é", FOREIGN),
    (fuzzed.first(), ("vcek",), [0], TYPE),
    (fuzzed.first(), ("quote", "pcrs"), {}, FOREIGN),
    (fuzzed.first(), ("quote",), None, MISSING),
]  # fmt: skip


@pytest.mark.parametrize(("tree", "path", "value", "code"), AZURE)
def test_azure_documents_that_are_refused(tree, path, value, code):
    assert code_of(azure_evidence.parse, changed(tree, path, value)) == code


# --- kbs-snp ---------------------------------------------------------------------------------


def test_genuine_reports_are_the_same_bytes_again():
    names = [vector["id"] for vector in made_report.vectors()["vectors"]]
    for name in names:
        raw = vector(f"snp/{name}.report.bin")
        assert kbs_evidence.parse(json.dumps(serde(raw)).encode()).report == raw, name
    assert len(names) >= 6


def test_a_report_of_turin():
    raw = made_report.report(
        version=5, cpuid_family=0x1A, cpuid_model=2, reported_tcb=bytes.fromhex("0102030400000051"),
        policy=0xFFFFFFFFFFFFFFFF, launch_mit_vector=1 << 63, current_mit_vector=3,
        current_build=7, committed_major=1, r=bytes(range(72)), s=bytes(range(100, 172)),
    )  # fmt: skip
    assert kbs_evidence.parse(json.dumps(serde(raw)).encode()).report == raw


def test_certificates():
    chain = [
        {"cert_type": "VCEK", "data": [1, 2]},
        {"cert_type": "Empty", "data": []},
        {"cert_type": {"OTHER": "uuid"}, "data": [3]},
        {"cert_type": "CRL", "data": [4]},
    ]
    found = kbs_evidence.parse(json.dumps(serde(made_report.report(), chain=chain)).encode())
    assert found.certificates == (("vcek-0", b"\1\2"), ("crl-3", b"\4"))
    assert (found.format, found.service, found.quote) == ("kbs-snp", b"", None)
    tree = fuzzed.kbs()
    del tree["cert_chain"]
    assert kbs_evidence.parse(json.dumps(tree).encode()).certificates == ()


R = "attestation_report"
KBS = [
    ((R, "version"), 9, "snp-report-version"),
    ((R, "version"), -1, FOREIGN),
    ((R, "version"), 1 << 32, FOREIGN),
    ((R, "version"), True, FOREIGN),
    ((R, "version"), "3", FOREIGN),
    ((R, "version"), None, MISSING),
    ((R, "policy"), 1 << 64, FOREIGN),
    ((R, "vmpl"), 1.5, "json-number"),
    ((R, "cpuid_fam_id"), 256, FOREIGN),
    ((R, "launch_mit_vector"), -1, FOREIGN),
    ((R, "measurement"), [0] * 47, FOREIGN),
    ((R, "measurement"), [0] * 49, FOREIGN),
    ((R, "measurement"), [-1] * 48, FOREIGN),
    ((R, "measurement"), "00" * 48, FOREIGN),
    ((R, "signature", "r"), [0] * 73, FOREIGN),
    ((R, "signature", "x"), 1, UNKNOWN),
    ((R, "current", "major"), 256, FOREIGN),
    ((R, "current", "more"), 1, UNKNOWN),
    ((R, "current_tcb", "fmc"), 1, "snp-tcb"),
    ((R, "current_tcb", "snp"), 256, FOREIGN),
    ((R, "current_tcb", "more"), 1, UNKNOWN),
    ((R, "more"), 1, UNKNOWN),
    (("cert_chain",), [{"cert_type": "VCEK", "data": []}] * 17, FOREIGN),
    (("cert_chain",), {}, FOREIGN),
    (("cert_chain", 0, "cert_type"), "vcek", FOREIGN),
    (("cert_chain", 0, "cert_type"), ["VCEK"], FOREIGN),
    (("cert_chain", 0, "data"), [300], FOREIGN),
    (("cert_chain", 0, "data"), [0] * 65537, FOREIGN),
    (("cert_chain", 0, "more"), 1, UNKNOWN),
    (("cert_chain", 0, "cert_type"), {"OTHER": 1}, TYPE),
]


@pytest.mark.parametrize(("path", "value", "code"), KBS)
def test_kbs_documents_that_are_refused(path, value, code):
    assert code_of(kbs_evidence.parse, changed(fuzzed.kbs(), path, value)) == code


def test_what_is_too_long():
    for parse in (azure_evidence.parse, kbs_evidence.parse):
        assert code_of(parse, b" " * (foreign.MAX_DOCUMENT_BYTES + 1)) == "json-size"
        assert code_of(parse, b"[]") == "json-type"


# --- anything --------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner,
                                                                max_size=4),
    max_leaves=8,
)  # fmt: skip


def leaves(tree, path=()):
    items = tree.items() if isinstance(tree, dict) else ()
    for key, value in items:
        yield (*path, key)
        yield from leaves(value, (*path, key))


MADE = (fuzzed.first(), fuzzed.numbered(), fuzzed.kbs())


@settings(max_examples=60)
@given(st.sampled_from([(t, p) for t in MADE for p in leaves(t)]), JSON)
def test_one_value_replaced_by_any(place, value):
    tree, path = place
    fuzzed.fuzz(json.dumps(changed(tree, path, value)).encode())


@settings(max_examples=60)
@given(st.binary(max_size=300))
def test_random_bytes(data):
    fuzzed.fuzz(data)


@settings(max_examples=60)
@given(st.sampled_from(fuzzed.SEEDS), st.integers(0, 20000), st.integers(0, 255))
def test_changed_bytes(seed, at, value):
    data = bytearray(seed)
    data[at % len(data)] = value
    fuzzed.fuzz(bytes(data))


def test_seeds():
    for seed in fuzzed.SEEDS:
        fuzzed.fuzz(seed)
