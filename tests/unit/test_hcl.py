# SPDX-License-Identifier: Apache-2.0
"""Reports of Azure's paravisor, written by hand around a genuine hardware report."""

import base64
import hashlib
import json
import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz import hcl as fuzzed
from troth.abi import hcl, snp_report
from troth.documents import hcl_claims
from troth.errors import FormatError

VECTORS = Path(os.environ.get("TROTH_VECTORS", Path(__file__).parents[3] / "shared/vectors"))
MODULUS = (1 << 2047) + 12345
HARDWARE = bytes(range(256)) * 4 + bytes(160)


def b64(number):
    raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def claims(**changes):
    tree = {
        "keys": [
            {"kid": "HCLAkPub", "key_ops": ["sign"], "kty": "RSA", "e": "AQAB", "n": b64(MODULUS)},
            {
                "kid": "HCLEkPub",
                "key_ops": ["encrypt"],
                "kty": "RSA",
                "e": "AQAB",
                "n": b64(3**700),
            },
        ],
        "vm-configuration": {"secure-boot": True, "tpm-enabled": True, "vmUniqueId": "A-B"},
        "user-data": "C0" * 64,
    }
    return json.dumps(tree | changes).encode()


def written(body, *, pad=2600, extra=b"", **changes):
    """The NV index, each field by its name in the paravisor's source."""
    fields = {
        "signature": b"HCLA",
        "version": 1,
        "report_size": 1236 + len(body),
        "request_type": 2,
        "status": 0,
        "data_size": 20 + len(extra) + len(body),
        "report_version": 1,
        "report_type": 2,
        "hash_type": 1,
        "var_size": len(body),
    } | changes
    head = ("version", "report_size", "request_type", "status")
    tail = ("data_size", "report_version", "report_type", "hash_type", "var_size")
    return (
        fields["signature"]
        + struct.pack("<4I12x", *(fields[name] for name in head))
        + HARDWARE
        + struct.pack("<5I", *(fields[name] for name in tail))
        + extra
        + body
    ).ljust(pad, b"\0")


def code_of(function, *arguments):
    with pytest.raises(FormatError) as caught:
        function(*arguments, where="nv")
    assert caught.value.where == "nv"
    return caught.value.code


def test_a_report_and_what_binds_its_claims():
    found = hcl.parse(written(claims()))
    assert found == hcl.HclReport(1, 2, 0, hcl.SNP, 1, HARDWARE, claims())
    assert found.report_data == hashlib.sha256(claims()).digest() + bytes(32)


@pytest.mark.parametrize(("number", "name"), [(1, "sha256"), (2, "sha384"), (3, "sha512")])
def test_the_digest_it_names(number, name):
    found = hcl.parse(written(b"{}", hash_type=number))
    assert found.report_data == hashlib.new(name, b"{}").digest().ljust(64, b"\0")


def test_version_2_with_and_without_capabilities():
    assert hcl.parse(written(claims(), version=2)).claims == claims()
    assert hcl.parse(written(claims(), version=2, extra=b"\1\0\0\0")).claims == claims()
    assert code_of(hcl.parse, written(claims(), extra=b"\1\0\0\0")) == "hcl-bounds"


def test_the_genuine_report_binds_a_sha256():
    path = VECTORS / "snp/milan-v3-azure-hcl.report.bin"
    if not path.exists():
        pytest.skip(f"no vectors at {path} (set TROTH_VECTORS)")
    report = snp_report.parse(path.read_bytes())
    assert (report.vmpl, report.report_data[32:]) == (0, bytes(32))
    assert any(report.report_data[:32])


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "hcl-magic"),
        (written(b"{}", signature=b"HCLB"), "hcl-magic"),
        (written(b"{}")[:1235], "hcl-size"),
        (written(b"{}", pad=16385), "hcl-size"),
        (written(b"{}", version=0), "hcl-version"),
        (written(b"{}", version=3), "hcl-version"),
        (written(b"{}", hash_type=0), "hcl-hash"),
        (written(b"{}", hash_type=4), "hcl-hash"),
        (written(b"{}", var_size=3), "hcl-bounds"),
        (written(b"{}", data_size=21), "hcl-bounds"),
        (written(b"{}", data_size=0xFFFFFFFF, var_size=0xFFFFFFEB), "hcl-bounds"),
        (written(b"{}", pad=0, data_size=23, var_size=3), "hcl-bounds"),
        (written(b"{}", data_size=0, var_size=0), "hcl-bounds"),
    ],
)
def test_what_is_refused(data, code):
    assert code_of(hcl.parse, data) == code


def test_claims():
    found = hcl_claims.parse(claims())
    assert found.key("HCLAkPub") == hcl_claims.RsaKey(MODULUS, 65537)
    assert found.key("HCLEkPub") == hcl_claims.RsaKey(3**700, 65537)
    assert found.key("other") is None
    assert found.user_data == b"\xc0" * 64
    assert found.vm_configuration["secure-boot"] is True


def test_no_user_data_is_zeros():
    tree = json.loads(claims())
    del tree["user-data"], tree["vm-configuration"]
    found = hcl_claims.parse(json.dumps(tree | {"new": 1}).encode())
    assert (found.user_data, found.vm_configuration) == (bytes(64), {})


KEY = json.loads(claims())["keys"][0]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"user-data": "00"}, "hcl-claims"),
        ({"user-data": "zz" * 64}, "hcl-claims"),
        ({"keys": {}}, "hcl-claims"),
        ({"keys": [KEY, KEY]}, "hcl-claims"),
        ({"keys": [KEY] * 17}, "hcl-claims"),
        ({"keys": [KEY | {"n": "AQAB"}]}, "hcl-claims"),
        ({"keys": [KEY | {"n": b64(1 << 8192)}]}, "hcl-claims"),
        ({"keys": [KEY | {"e": "AQ"}]}, "hcl-claims"),
        ({"keys": [KEY | {"e": "AQAB="}]}, "hcl-claims"),
        ({"keys": [KEY | {"e": "A"}]}, "hcl-claims"),
        ({"keys": [KEY | {"e": "é"}]}, "hcl-claims"),
        ({"keys": [KEY | {"kty": "EC"}]}, "json-type"),
        ({"keys": [1]}, "json-type"),
        ({"vm-configuration": []}, "hcl-claims"),
    ],
)
def test_claims_that_are_refused(changes, code):
    assert code_of(hcl_claims.parse, claims(**changes)) == code


@given(st.integers(0, 1235), st.integers(1, 255))
def test_changed_headers(at, change):
    data = bytearray(written(claims()))
    data[at] ^= change
    fuzzed.fuzz(bytes(data))


@given(st.binary(max_size=300))
def test_random_bytes(data):
    fuzzed.fuzz(data)


def test_seeds():
    for seed in (*fuzzed.SEEDS, written(claims()), claims()):
        fuzzed.fuzz(seed)
