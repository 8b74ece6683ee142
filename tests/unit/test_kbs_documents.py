# SPDX-License-Identifier: Apache-2.0
"""Messages of the key broker protocol: what is taken, what is refused, what is printed."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import made_report
import made_tls
from fuzz import certificate_key as fuzz_certificate_key
from fuzz import http_answer as fuzz_http_answer
from fuzz import jwe as fuzz_jwe
from fuzz import kbs as fuzz_kbs
from made_foreign import vector
from troth.abi import cert_table, certificate_key, hkdf
from troth.boot.key_sources import platform
from troth.ciphers import key_agreement
from troth.ciphers.key_agreement import AgreementKey
from troth.documents import (
    base64_text,
    broker_calls,
    jwe,
    jwk,
    kbs,
    kbs_error,
    kbs_evidence,
    strict,
)
from troth.errors import FormatError
from troth.record import replace

UUID = fuzz_kbs.UUID


def code_of(parse, data):
    with pytest.raises(FormatError) as caught:
        parse(data if isinstance(data, bytes) else json.dumps(data).encode())
    return caught.value.code


# --- hello and challenge --------------------------------------------------------------------


@pytest.mark.parametrize("extra", ["", None, {}, 1, ["a"], {"supported-hash-algorithms": []}])
def test_peers_say_what_they_like_beside_it(extra):
    tree = {"version": "0.4.0", "tee": "snp", "extra-params": extra}
    assert kbs.parse_auth(json.dumps(tree).encode()) == kbs.AuthRequest("snp")


def test_what_we_say_ourselves():
    assert kbs.print_auth(kbs.AuthRequest("snp")) == (
        b'{"version":"0.4.0","tee":"snp","extra-params":'
        b'{"supported-hash-algorithms":["sha256","sha384","sha512"]}}'
    )
    assert kbs.print_challenge(kbs.Challenge("a=")) == b'{"nonce":"a=","extra-params":""}'
    assert kbs.print_token("a.b") == b'{"token":"a.b"}'


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"version": "0.4"}, "kbs-version"),
        ({"version": "0.4.1"}, "kbs-version"),
        ({"version": "0.2.0"}, "kbs-version"),
        ({"version": " 0.4.0"}, "kbs-version"),
        ({"version": 4}, "json-type"),
        ({"tee": "SNP"}, "json-type"),
        ({"tee": ""}, "json-type"),
        ({"more": 1}, "json-unknown"),
    ],
)
def test_hellos_that_are_refused(change, code):
    tree = {"version": "0.4.0", "tee": "snp", "extra-params": ""} | change
    assert code_of(kbs.parse_auth, tree) == code


def test_a_hello_is_whole():
    assert code_of(kbs.parse_auth, {"version": "0.4.0", "tee": "snp"}) == "json-missing"
    assert code_of(kbs.parse_auth, b" " * (1 << 20) + b"{}") == "json-size"


@pytest.mark.parametrize(
    ("tree", "code"),
    [
        ({"nonce": "", "extra-params": ""}, "kbs-nonce"),
        ({"nonce": "a b", "extra-params": ""}, "kbs-nonce"),
        ({"nonce": "\u00e9", "extra-params": ""}, "kbs-nonce"),
        ({"nonce": "a" * 257, "extra-params": ""}, "kbs-nonce"),
        ({"nonce": "a", "extra-params": {"selected-hash-algorithm": "sha512"}}, "kbs-hash"),
        ({"nonce": "a", "extra-params": {"selected-hash-algorithm": None}}, "kbs-hash"),
        ({"nonce": "a"}, "json-missing"),
        ({"nonce": "a", "extra-params": "", "x": 1}, "json-unknown"),
    ],
)
def test_challenges_that_are_refused(tree, code):
    assert code_of(kbs.parse_challenge, tree) == code


@pytest.mark.parametrize("token", ["a b", "\n", "\u00e9", "a" * 70000])
def test_tokens_that_are_refused(token):
    assert code_of(kbs.parse_token, {"token": token}) == "kbs-token"


def test_sessions_are_uuids_without_dashes():
    assert kbs.is_session("0123456789abcdef" * 2)
    for text in ("", "0" * 31, "0" * 33, "G" * 32, "A" * 32, "\u0660" * 32):
        assert not kbs.is_session(text)


# --- evidence -------------------------------------------------------------------------------


def attest(path=(), value=None):
    tree = json.loads(kbs.print_attest(fuzz_kbs.REQUEST))
    place = tree
    for step in path[:-1]:
        place = place[step]
    if path and value is ...:
        del place[path[-1]]
    elif path:
        place[path[-1]] = value
    return tree


KEY = ("runtime-data", "tee-pubkey")
EVIDENCE = "tee-evidence"


@pytest.mark.parametrize(
    ("path", "value", "code"),
    [
        (("init-data",), {"format": "json", "body": ""}, "json-type"),
        (("init-data",), {"format": "toml", "body": "a" * 70000}, "kbs-init-data"),
        (("init-data",), {"format": "toml", "body": "\ud800"}, "kbs-init-data"),
        (("init-data",), "x", "json-type"),
        (("runtime-data", "nonce"), " ", "kbs-nonce"),
        (("runtime-data", "more"), 1, "json-unknown"),
        (("runtime-data", "tee-pubkey"), {}, "json-missing"),
        ((*KEY, "kty"), "AKP", "json-type"),
        ((*KEY, "crv"), "P-384", "json-type"),
        ((*KEY, "alg"), "ECDH-ES", "json-type"),
        ((*KEY, "alg"), ..., "json-missing"),
        ((*KEY, "x"), "AA", "jwk-form"),
        ((*KEY, "x"), base64_text.url(bytes(33)), "jwk-form"),
        ((*KEY, "x"), base64_text.standard(b"\xff" * 32), "jwk-form"),
        ((*KEY, "x"), base64_text.url(bytes(32)) + "=", "jwk-form"),
        ((*KEY, "d"), "AA", "json-unknown"),
        ((*KEY, "kid"), "AA", "json-unknown"),
        ((EVIDENCE, "primary_evidence"), "x", "kbs-evidence"),
        ((EVIDENCE, "primary_evidence"), None, "kbs-evidence"),
        ((EVIDENCE, "additional_evidence"), None, "json-type"),
        ((EVIDENCE, "additional_evidence"), "\udfff", "kbs-evidence"),
        ((EVIDENCE, "more"), 1, "json-unknown"),
        (("more",), 1, "json-unknown"),
        ((EVIDENCE,), ..., "json-missing"),
    ],
)
def test_evidence_that_is_refused(path, value, code):
    assert code_of(kbs.parse_attest, attest(path, value)) == code


def test_evidence_that_is_nested_without_end():
    text = json.dumps(attest(("tee-evidence", "primary_evidence"), {"a": "@"}))
    for depth in (900, 990, 5000, 100_000):
        deep = text.replace('"@"', "[" * depth + "]" * depth).encode()
        try:
            kbs.parse_attest(deep)
        except FormatError as error:
            assert error.code in ("json-syntax", "kbs-evidence")


@pytest.mark.vectors
@pytest.mark.parametrize(
    "name",
    ["tpm/trustee/tpm_evidence.json", "azure/evidence-v0.json", "azure/evidence-v1.json"],
)
def test_evidence_of_every_kind_passes_untouched(name):
    tree = json.loads(vector(name))
    sent = kbs.AttestRequest("n", fuzz_kbs.KEY, json.dumps(tree).encode())
    found = kbs.parse_attest(kbs.print_attest(sent))
    assert json.loads(found.evidence) == tree
    assert kbs.report_data(found) == kbs.report_data(sent)


def test_init_data_may_be_left_out():
    assert kbs.parse_attest(json.dumps(attest(("init-data",), ...)).encode()).init_data is None
    assert kbs.parse_attest(json.dumps(attest(("init-data",), None)).encode()).init_data is None
    assert kbs.parse_attest(json.dumps(attest()).encode()).init_data == "version = 1"


RSA = {"kty": "RSA", "alg": "RSA-OAEP-256", "n": base64_text.url(b"\xc1" * 256), "e": "AQAB"}


@pytest.mark.parametrize(
    "change",
    [
        {"n": base64_text.url(b"\xc1" * 128)},
        {"n": base64_text.url(b"\xc1" * 513)},
        {"n": base64_text.url(b"\0" + b"\xc1" * 256)},
        {"n": base64_text.url(b"\xc0" * 256)},
        {"n": ""},
        {"e": "AQ"},
        {"e": "AA"},
        {"e": base64_text.url(b"\1\0")},
        {"e": base64_text.url(b"\1\0\0\0\1")},
    ],
)
def test_rsa_keys_that_are_refused(change):
    def parse(tree):
        return jwk.parse(strict.Reader(tree))

    assert parse(RSA) == jwk.RsaPublicKey(b"\xc1" * 256, b"\1\0\1")
    with pytest.raises(FormatError) as caught:
        parse(RSA | change)
    assert caught.value.code == "jwk-form"


def test_report_data_depends_on_key_nonce_and_further_evidence():
    request = fuzz_kbs.REQUEST
    found = {
        kbs.report_data(item)
        for item in (
            request,
            replace(request, nonce="other"),
            replace(request, additional_evidence="{}"),
            replace(request, tee_pubkey=jwk.EcPublicKey(jwk.P256, b"\1" * 32, b"\3" * 32)),
        )
    }
    assert len(found) == 4
    assert all(item[48:] == bytes(16) for item in found)
    same = replace(request, evidence=b"{}", init_data=None)
    assert kbs.report_data(same) == kbs.report_data(request)


def test_reports_that_the_protocol_cannot_carry():
    raw = made_report.report()
    odd = raw[:0x4C] + b"\1" + raw[0x4D:]
    with pytest.raises(FormatError) as caught:
        kbs_evidence.print_(odd)
    assert caught.value.code == "kbs-evidence-reserved"


def test_certificates_of_a_report():
    guid = "00000000-0000-0000-0000-000000000001"
    text = kbs_evidence.print_(made_report.report(), (("vlek", b"\1"), ("crl", b""), (guid, b"\2")))
    chain = json.loads(text)["cert_chain"]
    assert chain == [
        {"cert_type": "VLEK", "data": [1]},
        {"cert_type": "CRL", "data": []},
        {"cert_type": {"OTHER": guid}, "data": [2]},
    ]
    assert json.loads(kbs_evidence.print_(made_report.report()))["cert_chain"] is None
    turin = made_report.report(
        version=5, cpuid_family=0x1A, cpuid_model=2, launch_mit_vector=1 << 63,
        reported_tcb=bytes.fromhex("0102030400000051"), policy=(1 << 64) - 1,
    )  # fmt: skip
    assert kbs_evidence.parse(kbs_evidence.print_(turin)).report == turin


def test_a_hosts_certificates_for_the_broker():
    der = made_tls.authority()
    pem = made_tls.ssl.DER_cert_to_PEM_cert(der).encode()
    table = cert_table.build(
        tuple(
            cert_table.Entry(guid, blob)
            for guid, blob in ((cert_table.VCEK, der), (cert_table.ASK, pem), (cert_table.CRL, der))
        )
    )
    assert platform.certificates_of(table) == (("vcek", der), ("ask", der))
    assert platform.certificates_of(b"") == ()
    broken = cert_table.build((cert_table.Entry(cert_table.ARK, pem.replace(b"M", b"*")),))
    assert code_of(platform.certificates_of, broken) == "cert-table-pem"


# --- errors and troth's own calls -----------------------------------------------------------


def test_errors_are_printed_as_peers_read_them():
    error = kbs_error.BrokerError("PolicyDeny", "no")
    assert kbs_error.print_(error) == (
        b'{"type":"https://github.com/confidential-containers/kbs/errors/PolicyDeny","detail":"no"}'
    )
    assert kbs_error.parse(kbs_error.print_(error)) == error


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"type":"PolicyDeny","detail":"a\\nb\\u001b[2J"}', "PolicyDeny: a?b?[2J"),
        (b'{"type":"x/","detail":"","more":1}', "unnamed"),
        (b"<html>\n", "<html>?"),
        (b"", "no reason was given"),
        (b'{"type":"A","detail":"' + b"x" * 1000 + b'"}', "A: " + "x" * 297 + "..."),
        (b"\xff" * 9, "?" * 9),
    ],
)
def test_what_is_shown_of_an_error(body, said):
    assert kbs_error.said(body) == said


@pytest.mark.parametrize(
    ("parse", "tree", "code"),
    [
        (lambda d: broker_calls.parse_commit(d, named=False),
         {"generation": 0, "record": "ab" * 32}, "json-type"),
        (lambda d: broker_calls.parse_commit(d, named=False),
         {"generation": 1, "record": "AB" * 32}, "json-type"),
        (lambda d: broker_calls.parse_commit(d, named=False),
         {"generation": 1, "record": "ab" * 32, "disk_uuid": UUID}, "json-unknown"),
        (lambda d: broker_calls.parse_commit(d, named=True),
         {"generation": 1, "record": "ab" * 32}, "json-missing"),
        (lambda d: broker_calls.parse_commit(d, named=True),
         {"generation": 1, "record": "ab" * 32, "disk_uuid": UUID.upper()}, "broker-call"),
        (broker_calls.parse_key_request, {"disk_uuid": ""}, "broker-call"),
        (broker_calls.parse_issue, {"csr": ""}, "broker-call"),
        (broker_calls.parse_issue, {"csr": "A"}, "broker-call"),
        (broker_calls.parse_issue, {"csr": base64_text.standard(bytes(9000))}, "broker-call"),
        (broker_calls.parse_svid, {"svid": []}, "broker-call"),
        (broker_calls.parse_svid, {"svid": ["AAAA"] * 5}, "broker-call"),
        (broker_calls.parse_svid, {"svid": "AAAA"}, "json-type"),
        (broker_calls.parse_nothing, {"a": 1}, "json-unknown"),
        (broker_calls.parse_nothing, [], "json-type"),
    ],
)  # fmt: skip
def test_own_calls_that_are_refused(parse, tree, code):
    assert code_of(parse, tree) == code


# --- encryption -----------------------------------------------------------------------------


def sealed(**parts):
    tree = json.loads(jwe.print_(key_agreement.seal(AgreementKey().public, b"key")))
    return tree | parts


def header(**parts):
    tree = {"alg": "ECDH-ES+A256KW", "enc": "A256GCM", "epk": fuzz_epk()} | parts
    kept = {name: value for name, value in tree.items() if value is not ...}
    return sealed(protected=base64_text.url(json.dumps(kept).encode()))


def fuzz_epk(**parts):
    return jwk.ephemeral_tree(AgreementKey().public) | parts


@pytest.mark.parametrize(
    ("tree", "code"),
    [
        (header(alg="dir"), "jwe-algorithm"),
        (header(alg="ECDH-ES"), "jwe-algorithm"),
        (header(alg="RSA1_5"), "jwe-algorithm"),
        (header(alg="none"), "jwe-algorithm"),
        (header(alg=None), "jwe-algorithm"),
        (header(alg=["ECDH-ES+A256KW"]), "jwe-algorithm"),
        (header(enc="A128GCM"), "jwe-algorithm"),
        (header(enc="A256CBC-HS512"), "jwe-algorithm"),
        (header(alg=...), "json-missing"),
        (header(epk=...), "json-missing"),
        (header(zip="DEF"), "json-unknown"),
        (header(crit=["x"]), "json-unknown"),
        (header(apu="AA"), "json-unknown"),
        (header(alg="RSA-OAEP-256"), "json-unknown"),
        (header(epk=fuzz_epk(crv="P-384")), "json-type"),
        (header(epk=fuzz_epk(kty="OKP")), "json-type"),
        (header(epk=fuzz_epk(x="AA")), "jwk-form"),
        (header(epk=fuzz_epk(d="AA")), "json-unknown"),
        (sealed(protected="*"), "jwe-form"),
        (sealed(protected="A" * 3000), "jwe-form"),
        (sealed(protected=""), "json-syntax"),
        (sealed(encrypted_key=""), "jwe-form"),
        (sealed(encrypted_key="AAAA"), "jwe-form"),
        (sealed(iv="AAAA"), "jwe-form"),
        (sealed(tag=""), "jwe-form"),
        (sealed(tag=base64_text.url(bytes(15))), "jwe-form"),
        (sealed(ciphertext="=="), "jwe-form"),
        (sealed(aad="AA"), "json-unknown"),
        (sealed(header={}), "json-unknown"),
        (sealed(unprotected={}), "json-unknown"),
    ],
)
def test_encrypted_things_that_are_refused_unopened(tree, code):
    assert code_of(jwe.parse, tree) == code


def test_the_order_that_peers_need():
    point = jwk.EcPublicKey(jwk.P256, bytes(32), bytes(32))
    zeros = "A" * 43
    text = base64_text.from_url(jwe.protect(jwk.ECDH, point)).decode()
    assert text == (
        '{"alg":"ECDH-ES+A256KW","enc":"A256GCM",'
        f'"epk":{{"crv":"P-256","kty":"EC","x":"{zeros}","y":"{zeros}"}}}}'
    )


def test_points_off_the_curve_and_at_infinity():
    for x, y in ((bytes(32), bytes(32)), (b"\xff" * 32, b"\xff" * 32)):
        with pytest.raises(FormatError) as caught:
            key_agreement.seal(jwk.EcPublicKey(jwk.P256, x, y), b"")
        assert caught.value.code == "jwk-curve"


@settings(max_examples=10)
@given(st.binary(max_size=300), st.sampled_from([jwk.P256, jwk.P521]))
def test_what_is_sealed_opens(text, curve):
    own = AgreementKey(curve)
    assert own.open(jwe.parse(jwe.print_(key_agreement.seal(own.public, text)))) == text


# --- small things ---------------------------------------------------------------------------


@settings(max_examples=50)
@given(st.binary(max_size=80))
def test_base64_has_one_text_for_each_value(data):
    assert base64_text.from_url(base64_text.url(data)) == data
    assert base64_text.from_standard(base64_text.standard(data)) == data


@settings(max_examples=200)
@given(st.text(alphabet="AB_-+/=\n \u0100g0", max_size=12))
def test_no_other_text_is_base64(text):
    for read, write in (
        (base64_text.from_url, base64_text.url),
        (base64_text.from_standard, base64_text.standard),
    ):
        found = read(text)
        assert found is None or write(found) == text


def test_hkdf_of_the_standard():
    """RFC 5869, test cases 1 and 3."""
    key, salt = b"\x0b" * 22, bytes(range(13))
    found = hkdf.hkdf_sha256(key, bytes(range(0xF0, 0xFA)), size_bytes=42, salt=salt)
    assert found.hex() == (
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )
    found = hkdf.hkdf_sha256(key, b"", size_bytes=42)
    assert found.hex() == (
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    )


@pytest.mark.parametrize(
    "data",
    [
        b"", b"0\0", b"0\x80\0\0", b"0\x82\0\5" + bytes(5), b"0\x84\0\0\0\5" + bytes(5),
        b"0\3\x02\1\0", bytes(70000), made_tls.authority()[:-1], made_tls.authority() + b"\0",
    ],
)  # fmt: skip
def test_no_key_in_what_is_no_certificate(data):
    assert code_of(certificate_key.public_key_info, data) == "der-value"


def test_a_length_has_one_spelling():
    der = made_tls.authority()
    assert der[:2] == b"\x30\x82"
    assert code_of(certificate_key.public_key_info, b"\x30\x83\0" + der[2:]) == "der-value"


@settings(max_examples=60)
@given(st.data())
def test_nothing_from_outside_leads_astray(data):
    """The fuzz entries' own statements, over damaged seeds."""
    for target in (fuzz_kbs, fuzz_jwe, fuzz_http_answer, fuzz_certificate_key):
        seed = bytearray(data.draw(st.sampled_from(target.SEEDS)))
        for _ in range(data.draw(st.integers(0, 3))):
            at = data.draw(st.integers(0, len(seed) - 1))
            seed[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
            seed = seed or bytearray(b"{")
        target.fuzz(bytes(seed))


@settings(max_examples=60)
@given(st.binary(max_size=200))
def test_noise_is_refused(data):
    for target in (fuzz_kbs, fuzz_jwe, fuzz_http_answer, fuzz_certificate_key):
        target.fuzz(data)
