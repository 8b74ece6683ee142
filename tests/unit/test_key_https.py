# SPDX-License-Identifier: Apache-2.0
"""The client that fetches keys, against whoever may stand at a broker's place."""

import functools
import socket
import ssl
import time

import pytest

import made_tls
from made_tls import Broker, Listener, answer, answering, authority, base64_of, certificate, key
from troth.boot.key_sources import https
from troth.boot.key_sources.https import ClientIdentity, HttpsClient
from troth.errors import ProviderError

OWN = made_tls.pin(key(2))
YES = answer(b'{"yes":1}')
START = made_tls.START


def client(broker, *, within_s=5.0, now=START + 1000, own=None):
    deadline_s = time.monotonic() + within_s
    return HttpsClient(broker, deadline_s=deadline_s, now=lambda: now, own=own)


def ask(broker, **options):
    asker = client(broker, **options)
    try:
        return asker.request("GET", "/x"), asker.identity
    finally:
        asker.close()


def code_of(broker, **options):
    with pytest.raises(ProviderError) as caught:
        ask(broker, **options)
    return caught.value.code


def pinned(*listeners, spki=(OWN,)):
    return Broker(addresses=tuple(item.address for item in listeners), spki=spki)


def secure(handle=None, **context):
    return Listener(handle or answering(YES, YES), context=made_tls.server_context(**context))


# --- who is there ---------------------------------------------------------------------------


def test_the_pinned_key_is_the_broker():
    with secure() as there:
        found, identity = ask(pinned(there))
    assert (found.status, found.body) == (200, b'{"yes":1}')
    assert identity == f"spki-sha256:{OWN}"


def test_any_of_the_pins_will_do():
    with secure() as there:
        assert ask(pinned(there, spki=("00" * 32, OWN)))[0].status == 200


@pytest.mark.parametrize("spki", [("00" * 32,), (OWN[::-1],), (OWN[:62],), ("",)])
def test_another_key_is_somebody_else_and_gets_no_request(spki):
    heard = []

    def handle(connection):
        heard.append(connection.recv(100))

    with secure(handle) as there:
        assert code_of(pinned(there, spki=spki)) == "broker-identity"
    assert heard in ([], [b""])


def test_a_name_that_leads_elsewhere_changes_nothing():
    with secure(number=3) as elsewhere:
        broker = Broker(addresses=(f"localhost:{elsewhere.port}",), spki=(OWN,))
        assert code_of(broker) == "broker-identity"


def test_dates_say_nothing_about_a_pinned_key():
    old = certificate(key(2), subject="self", issuer="self", begins=START - 10**9, days=1)
    with secure(chain=(old,)) as there:
        assert ask(pinned(there))[0].status == 200


def test_a_policy_that_pins_nobody_trusts_nobody():
    with secure() as there:
        broker = Broker(addresses=(there.address,))
        assert code_of(broker) == "broker-identity"
        only_issuer = Broker(addresses=(there.address,), ca=(base64_of(authority()),))
        assert code_of(only_issuer) == "broker-identity"


def issued(there, *, number=1, **changes):
    known = {"ca": (base64_of(authority(number)),), "server_name": "broker.example"}
    return Broker(addresses=(there.address,), **(known | changes))


def chain(**changes):
    return (certificate(key(2), key(1), **({"dns": ("broker.example",)} | changes)),)


def test_an_issuer_and_a_name_are_the_broker():
    with secure(chain=chain()) as there:
        found, identity = ask(issued(there))
    assert found.status == 200
    assert identity == "dns:broker.example"


class Name(str):
    """Text in an interpreter without the codec for names, as images have it."""

    __slots__ = ()

    def encode(self, encoding="utf-8", errors="strict"):
        if encoding == "idna":
            raise LookupError(f"unknown encoding: {encoding}")
        return super().encode(encoding, errors)


def test_a_name_needs_no_codec():
    heard = []
    context = made_tls.server_context(chain=chain(dns=("broker.example", "x.example")))
    context.sni_callback = lambda _connection, name, _context: heard.append(name)
    with Listener(answering(YES), context=context) as there:
        assert ask(issued(there, server_name=Name("broker.example")))[0].status == 200
    assert heard == ["broker.example"]


def test_an_issuer_that_is_too_old_issues_nothing():
    old = authority(1, days=1)
    with secure(chain=chain()) as there:
        broker = issued(there, ca=(base64_of(old),))
        assert ask(broker)[0].status == 200
        assert code_of(broker, now=START + 2 * made_tls.DAY_S) == "broker-identity"


