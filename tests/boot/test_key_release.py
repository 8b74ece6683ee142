# SPDX-License-Identifier: Apache-2.0
"""Volumes whose key the broker releases: found again, and refused where the host has meddled.

The broker is ``troth keybroker serve``, a process of its own; guests reach it through
QEMU's user network. Each test has its own database and disk: new ones, or copies of
those that two boots left. What every decision of the broker rests on is tried at unit
level (``test_volume_state``, ``test_keybroker_*``), and every word of a record in
``test_volume_headerless``: here each kind of attack is carried through to a guest that ends
closed. Power is cut where a broker and a disk can disagree, before and after the first
commit; at every earlier step of formatting the broker says the same, and the guest begins
anew without looking at the disk. What goes over the wire is ``test_broker_attacks``.
"""

from __future__ import annotations

import hashlib
import shutil
import socket
import sqlite3
import threading
from pathlib import Path

import pytest

from boot.keyed import OTHER_UUID, PATH, TRUST_DOMAIN, UUID, blank, digest, events, troth
from boot.machine import check_good, check_refused
from boot.test_network import check_nothing_left
from hostile_broker import Hostile
from made_broker import Client, Guest
from made_foreign import serde

COMMIT = "/kbs/v0/troth/commit/"
REPORT_BYTES = 1184


class Kept:
    """What two boots left: the broker's database, the disk after each, and the boots."""

    def __init__(self, keyed, place):
        self.keyed = keyed
        self.broker = keyed.broker(place / "db", "keyed")
        keyed.add_volume(self.broker)
        self.disk = blank(place / "data.img")
        self.before = place / "before.img"
        with keyed.reachable(self.broker):
            self.first = keyed.boot(keyed.bundle("keyed"), self.disk, place)
            shutil.copy(self.disk, self.before)
            self.second = keyed.boot(keyed.bundle("keyed"), self.disk, place)


@pytest.fixture(scope="module")
def kept(keyed, tmp_path_factory):
    place = tmp_path_factory.mktemp("released")
    yield Kept(keyed, place)
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def used(keyed, kept, tmp_path):
    """(broker, disk): copies to break, the volume in use at generation 2."""
    folder = tmp_path / "db"
    shutil.copytree(kept.broker.folder, folder)
    disk = Path(shutil.copy(kept.disk, tmp_path))
    yield keyed.at(folder), disk
    disk.unlink()


def test_the_first_boot_formats_and_the_next_finds_its_data(kept, token):
    stages = kept.first.stages
    at = stages.index("network")
    assert stages[at : at + 4] == ["network", "keys", "volumes", "verity"]
    for found in (kept.first, kept.second):
        check_good(found, token)
        check_nothing_left(found)
        assert found.section("file /etc/resolv.conf") == "error ENOENT"
        assert "troth" not in found.section("file /proc/keys")
        # Who released it: the broker's key, as it is pinned.
        (event,) = events(found, "key-release")
        text = f"spki-sha256:{kept.keyed.pin} kbs:///{PATH} data"
        assert (event["pcr"], event["content"]["text"]) == (15, text)
        (event,) = events(found, "volume-key")
        text = f"cryptsetup:troth-data:{UUID}"
        assert (event["pcr"], event["content"]["text"]) == (15, text)
    assert events(kept.first, "volume-key")[0]["digests"] == event["digests"]
    assert kept.first.section("file /srv/data/kept") == "error ENOENT"
    assert kept.second.section("file /srv/data/kept") == f"kept {token}"
    for disk in (kept.before, kept.disk):
        content = disk.read_bytes()
        assert token.encode() not in content
        assert b"lost+found" not in content


