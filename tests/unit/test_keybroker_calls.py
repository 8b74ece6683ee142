# SPDX-License-Identifier: Apache-2.0
"""The broker's calls over loopback TLS, by a client that is written by hand."""

import json
import os

import pytest

import made_broker as made
from made_broker import Guest
from troth.keybroker import classes, resources, volume_state
from troth.keybroker.volume_state import Volume

D1, D2 = "11" * 32, "22" * 32


@pytest.fixture
def broker(tmp_path):
    clock = made.Clock()
    with made.running(made.kept(tmp_path / "db"), clock=clock) as found:
        found.clock = clock
        yield found


def test_whole_life(broker):
    with broker.client() as client:
        guest = Guest(client).handshake()
        status, text = guest.get()
        assert status == 200
        found = json.loads(text)
        assert (found["state"], found["generation"], found["volume"]) == (
            "formatting",
            0,
            made.UUID,
        )
        assert guest.commit(1, D1) == (200, {})
        assert guest.commit(1, D1) == (200, {})
        assert guest.commit(3, D2)[0] == 401
        assert guest.finish() == (200, {})
        # The session is over, and so is the guest.
        assert guest.get()[0] == 401
        status, answer = guest.attest(guest.auth())
        assert (status, answer["detail"].split(";")[0]) == (401, "the evidence was not accepted")
        broker.clock.at += 61
        other = Guest(client, report_id=b"\x09" * 32).handshake()
        found = json.loads(other.get()[1])
        assert (found["state"], found["generation"], found["record"]) == ("in-use", 1, D1)
    lines = broker.audit()
    assert [(item["event"], item["code"]) for item in lines] == [
        ("attest", "accepted"), ("release", "released"), ("commit", "committed"),
        ("commit", "committed-already"), ("commit", "commit-generation"),
        ("boot-finished", "finished"), ("attest", "boot-finished"), ("attest", "accepted"),
        ("release", "released"),
    ]  # fmt: skip
    assert lines[-1]["over"] == "08" * 32
    text = (broker.folder / "audit.jsonl").read_text()
    assert made.KEY.hex() not in text
    assert guest.token not in text


def test_as_guest_components_do(broker):
    """GET first, read the error, shake hands, GET again; the cookie jar sends what it got."""
    with broker.client() as client:
        guest = Guest(client)
        status, answer = guest.get()
        assert status == 401
        assert set(answer) == {"type", "detail"}
        assert (
            answer["type"] == "https://github.com/confidential-containers/kbs/errors/TokenNotFound"
        )
        request = {
            "version": "0.4.0", "tee": "snp",
            "extra-params": {"supported-hash-algorithms": ["sha256", "sha384", "sha512", "sm3"]},
        }  # fmt: skip
        status, fields, answer = client.ask("POST", "/kbs/v0/auth", request)
        assert status == 200
        assert set(answer) == {"nonce", "extra-params"}
        assert (answer["extra-params"], len(answer["nonce"])) == ("", 44)
        name, _, rest = fields["set-cookie"].partition("=")
        value, _, attributes = rest.partition("; ")
        assert (name, len(value), set(value) <= set("0123456789abcdef")) == (
            "kbs-session-id", 32, True,
        )  # fmt: skip
        assert attributes.startswith("Expires=")
        assert attributes.endswith(" GMT")
        guest.cookie = f"{name}={value}"
        status, first = guest.attest(answer["nonce"])
        assert status == 200
        # Once more in an attested session gives the same token.
        assert guest.attest("another") == (200, first)
        assert guest.get()[0] == 200


