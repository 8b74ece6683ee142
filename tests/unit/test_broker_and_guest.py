# SPDX-License-Identifier: Apache-2.0
"""The guest's sources of keys against troth's own broker: both ends, nothing in between made up."""

import contextlib
import time

import pytest

pytest.importorskip("troth.keybroker", reason="needs the key broker")

import made_broker
import made_evidence
import made_tls
from made_broker import KEY, PATH, PROFILE, UUID
from troth.abi import snp_report
from troth.boot.key_sources import sources
from troth.boot.key_sources.sources import Surroundings, Wanted
from troth.documents import kbs, kbs_evidence, key_uri
from troth.errors import ProviderError
from troth.keybroker import identity
from troth.keybroker.appraisal import ACCEPTED, Verdict
from troth.record import replace

WANTED = Wanted(UUID, PROFILE)
DIGEST = "ab" * 32


def guest(report_id=b"\x08" * 32):
    """Evidence of a launch, signed by the simulated platform."""

    def evidence(report_data):
        pki = made_evidence.simulated_pki()
        fields = made_broker.fields_of_report() | {"report_id": report_id}
        raw = pki.report(**(fields | {"report_data": report_data}))
        return raw, (("vcek", pki.vek), ("ask", pki.ca), ("ark", pki.ark))

    return evidence


class Reads:
    """Takes whoever the report says it is: identities live by the real clock, and the made
    reference values by another.
    """

    def appraise(self, tee, request, *, at):
        raw = kbs_evidence.parse(request.evidence).report
        found = snp_report.parse(raw)
        assert (tee, found.report_data) == ("snp", kbs.report_data(request))
        return Verdict(ACCEPTED, "a test", "demo", 3, found.report_id, found.measurement)


@contextlib.contextmanager
def broker(tmp_path, clock, *, judge=None, **words):
    """The broker's record in a policy, while it runs."""
    found = made_broker.kept(tmp_path / "db")
    judge = judge or made_broker.appraiser(found, tmp_path)
    with made_broker.running(found, judge, clock=clock, **words) as there:
        own = certificate_of(there.port)
        yield made_tls.Broker(
            addresses=(f"127.0.0.1:{there.port}",), spki=(made_tls.pin_of(own),),
            trust_domain=words.get("trust_domain", ""),
        )  # fmt: skip


def certificate_of(port):
    with made_broker.Client(port) as client:
        return client.sock.getpeercert(binary_form=True)


@contextlib.contextmanager
def around(there, evidence):
    def no_key(_request):
        raise AssertionError("nobody asked for a derived key")

    made = Surroundings(
        (there,), evidence=evidence, derived_key=no_key, deadline_s=time.monotonic() + 20
    )
    try:
        yield made
    finally:
        made.close()


URIS = (f"kbs:///{PATH}", "spiffe://example.org/vm/demo")


@pytest.mark.parametrize("text", URIS)
def test_a_volume_from_its_first_boot_to_its_second(tmp_path, text):
    by_identity = text.startswith("spiffe:")
    clock = made_broker.Clock(int(time.time())) if by_identity else made_broker.Clock()
    judge = Reads() if by_identity else None
    with broker(tmp_path, clock, judge=judge, trust_domain="example.org") as there:
        with around(there, guest()) as first:
            source = sources.source(key_uri.parse(text), first)
            found = source.release(WANTED)
            assert bytes(found.key) == KEY
            assert (found.state, found.generation, found.tracked) == ("formatting", 0, True)
            source.commit(1, DIGEST)
            source.commit(1, DIGEST)
            with pytest.raises(ProviderError) as caught:
                source.commit(3, DIGEST)
            assert caught.value.code == "broker-refused"
        clock.at += 61
        with around(there, guest(b"\x09" * 32)) as second:
            source = sources.source(key_uri.parse(text), second)
            found = source.release(WANTED)
            assert (found.state, found.generation, found.digest) == ("in-use", 1, DIGEST)
            source.commit(2, DIGEST)
            second.finish()
        with around(there, guest(b"\x09" * 32)) as later, pytest.raises(ProviderError) as caught:
            sources.source(key_uri.parse(text), later).release(WANTED)
        assert caught.value.code == "broker-refused"


def test_another_image_gets_nothing(tmp_path):
    clock = made_broker.Clock()
    with broker(tmp_path, clock) as there:

        def evidence(report_data):
            pki = made_evidence.simulated_pki()
            fields = made_broker.fields_of_report() | {"measurement": bytes(48)}
            return pki.report(**(fields | {"report_data": report_data})), ()

        with around(there, evidence) as given, pytest.raises(ProviderError) as caught:
            sources.source(key_uri.parse(URIS[0]), given).release(WANTED)
        assert caught.value.code == "broker-refused"
        assert "not accepted" in caught.value.message


def test_the_issuer_of_the_broker_is_not_the_issuer_of_identities(tmp_path):
    """Pinned by its issuer, a broker must still certify guests under that one."""
    clock = made_broker.Clock()
    with broker(tmp_path, clock, trust_domain="example.org") as there:
        authority = identity.authority(tmp_path / "db", "example.org")
        pinned = replace(there, spki=(), ca=(made_tls.base64_of(authority.der),),
                         server_name="broker.example")  # fmt: skip
        with around(pinned, guest()) as given, pytest.raises(ProviderError) as caught:
            sources.source(key_uri.parse(URIS[0]), given).release(WANTED)
        assert caught.value.code == "broker-identity"