def test_what_the_broker_wrote_down(kept):
    lines = kept.broker.audit()
    said = [(item["event"], item["code"]) for item in lines]
    boot = [
        ("attest", "accepted"), ("release", "released"), ("commit", "committed"),
        ("boot-finished", "finished"),
    ]  # fmt: skip
    assert said == boot * 2
    assert {(item["image"], item["svn"]) for item in lines} == {("keyed", 3)}
    first, second = lines[:4], lines[4:]
    for half in (first, second):
        assert len({item["report_id"] for item in half}) == 1
    assert [item.get("state") for item in lines if item["event"] == "release"] == [
        "formatting", "in-use",
    ]  # fmt: skip
    assert [item["generation"] for item in lines if item["event"] == "commit"] == [1, 2]
    assert second[1]["over"] == first[0]["report_id"] != second[0]["report_id"]
    volume = kept.broker.volume()
    assert (volume["state"], volume["generation"], volume["taken_over"]) == ("in-use", 2, 1)
    assert volume["record"] in {digest_of_slot(kept.disk, slot) for slot in (0, 1)}
    # The key is in the database, and in nothing that was written down.
    with sqlite3.connect(kept.broker.folder / "broker.sqlite3") as rows:
        ((secret,),) = rows.execute("SELECT secret FROM resources")
    assert len(secret) >= 32
    log = (kept.broker.folder / "audit.jsonl").read_bytes()
    assert secret.hex().encode() not in log
    assert secret not in log


def digest_of_slot(disk, slot):
    with disk.open("rb") as file:
        file.seek(4096 * slot)
        return hashlib.sha256(file.read(4096)).hexdigest()


def test_by_identity(keyed, used, tmp_path, token):
    """The same by ``spiffe:``, from a broker that is known by its issuer. The disk, a volume of
    the same broker, is then given to the other image.
    """
    broker, _disk = used
    keyed.introduce(broker, "keyed-spiffe")
    path = "default/disk-key/other"
    keyed.add_volume(broker, path=path, uuid=OTHER_UUID, image="keyed-spiffe")
    other = blank(tmp_path / "other.img")
    with keyed.reachable(broker):
        found = keyed.boot(keyed.bundle("keyed-spiffe"), other, tmp_path)
        check_good(found, token)
        swapped = keyed.boot(keyed.bundle("keyed"), other, tmp_path)
    (event,) = events(found, "key-release")
    uri = f"spiffe://{TRUST_DOMAIN}/vm/keyed-spiffe"
    assert event["content"]["text"] == f"dns:keys.example.org {uri} data"
    assert broker.volume(path)["generation"] == 1
    last = [item["event"] for item in broker.audit() if item.get("image") == "keyed-spiffe"]
    assert last == ["attest", "issue", "release", "commit", "boot-finished"]
    check_refused(swapped, token, "header-refused", stage="volumes", exact="record-volume")
    assert broker.volume()["generation"] == 2
    other.unlink()


def test_a_disk_put_back_to_an_older_state(keyed, kept, used, tmp_path, token):
    """Everything on it is genuine; only the broker knows of a later one."""
    broker, disk = used
    shutil.copy(kept.before, disk)
    before = digest(disk)
    with keyed.reachable(broker):
        found = keyed.boot(keyed.bundle("keyed"), disk, tmp_path)
    check_refused(found, token, "header-refused", stage="volumes", exact="record-rolled-back")
    assert "generation 1 is on disk" in found.console
    assert digest(disk) == before
    assert broker.decided("commit") == ["committed"] * 2


def test_a_blanked_disk_is_not_formatted(keyed, used, tmp_path, token):
    broker, disk = used
    blank(disk)
    with keyed.reachable(broker):
        found = keyed.boot(keyed.bundle("keyed"), disk, tmp_path)
    check_refused(found, token, "header-refused", stage="volumes", exact="record-blank")
    assert not any(disk.read_bytes())
    assert broker.volume()["generation"] == 2


