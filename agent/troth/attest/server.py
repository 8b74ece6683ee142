# SPDX-License-Identifier: Apache-2.0
"""The loop of the agent: all sockets and all callers in one thread.

Serves ``attest.agent``. Every caller is known before its first byte is read,
every connection has a deadline, and the number of connections is bounded, for
each user too. Must never block, whoever connects, sends, stops or hangs up.

Source: DESIGN section 7; epoll(7), unix(7).
"""

from __future__ import annotations

import errno
import select
import time

from troth.attest import answers, connection, http, peers, rights
from troth.attest.connection import Connection
from troth.attest.exchange import Exchange
from troth.errors import FormatError, ProviderError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from troth.attest.http import Response
    from troth.attest.metrics import Metrics
    from troth.attest.peers import Peer
    from troth.documents.policy import Attest

BACKLOG = 1024
MAX_CONNECTIONS = 2048
USER_SHARE = 0.75
"""Of all connections, the part that one user may have; root may have them all."""
ROOT_CONNECTIONS = 32
"""Connections kept for root."""

_ACCEPTS_AT_ONCE = 64
_EVENTS_AT_ONCE = 256
_TICK_S = 1.0
_RETRY_S = 1
_NO_MORE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_HUNG_UP = select.EPOLLHUP | select.EPOLLERR


