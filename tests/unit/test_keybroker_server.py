# SPDX-License-Identifier: Apache-2.0
"""The broker's sockets: TLS, bounds, slow and odd peers, many guests at once, the end."""

import contextlib
import json
import socket
import ssl
import threading
import time

import pytest

import made_broker as made
from made_broker import Guest
from troth.attest import http
from troth.ciphers.key_agreement import AgreementKey
from troth.keybroker import resources, sessions
from troth.keybroker.rate import Limit, Rate, counted_as
from troth.keybroker.server import Bounds
from troth.keybroker.volume_state import Volume
from troth.signing import service_certificates


@pytest.fixture
def kept(tmp_path):
    return made.kept(tmp_path / "db")


def connect(port, **words):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    for name, value in words.items():
        setattr(context, name, value)
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=made.LIMIT_S))


def test_tls(kept):
    with made.running(kept) as broker:
        with connect(broker.port) as sock:
            assert sock.version() == "TLSv1.3"
            assert sock.compression() is None
            pem = ssl.DER_cert_to_PEM_cert(sock.getpeercert(binary_form=True)).encode()
            sock.sendall(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n")
            assert sock.recv(10) == b"HTTP/1.1 2"
            assert sock.session is None or not sock.session.has_ticket
        with pytest.raises(ssl.SSLError):
            connect(broker.port, maximum_version=ssl.TLSVersion.TLSv1_2)
        file = (kept.folder / "tls.pem").read_bytes()
        pin = service_certificates.spki_sha256(file)
        assert service_certificates.spki_sha256(pem) == pin
        # A client that knows the certificate and the name is content with both.
        context = ssl.create_default_context(cadata=file.decode())
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        raw = socket.create_connection(("127.0.0.1", broker.port), timeout=made.LIMIT_S)
        context.wrap_socket(raw, server_hostname="127.0.0.1").close()


def test_the_key_outlives_a_start(kept):
    pins = []
    for _ in range(2):
        with made.running(kept):
            pins.append(service_certificates.spki_sha256((kept.folder / "tls.pem").read_bytes()))
    assert pins[0] == pins[1]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /healthz\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nhost: a\r\n\r\n", 505),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nhost: a\r\n" + b"a: b\r\n" * 65 + b"\r\n", 431),
        (b"GET /healthz HTTP/1.1\r\nhost: a\r\nx: " + b"y" * (16 << 10), 431),
        (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1048577\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", 501),
        (b"GET /" + b"a" * 2000 + b" HTTP/1.1\r\nhost: a\r\n\r\n", 414),
        (b"\x00\x01\x02\r\n\r\n", 400),
    ],
)
def test_odd_requests(kept, data, status):
    with made.running(kept) as broker, broker.client() as client:
        client.sock.sendall(data)
        found, fields, body = client.receive()
        assert found == status
        assert set(json.loads(body)) == {"type", "detail"}
        assert dict(fields)["connection"] == "close"
        assert client.sock.recv(1) == b""


def test_largest_body(kept):
    with made.running(kept) as broker, broker.client() as client:
        status, _fields, _answer = client.ask("POST", "/kbs/v0/auth", b" " * (1 << 20))
        assert status == 401
        client.send("POST", "/kbs/v0/auth", b"", fields=["expect: 100-continue"])
        assert client.receive()[0] == 401
        assert client.ask("GET", "/healthz")[0] == 200


def test_peers_without_a_handshake_are_cut_off(kept):
    with made.running(kept, bounds=Bounds(handshake_s=0.2)) as broker:
        with socket.create_connection(("127.0.0.1", broker.port), timeout=made.LIMIT_S) as raw:
            assert raw.recv(1) == b""
        with broker.client(plain=True) as client:
            client.sock.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            assert not client.sock.recv(100).startswith(b"HTTP")


def test_slow_peers_are_cut_off(kept):
    """Neither a request, nor the rest of one."""
    with made.running(kept, bounds=Bounds(request_s=0.2)) as broker:
        with broker.client() as client:
            assert client.sock.recv(1) == b""
        with broker.client() as client:
            client.sock.sendall(
                b"POST /kbs/v0/auth HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n{"
            )
            assert client.receive()[0] == 408


