# SPDX-License-Identifier: Apache-2.0
"""HTTPS to one broker: TLS 1.3, a pinned identity, one deadline, nothing else.

Serves ``kbs`` and ``spiffe``. No issuers of the system, no proxy, no redirect,
no compression, no session that is resumed, no cookie but the key broker
protocol's, and no way to speak without TLS. Every wait ends at the deadline,
also where the other side sends a byte now and then. Must never send a byte of a
request before ``broker.check`` said who listens.

Source: RFC 8446, RFC 9112; SECURITY S22.
"""

from __future__ import annotations

import _thread
import os
import socket
import ssl
import time

from troth.boot.key_sources import broker as brokers
from troth.boot.key_sources.http_answer import Parser
from troth.documents import kbs
from troth.documents.kbs_error import printable
from troth.errors import ProviderError
from troth.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from troth.boot.key_sources.http_answer import HttpAnswer
    from troth.documents.policy_keys import Broker

_PIECE_BYTES = 16 << 10
_MAX_PLACES_OF_A_NAME = 4
# The least that an address or a name gets, however many there are.
_LEAST_ATTEMPT_S = 0.05


@record
class ClientIdentity:
    """``chain``: DER, the own certificate first; ``private``: its key, PEM of PKCS #8."""

    chain: tuple[bytes, ...]
    private: bytes

    def __repr__(self) -> str:
        return "ClientIdentity(...)"


