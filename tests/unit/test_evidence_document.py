# SPDX-License-Identifier: Apache-2.0
"""evidence.json: the document by hand, its binding by hand, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz import evidence as fuzzed
from troth.abi import cert_table, hcl, snp_report, svsm_manifest
from troth.documents import binding, event_log_json, evidence
from troth.documents.evidence import Counters, Evidence, PcrValue, ServicePart, TpmPart
from troth.errors import FormatError

PAGE = Path(__file__).parents[2] / "docs" / "formats.md"


def b64(data):
    return base64.b64encode(data).decode()


def tree(**changes):
    """A document written by hand, as people would."""
    whole = {
        "schema": "troth-evidence-v1",
        "platform_kind": "svsm",
        "nonce": bytes(range(32)).hex(),
        "user_data": b"hello".hex(),
        "channel_key_sha256": "11" * 32,
        "caller": "uid=65534 gid=65534 unit=app.service",
        "report": b64(bytes(range(148)) * 8),
        "certificates": b64(b"table"),
        "event_log": b64(b'{"recnum":0}\n'),
        "log_records": 1,
        "registers": [
            {"name": "sha256:14", "value": "55" * 32},
            {"name": "software", "value": "44" * 48},
        ],
        "tpm": {
            "ak_public": b64(b"public"),
            "attest": b64(b"message"),
            "signature": b64(b"signed"),
            "pcrs": [
                {"bank": "sha256", "index": 11, "value": "66" * 32},
                {"bank": "sha256", "index": 14, "value": "55" * 32},
            ],
            "counters": {"reset_count": 3, "restart_count": 4, "clock_ms": 5_000_000_000},
        },
        "service": {"data": b64(b"manifest"), "report": ""},
    }
    return whole | changes


def of(**changes):
    return json.dumps(tree(**changes)).encode()


def tpm(**changes):
    return tree()["tpm"] | changes


WHOLE = Evidence(
    platform_kind="svsm",
    nonce=bytes(range(32)),
    user_data=b"hello",
    channel_sha256=b"\x11" * 32,
    caller="uid=65534 gid=65534 unit=app.service",
    report=bytes(range(148)) * 8,
    certificates=b"table",
    event_log=b'{"recnum":0}\n',
    log_records=1,
    registers=(("sha256:14", b"\x55" * 32), ("software", b"\x44" * 48)),
    tpm=TpmPart(
        b"public",
        b"message",
        b"signed",
        (PcrValue("sha256", 11, b"\x66" * 32), PcrValue("sha256", 14, b"\x55" * 32)),
        Counters(3, 4, 5_000_000_000),
    ),
    service=ServicePart(b"manifest", b""),
)


def test_the_document_by_hand():
    assert evidence.parse(of()) == WHOLE
    printed = evidence.print_(WHOLE)
    assert json.loads(printed) == tree()
    assert printed == json.dumps(tree(), sort_keys=True, separators=(",", ":")).encode() + b"\n"


def test_the_binding_by_hand():
    registers = b"".join(
        struct.pack("<I", len(name)) + name + struct.pack("<I", len(value)) + value
        for name, value in (
            (b"sha256:14", b"\x55" * 32),
            (b"software", b"\x44" * 48),
            (b"tpm-counters", struct.pack("<IIQ", 3, 4, 5_000_000_000)),
        )
    )
    name = b"\x00\x0b" + b"\x22" * 32
    fields = (
        (1, struct.pack("<I", 1)),
        (2, b"troth-evidence-v1"),
        (3, bytes(range(32))),
        (4, b"svsm"),
        (5, b"\x11" * 32),
        (6, name),
        (7, hashlib.sha256(b"messagesigned").digest()),
        (8, registers),
        (9, hashlib.sha384(b'{"recnum":0}\n').digest()),
        (10, struct.pack("<Q", 1)),
        (11, b"uid=65534 gid=65534 unit=app.service"),
        (12, b"hello"),
    )
    body = b"".join(struct.pack("<BI", kind, len(value)) + value for kind, value in fields)
    assert evidence.binding_of(WHOLE, ak_name=name) == hashlib.sha512(body).digest()


#: Every value that is bound, changed; what is left out proves itself in another way.
BOUND = {
    "platform_kind": "azure-paravisor",
    "nonce": "00" * 32,
    "user_data": "",
    "channel_key_sha256": "",
    "caller": "uid=0 gid=0 unit=-",
    "event_log": b64(b'{"recnum":1}\n'),
    "log_records": 2,
    "registers": tree()["registers"][1:],
    "tpm": None,
}


@pytest.mark.parametrize("name", BOUND)
def test_what_is_bound(name):
    changed = evidence.parse(of(**{name: BOUND[name]}))
    assert evidence.binding_of(changed, ak_name=b"") != evidence.binding_of(WHOLE, ak_name=b"")


@pytest.mark.parametrize(
    "change",
    [
        {"attest": b64(b"messagf")},
        {"signature": b64(b"signfd")},
        {"counters": None},
        {"counters": {"reset_count": 4, "restart_count": 3, "clock_ms": 5_000_000_000}},
        {"counters": {"reset_count": 3, "restart_count": 4, "clock_ms": 5_000_000_001}},
    ],
)
def test_what_of_the_tpm_is_bound(change):
    changed = evidence.parse(of(tpm=tpm(**change)))
    assert evidence.binding_of(changed, ak_name=b"") != evidence.binding_of(WHOLE, ak_name=b"")


def test_an_empty_quote_differs_from_none():
    with pytest.raises(FormatError, match="attest"):
        evidence.parse(of(tpm=tpm(attest="")))


def registers(*names):
    return [{"name": name, "value": "00"} for name in names]


def pcrs(*keys):
    return [{"bank": bank, "index": index, "value": "00" * 32} for bank, index in keys]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (of(schema="troth-evidence-v2"), "json-type"),
        (of(platform_kind="gce"), "json-type"),
        (of(platform_kind="direct"), "evidence-service"),
        (of(platform_kind="simulated"), "evidence-service"),
        (of(nonce="00" * 15), "evidence-size"),
        (of(nonce="00" * 65), "evidence-size"),
        (of(nonce="AB" * 32), "evidence-value"),
        (of(nonce="0" * 33), "evidence-value"),
        (of(user_data="00" * 4097), "evidence-size"),
        (of(channel_key_sha256="11" * 31), "evidence-size"),
        (of(channel_key_sha256="11" * 33), "evidence-size"),
        (of(caller="uid=0\n"), "evidence-value"),
        (of(caller="uid=\u0660"), "evidence-value"),
        (of(caller="a" * 4097), "evidence-size"),
        (of(report=b64(bytes(1183))), "evidence-size"),
        (of(report=b64(bytes(1185))), "evidence-size"),
        (of(report=""), "evidence-size"),
        (of(certificates=b64(bytes((1 << 20) + 1))), "evidence-size"),
        (of(certificates="AA=A"), "evidence-value"),
        (of(certificates="AAA"), "evidence-value"),
        (of(certificates="AB=="), "evidence-value"),
        (of(certificates="AA==\n"), "evidence-value"),
        (of(certificates="_-=="), "evidence-value"),
        (of(certificates="\u00e9" * 4), "evidence-value"),
        (of(certificates=None), "json-type"),
        (of(log_records=-1), "json-type"),
        (of(log_records=True), "json-type"),
        (of(registers=registers("b", "a")), "evidence-registers"),
        (of(registers=registers("a", "a")), "evidence-registers"),
        (of(registers=registers("tpm-counters")), "evidence-registers"),
        (of(registers=registers(*(f"{n:02}" for n in range(65)))), "evidence-size"),
        (of(registers=registers("")), "evidence-size"),
        (of(registers=registers("a\u0000")), "evidence-value"),
        (of(registers=[{"name": "a", "value": ""}]), "evidence-size"),
        (of(registers=[{"name": "a", "value": "00" * 65}]), "evidence-size"),
        (of(registers={}), "json-type"),
        (of(tpm={}), "json-missing"),
        (of(tpm=tpm(extra=1)), "json-unknown"),
        (of(tpm=tpm(ak_public="")), "evidence-size"),
        (of(tpm=tpm(ak_public=b64(bytes(1025)))), "evidence-size"),
        (of(tpm=tpm(attest=b64(bytes(4097)))), "evidence-size"),
        (of(tpm=tpm(signature=b64(bytes(1025)))), "evidence-size"),
        (of(tpm=tpm(pcrs=pcrs(("sha256", 24)))), "json-type"),
        (of(tpm=tpm(pcrs=pcrs(("sm3", 1)))), "json-type"),
        (of(tpm=tpm(pcrs=pcrs(("sha384", 1)))), "evidence-size"),
        (of(tpm=tpm(pcrs=pcrs(("sha256", 2), ("sha256", 1)))), "evidence-registers"),
        (of(tpm=tpm(pcrs=pcrs(("sha256", 1), ("sha256", 1)))), "evidence-registers"),
        (of(tpm=tpm(counters={"reset_count": 1})), "json-missing"),
        (
            of(tpm=tpm(counters={"reset_count": 1 << 32, "restart_count": 0, "clock_ms": 0})),
            "json-type",
        ),
        (of(service={"data": "", "report": ""}), "evidence-size"),
        (of(service={"data": b64(b"m"), "report": b64(bytes(1183))}), "evidence-size"),
        (of(service={"data": b64(b"m")}), "json-missing"),
        (of(extra=1), "json-unknown"),
        (json.dumps({k: v for k, v in tree().items() if k != "service"}).encode(), "json-missing"),
        (of()[:-1] + b',"nonce":""}', "json-duplicate"),
        (b"[]", "json-type"),
        (b"\xff", "json-syntax"),
        (b" " * (32 << 20) + b"{}", "json-size"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refusals(data, code):
    with pytest.raises(FormatError) as caught:
        evidence.parse(data, where="evidence.json")
    assert caught.value.code == code
    assert caught.value.where == "evidence.json"


def test_bounds_fit_what_they_bound():
    assert evidence.REPORT_BYTES == snp_report.REPORT_BYTES == hcl.HARDWARE_REPORT_BYTES
    assert evidence.MAX_LOG_BYTES == event_log_json.LIMIT_BYTES
    assert evidence.MAX_CERTIFICATES_BYTES >= cert_table.MAX_TABLE_BYTES
    assert max(svsm_manifest.MAX_BYTES, hcl.MAX_BYTES) <= evidence.MAX_SERVICE_BYTES
    largest = evidence.MAX_LOG_BYTES + evidence.MAX_CERTIFICATES_BYTES + evidence.MAX_SERVICE_BYTES
    assert largest * 4 / 3 + (1 << 20) < evidence.LIMIT_BYTES


@pytest.mark.parametrize(
    ("name", "pcr"),
    [
        ("sha256:14", ("sha256", 14)),
        ("sha384:0", ("sha384", 0)),
        ("sha256:014", None),
        ("sha256:24", None),
        ("sha256:\u0661", None),
        ("sha256:", None),
        ("sm3:14", None),
        ("software", None),
    ],
)
def test_names_of_pcrs(name, pcr):
    assert evidence.pcr_of(name) == pcr
    if pcr is not None:
        assert evidence.pcr_name(*pcr) == name


def test_it_is_packed_without_cryptography():
    """A fresh interpreter that imports the module has no OpenSSL in it."""
    import subprocess

    program = "import sys, troth.documents.evidence; print('\\n'.join(sys.modules))"
    found = subprocess.run(
        [sys.executable, "-ISc", f"import sys; sys.path[:] = {sys.path!r}; {program}"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert "troth.documents.evidence" in found
    assert not {"_hashlib", "hashlib", "cryptography", "dataclasses", "ssl"} & set(found)


def test_the_page_names_every_field():
    section = PAGE.read_text().split("## evidence.json")[1].split("\n## ")[0]
    for name in (
        *tree(),
        *(f"tpm.{key}" for key in tree()["tpm"]),
        "service.data",
        "service.report",
    ):
        assert f"`{name}" in section, name
    assert binding.EVIDENCE_TAG.decode() in section


pcr_keys = st.tuples(st.sampled_from(("sha256", "sha384")), st.integers(0, 23))
names = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=64)
parts = st.one_of(
    st.none(),
    st.builds(
        TpmPart,
        ak_public=st.binary(min_size=1, max_size=9),
        attest=st.binary(min_size=1, max_size=9),
        signature=st.binary(min_size=1, max_size=9),
        pcrs=st.sets(pcr_keys, max_size=4).map(
            lambda keys: tuple(
                PcrValue(bank, index, bytes(32 if bank == "sha256" else 48))
                for bank, index in sorted(keys)
            )
        ),
        counters=st.none() | st.builds(
            Counters,
            reset_count=st.integers(0, 2**32 - 1),
            restart_count=st.integers(0, 2**32 - 1),
            clock_ms=st.integers(0, 2**53 - 1),
        ),
    ),
)  # fmt: skip


@given(
    st.builds(
        Evidence,
        platform_kind=st.sampled_from(evidence.SERVICE_KINDS),
        nonce=st.binary(min_size=16, max_size=64),
        user_data=st.binary(max_size=40),
        channel_sha256=st.sampled_from((b"", bytes(32))),
        caller=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30),
        report=st.binary(min_size=4, max_size=4).map(lambda four: four * 296),
        certificates=st.binary(max_size=40),
        event_log=st.binary(max_size=40),
        log_records=st.integers(0, 2**53 - 1),
        registers=st.dictionaries(
            names.filter(lambda name: name != "tpm-counters"),
            st.binary(min_size=1, max_size=64),
            max_size=5,
        ).map(lambda found: tuple(sorted(found.items()))),
        tpm=parts,
        service=st.none() | st.builds(
            ServicePart, data=st.binary(min_size=1, max_size=9), report=st.just(bytes(1184))
        ),
    )
)  # fmt: skip
def test_round_trip(made):
    assert evidence.parse(evidence.print_(made)) == made


@given(st.binary(max_size=200))
def test_random_bytes(data):
    fuzzed.fuzz(data)


@given(st.sampled_from(fuzzed.SEEDS), st.integers(0, 4000), st.binary(max_size=3))
def test_mutated_documents(data, at, put):
    at %= len(data)
    fuzzed.fuzz(data[:at] + put + data[at + 1 :])