class Server:
    """``policy``: who has which right; ``handle``: answers an exchange, now or later."""

    def __init__(
        self,
        policy: Attest,
        metrics: Metrics,
        *,
        max_connections: int = MAX_CONNECTIONS,
        identify: Callable[[socket.socket], Peer] = peers.identify,
    ) -> None:
        self._policy = policy
        self._metrics = metrics
        self._max_connections = max_connections
        self._identify = identify
        self._handle: Callable[[Exchange], None] = _unattached
        self._poll = select.epoll()
        self._listeners: dict[int, tuple[socket.socket, str]] = {}
        self._watched: dict[int, Callable[[], None]] = {}
        self._connections: dict[int, Connection] = {}
        self._of_user: dict[int, int] = {}
        self._ready: list[Connection] = []
        self._ticks: list[Callable[[], None]] = []
        self._paused = False
        self._ending_s = 0.0

    @property
    def count(self) -> int:
        """Connections now."""
        return len(self._connections)

    def attach(self, handle: Callable[[Exchange], None]) -> None:
        """``handle`` answers from here on."""
        self._handle = handle

    def listen(self, listener: socket.socket, door: str) -> None:
        """Take connections from ``listener``, which listens already and does not block."""
        self._listeners[listener.fileno()] = (listener, door)
        self._poll.register(listener.fileno(), select.EPOLLIN)

    def watch(self, fd: int, call: Callable[[], None]) -> None:
        """Call ``call`` whenever ``fd`` is readable."""
        self._watched[fd] = call
        self._poll.register(fd, select.EPOLLIN)

    def every_second(self, call: Callable[[], None]) -> None:
        """Call ``call`` about once a second."""
        self._ticks.append(call)

    def end(self, grace_s: float) -> None:
        """Take no new connections, and stop when all answers are out, or after ``grace_s``."""
        if self._ending_s:
            return
        self._ending_s = time.monotonic() + grace_s
        for fd, (listener, _door) in self._listeners.items():
            self._poll.unregister(fd)
            listener.close()
        self._listeners.clear()
        for caller in list(self._connections.values()):
            if caller.state == connection.READING and not caller.parser.started:
                self._close(caller)

    def run(self) -> None:
        """Serve until ``end``."""
        next_tick_s = time.monotonic() + _TICK_S
        while not self._over():
            wait_s = 0.0 if self._ready else max(0.0, next_tick_s - time.monotonic())
            for fd, events in self._poll.poll(wait_s, _EVENTS_AT_ONCE):
                self._event(fd, events)
            ready, self._ready = self._ready, []
            for caller in ready:
                if self._is_open(caller):
                    self._advance(caller)
            now_s = time.monotonic()
            if now_s >= next_tick_s:
                next_tick_s = now_s + _TICK_S
                self._tick(now_s)

    def close(self) -> None:
        """Let go of every socket; served or not, nothing is served from here on."""
        for caller in list(self._connections.values()):
            self._close(caller)
        for listener, _door in self._listeners.values():
            listener.close()
        self._poll.close()

    def _over(self) -> bool:
        if not self._ending_s:
            return False
        return not self._connections or time.monotonic() > self._ending_s

    def _event(self, fd: int, events: int) -> None:
        if fd in self._watched:
            self._watched[fd]()
        elif fd in self._listeners:
            self._accept(*self._listeners[fd])
        else:
            caller = self._connections.get(fd)
            if caller is not None:
                self._caller_event(caller, events)

    # --- callers that come -------------------------------------------------------------------

    def _accept(self, listener: socket.socket, door: str) -> None:
        for _ in range(_ACCEPTS_AT_ONCE):
            try:
                sock, _address = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _NO_MORE:
                    self._pause(paused=True)
                    return
                # The caller hung up while it waited.
                continue
            sock.setblocking(False)
            self._take(sock, door)

    def _take(self, sock: socket.socket, door: str) -> None:
        now_s = time.monotonic()
        try:
            peer = self._identify(sock)
        except UsageError as error:
            self._turn_away(sock, answers.refused(error, close=True), error.code)
            return
        if not self._has_room(peer.uid):
            busy = answers.later(_RETRY_S, "too many connections", close=True)
            self._turn_away(sock, busy, "too-many")
            return
        granted = rights.rights(self._policy, peer, door=door)
        caller = Connection(sock, door=door, peer=peer, rights=granted, now_s=now_s)
        self._connections[caller.fd] = caller
        self._of_user[peer.uid] = self._of_user.get(peer.uid, 0) + 1
        self._poll.register(caller.fd, caller.events)
        self._metrics.count("troth_agent_connections_total", outcome="taken")

    def _has_room(self, uid: int) -> bool:
        if uid == 0:
            return self.count < self._max_connections
        share = int(self._max_connections * USER_SHARE)
        return (
            self.count < self._max_connections - ROOT_CONNECTIONS
            and self._of_user.get(uid, 0) < share
        )

    def _turn_away(self, sock: socket.socket, response: Response, outcome: str) -> None:
        """Say why, as far as the caller's buffer takes it at once, and close."""
        self._metrics.count("troth_agent_connections_total", outcome=outcome)
        body = response.body if isinstance(response.body, bytes) else b""
        try:
            sock.send(http.head(response, keep=False) + body)
        except OSError:
            # It hung up first.
            pass
        finally:
            sock.close()

    def _pause(self, *, paused: bool) -> None:
        """Stop or go on taking connections: out of descriptors, waiting beats spinning."""
        self._paused = paused
        for fd in self._listeners:
            self._poll.modify(fd, 0 if paused else select.EPOLLIN)

    # --- callers that are here ---------------------------------------------------------------

    def _is_open(self, caller: Connection) -> bool:
        return self._connections.get(caller.fd) is caller

    def _caller_event(self, caller: Connection, events: int) -> None:
        now_s = time.monotonic()
        try:
            if caller.state == connection.LEAVING:
                if not caller.listen_out():
                    self._close(caller)
            elif caller.state == connection.READING:
                if caller.read(now_s):
                    self._advance(caller)
            elif events & _HUNG_UP:
                self._close(caller)
            elif caller.state == connection.WRITING:
                self._go_on_writing(caller)
        except OSError:
            self._close(caller)

    def _advance(self, caller: Connection) -> None:
        """Answer the next request of ``caller``, if it is complete."""
        try:
            request = caller.next()
        except FormatError as error:
            self._refuse(caller, answers.refused(error, close=True))
            return
        except OSError:
            self._close(caller)
            return
        if request is None:
            if caller.ended:
                self._close(caller)
            else:
                self._set(caller, connection.READING)
            return
        caller.exchange = Exchange(
            request,
            peer=caller.peer,
            rights=caller.rights,
            door=caller.door,
            send=lambda exchange, response: self._send(caller, exchange, response),
        )
        exchange = caller.exchange
        caller.state = connection.WAITING
        # The endpoint has its own limits of time.
        caller.deadline_s = float("inf")
        self._handle(exchange)
        if exchange.open and self._is_open(caller):
            self._set(caller, connection.WAITING)

    def _refuse(self, caller: Connection, response: Response) -> None:
        self._metrics.count("troth_agent_requests_total", path="none", status=str(response.status))
        caller.begin(response, keep=False, now_s=time.monotonic())
        self._write(caller)

    def _send(self, caller: Connection, exchange: Exchange, response: Response) -> None:
        self._metrics.count(
            "troth_agent_requests_total", path=exchange.label, status=str(response.status)
        )
        keep = exchange.request.keep and not caller.ended and not self._ending_s
        caller.begin(response, keep=keep, now_s=time.monotonic())
        self._write(caller)

    def _write(self, caller: Connection) -> None:
        try:
            self._go_on_writing(caller)
        except OSError:
            self._close(caller)

    def _go_on_writing(self, caller: Connection) -> None:
        now_s = time.monotonic()
        if not caller.write(now_s):
            self._set(caller, connection.WRITING)
            return
        if not caller.keep:
            caller.leave(now_s)
            self._set(caller, connection.LEAVING)
            return
        caller.rest(now_s)
        if caller.parser.started:
            # Sent ahead: its turn comes after those of the others.
            self._ready.append(caller)
            self._watch_for(caller, 0)
        else:
            self._set(caller, connection.READING)

    def _set(self, caller: Connection, state: str) -> None:
        caller.state = state
        self._watch_for(caller, connection.EVENTS[state])

    def _watch_for(self, caller: Connection, events: int) -> None:
        if caller.events != events:
            caller.events = events
            self._poll.modify(caller.fd, events)

    def _close(self, caller: Connection) -> None:
        if not self._is_open(caller):
            return
        del self._connections[caller.fd]
        self._of_user[caller.peer.uid] -= 1
        if not self._of_user[caller.peer.uid]:
            del self._of_user[caller.peer.uid]
        if caller.exchange is not None:
            caller.exchange.hang_up()
        # Closing takes it out of the poll as well.
        caller.sock.close()

    # --- time --------------------------------------------------------------------------------

    def _tick(self, now_s: float) -> None:
        if self._paused:
            self._pause(paused=False)
        for caller in list(self._connections.values()):
            if caller.deadline_s <= now_s:
                self._late(caller)
        for call in self._ticks:
            call()

    def _late(self, caller: Connection) -> None:
        if caller.state == connection.READING and caller.parser.started:
            error = UsageError("request-timeout", "the request did not come to its end in time")
            self._refuse(caller, answers.refused(error, close=True))
        else:
            self._close(caller)


def _unattached(exchange: Exchange) -> None:
    exchange.answer(answers.refused(ProviderError("provider-busy", "the agent is starting")))
