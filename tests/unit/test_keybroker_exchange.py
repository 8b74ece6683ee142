# SPDX-License-Identifier: Apache-2.0
"""Recorded exchanges of the key broker protocol, replayed against the broker."""

import json

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

import made_broker as made
from made_foreign import vector
from troth.ciphers.key_agreement import AgreementKey
from troth.ciphers.key_transport import TransportKey
from troth.documents import base64_text, jwe, kbs
from troth.keybroker import resources
from troth.keybroker.appraisal import Verdict

pytestmark = pytest.mark.vectors


def recorded(curve):
    return json.loads(vector("tpm/kbs/kbs-exchange-generated.json"))[curve]


class TakesSamples:
    """Judges evidence of the TEE "sample" as Trustee does: by its report data alone."""

    def appraise(self, tee, request, *, at):
        said = json.loads(request.evidence)
        bound = base64_text.from_standard(said["report_data"]) == kbs.report_data(request)[:48]
        good = tee == "sample" and bound
        return Verdict("accepted" if good else "no", "", "demo", 3, bytes(32), bytes(48))


@pytest.fixture
def opaque(tmp_path):
    kept = made.kept(tmp_path / "db")
    plain = recorded("P-256")["resource_plaintext"].encode()
    resources.add_opaque(kept, "default/key/one", plain, images=["demo"], at=made.AT)
    return kept


@pytest.mark.parametrize("curve", ["P-256", "P-521"])
def test_exchange(opaque, curve):
    found = recorded(curve)
    nonce = base64_text.from_standard(found["challenge"]["nonce"])

    def random(size):
        return nonce if size == 32 else b"\x5a" * size

    with made.running(opaque, TakesSamples(), random=random) as broker, broker.client() as client:
        text = json.dumps(found["auth_request"]).encode()
        client.send("POST", "/kbs/v0/auth", text)
        status, fields, body = client.receive()
        assert status == 200
        assert body == json.dumps(found["challenge"], separators=(",", ":")).encode()
        cookie = dict(fields)["set-cookie"].partition(";")[0]
        assert cookie == "kbs-session-id=" + "5a" * 16
        with_it = [f"cookie: {cookie}"]
        status, _, answer = client.ask(
            "POST", "/kbs/v0/attest", found["attest_request"], fields=with_it
        )
        assert status == 200, answer
        assert answer["token"].count(".") == 2
        status, _, answer = client.ask("GET", "/kbs/v0/resource/default/key/one", fields=with_it)
        assert status == 200
        assert list(answer) == list(found["resource_response"])
        private = load_pem_private_key(found["private_key_pem"].encode(), None)
        sealed = jwe.parse(json.dumps(answer).encode())
        assert AgreementKey(private=private).open(sealed) == found["resource_plaintext"].encode()
        # A client that prints the header anew must come to the same letters.
        header = json.loads(base64_text.from_url(sealed.protected))
        again = json.dumps(header, separators=(",", ":")).encode()
        assert base64_text.url(again) == sealed.protected
        assert [*header, *header["epk"]] == ["alg", "enc", "epk", "crv", "kty", "x", "y"]


def test_exchange_with_an_rsa_key(opaque):
    found = recorded("RSA")
    with made.running(opaque) as broker, broker.client() as client:
        guest = made.Guest(client)
        nonce = guest.auth()
        body = {
            "init-data": None,
            "runtime-data": {"nonce": nonce, "tee-pubkey": found["tee-pubkey"]},
            "tee-evidence": {"primary_evidence": {}, "additional_evidence": ""},
        }
        assert guest.ask("POST", "/kbs/v0/attest", body)[0] == 200
        status, answer = guest.ask("GET", "/kbs/v0/resource/default/key/one")
        assert status == 200
        private = load_pem_private_key(found["private_key_pem"].encode(), None)
        sealed = jwe.parse(json.dumps(answer).encode())
        assert TransportKey(private=private).open(sealed) == b"disk key 32 bytes .............."


def test_samples_are_no_evidence_here(tmp_path):
    """The broker as it is takes none of them, whatever their report data says."""
    kept = made.kept(tmp_path / "db")
    found = recorded("P-256")
    nonce = base64_text.from_standard(found["challenge"]["nonce"])
    judge = made.appraiser(kept, tmp_path)

    def random(size):
        return nonce if size == 32 else bytes(size)

    with made.running(kept, judge, random=random) as broker, broker.client() as client:
        client.ask("POST", "/kbs/v0/auth", found["auth_request"])
        cookie = [f"cookie: kbs-session-id={'0' * 32}"]
        status, _, _ = client.ask("POST", "/kbs/v0/attest", found["attest_request"], fields=cookie)
        assert status == 401
        assert broker.audit()[-1]["code"] == "tee-not-taken"


def test_spoilt_exchange(opaque):
    found = recorded("P-256")
    nonce = base64_text.from_standard(found["challenge"]["nonce"])

    def random(size):
        return nonce if size == 32 else bytes(size)

    with made.running(opaque, TakesSamples(), random=random) as broker, broker.client() as client:
        request = found["attest_request"]
        request["runtime-data"]["tee-pubkey"] = made.Guest(client).jwk
        client.ask("POST", "/kbs/v0/auth", found["auth_request"])
        cookie = [f"cookie: kbs-session-id={'0' * 32}"]
        assert client.ask("POST", "/kbs/v0/attest", request, fields=cookie)[0] == 401