def test_slow_peers_hold_no_worker(kept):
    with made.running(kept, bounds=Bounds(workers=1)) as broker:
        slow = [connect(broker.port) for _ in range(20)]
        for sock in slow:
            sock.sendall(b"POST /kbs/v0/auth HTTP/1.1\r\nhost: a\r\ncontent-length: 99\r\n\r\n{")
        with broker.client() as client:
            assert Guest(client).handshake().get()[0] == 200
        for sock in slow:
            sock.close()


def test_peer_that_does_not_read(kept):
    body = b"x" * (8 << 20)

    def answer(_request, _peer):
        return http.Response(200, body)

    quick = Bounds(request_s=0.2, write_s=0.2)
    with made.running(kept, bounds=quick, answer=answer) as broker, broker.client() as client:
        client.send("GET", "/")
        deadline = time.monotonic() + made.LIMIT_S
        while broker.server._open:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        got = 0
        with contextlib.suppress(OSError):
            while data := client.sock.recv(1 << 16):
                got += len(data)
        assert got < len(body)


def test_too_many_connections(kept):
    bounds = Bounds(connections=2, spare=2)
    with made.running(kept, bounds=bounds) as broker:
        held = [broker.client() for _ in range(2)]
        silent = []
        for client in held:
            assert client.ask("GET", "/healthz")[0] == 200
        with broker.client() as third:
            status, fields, answer = third.ask("GET", "/healthz")
            assert (status, fields["retry-after"], fields["connection"]) == (503, "1", "close")
            assert set(answer) == {"type", "detail"}
        # Beyond the spare ones nobody is answered: cut off before a handshake.
        deadline = time.monotonic() + made.LIMIT_S
        while len(broker.server._open) < 4:
            silent.append(socket.create_connection(("127.0.0.1", broker.port)))
            time.sleep(0.01)
            assert time.monotonic() < deadline
        with pytest.raises(OSError):
            broker.client()
        for client in held:
            client.sock.close()
        for sock in silent:
            sock.close()
        while True:
            try:
                with broker.client() as client:
                    if client.ask("GET", "/healthz")[0] == 200:
                        break
            except OSError:
                pass
            assert time.monotonic() < deadline


def test_one_address_cannot_have_all_connections(kept):
    bounds = Bounds(connections=20, spare=5, of_peer=2, peer_spare=1)
    with made.running(kept, bounds=bounds) as broker:
        first, second = broker.client(), broker.client()
        guest = Guest(first)
        nonce = guest.auth()
        third = broker.client()
        with pytest.raises(OSError):
            broker.client()
        # Another address finds room, who has begun goes on, and others are told.
        place = ("127.0.0.1", broker.port)
        with socket.create_connection(place, made.LIMIT_S, ("127.0.0.2", 0)) as raw:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            with context.wrap_socket(raw) as other:
                other.sendall(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n")
                assert other.recv(100).startswith(b"HTTP/1.1 200")
        assert guest.attest(nonce)[0] == 200
        assert second.ask("GET", "/healthz")[0] == 503
        for client in (first, second, third):
            client.sock.close()
        deadline = time.monotonic() + made.LIMIT_S
        while broker.server._open:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        assert not broker.server._of_peer


def test_too_much_work(kept):
    gate, begun = threading.Event(), threading.Event()

    def answer(_request, _peer):
        begun.set()
        assert gate.wait(made.LIMIT_S)
        return http.Response(200, b"{}")

    one = Bounds(workers=1, queued=1)
    with (
        made.running(kept, bounds=one, answer=answer) as broker,
        broker.client() as first,
        broker.client() as second,
    ):
        first.send("GET", "/")
        assert begun.wait(made.LIMIT_S)
        assert second.ask("GET", "/")[0] == 503
        gate.set()
        assert first.receive()[0] == 200


def test_rates():
    rate = Rate(Limit(2, 1), Limit(3, 10))
    assert [rate.take("a", now=0) for _ in range(3)] == [True, True, False]
    assert rate.take("b", now=0)
    # All together have no more, whoever asks.
    assert not rate.take("c", now=0)
    assert rate.take("c", now=0.5)
    assert not rate.take("a", now=0.5)
    assert rate.take("a", now=1.5)
    # A clock that stands still, or goes back, fills nothing.
    assert [rate.take("a", now=1) for _ in range(2)] == [False, False]
    for number in range(5000):
        rate.take(str(number), now=2)
    assert len(rate._of_peer) <= 4096


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("odd", "odd"),
    ],
)
def test_whom_an_address_is_counted_as(address, name):
    assert counted_as(address) == name