def test_token_in_the_place_of_the_cookie(broker):
    with broker.client() as client:
        guest = Guest(client).handshake()
        bearer = [f"authorization: Bearer {guest.token}"]
        status, _, answer = client.ask("GET", f"/kbs/v0/resource/{made.PATH}", fields=bearer)
        assert status == 200, answer
        head, body, _signature = guest.token.split(".")
        pad = lambda text: text + "=" * (-len(text) % 4)  # noqa: E731
        decoded = json.loads(made.base64.urlsafe_b64decode(pad(body)))
        assert decoded["exp"] - decoded["nbf"] == 300
        claims = decoded["submods"]["cpu0"]["ear.veraison.annotated-evidence"]
        assert claims["runtime_data_claims"]["tee-pubkey"] == guest.jwk
        assert json.loads(made.base64.urlsafe_b64decode(pad(head)))["alg"] == "ES256"
        for token in (f"{head}.{body}.AAAA", f"{head}.{body[:-4]}AAAA.{_signature}", "x", "a.b.c"):
            status, _, answer = client.ask(
                "GET", f"/kbs/v0/resource/{made.PATH}", fields=[f"authorization: Bearer {token}"]
            )
            assert (status, answer["type"].rpartition("/")[2]) == (401, "TokenVerifierError")
        broker.clock.at += 300
        status, _, answer = client.ask("GET", f"/kbs/v0/resource/{made.PATH}", fields=bearer)
        assert status == 401


def test_one_release_a_guest_and_volume(broker):
    with broker.client() as client:
        guest = Guest(client).handshake()
        assert guest.get()[0] == 200
        # The answer may have been lost: the same key gets the same again, for a minute.
        assert json.loads(guest.get()[1])["state"] == "formatting"
        anew = Guest(client).handshake()
        assert anew.get() == (401, _error("PolicyDeny", "released-already"))
        broker.clock.at += 61
        assert guest.get() == (401, _error("PolicyDeny", "released-already"))


def test_lease(broker):
    with broker.client() as client:
        assert Guest(client).handshake().get()[0] == 200
        other = Guest(client, report_id=b"\x09" * 32).handshake()
        assert other.get() == (401, _error("PolicyDeny", "volume-formatting"))
        broker.clock.at += volume_state.FORMAT_S
        assert other.handshake().get()[0] == 200
        assert Guest(client).handshake().commit(1, D1) == (
            401, _error("PolicyDeny", "commit-not-holder"),
        )  # fmt: skip


def _error(name, detail):
    return {
        "type": f"https://github.com/confidential-containers/kbs/errors/{name}", "detail": detail,
    }  # fmt: skip


def test_what_is_not_there_looks_like_what_is_not_granted(broker):
    store = broker.store
    made_values = made.with_digest(made.values(image_name="other"), "0b" * 48)
    classes.add(
        store, made.document(made_values), [made.signer().public], pending=False, at=made.AT
    )
    resources.add_opaque(store, "default/app/secret", b"opaque", images=["other"], at=made.AT)
    with broker.client() as client:
        guest = Guest(client).handshake()
        denied = (401, _error("PolicyDeny", "resource-not-granted"))
        assert guest.get("default/app/nothing") == denied
        assert guest.get("default/app/secret") == denied
        assert [item["code"] for item in broker.audit()[1:]] == [
            "resource-missing", "resource-not-granted",
        ]  # fmt: skip
        other = Guest(client, image="other", report_id=b"\x0a" * 32).handshake()
        assert other.get("default/app/secret") == (200, b"opaque")
        assert other.commit(1, D1, "default/app/secret") == (
            401, _error("PolicyDeny", "resource-no-volume"),
        )  # fmt: skip
        again = Guest(client, image="other", report_id=b"\x0a" * 32).handshake()
        assert again.get("default/app/secret")[0] == 401


def test_retired_between_evidence_and_key(broker):
    with broker.client() as client:
        guest = Guest(client).handshake()
        assert classes.retire(broker.store, "demo", None) == (3,)
        assert guest.get() == (401, _error("PolicyDeny", "class-not-active"))
        assert guest.commit(1, D1)[0] == 401


def test_nonces_are_used_once_and_die(broker):
    with broker.client() as client:
        guest = Guest(client)
        nonce = guest.auth()
        assert guest.attest(nonce, {"code": "no"})[0] == 401
        assert guest.attest(nonce)[0] == 401
        # That of another session.
        nonce = guest.auth()
        guest.auth()
        assert guest.attest(nonce)[0] == 401
        nonce = guest.auth()
        broker.clock.at += 120
        assert guest.attest(nonce)[0] == 401
        nonce = guest.auth()
        guest.cookie = ""
        assert guest.attest(nonce)[0] == 401
        # What is no evidence at all ends the session as well.
        for body in (b"{", {"runtime-data": {}}):
            nonce = guest.auth()
            assert guest.ask("POST", "/kbs/v0/attest", body)[0] == 401
            assert guest.attest(nonce)[0] == 401
        # An attested session ends too.
        guest.handshake()
        broker.clock.at += 300
        assert guest.get()[0] == 401


