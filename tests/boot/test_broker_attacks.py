# SPDX-License-Identifier: Apache-2.0
"""What comes over the wire: guests that ask somebody else, or hear something else, end closed.

The wire is the host's (``hostile_broker``). In most of these tests it has the broker's
stolen TLS key besides, since without it a guest says nothing at all: what is tried then is
that nothing else rests on it. Not booted, since nothing but the parser decides them: older
TLS, chunks, compression, cookies, odd heads (``test_key_https``); JWEs and volume keys of
every wrong form (``test_kbs_documents``, ``test_key_sources``). What a DHCP server may say
is in ``test_network``; it can only lead a guest to another machine, as DNS does here.
"""

from __future__ import annotations

import base64
import json
import re
import sqlite3

import pytest

import hostile_broker as wire
import hostile_net as net
from boot.keyed import PATH
from boot.machine import check_good, check_refused
from hostile_broker import Hostile, Message, answer
from made_broker import Client, Guest
from troth.ciphers import sealing
from troth.ciphers.key_agreement import AgreementKey
from troth.documents import jwe
from troth.keybroker import identity

AUTH, ATTEST, RESOURCE = "/kbs/v0/auth", "/kbs/v0/attest", "/kbs/v0/resource/"


def stolen(broker, script):
    """Whoever has the broker's TLS key."""
    return Hostile(script, own=broker.own, port=broker.port)


def impostor(place):
    """A certificate and key that are nobody's, but say the right name."""
    place.mkdir()
    identity.tls_certificate(place, ["keys.example.org"], "simulated")
    return place / "tls.pem", place / "tls.key"


def never(_request, _broker):
    raise AssertionError("a guest has sent something")


def hurried(tree):
    """Little time to wait for who is silent on purpose."""
    tree["fail"].update(deadline_s=16, device_timeout_s=15)


def to_qemu(*words):
    """Options for a network of the test's own."""
    return ["--no-network", *(f"--qemu-arg={word}" for word in words)]


def check_nothing_released(broker, disk):
    assert "released" not in broker.decided("release")
    assert broker.volume()["state"] == "new"
    assert not any(disk.read_bytes())


def test_another_key(keyed, fresh, tmp_path, token):
    broker, disk = fresh
    other = Hostile(never, own=impostor(tmp_path / "other"))
    with keyed.wire.leads_to(other):
        found = keyed.boot(keyed.bundle("keyed"), disk, tmp_path)
    check_refused(found, token, "key-refused", stage="keys", exact="broker-identity")
    # TLS came about, and not one byte of a request.
    assert (other.connections, other.requests) == (1, [])
    check_nothing_released(broker, disk)


def test_without_tls(keyed, fresh, tmp_path, token):
    _broker, disk = fresh
    heard = []

    def plain(connection):
        heard.append(connection.recv(65536))
        connection.sendall(answer(b"{}", "400 Bad Request").raw)

    with keyed.wire.leads_to(plain):
        found = keyed.boot(keyed.bundle("keyed"), disk, tmp_path)
    check_refused(found, token, "key-refused", stage="keys", exact="broker-tls")
    # Each a handshake's first record, and nothing that could be read.
    assert heard
    assert all(data[:1] == b"\x16" and b"/kbs/" not in data for data in heard)


def redirect(_request, _broker):
    return answer(b"", "307 Temporary Redirect", more="Location: http://10.0.2.2/kbs/v0/auth\r\n")


def too_large(_request, _broker):
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1048577"
    return [head, b"\r\n\r\n", b" " * (1 << 16)]


