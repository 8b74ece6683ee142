# SPDX-License-Identifier: Apache-2.0
"""Identities in SPIFFE's form: issued to attested guests, shown for keys, and misused."""

import base64
import contextlib
import json
import ssl
import time
import warnings
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

import made_broker as made
from made_broker import Guest
from troth.ciphers import issued_by
from troth.ciphers.key_agreement import AgreementKey
from troth.documents import jwe
from troth.errors import FormatError, UsageError
from troth.keybroker import classes, issuer
from troth.keybroker.issuer import Issuer
from troth.keybroker.release import Attested
from troth.signing import service_certificates as certificates
from troth.signing.service_certificates import Authority

D1 = "11" * 32
PEM = serialization.Encoding.PEM
DER = serialization.Encoding.DER


def request(private, subject="guest", *, uri=None):
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    )
    if uri:
        name = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
        builder = builder.add_extension(name, critical=False)
    return builder.sign(private, hashes.SHA256()).public_bytes(DER)


@pytest.fixture
def broker(tmp_path):
    # TLS asks the clock of this machine whether a certificate is valid.
    found = made.kept(tmp_path / "db")
    clock = made.Clock(int(time.time()))
    with made.running(found, trust_domain="example.org", clock=clock) as running:
        running.clock = clock
        yield running


def issued(guest, key=None):
    """(status, [DER...] or the answer)."""
    csr = request((key or guest.key).private_key(), uri="spiffe://example.org/vm/admin")
    status, answer = guest.ask("POST", "/spiffe/v1/issue", {"csr": base64.b64encode(csr).decode()})
    if status != 200:
        return status, answer
    return status, [base64.b64decode(item) for item in answer["svid"]]


def files(tmp_path, private, chain, name="svid"):
    path = tmp_path / f"{name}.pem"
    key = private.private_bytes(
        PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(key + "".join(map(ssl.DER_cert_to_PEM_cert, chain[:1])).encode())
    return (str(path),)


def key_request(client, uuid=made.UUID):
    return client.ask("POST", "/spiffe/v1/key", {"disk_uuid": uuid})


def test_from_evidence_to_key(broker, tmp_path):
    with broker.client() as client:
        guest = Guest(client).handshake()
        status, chain = issued(guest)
        assert status == 200
    leaf, root = (x509.load_der_x509_certificate(item) for item in chain)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    # What the request asked for is not what it got.
    assert [item.value for item in names] == ["spiffe://example.org/vm/demo"]
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.digital_signature, usage.key_cert_sign, usage.crl_sign) == (True, False, False)
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc <= timedelta(minutes=15)
    leaf.verify_directly_issued_by(root)
    # As a guest that pins the issuer looks at it.
    shown = issued_by.check_identity(chain[0], [chain[1]], at=int(time.time()))
    assert shown == "spiffe://example.org/vm/demo"
    with broker.client(certificate=files(tmp_path, guest.key.private_key(), chain)) as client:
        status, _, answer = key_request(client)
        assert status == 200, answer
        found = json.loads(guest.key.open(jwe.parse(json.dumps(answer).encode())))
        assert (found["volume"], found["state"]) == (made.UUID, "formatting")
        body = {"disk_uuid": made.UUID, "generation": 1, "record": D1}
        assert client.ask("POST", "/spiffe/v1/commit", body)[0] == 200
        assert key_request(client)[0] == 401
        status, _, answer = key_request(client, "1" + made.UUID[1:])
        assert (status, answer["detail"]) == (401, "resource-not-granted")
        for body in (b"{}", b'{"disk_uuid":"x"}'):
            assert client.ask("POST", "/spiffe/v1/key", body)[0] == 401
            assert client.ask("POST", "/spiffe/v1/commit", body)[0] == 401
    codes = [(item["event"], item["code"]) for item in broker.audit()]
    assert codes[:4] == [
        ("attest", "accepted"), ("issue", "issued"), ("release", "released"),
        ("commit", "committed"),
    ]  # fmt: skip


def test_one_release_whichever_way(broker, tmp_path):
    with broker.client() as client:
        guest = Guest(client).handshake()
        other = AgreementKey("P-521")
        _status, chain = issued(guest, other)
        assert guest.get()[0] == 200
    with broker.client(certificate=files(tmp_path, other.private_key(), chain)) as client:
        status, _, answer = key_request(client)
        assert (status, answer["detail"]) == (401, "released-already")


def test_refusals(broker, tmp_path):
    with broker.client() as client:
        assert key_request(client)[0] == 401
        assert client.ask("POST", "/spiffe/v1/commit", {})[0] == 401
        guest = Guest(client)
        assert issued(guest)[0] == 401
        guest.handshake()
        for body in (b"{}", b'{"csr":""}', b'{"csr":"AAAA"}', b"["):
            assert guest.ask("POST", "/spiffe/v1/issue", body)[0] == 401
        p384 = ec.generate_private_key(ec.SECP384R1())
        csr = base64.b64encode(request(p384)).decode()
        status, answer = guest.ask("POST", "/spiffe/v1/issue", {"csr": csr})
        assert (status, answer["detail"]) == (401, "a guest's key is on P-256 or P-521")
        _status, chain = issued(guest)
        assert guest.finish()[0] == 200
        with broker.client(certificate=files(tmp_path, guest.key.private_key(), chain)) as own:
            status, _, answer = key_request(own)
            assert (status, answer["detail"]) == (401, "boot-finished")


