# SPDX-License-Identifier: Apache-2.0
"""The audit log on a full disk, under strangers who send anything, and while it is rotated."""

import json
import os
import resource

import pytest

import made_broker as made
import made_evidence
import made_pki
from made_broker import Guest, chain_of, snp_evidence
from troth.errors import HostError
from troth.keybroker import audit
from troth.keybroker.audit import AuditLog, Decided

ENTRY = Decided("release", "released", "192.0.2.1")


def lines(folder):
    return [json.loads(line) for line in (folder / audit.FILE_NAME).read_text().splitlines()]


@pytest.fixture
def log(tmp_path):
    found = AuditLog(tmp_path)
    yield found
    found.close()


def test_half_a_line_does_not_stay(log, tmp_path):
    log.write(ENTRY, at=1)
    one = (tmp_path / audit.FILE_NAME).stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A file that may grow by ten bytes: the kernel writes so many, and then no more.
    resource.setrlimit(resource.RLIMIT_FSIZE, (one + 10, before[1]))
    try:
        with pytest.raises(HostError) as caught:
            log.write(ENTRY, at=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.code == "broker-audit"
    assert (tmp_path / audit.FILE_NAME).stat().st_size == one
    log.write(ENTRY, at=3)
    assert [item["time"][-3:] for item in lines(tmp_path)] == ["01Z", "03Z"]


def test_two_who_write_and_a_file_that_is_rotated(log, tmp_path):
    other = AuditLog(tmp_path)
    log.write(ENTRY, at=1)
    other.write(ENTRY, at=2)
    os.truncate(tmp_path / audit.FILE_NAME, 0)
    log.write(ENTRY, at=3)
    other.close()
    assert [item["time"][-3:] for item in lines(tmp_path)] == ["03Z"]
    assert (tmp_path / audit.FILE_NAME).read_bytes()[:1] == b"{"


def test_strangers_write_a_line_a_minute(log, tmp_path):
    burst = int(audit.STRANGER.burst)
    for _ in range(burst + 5):
        log.write_stranger(ENTRY, at=1, now=0)
    log.write_stranger(ENTRY, at=2, now=59)
    log.write_stranger(ENTRY, at=3, now=61)
    log.write_stranger(ENTRY, at=4, now=62)
    # Another address has lines of its own, and an IPv6 host one address.
    log.write_stranger(Decided("attest", "no", "192.0.2.2"), at=5, now=62)
    for number in range(burst + 5):
        log.write_stranger(Decided("attest", "no", f"2001:db8::{number}"), at=6, now=62)
    found = lines(tmp_path)
    assert len(found) == burst + 2 + burst
    assert [item.get("left_out", 0) for item in found] == [*[0] * burst, 6, 1, *[0] * burst]


def test_whose_refusals_are_left_out(tmp_path):
    kept = made.kept(tmp_path / "db")
    forger = made_pki.Pki("Milan", simulated=True)
    chain = chain_of(forger)
    with made.running(kept, made.appraiser(kept, tmp_path)) as broker, broker.client() as client:
        guest = Guest(client)
        for number in range(12):
            # By a root of the sender's own, which proves nothing; and by none.
            nonce = guest.auth()
            digest = guest.digest(nonce)
            evidence = snp_evidence(digest, pki=forger, chain=chain) if number % 2 else {}
            assert guest.attest(nonce, evidence)[0] == 401
        told = broker.audit()
        assert len(told) == audit.STRANGER.burst
        assert "certificate-root fail" in told[1]["detail"]
        assert "report-signature fail" not in told[1]["detail"]
        # A processor's word against its guest, and whatever is accepted, is always written.
        nonce = guest.auth()
        bad = snp_evidence(guest.digest(nonce), policy=made_evidence.GUEST_POLICY | 1 << 19)
        assert guest.attest(nonce, bad)[0] == 401
        nonce = guest.auth()
        assert guest.attest(nonce, snp_evidence(guest.digest(nonce)))[0] == 200
        assert [item["code"] for item in broker.audit()[-2:]] == ["checks-failed", "accepted"]
        assert len(broker.audit()) == audit.STRANGER.burst + 2