def test_rate_over_the_wire(kept):
    rate = Rate(Limit(1, 0), Limit(9, 0))
    with made.running(kept, rate=rate) as broker, broker.client() as client:
        assert client.ask("GET", "/healthz")[0] == 200
        status, fields, _answer = client.ask("GET", "/healthz")
        assert (status, fields["retry-after"]) == (429, "1")


def test_who_has_begun_is_not_turned_away(kept):
    """Else guests that boot at once would all be sent back half way, again and again."""
    rate = Rate(Limit(1, 0), Limit(9, 0))
    with made.running(kept, rate=rate) as broker, broker.client() as client:
        guest = Guest(client).handshake()
        assert guest.get()[0] == 200
        # Not without end: a session is for a boot.
        for _ in range(sessions.MAX_REQUESTS - 2):
            assert broker.broker._sessions.is_known(guest.cookie[-32:], now=made.AT)
        assert guest.get()[0] == 429


def test_requests_of_one_connection(kept):
    with made.running(kept, bounds=Bounds(requests=2)) as broker, broker.client() as client:
        assert client.ask("GET", "/healthz")[1]["connection"] == "keep-alive"
        assert client.ask("GET", "/healthz")[1]["connection"] == "close"
        assert client.sock.recv(1) == b""


def test_end_lets_what_is_under_way_finish(kept):
    begun, gate = threading.Event(), threading.Event()

    def answer(_request, _peer):
        begun.set()
        assert gate.wait(made.LIMIT_S)
        return http.Response(200, b"{}")

    bounds = Bounds(end_s=made.LIMIT_S)
    with made.running(kept, answer=answer, bounds=bounds) as broker:
        client = broker.client()
        client.send("GET", "/")
        assert begun.wait(made.LIMIT_S)
        broker.server.stop()
        deadline = time.monotonic() + made.LIMIT_S
        while taken(broker):
            assert time.monotonic() < deadline
        gate.set()
        status, fields, _body = client.receive()
        assert (status, dict(fields)["connection"]) == (200, "close")
        client.sock.close()


def taken(broker):
    """Whether another connection is taken."""
    try:
        # One that is in the backlog when the listener closes may hear nothing of it.
        broker.client(timeout_s=1).sock.close()
    except OSError:
        return False
    return True


def guest_of(broker, number, results):
    """A guest as patient as one in an initramfs: told to come again, it does."""
    report_id, key = number.to_bytes(32, "little"), AgreementKey()
    for _ in range(100):
        try:
            with broker.client() as client:
                guest = Guest(client, key=key, report_id=report_id).handshake()
                status, answer = guest.get(f"default/disk-key/v{number}")
                if status != 503:
                    results.append((number, status, json.loads(answer)["volume"][:8]))
                    return
        except (OSError, AssertionError):
            time.sleep(0.05)
    results.append((number, 0, ""))


def test_a_hundred_guests_at_once(tmp_path):
    kept = made.kept(tmp_path / "db")
    for number in range(100):
        resources.add_volume(
            kept, f"default/disk-key/v{number}", uuid=f"{number:08x}{made.UUID[8:]}",
            profile=made.PROFILE, key=made.KEY, images=["demo"], volume=Volume(), at=made.AT,
        )  # fmt: skip
    results = []
    with made.running(kept, bounds=Bounds(connections=48, spare=16)) as broker:
        threads = [
            threading.Thread(target=guest_of, args=(broker, number, results))
            for number in range(100)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        audit = broker.audit()
    assert sorted(results) == [(number, 200, f"{number:08x}") for number in range(100)]
    released = [item["resource"] for item in audit if item["code"] == "released"]
    assert len(released) == len(set(released)) == 100