def test_odd_requests(broker):
    old = {"version": "0.1.1", "tee": "snp", "extra-params": ""}
    with broker.client() as client:
        status, _, answer = client.ask("POST", "/kbs/v0/auth", old)
        assert status == 401
        assert "0.4.0" in answer["detail"]
        for body in (b"{", b"[]", b'{"version":"0.4.0","tee":"snp"}', b"[" * 5000):
            status, _, answer = client.ask("POST", "/kbs/v0/auth", body)
            assert (status, answer["type"].rpartition("/")[2]) == (401, "AttestationError")
        for method, path in (
            ("GET", "/"), ("GET", "/kbs/v0/auth"), ("POST", "/kbs/v0/resource/a/b/c"),
            ("POST", "/spiffe/v1/issue"), ("POST", "/kbs/v0/resource-policy"),
        ):  # fmt: skip
            status, _, answer = client.ask(method, path, b"{}")
            assert (status, answer["type"].rpartition("/")[2]) == (404, "InvalidRequestPath")
        assert client.ask("GET", "/healthz")[0] == 200
        guest = Guest(client)
        for body in (b"{", b"{}", b'{"a":' * 3000):
            guest.auth()
            assert guest.ask("POST", "/kbs/v0/attest", body)[0] == 401
        guest.handshake()
        assert guest.get("a/b")[0] == 404
        assert guest.get("a/b/../c")[0] == 404
        assert guest.get(f"{made.PATH}?query=1")[0] == 200
        for body in (b"{}", b'{"generation":0,"record":"%s"}' % D1.encode(), b"1"):
            assert guest.ask("POST", f"/kbs/v0/troth/commit/{made.PATH}", body)[0] == 401
        assert guest.ask("POST", "/kbs/v0/troth/boot-finished", b"[]")[0] == 401
        assert guest.commit(1, D1) == (200, {})


def test_keys_that_nothing_can_be_encrypted_to(broker):
    with broker.client() as client:
        guest = Guest(client)
        nonce = guest.auth()
        body = {
            "init-data": None,
            "runtime-data": {"nonce": nonce, "tee-pubkey": guest.jwk | {"x": "A" * 43}},
            "tee-evidence": {"primary_evidence": {}, "additional_evidence": ""},
        }  # fmt: skip
        assert guest.ask("POST", "/kbs/v0/attest", body)[0] == 401
        assert guest.attest(nonce)[0] == 401
        assert not broker.broker._sessions._sessions


def test_formatted_elsewhere(tmp_path):
    volume = Volume(state="in-use", generation=4, record=D2, lease_s=0)
    with (
        made.running(made.kept(tmp_path / "db", volume=volume)) as broker,
        broker.client() as client,
    ):
        found = json.loads(Guest(client).handshake().get()[1])
        assert (found["state"], found["generation"], found["record"]) == ("in-use", 4, D2)
        other = Guest(client, report_id=b"\x09" * 32).handshake()
        assert other.get()[0] == 200
        assert other.commit(5, D1) == (200, {})
    assert resources.every(broker.store)[0].volume.taken_over == 1


def test_disk_full_releases_nothing(broker, monkeypatch, capsys):
    with broker.client() as client:
        guest = Guest(client).handshake()
        full = os.open("/dev/full", os.O_WRONLY)
        monkeypatch.setattr(broker.broker._audit, "_fd", full)
        assert guest.get()[0] == 500
        monkeypatch.undo()
        os.close(full)
        assert "[broker-audit]" in capsys.readouterr().err
        assert resources.every(broker.store)[0].volume.state == "new"
        assert guest.get()[0] == 200
