# SPDX-License-Identifier: Apache-2.0
"""The guest's own sources of keys against the broker: two halves that share only documents."""

import time
from contextlib import contextmanager

import pytest

import made_broker as made
import made_evidence
import made_tls
from troth.boot.key_sources import kbs_session, sources, spiffe
from troth.boot.key_sources.sources import Surroundings, Wanted
from troth.documents import key_uri
from troth.errors import ProviderError
from troth.keybroker import classes, issuer
from troth.signing import service_certificates

D1 = "11" * 32
WANTED = Wanted(made.UUID, made.PROFILE)
KBS_URI = f"kbs:///{made.PATH}"
SPIFFE_URI = "spiffe://example.org/vm/demo"


def evidence_of(report_id):
    """What a guest's platform gives: the report's bytes, and no certificates."""

    def evidence(report_data):
        fields = made.fields_of_report() | {"report_data": report_data, "report_id": report_id}
        return made_evidence.simulated_pki().report(**fields), ()

    return evidence


@contextmanager
def boot(broker, report_id=b"\x08" * 32, *, pin=None, domain=""):
    """The surroundings of one boot that pins the broker's key."""
    pin = pin or service_certificates.spki_sha256((broker.folder / "tls.pem").read_bytes())
    record = made_tls.Broker(
        name="main", protocol="troth", addresses=(f"127.0.0.1:{broker.port}",), spki=(pin,),
        trust_domain=domain,
    )  # fmt: skip
    surroundings = Surroundings(
        (record,), evidence=evidence_of(report_id), derived_key=None,
        deadline_s=time.monotonic() + made.LIMIT_S,
    )  # fmt: skip
    try:
        yield surroundings
    finally:
        surroundings.close()


def source(surroundings, uri=KBS_URI):
    return sources.source(key_uri.parse(uri), surroundings)


@pytest.fixture
def broker(tmp_path):
    kept = made.kept(tmp_path / "db")
    clock = made.Clock()
    with made.running(kept, made.appraiser(kept, tmp_path), clock=clock) as found:
        found.clock = clock
        yield found


def test_formatted_committed_and_opened_again(broker):
    with boot(broker) as first:
        own = source(first)
        found = own.release(WANTED)
        assert (bytes(found.key), found.state, found.tracked) == (made.KEY, "formatting", True)
        own.commit(1, D1)
        own.commit(1, D1)
        first.finish()
    # Code that runs later in the same guest, with a key of its own.
    with boot(broker) as later, pytest.raises(ProviderError) as caught:
        source(later).release(WANTED)
    assert caught.value.code == "broker-refused"
    broker.clock.at += 61
    with boot(broker, b"\x09" * 32) as second:
        own = source(second)
        found = own.release(WANTED)
        assert (found.state, found.generation, found.digest) == ("in-use", 1, D1)
        own.commit(2, "22" * 32)


def test_another_key_than_the_pinned(broker):
    with boot(broker, pin="00" * 32) as guest, pytest.raises(ProviderError) as caught:
        source(guest).release(WANTED)
    assert caught.value.code == "broker-identity"
    assert not (broker.folder / "audit.jsonl").read_text()


def test_a_guest_that_is_refused_hears_no_reason(broker):
    classes.retire(broker.store, "demo", None)
    with boot(broker) as guest, pytest.raises(ProviderError) as caught:
        source(guest).release(WANTED)
    assert caught.value.code == "broker-refused"
    assert "class" not in str(caught.value)
    assert broker.audit()[-1]["code"] == "class-not-active"


def test_by_an_identity(tmp_path):
    kept = made.kept(tmp_path / "db")
    clock = made.Clock(int(time.time()))
    with made.running(kept, clock=clock, trust_domain="example.org") as broker:
        with boot(broker, domain="example.org") as guest:
            own = source(guest, SPIFFE_URI)
            found = own.release(WANTED)
            assert (bytes(found.key), found.state) == (made.KEY, "formatting")
            own.commit(1, D1)
            guest.finish()
        assert [item["event"] for item in broker.audit()] == [
            "attest", "issue", "release", "commit", "boot-finished",
        ]  # fmt: skip
        # An identity that is not this image's.
        guest = boot(broker, b"\x09" * 32, domain="example.org")
        with guest as found, pytest.raises(ProviderError):
            source(found, "spiffe://example.org/vm/other")


@contextmanager
def spiffe_broker(tmp_path, behind_s):
    """TLS looks at this machine's clock; the broker's is behind it."""
    kept = made.kept(tmp_path / "db")
    clock = made.Clock(int(time.time()) - behind_s)
    with made.running(kept, clock=clock, trust_domain="example.org") as broker:
        broker.clock = clock
        yield broker


def test_an_identity_that_ended_while_the_volume_was_formatted(tmp_path):
    """Else no boot would ever commit, and each would format anew."""
    with (
        spiffe_broker(tmp_path, 400) as broker,
        boot(broker, domain="example.org") as guest,
    ):
        own = source(guest, SPIFFE_URI)
        assert own.release(WANTED).state == "formatting"
        # The session has ended by then, too.
        broker.clock.at += issuer.LIFE_S
        own.commit(1, D1)
        own.commit(1, D1)
        codes = [(item["event"], item["code"]) for item in broker.audit()]
        assert codes == [
            ("attest", "accepted"), ("issue", "issued"), ("release", "released"),
            ("attest", "accepted"), ("issue", "issued"), ("commit", "committed"),
            ("commit", "committed-already"),
        ]  # fmt: skip


def test_an_identity_that_tls_takes_no_more(tmp_path):
    with (
        spiffe_broker(tmp_path, issuer.LIFE_S + 60) as broker,
        boot(broker, domain="example.org") as guest,
    ):
        own = source(guest, SPIFFE_URI)
        with pytest.raises(ProviderError):
            own.release(WANTED)
        issued = [item["event"] for item in broker.audit()].count("issue")
        # Once more, and not again and again.
        assert issued == 2
        broker.clock.at += issuer.LIFE_S + 60
        assert own.release(WANTED).state == "formatting"


def test_an_old_identity_is_renewed_before_it_ends(tmp_path):
    now = made.Clock(0)
    with spiffe_broker(tmp_path, 0) as broker, boot(broker, domain="example.org") as guest:
        uri = key_uri.parse(SPIFFE_URI)
        session = kbs_session.session_with(guest.brokers[0], guest)
        identity = spiffe.SpiffeIdentity(session, uri, deadline_s=guest.deadline_s, steady=now)
        own = spiffe.SpiffeSource(identity)
        own.release(WANTED)
        now.at = spiffe.RENEW_S - 1
        own.commit(1, D1)
        now.at = spiffe.RENEW_S
        # A no that is one is not asked twice, and costs no further certificate.
        for _ in range(2):
            with pytest.raises(ProviderError, match="commit-generation"):
                own.commit(5, D1)
        identity.close()
        assert [item["event"] for item in broker.audit()] == [
            "attest", "issue", "release", "commit", "issue", "commit", "commit",
        ]  # fmt: skip
        assert spiffe.RENEW_S * 2 <= issuer.LIFE_S