LATE = START + 366 * made_tls.DAY_S


@pytest.mark.parametrize(
    ("leaf", "broker", "now"),
    [
        ({"dns": ("other.example",)}, {}, START + 1000),
        ({"dns": ("*.example",)}, {}, START + 1000),
        ({"dns": ()}, {}, START + 1000),
        ({"dns": (), "subject": "broker.example"}, {}, START + 1000),
        ({"authority": True}, {}, START + 1000),
        ({"usage": (made_tls.ExtendedKeyUsageOID.CLIENT_AUTH,)}, {}, START + 1000),
        ({}, {"server_name": "127.0.0.1"}, START + 1000),
        ({}, {"server_name": "broker.example."}, START + 1000),
        ({}, {"server_name": "broker.example", "spiffe_id": "spiffe://a/b"}, START + 1000),
        ({}, {"number": 3}, START + 1000),
        ({}, {}, LATE),
        ({}, {}, START - 10),
        # A clock that was set back does not bring an old certificate to life.
        ({}, {"not_before": LATE}, START + 1000),
    ],
)
def test_other_issuers_names_and_times_are_refused(leaf, broker, now):
    with secure(chain=chain(**leaf)) as there:
        assert code_of(issued(there, **broker), now=now) == "broker-identity"


def test_the_floor_helps_a_clock_that_was_never_set():
    with secure(chain=chain()) as there:
        assert ask(issued(there, not_before=START + 5), now=0)[0].status == 200


def test_issuers_that_are_sent_along_are_not_believed():
    middle = certificate(key(4), key(1), subject="middle", authority=True)
    leaf = certificate(key(2), key(4), issuer="middle", dns=("broker.example",))
    with secure(chain=(leaf, middle)) as there:
        assert code_of(issued(there)) == "broker-identity"
        known = issued(there, ca=(base64_of(middle),))
        assert ask(known)[0].status == 200


def test_a_spiffe_id_is_the_broker():
    own = chain(dns=(), uris=("spiffe://example.org/broker",))
    with secure(chain=own) as there:
        broker = issued(there, server_name="", spiffe_id="spiffe://example.org/broker")
        assert ask(broker)[1] == "spiffe://example.org/broker"
        other = issued(there, server_name="", spiffe_id="spiffe://example.org/other")
        assert code_of(other) == "broker-identity"


@pytest.mark.parametrize(
    "uris", [(), ("https://example.org/broker",), ("spiffe://e.org/a", "spiffe://example.org/b")]
)
def test_a_spiffe_id_is_the_only_uri(uris):
    with secure(chain=chain(uris=uris)) as there:
        broker = issued(there, server_name="", spiffe_id="spiffe://example.org/b")
        assert code_of(broker) == "broker-identity"


# --- what is spoken -------------------------------------------------------------------------


def test_older_tls_is_refused_whatever_the_key():
    with secure(newest=ssl.TLSVersion.TLSv1_2) as there:
        assert code_of(pinned(there)) == "broker-tls"


def test_plain_http_is_refused():
    def handle(connection):
        connection.recv(4096)
        connection.sendall(YES)

    with Listener(handle) as there:
        assert code_of(pinned(there)) == "broker-tls"


def test_a_connection_that_is_cut_in_the_handshake():
    with Listener(lambda connection: connection.close()) as there:
        assert code_of(pinned(there)) == "broker-tls"


def test_nobody_there():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    assert code_of(Broker(addresses=(address,), spki=(OWN,))) == "broker-unreachable"
    assert code_of(Broker(spki=(OWN,))) == "broker-unreachable"


def test_the_next_address_is_tried_and_the_worst_is_told():
    with secure(number=3) as wrong, secure() as right:
        both = Broker(addresses=("127.0.0.1:1", wrong.address, right.address), spki=(OWN,))
        assert ask(both)[0].status == 200
        none = Broker(addresses=(wrong.address, "127.0.0.1:1"), spki=(OWN,))
        assert code_of(none) == "broker-identity"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 300, 304])
def test_redirects_are_never_followed(status):
    with secure() as other:
        away = f"Location: https://{other.address}/x\r\n"
        with secure(answering(answer(b"", f"{status} Away", more=away))) as there:
            assert code_of(pinned(there)) == "broker-redirect"
        assert other.accepted == 0