def test_no_identity_for_a_class_that_was_retired(broker):
    with broker.client() as client:
        guest = Guest(client).handshake()
        classes.retire(broker.store, "demo", None)
        status, answer = issued(guest)
        assert (status, answer["detail"]) == (401, "class-not-active")
    assert [(item["event"], item["code"]) for item in broker.audit()] == [
        ("attest", "accepted"), ("issue", "class-not-active"),
    ]  # fmt: skip


def test_an_identity_ends(broker, tmp_path):
    with broker.client() as client:
        guest = Guest(client).handshake()
        _status, chain = issued(guest)
    broker.clock.at += issuer.LIFE_S
    with broker.client(certificate=files(tmp_path, guest.key.private_key(), chain)) as client:
        assert key_request(client)[0] == 401


def test_the_issuers_key_alone_is_nothing(broker, tmp_path):
    """Whoever copied it can write a certificate, which the database does not know."""
    folder = broker.folder
    authority = Authority(
        (folder / "issuer.key").read_bytes(), (folder / "issuer.pem").read_bytes()
    )
    thief = AgreementKey()
    key = certificates.request_key(request(thief.private_key()))
    now = datetime.now(UTC)
    span = {"not_before": now - timedelta(minutes=1), "not_after": now + timedelta(minutes=5)}
    _serial, der = authority.issue(key, "spiffe://example.org/vm/demo", **span)
    with broker.client(certificate=files(tmp_path, thief.private_key(), [der])) as client:
        status, _, answer = key_request(client)
        assert (status, answer["type"].rpartition("/")[2]) == (401, "TokenVerifierError")
    # Nor does TLS take another issuer's.
    stranger = Authority.make(certificates.new_authority_key(), "spiffe://example.org", **span)
    _serial, der = stranger.issue(key, "spiffe://example.org/vm/demo", **span)
    with (
        pytest.raises(OSError),
        broker.client(certificate=files(tmp_path, thief.private_key(), [der])) as client,
    ):
        key_request(client)


def test_trust_domain_is_for_life(tmp_path):
    found = made.kept(tmp_path / "db")
    assert issuer.settled_domain(found, None) == ""
    for odd in ("", "a/b", "UPPER", "x" * 256):
        with pytest.raises(UsageError):
            issuer.settled_domain(found, odd)
    assert issuer.settled_domain(found, "a.example") == "a.example"
    assert issuer.settled_domain(found, None) == "a.example"
    with pytest.raises(UsageError, match=r"is a\.example"):
        issuer.settled_domain(found, "b.example")


def test_a_certificate_that_names_another_guest(tmp_path):
    found = made.kept(tmp_path / "db")
    key = certificates.new_authority_key()
    span = {"not_before": datetime.now(UTC), "not_after": datetime.now(UTC) + timedelta(days=1)}
    authority = Authority.make(key, "spiffe://a", **span)
    private = AgreementKey()
    at = int(time.time())
    guest = Attested("demo", 3, b"\x08" * 32, b"")
    ours = Issuer(found, authority, "a")
    chain = ours.issue(guest, request(private.private_key()), at=at)
    assert ours.holder(chain[0], at=at)[0].report_id == guest.report_id
    for other in (Issuer(found, authority, "b"),):
        with pytest.raises(FormatError):
            other.holder(chain[0], at=at)
    with pytest.raises(FormatError):
        ours.holder(authority.der, at=at)


@settings(max_examples=40)
@given(st.binary(max_size=300))
def test_bytes_that_are_no_request_and_no_certificate(data):
    for read in (certificates.request_key, certificates.svid):
        with pytest.raises(FormatError):
            read(data)


def test_every_version_that_a_request_may_claim():
    der = bytearray(_csr())
    for version in range(1, 256):
        der[der.index(b"\x02\x01") + 2] = version
        with pytest.raises(FormatError):
            certificates.request_key(bytes(der))


@settings(max_examples=60)
@given(st.data())
def test_certificates_with_a_changed_byte(data):
    der = bytearray(_certificate())
    at = data.draw(st.integers(0, len(der) - 1))
    der[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(FormatError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Its signature is TLS's business: what can be read says no more than it did.
        assert certificates.svid(bytes(der)).serial


@settings(max_examples=60)
@given(st.data())
def test_requests_with_a_changed_byte(data):
    der = bytearray(_csr())
    at = data.draw(st.integers(0, len(der) - 1))
    der[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(FormatError):
        certificates.request_key(bytes(der))


def _csr(made_once=[]):  # noqa: B006 - made once on purpose
    if not made_once:
        made_once.append(request(ec.derive_private_key(7, ec.SECP256R1())))
    return made_once[0]


def _certificate(made_once=[]):  # noqa: B006 - made once on purpose
    if not made_once:
        span = {"not_before": datetime.now(UTC), "not_after": datetime.now(UTC) + timedelta(days=1)}
        authority = Authority.make(certificates.new_authority_key(), "spiffe://a", **span)
        key = certificates.request_key(_csr())
        made_once.append(authority.issue(key, "spiffe://a/vm/demo", **span)[1])
    return made_once[0]