def cut_off(request, broker):
    whole = broker(request).raw
    return [whole[: len(whole) // 2], whole[len(whole) // 2 : -1]]


def old_nonce(request, broker):
    """The challenge of another session, which its owner has not used."""
    said = broker(request)
    if request.path != AUTH:
        return said
    with Client(broker.port) as client:
        nonce = Guest(client).auth()
    return said.with_body(json.dumps({"nonce": nonce, "extra-params": ""}).encode())


def old_yes(request, broker):
    """An earlier yes to somebody's evidence; the guest's own goes nowhere."""
    if request.path == ATTEST:
        return answer(b'{"token":"e30.e30.AAAA"}')
    return broker(request)


def no_key_wrap(request, broker):
    """The algorithm "dir": nothing wraps the key, whoever encrypted it."""
    said = broker(request)
    if not request.path.startswith(RESOURCE):
        return said
    tree = json.loads(said.body)
    text = tree["protected"]
    header = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    header["alg"] = "dir"
    encoded = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=")
    return said.with_body(json.dumps(tree | {"protected": encoded.decode()}).encode())


def another_guest(request, broker):
    """What the broker has answered to somebody else."""
    said = broker(request)
    if not request.path.startswith(RESOURCE):
        return said
    return said.with_body(jwe.print_(sealing.seal(AgreementKey().public, b"{}")))


@pytest.mark.parametrize(
    ("script", "exact", "path", "times"),
    [
        (redirect, "broker-redirect", AUTH, 1),
        (too_large, "broker-size", AUTH, 1),
        (cut_off, "broker-answer", AUTH, 1),
        (old_nonce, "broker-refused", ATTEST, 1),
        # The session might have ended, so it is begun anew, once.
        (old_yes, "broker-refused", RESOURCE + PATH, 2),
        (no_key_wrap, "jwe-algorithm", RESOURCE + PATH, 1),
        (another_guest, "jwe-open", RESOURCE + PATH, 1),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_refused(script, exact, path, times, keyed, fresh, tmp_path, token):
    broker, disk = fresh
    with broker.serving():
        here = stolen(broker, script)
        with keyed.wire.leads_to(here):
            found = keyed.boot(keyed.bundle("keyed"), disk, tmp_path)
    check_refused(found, token, "key-refused", stage="keys", exact=exact)
    # It was the last thing that was asked, and it was not asked again and again.
    assert here.requests[-1].path == path
    assert here.asked(path) == times
    assert not any(disk.read_bytes())


def trickle(plug):
    """A good answer, one byte now and then: never silent, and never done."""

    def script(request, broker):
        whole = broker(request).raw
        return (bytes((byte,)) for byte in whole if not plug.wait(0.5))

    return script


def test_a_trickle(keyed, fresh, tmp_path, token):
    broker, disk = fresh
    bundle = keyed.variant(tmp_path / "variant", hurried)
    with broker.serving(), keyed.wire.leads_to(stolen(broker, trickle(keyed.wire.over))):
        found = keyed.boot(bundle, disk, tmp_path)
    check_refused(found, token, "key-refused", stage="keys", exact="broker-timeout", within_s=60)
    check_nothing_released(broker, disk)


def test_the_network_goes_after_the_challenge(keyed, fresh, tmp_path, token):
    """The answer has left the broker and never arrives."""
    broker, disk = fresh
    bundle = keyed.variant(tmp_path / "variant", hurried)
    monitor = tmp_path / "monitor"

    def script(request, broker):
        said = broker(request)
        wire.pull_the_plug(monitor, "cable")
        return said

    options = to_qemu(
        "-netdev", "user,id=cable", "-device", "virtio-net-pci,netdev=cable",
        "-qmp", f"unix:{monitor},server=on,wait=off",
    )  # fmt: skip
    with broker.serving():
        here = stolen(broker, script)
        with keyed.wire.leads_to(here):
            found = keyed.boot(bundle, disk, tmp_path, *options)
    check_refused(found, token, "key-refused", stage="keys", exact="broker-timeout", within_s=60)
    assert [item.path for item in here.requests] == [AUTH]
    check_nothing_released(broker, disk)


def test_names_that_lie(keyed, fresh, tmp_path, token):
    """The broker by name, and a resolver of the host that leads to another machine."""
    broker, disk = fresh

    def by_name(tree):
        tree["brokers"][0]["addresses"] = [f"keys.example.org:{keyed.wire.port}"]
        static = {"address": "10.0.2.15/24", "router": "10.0.2.2", "dns": ["10.0.2.53"]}
        tree["network"].update(method="static", **static)

    bundle = keyed.variant(tmp_path / "variant", by_name)
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    other_end = f"local.type=unix,local.path={theirs},remote.type=unix,remote.path={ours}"
    # A hub with three plugs: the guest, QEMU's own network, and the resolver of this test.
    options = to_qemu(
        "-netdev", "user,id=user", "-netdev", "hubport,id=first,hubid=1,netdev=user",
        "-netdev", f"dgram,id=dgram,{other_end}",
        "-netdev", "hubport,id=second,hubid=1,netdev=dgram",
        "-netdev", "hubport,id=third,hubid=1", "-device", "virtio-net-pci,netdev=third",
    )  # fmt: skip
    liar = Hostile(never, own=impostor(tmp_path / "other"))
    with (
        net.on_sockets(net.silent, ours, theirs, named="10.0.2.2", owns=["10.0.2.53"]) as resolver,
        keyed.wire.leads_to(liar),
    ):
        found = keyed.boot(bundle, disk, tmp_path, *options)
    check_refused(found, token, "key-refused", stage="keys", exact="broker-identity")
    assert b"\4keys\7example\3org" in resolver.names
    assert (liar.connections, liar.requests) == (1, [])
    check_nothing_released(broker, disk)


def test_who_reads_along_learns_no_key(keyed, fresh, tmp_path, token):
    """All of a good boot is heard and repeated, in the session and afterwards."""
    broker, disk = fresh

    def twice(request, broker):
        if request.path.startswith(RESOURCE):
            broker(request)
        return broker(request)

    with broker.serving():
        here = stolen(broker, twice)
        with keyed.wire.leads_to(here):
            found = keyed.boot(keyed.bundle("keyed"), disk, tmp_path)
        check_good(found, token)
        # The same answer to the same key, so the first could have been lost.
        assert broker.decided("release") == ["released", "released-again"]
        with sqlite3.connect(broker.folder / "broker.sqlite3") as rows:
            ((secret,),) = rows.execute("SELECT secret FROM resources")
        everything = b"\n".join(item.raw for item in (*here.requests, *here.answers))
        for text in (secret, secret.hex().encode(), base64.b64encode(secret), token.encode()):
            assert text not in everything
        (attest,) = [item for item in here.requests if item.path == ATTEST]
        (resource,) = [item for item in here.requests if item.path.startswith(RESOURCE)]
        with wire.client(broker.port) as connection:
            # Its cookie: the session has ended with the boot.
            assert status(wire.ask(connection, resource)) == 401
            # Its evidence, in a session of one's own: it answers another nonce.
            said = wire.ask(connection, Message(*begin()))
            cookie = re.search(rb"kbs-session-id=[0-9a-f]{32}", said.head)[0]
            head = re.sub(rb"kbs-session-id=[0-9a-f]{32}", cookie, attest.head)
            assert status(wire.ask(connection, Message(head, attest.body))) == 401
            # Nor is that session good for anything now.
            head = re.sub(rb"kbs-session-id=[0-9a-f]{32}", cookie, resource.head)
            assert status(wire.ask(connection, Message(head, b""))) == 401
    assert broker.decided("release") == ["released", "released-again"]


def begin():
    body = b'{"version":"0.4.0","tee":"snp","extra-params":""}'
    return b"POST /kbs/v0/auth HTTP/1.1\r\nHost: keys\r\nContent-Length: %d" % len(body), body


def status(said):
    return int(said.head.split(b" ")[1])


def test_the_console_tells_no_difference(keyed, fresh, tmp_path, token):
    """Without detail, whoever looks at the console learns only that no key came (S41)."""
    broker, disk = fresh
    bundle = keyed.variant(tmp_path / "variant", lambda tree: tree["fail"].update(detail="public"))
    lines = []
    for here in (Hostile(never, own=impostor(tmp_path / "other")), stolen(broker, redirect)):
        with keyed.wire.leads_to(here):
            found = keyed.boot(bundle, disk, tmp_path)
        check_refused(found, token, "key-refused", stage="keys")
        ours = [line.partition("troth: ")[2] for line in found.console.splitlines()]
        # The stages before take their time; the one that failed does not say how long.
        lines.append([re.sub(r" ok \d+$", " ok", line) for line in ours if line])
    assert lines[0] == lines[1]
    assert lines[0][-2:] == [
        "stage keys failed key-refused", "refused key-refused: the details stay in the guest",
    ]  # fmt: skip