class HttpsClient:
    """One broker, over one connection at a time.

    ``deadline_s``: on the monotonic clock, for everything; ``own``: a certificate
    to show; ``now``: the clock by which certificates are judged, in unix seconds.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        deadline_s: float,
        own: ClientIdentity | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._broker = broker
        self._deadline_s = deadline_s
        self._now = now
        self._context = _context(own)
        self._connection: ssl.SSLSocket | None = None
        self._host = ""
        self.identity = ""
        """Who answered last, as ``broker.check`` says it."""

    def request(
        self, method: str, path: str, body: bytes | None = None, *, session: str = ""
    ) -> HttpAnswer:
        """The answer to ``method`` on ``path``, whatever its status but a redirect.

        ``session``: the cookie to show. A connection that was kept and proves to
        be closed is made once more; one who is too busy is asked again when it says, as
        long as there is time. Raises ``ProviderError``: ``broker-unreachable``,
        ``broker-tls``, ``broker-identity``, ``broker-timeout``, ``broker-answer``,
        ``broker-size``, ``broker-redirect``.
        """
        answer = self._once(method, path, body, session)
        while answer.retry_s:
            if self._deadline_s - time.monotonic() <= answer.retry_s:
                break
            time.sleep(answer.retry_s)
            answer = self._once(method, path, body, session)
        return answer

    def _once(self, method: str, path: str, body: bytes | None, session: str) -> HttpAnswer:
        kept = self._connection is not None
        try:
            answer = self._exchange(method, path, body, session)
            if answer is None and kept:
                self.close()
                answer = self._exchange(method, path, body, session)
            if answer is None:
                raise self._error("broker-answer", "the connection was closed without an answer")
        except ProviderError:
            self.close()
            raise
        if answer.closes:
            self.close()
        return answer

    def close(self) -> None:
        """End the connection, without waiting for the other side."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _exchange(
        self, method: str, path: str, body: bytes | None, session: str
    ) -> HttpAnswer | None:
        """The answer; none where the connection ended before its first byte."""
        if self._connection is None:
            self._connection = self._connect()
        connection = self._connection
        parser = Parser(where=self._broker.name)
        try:
            connection.settimeout(self._left_s())
            connection.sendall(self._request(method, path, body, session))
            while True:
                connection.settimeout(self._left_s())
                data = connection.recv(_PIECE_BYTES)
                if not data and not parser.begun:
                    return None
                if not data:
                    raise self._error("broker-answer", "the answer ends too early")
                answer = parser.feed(data)
                if answer is not None:
                    return answer
        except TimeoutError:
            raise self._late() from None
        except ssl.SSLError as error:
            raise self._tls(error) from None
        except OSError as error:
            if not parser.begun and isinstance(error, ConnectionError):
                return None
            raise self._error("broker-answer", f"the connection broke: {error.strerror}") from None

    def _request(self, method: str, path: str, body: bytes | None, session: str) -> bytes:
        lines = [
            f"{method} {path} HTTP/1.1",
            f"Host: {self._host}",
            "User-Agent: troth",
            "Accept: application/json",
            "Accept-Encoding: identity",
        ]
        if session:
            lines.append(f"Cookie: {kbs.COOKIE}={session}")
        if body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        return "\r\n".join([*lines, "", ""]).encode("ascii") + (body or b"")

    def _connect(self) -> ssl.SSLSocket:
        """A connection to the first address at which the broker is."""
        failure = self._error("broker-unreachable", "the policy has no address of it")
        addresses = self._broker.addresses
        for index, address in enumerate(addresses):
            host, _, port = address.rpartition(":")
            share_s = self._left_s() / (len(addresses) - index)
            until_s = time.monotonic() + max(share_s, _LEAST_ATTEMPT_S)
            try:
                plain = self._reach(host.strip("[]"), int(port), until_s)
                connection = self._secure(plain, until_s)
            except ProviderError as error:
                # Somebody at the broker's place who is not the broker says more than silence.
                if failure.code not in ("broker-identity", "broker-tls"):
                    failure = error
                continue
            self._host = self._broker.server_name or address
            return connection
        raise failure

    def _reach(self, host: str, port: int, until_s: float) -> socket.socket:
        failure = self._error("broker-unreachable", f"no address is known for {host}")
        for family, place in self._places(host, port, until_s):
            plain = socket.socket(family, socket.SOCK_STREAM)
            try:
                plain.settimeout(max(until_s - time.monotonic(), _LEAST_ATTEMPT_S))
                plain.connect(place)
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:
                plain.close()
                why = error.strerror or "no answer in time"
                failure = self._error("broker-unreachable", f"{host} port {port}: {why}")
                continue
            return plain
        self._left_s()
        raise failure

    def _places(self, host: str, port: int, until_s: float) -> list[tuple[int, tuple[str, int]]]:
        """The addresses of ``host``. A resolver has no deadline of its own, so a thread asks it."""
        found: list[tuple[int, tuple[str, int]]] = []
        done = _thread.allocate_lock()
        done.acquire()

        def ask() -> None:
            try:
                # As bytes: text would go through a codec that no image carries.
                answers = socket.getaddrinfo(host.encode(), port, type=socket.SOCK_STREAM)
                found.extend((int(item[0]), (str(item[4][0]), port)) for item in answers)
            except (OSError, UnicodeError):
                found.clear()
            finally:
                done.release()

        _thread.start_new_thread(ask, ())
        if not done.acquire(timeout=max(until_s - time.monotonic(), _LEAST_ATTEMPT_S)):
            self._left_s()
            raise self._error("broker-unreachable", f"the name {host} was not resolved in time")
        return found[:_MAX_PLACES_OF_A_NAME]

    def _secure(self, plain: socket.socket, until_s: float) -> ssl.SSLSocket:
        try:
            plain.settimeout(max(until_s - time.monotonic(), _LEAST_ATTEMPT_S))
            # As bytes: text would go through a codec that no image carries.
            name = self._broker.server_name.encode("ascii") or None
            secured = self._context.wrap_socket(plain, server_hostname=name)
        except TimeoutError:
            plain.close()
            raise self._late() from None
        except ssl.SSLError as error:
            plain.close()
            raise self._tls(error) from None
        except OSError as error:
            plain.close()
            raise self._error("broker-tls", f"the handshake broke off: {error}") from None
        try:
            certificate = secured.getpeercert(binary_form=True)
            self.identity = brokers.check(self._broker, certificate or b"", now=int(self._now()))
        except ProviderError:
            secured.close()
            raise
        return secured

    def _left_s(self) -> float:
        left_s = self._deadline_s - time.monotonic()
        if left_s <= 0:
            raise self._late()
        return left_s

    def _late(self) -> ProviderError:
        return self._error("broker-timeout", "it did not answer in time")

    def _tls(self, error: ssl.SSLError) -> ProviderError:
        return self._error(
            "broker-tls",
            f"no TLS 1.3: {printable(error.reason or str(error), most=80)}",
            hint="a broker speaks TLS 1.3 itself; nothing may end TLS before it",
        )

    def _error(self, code: str, message: str, *, hint: str = "") -> ProviderError:
        return ProviderError(code, f"broker {self._broker.name}: {message}", hint=hint)


def _context(own: ClientIdentity | None) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    # Who it is, ``broker.check`` says: this library cannot judge at another time than the clock's,
    # and knows names but not keys. That the other side owns its certificate's key is proved anyway.
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    made.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_TICKET
    if own is not None:
        _load(made, own)
    return made


def _load(context: ssl.SSLContext, own: ClientIdentity) -> None:
    """The library reads files only; this one is in memory, nameless, and ends here."""
    text = own.private + "".join(ssl.DER_cert_to_PEM_cert(item) for item in own.chain).encode()
    fd = os.memfd_create("identity", os.MFD_CLOEXEC)
    try:
        os.write(fd, text)
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    finally:
        os.pwrite(fd, bytes(len(text)), 0)
        os.close(fd)