BAD = {
    "status": (answer(status="100 Continue"), "broker-answer"),
    "old": (YES.replace(b"1.1", b"1.0"), "broker-answer"),
    "noise": (b"\0" * 40 + b"\r\n\r\n", "broker-answer"),
    "early end": (YES[:-1], "broker-answer"),
    "only a head": (YES[:30], "broker-answer"),
    "more": (YES + b"HTTP/1.1", "broker-answer"),
    "chunks": (answer(more="Transfer-Encoding: chunked\r\n"), "broker-answer"),
    "compressed": (answer(more="Content-Encoding: gzip\r\n"), "broker-answer"),
    "two lengths": (answer(more="Content-Length: 3\r\n"), "broker-answer"),
    "no length": (b"HTTP/1.1 200 OK\r\n\r\n{}", "broker-answer"),
    "signed": (b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n{}", "broker-answer"),
    "folded": (answer(more="X: a\r\n b\r\n"), "broker-answer"),
    "bare newline": (answer(more="X: a\nContent-Length: 0\r\n"), "broker-answer"),
    "large": (b"HTTP/1.1 200 OK\r\nContent-Length: 1048577\r\n\r\n", "broker-size"),
    "huge": (b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", "broker-size"),
    "long head": (answer(more=f"X: {'a' * 17000}\r\n"), "broker-size"),
    "endless head": (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 20000, "broker-size"),
    "many fields": (answer(more="X: a\r\n" * 65), "broker-size"),
    "cookie": (answer(more="Set-Cookie: kbs-session-id=x\r\n"), "broker-answer"),
    "two cookies": (
        answer(
            more=f"Set-Cookie: kbs-session-id={'a' * 32}\r\n"
            f"Set-Cookie: kbs-session-id={'b' * 32}\r\n"
        ),
        "broker-answer",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_answers_that_are_refused(name):
    text, code = BAD[name]
    with secure(answering(text)) as there:
        assert code_of(pinned(there)) == code


def test_only_the_session_is_taken_from_cookies():
    cookies = f"Set-Cookie: a=1\r\nset-cookie: kbs-session-id={'0a' * 16}; Expires=x; Path=/\r\n"
    with secure(answering(answer(more=cookies))) as there:
        assert ask(pinned(there))[0].session == "0a" * 16


def test_a_connection_is_kept_and_made_again_once():
    with secure(answering(YES)) as there, contextmanager_of(client(pinned(there))) as asker:
        for _ in range(3):
            assert asker.request("GET", "/x").status == 200
        assert there.accepted == 3
    with (
        secure(answering(YES, YES, YES)) as there,
        contextmanager_of(client(pinned(there))) as asker,
    ):
        for _ in range(3):
            assert asker.request("GET", "/x").status == 200
        assert there.accepted == 1


def test_a_connection_that_was_said_to_end_is_not_used_again():
    def handle(connection):
        made_tls.read_request(connection)
        connection.sendall(answer(more="Connection: close\r\n"))
        # It stays open, and nobody listens.
        there.over.wait(5)

    with secure(handle) as there, contextmanager_of(client(pinned(there), within_s=2)) as asker:
        for _ in range(2):
            assert asker.request("GET", "/x").status == 200
        assert there.accepted == 2


class contextmanager_of:  # noqa: N801 - reads as a function
    def __init__(self, asker):
        self.asker = asker

    def __enter__(self):
        return self.asker

    def __exit__(self, *_exception):
        self.asker.close()


def test_a_broker_that_never_answers_is_not_asked_for_ever():
    def handle(connection):
        made_tls.read_request(connection)

    with secure(handle) as there:
        assert code_of(pinned(there)) == "broker-answer"
        assert there.accepted == 1


def test_requests_are_what_the_protocol_says():
    heard = []

    def handle(connection):
        heard.append(made_tls.read_request(connection))
        connection.sendall(YES)

    with secure(handle) as there:
        asker = client(pinned(there))
        asker.request("POST", "/y", b"{}", session="ab" * 16)
        asker.close()
    (asked,) = heard
    assert (asked.method, asked.path, asked.body) == ("POST", "/y", b"{}")
    assert asked.headers == {
        "host": there.address, "user-agent": "troth", "accept": "application/json",
        "accept-encoding": "identity", "cookie": f"kbs-session-id={'ab' * 16}",
        "content-type": "application/json", "content-length": "2",
    }  # fmt: skip


def test_nothing_of_the_environment_counts(monkeypatch, tmp_path):
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    with secure() as there:
        assert ask(pinned(there))[0].status == 200
    assert list(tmp_path.iterdir()) == []


def test_no_session_is_resumed():
    resumed = []

    def handle(connection):
        resumed.append(connection.session_reused)
        answering(answer(more="Connection: close\r\n"))(connection)

    with secure(handle) as there:
        asker = client(pinned(there))
        for _ in range(3):
            asker.request("GET", "/x")
        asker.close()
    assert resumed == [False] * 3


# --- time -----------------------------------------------------------------------------------


def slow(first, step, *, of):
    """A handler that sends ``first``, and then ``step`` again and again until nobody listens."""

    def handle(connection):
        if of():
            made_tls.read_request(connection)
        connection.sendall(first)
        for _ in range(200):
            if over[0].wait(0.02):
                return
            connection.sendall(step)

    over = []
    handle.over = over
    return handle


@pytest.mark.parametrize(
    ("first", "step"), [(b"", b""), (b"HTTP/1.1 200 OK\r\n", b"X"), (YES[:-3], b"")]
)
def test_slow_answers_end_at_the_deadline(first, step):
    handle = slow(first, step, of=lambda: True)
    with secure(handle) as there:
        handle.over.append(there.over)
        began_s = time.monotonic()
        assert code_of(pinned(there), within_s=0.3) == "broker-timeout"
        assert time.monotonic() - began_s < 2


@pytest.mark.parametrize("step", [b"", b"\x16\x03\x03\x40\x00", b"\x16"])
def test_so_do_slow_handshakes(step):
    handle = slow(b"", step, of=lambda: False)
    with Listener(handle) as there:
        handle.over.append(there.over)
        began_s = time.monotonic()
        assert code_of(pinned(there), within_s=0.3) in ("broker-timeout", "broker-tls")
        assert time.monotonic() - began_s < 2


def test_a_silent_first_address_leaves_time_for_the_second():
    handle = slow(b"", b"", of=lambda: False)
    with Listener(handle) as silent, secure() as right:
        handle.over.append(silent.over)
        assert ask(pinned(silent, right), within_s=1.0)[0].status == 200


def test_no_time_left():
    with secure() as there:
        assert code_of(pinned(there), within_s=-1.0) == "broker-timeout"
        assert there.accepted == 0


def test_a_name_that_is_not_resolved_in_time(monkeypatch):
    waited = functools.partial(time.sleep, 0.5)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_a, **_k: waited() or [])
    broker = Broker(addresses=("broker.example:443",), spki=(OWN,))
    assert code_of(broker, within_s=0.1) in ("broker-timeout", "broker-unreachable")


# --- mutual TLS -----------------------------------------------------------------------------


def test_a_certificate_is_shown_where_there_is_one():
    shown = []

    def handle(connection):
        shown.append(connection.getpeercert(binary_form=True))
        answering(YES)(connection)

    own = certificate(key(5), key(1), uris=("spiffe://example.org/vm/demo",))
    context = made_tls.server_context(clients=authority())
    private = key(5).private_bytes(
        made_tls.serialization.Encoding.PEM, made_tls.serialization.PrivateFormat.PKCS8,
        made_tls.serialization.NoEncryption(),
    )  # fmt: skip
    identity = ClientIdentity((own,), private)
    assert "PRIVATE" not in repr(identity)
    with Listener(handle, context=context) as there:
        assert ask(pinned(there), own=identity)[0].status == 200
        assert shown == [own]
        # A server that wants one says so only after the client believes the handshake done.
        assert code_of(pinned(there)) in ("broker-tls", "broker-answer")


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
def test_one_who_is_busy_is_asked_again(monkeypatch, status):
    waits = []
    monkeypatch.setattr(https.time, "sleep", waits.append)
    later = answer(status=status, more="Retry-After: 3\r\n")
    untold = answer(status=status)
    with secure(answering(later, untold, YES)) as there:
        assert ask(pinned(there), within_s=30)[0].status == 200
    assert waits == [3, 1]


def test_one_who_is_busy_for_too_long_is_not_waited_for(monkeypatch):
    waits = []
    monkeypatch.setattr(https.time, "sleep", waits.append)
    later = answer(status="503 Busy", more="Retry-After: 9999\r\n")
    with secure(answering(later)) as there:
        assert ask(pinned(there), within_s=5)[0].status == 503
    assert waits == []
