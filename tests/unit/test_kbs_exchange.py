# SPDX-License-Identifier: Apache-2.0
"""Whole exchanges of the key broker protocol, made elsewhere: both sides agree with them."""

import json

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jwcrypto import jwe as other_jwe
from jwcrypto import jwk as other_jwk

import made_report
from made_foreign import serde, vector
from troth.abi import hashes
from troth.ciphers import sealing
from troth.ciphers.key_agreement import AgreementKey
from troth.ciphers.key_transport import TransportKey
from troth.documents import base64_text, jwe, jwk, kbs, kbs_evidence, strict

KINDS = ("P-256", "P-521", "RSA")


def exchange(kind):
    return json.loads(vector("tpm/kbs/kbs-exchange-generated.json"))[kind]


def own_key(kind):
    private = load_pem_private_key(exchange(kind)["private_key_pem"].encode(), None)
    return TransportKey(private=private) if kind == "RSA" else AgreementKey(private=private)


def compact(tree):
    return json.dumps(tree, separators=(",", ":")).encode()


@pytest.mark.vectors
@pytest.mark.parametrize("kind", KINDS[:2])
def test_the_messages_are_the_same_bytes(kind):
    told = exchange(kind)
    begun = kbs.parse_auth(compact(told["auth_request"]))
    assert begun == kbs.AuthRequest("sample")
    challenge = kbs.parse_challenge(compact(told["challenge"]))
    assert kbs.print_challenge(challenge) == compact(told["challenge"])
    asked = kbs.parse_attest(compact(told["attest_request"]))
    assert asked.tee_pubkey == own_key(kind).public
    assert kbs.print_attest(asked) == compact(told["attest_request"])
    assert kbs.runtime_data(asked).decode() == told["canonical_runtime_data"]
    assert kbs.report_data(asked).hex() == told["report_data_sha384_hex"] + "00" * 16
    evidence = json.loads(asked.evidence)
    assert base64_text.from_standard(evidence["report_data"]) == kbs.report_data(asked)[:48]


@pytest.mark.vectors
@pytest.mark.parametrize("kind", KINDS)
def test_what_was_encrypted_elsewhere_opens(kind):
    told = exchange(kind)
    sealed = jwe.parse(compact(told["resource_response"]))
    assert own_key(kind).open(sealed).decode() == told["resource_plaintext"]
    assert jwe.print_(sealed) == compact(told["resource_response"])
    # A peer prints the header anew before it decrypts: ours comes out as the same letters.
    assert jwe.protect(sealed.algorithm, sealed.ephemeral) == sealed.protected
    assert compact(jwk.tree(own_key(kind).public)) == compact(told_pubkey(told))


def told_pubkey(told):
    return told.get("tee-pubkey") or told["attest_request"]["runtime-data"]["tee-pubkey"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_we_encrypt_opens_elsewhere(kind):
    if kind == "RSA":
        theirs = other_jwk.JWK.generate(kty="RSA", size=2048)
    else:
        theirs = other_jwk.JWK.generate(kty="EC", crv=kind)
    public = theirs.export_public(as_dict=True)
    public.pop("kid", None)
    public["alg"] = "RSA-OAEP-256" if kind == "RSA" else "ECDH-ES+A256KW"
    ours = jwk.parse(strict.Reader(public))
    text = jwe.print_(sealing.seal(ours, b"a key"))
    token = other_jwe.JWE()
    token.deserialize(text.decode(), theirs)
    assert token.payload == b"a key"


def test_and_what_others_encrypt_opens_here():
    for own in (AgreementKey(), AgreementKey(jwk.P521), TransportKey()):
        theirs = other_jwk.JWK(**{k: v for k, v in jwk.tree(own.public).items() if k != "alg"})
        header = {"alg": jwk.algorithm(own.public), "enc": "A256GCM"}
        token = other_jwe.JWE(b"a key", json.dumps(header), recipient=theirs)
        names = ("protected", "encrypted_key", "iv", "ciphertext", "tag")
        parts = token.serialize(compact=True).split(".")
        text = compact(dict(zip(names, parts, strict=True)))
        assert own.open(jwe.parse(text)) == b"a key"


def test_the_known_answer_for_canonical_data():
    """Trustee's own test of its hash, first and last letters."""
    tree = {"b": 1, "a": "test", "c": {"d": "e"}}
    found = hashes.digest("sha384", strict.canonical(tree)).hex()
    assert (found[:8], found[-6:]) == ("e71ce8e7", "8870c3")


@pytest.mark.vectors
def test_genuine_reports_survive_the_journey():
    names = [item["id"] for item in made_report.vectors()["vectors"]]
    assert len(names) >= 6
    for name in names:
        raw = vector(f"snp/{name}.report.bin")
        certificates = (("vcek", b"0\1"), ("ask", b"0\2"), ("ark", b"0\3"))
        text = kbs_evidence.print_(raw, certificates)
        found = kbs_evidence.parse(text)
        assert found.report == raw, name
        assert [data for _name, data in found.certificates] == [b"0\1", b"0\2", b"0\3"]
        # The same values that another hand computed from the same bytes.
        assert same(json.loads(text)["attestation_report"], serde(raw)["attestation_report"])


def same(ours, theirs):
    return all(ours[key] == value for key, value in theirs.items())