def test_the_key_of_another_volume(keyed, tmp_path, token):
    """Below the name that the guest asks for lies what belongs to another volume."""
    broker, disk = keyed.broker(tmp_path / "db", "keyed"), blank(tmp_path / "data.img")
    keyed.add_volume(broker, uuid=OTHER_UUID)
    with keyed.reachable(broker):
        found = keyed.boot(keyed.bundle("keyed"), disk, tmp_path)
    check_refused(found, token, "key-refused", stage="keys", exact="volume-key-other")
    assert not any(disk.read_bytes())


def test_a_withdrawn_image_and_the_next_one(keyed, used, tmp_path, token):
    """A later version opens the volume of the earlier one, which is withdrawn then."""
    broker, disk = used
    keyed.introduce(broker, "keyed-next")
    with keyed.reachable(broker):
        found = keyed.boot(keyed.bundle("keyed-next"), disk, tmp_path)
        check_good(found, token)
        assert found.section("file /srv/data/kept") == "\n".join([f"kept {token}"] * 2)
        troth("keybroker", "retire", "keyed", "--svn", "3", "--db", broker.folder)
        withdrawn = keyed.boot(keyed.bundle("keyed"), disk, tmp_path)
    check_refused(withdrawn, token, "key-refused", stage="keys", exact="broker-refused")
    # Anybody can ask; the reason is for the operator alone.
    assert "class-not-active" not in withdrawn.console
    assert broker.decided("attest") == ["accepted"] * 3 + ["class-not-active"]
    assert broker.audit("release")[-1]["svn"] == 4
    assert broker.volume()["generation"] == 3


class Cut:
    """A script that stops the guest dead when it commits; ``passed_on``: the broker hears it."""

    def __init__(self, *, passed_on):
        self._passed_on = passed_on
        self._reached, self._over = threading.Event(), threading.Event()

    def __call__(self, request, broker):
        if not request.path.startswith(COMMIT):
            return broker(request)
        if self._passed_on:
            assert broker(request).head.startswith(b"HTTP/1.1 200 ")
        self._reached.set()
        assert self._over.wait(30)
        return None

    def watch(self, _console, process):
        """As power fails: QEMU is killed."""
        if not self._reached.is_set():
            return False
        (qemu,) = [item for item in process.children(True) if item.name().startswith("qemu")]
        qemu.kill()
        self._over.set()
        return True


def cut_off(keyed, broker, disk, tmp_path, *, passed_on):
    script = Cut(passed_on=passed_on)
    with broker.serving(), keyed.wire.leads_to(Hostile(script, own=broker.own, port=broker.port)):
        found = keyed.boot(keyed.bundle("keyed"), disk, tmp_path, watch=script.watch)
    assert found.result["outcome"] != "handover"
    assert keyed.token not in found.console


def test_cut_off_while_formatting(keyed, fresh, tmp_path, token):
    """All is on the disk and the commit was never heard: nobody else formats until the time is
    over, then the next guest begins anew.
    """
    broker, disk = fresh
    cut_off(keyed, broker, disk, tmp_path, passed_on=False)
    assert broker.volume()["state"] == "formatting"
    before = digest(disk)
    with keyed.reachable(broker):
        found = keyed.boot(keyed.bundle("keyed"), disk, tmp_path)
    check_refused(found, token, "key-refused", stage="keys", exact="broker-refused")
    assert "volume-formatting" in found.console
    assert digest(disk) == before
    broker.pass_time()
    with keyed.reachable(broker):
        found = keyed.boot(keyed.bundle("keyed"), disk, tmp_path)
    check_good(found, token)
    assert found.section("file /srv/data/kept") == "error ENOENT"
    # A guest that hears no asks once more, in a session anew.
    no = ["volume-formatting"] * 2
    assert broker.decided("release") == ["released", *no, "released"]
    volume = broker.volume()
    assert (volume["state"], volume["generation"]) == ("in-use", 1)


def test_cut_off_after_the_first_commit(keyed, fresh, tmp_path, token):
    """The broker has heard it, the guest does not know: the volume is in use for good."""
    broker, disk = fresh
    cut_off(keyed, broker, disk, tmp_path, passed_on=True)
    assert broker.volume()["state"] == "in-use"
    with keyed.reachable(broker):
        found = keyed.boot(keyed.bundle("keyed"), disk, tmp_path)
    check_good(found, token)
    assert [item["state"] for item in broker.audit("release")] == ["formatting", "in-use"]
    assert broker.volume()["generation"] == 2


def test_a_commit_that_is_not_taken(keyed, used, tmp_path, token):
    """The guest stops before it reads the volume; the record of before still counts."""
    broker, disk = used

    def script(request, answers):
        # As if another guest had taken the volume over.
        if request.path.startswith(COMMIT):
            request = request.with_body(request.body.replace(b'"generation":3', b'"generation":4'))
        return answers(request)

    with broker.serving():
        with keyed.wire.leads_to(Hostile(script, own=broker.own, port=broker.port)):
            found = keyed.boot(keyed.bundle("keyed"), disk, tmp_path)
        check_refused(found, token, "volume-refused", stage="volumes", exact="broker-refused")
        assert broker.decided("commit")[-1] == "commit-generation"
    with keyed.reachable(broker):
        found = keyed.boot(keyed.bundle("keyed"), disk, tmp_path)
    check_good(found, token)
    assert found.section("file /srv/data/kept") == "\n".join([f"kept {token}"] * 2)
    assert broker.volume()["generation"] == 3


def test_later_code_and_a_clone(keyed, fresh, tmp_path, token):
    """Root of a running guest asks with a key of its own, vouched for by the same processor; and
    the host starts the same image beside it, with a copy of the disk.
    """
    broker, disk = fresh
    with sqlite3.connect(broker.folder / "broker.sqlite3") as rows:
        rows.execute("UPDATE resources SET lease_s = 600")
    bundle, port = keyed.bundle("keyed"), tmp_path / "port"
    cmdline, beside = tmp_path / "cmdline", tmp_path / "beside"
    beside.mkdir()
    cmdline.write_bytes((bundle / "cmdline").read_bytes().replace(b"wait=no", b"wait=yes"))
    seen = []

    def watch(console, _process):
        if "@@ waiting" not in console:
            return False
        assert "@@ waiting 1 1" in console
        try:
            seen.append(later_code(broker.port, port))
            copy = Path(shutil.copy(disk, tmp_path / "copy.img"))
            seen.append(keyed.boot(bundle, copy, beside))
        finally:
            tell(port, b"\0")
        return True

    with keyed.reachable(broker):
        found = keyed.boot(
            bundle, disk, tmp_path, "--cmdline", cmdline, "--port", f"vouch={port}", watch=watch
        )
    check_good(found, token)
    (status, answer), clone = seen
    assert status == 401
    # A good report of the guest that had the key: only its REPORT_ID is against it.
    assert broker.decided("attest") == ["accepted", "boot-finished", "accepted", "accepted"]
    mine, later, other, _again = [item["report_id"] for item in broker.audit("attest")]
    assert mine == later != other
    assert "token" not in answer
    check_refused(clone, token, "key-refused", stage="keys", exact="broker-refused")
    assert "volume-leased" in clone.console
    assert broker.decided("release") == ["released", *["volume-leased"] * 2]
    assert broker.volume()["generation"] == 1


def later_code(broker_port, port):
    """(status, answer) of the broker to a handshake that code after the handover begins."""
    with Client(broker_port) as client:
        guest = Guest(client)
        nonce = guest.auth()
        report = tell(port, b"\1" + guest.digest(nonce).ljust(64, b"\0"), REPORT_BYTES)
        return guest.attest(nonce, serde(report))


def tell(port, question, size=0):
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(30)
        stream.connect(str(port))
        stream.sendall(question)
        data = b""
        while len(data) < size:
            piece = stream.recv(size - len(data))
            assert piece, "the guest went away"
            data += piece
        return data
