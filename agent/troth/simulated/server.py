# SPDX-License-Identifier: Apache-2.0
"""The sockets of a simulated platform: one front, a few who command.

Serves ``machine.runner``, whose loop it joins by one descriptor, and tests. One
frame is read and answered at a time, so that a front that does not read cannot
make memory grow. What is no frame ends the connection, never the server. Must
never block: a guest that hangs must not hang the run that watches it.

Source: DESIGN section 6; frames: ``simulated.wire``; commands: ``simulated.control``.
"""

from __future__ import annotations

import errno
import selectors
import socket
import time
from typing import TYPE_CHECKING

from troth.errors import FormatError, HostError
from troth.simulated import control, wire
from troth.simulated.wire import Frame, Head

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from troth.simulated.host import Host

MAX_CONTROLLERS = 4
_CHUNK_BYTES = 64 << 10
_BACKLOG = 16
_TICK_S = 0.05


class Server:
    """Listens at ``front_socket`` and, where given, ``control_socket``, for ``host``.

    Sockets are made for the owner alone; what a dead run left at their place is
    replaced. Raises ``HostError`` ``sim-socket``.
    """

    def __init__(
        self, host: Host, *, front_socket: Path, control_socket: Path | None = None
    ) -> None:
        self._host = host
        self._selector = selectors.EpollSelector()
        self._paths: list[Path] = []
        self._front: _Front | None = None
        self._controllers: list[_Controller] = []
        try:
            self._listen(front_socket, self._accept_front)
            if control_socket is not None:
                self._listen(control_socket, self._accept_controller)
        except HostError:
            self.close()
            raise

    def fileno(self) -> int:
        """Readable when ``step`` has work. What is delayed needs ``step`` from time to time too."""
        return self._selector.fileno()

    def step(self, *, timeout_s: float = 0.0) -> bool:
        """Do what can be done now, waiting at most ``timeout_s`` for it; always true."""
        due_s = self._front.due_s if self._front is not None else None
        if due_s is not None:
            timeout_s = max(0.0, min(timeout_s, due_s - time.monotonic()))
        for key, _ in self._selector.select(timeout=timeout_s):
            key.data()
        if self._front is not None:
            self._front.advance()
        return True

    def serve(self, stop: Callable[[], bool]) -> None:
        """``step`` until ``stop()``, which is asked about twenty times a second."""
        while not stop():
            self.step(timeout_s=_TICK_S)

    def close(self) -> None:
        """End all connections and take the sockets away."""
        for connection in (self._front, *self._controllers):
            if connection is not None:
                connection.end()
        for key in list(self._selector.get_map().values()):
            self._selector.unregister(key.fileobj)
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()
        for path in self._paths:
            path.unlink(missing_ok=True)

    def _listen(self, path: Path, accept: Callable[[socket.socket], object]) -> None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            if path.is_socket() and not _answers(path):
                path.unlink()
            listener.bind(str(path))
            self._paths.append(path)
            path.chmod(0o600)
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            raise HostError(
                "sim-socket",
                f"the simulated platform cannot listen there: {error.strerror or error}",
                where=str(path),
            ) from None
        listener.setblocking(False)
        self._selector.register(
            listener, selectors.EVENT_READ, lambda: self._accepted(listener, accept)
        )

    def _accepted(self, listener: socket.socket, accept: Callable[[socket.socket], object]) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:  # whoever called has gone again
            return
        connection.setblocking(False)
        accept(connection)

    def _accept_front(self, connection: socket.socket) -> None:
        if self._front is not None:
            self._host.counters["connections-refused"] += 1
            connection.close()
            return
        self._host.counters["connections"] += 1
        self._front = _Front(connection, self._host, self._selector, self._front_ended)

    def _front_ended(self) -> None:
        self._front = None

    def _accept_controller(self, connection: socket.socket) -> None:
        if len(self._controllers) == MAX_CONTROLLERS:
            connection.close()
            return
        controller = _Controller(
            connection, self._host, self._selector, lambda: self._controllers.remove(controller)
        )
        self._controllers.append(controller)


def _answers(path: Path) -> bool:
    """Whether somebody listens at ``path``: then it is another run's and is left alone."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.setblocking(False)
        return caller.connect_ex(str(path)) != errno.ECONNREFUSED


class _Connection:
    """A socket without blocking: bytes that came, bytes that go, and its place in the selector."""

    def __init__(
        self,
        connection: socket.socket,
        host: Host,
        selector: selectors.EpollSelector,
        ended: Callable[[], object],
    ) -> None:
        self._socket = connection
        self._host = host
        self._selector = selector
        self._ended = ended
        self._open = True
        self._incoming = bytearray()
        self._outgoing = b""
        self._events = selectors.EVENT_READ
        selector.register(connection, self._events, self._ready)

    def _ready(self) -> None:
        raise NotImplementedError

    def _receive(self, limit_bytes: int) -> bool:
        """Take in what is there, to ``limit_bytes`` in all; false at the end."""
        room = min(_CHUNK_BYTES, limit_bytes - len(self._incoming))
        if room <= 0:
            return True
        try:
            data = self._socket.recv(room)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._incoming += data
        return bool(data)

    def _send(self) -> bool:
        """Send what can be sent now; false at the end."""
        try:
            while self._outgoing:
                sent = self._socket.send(self._outgoing)
                self._outgoing = self._outgoing[sent:]
        except BlockingIOError:
            pass
        except OSError:
            return False
        return True

    def _wait_for(self, events: int) -> None:
        """Have ``_ready`` called for ``events``, or for nothing at all."""
        if not self._open or events == self._events:
            return
        if not events:
            self._selector.unregister(self._socket)
        elif not self._events:
            self._selector.register(self._socket, events, self._ready)
        else:
            self._selector.modify(self._socket, events, self._ready)
        self._events = events

    def end(self) -> None:
        """Close it."""
        if self._open:
            self._wait_for(0)
            self._open = False
            self._socket.close()
            self._ended()


class _Front(_Connection):
    """The guest's front: frames of exactly the length they must have, one after the other."""

    def __init__(
        self,
        connection: socket.socket,
        host: Host,
        selector: selectors.EpollSelector,
        ended: Callable[[], object],
    ) -> None:
        super().__init__(connection, host, selector, ended)
        self._head: Head | None = None
        self._last_sequence: int | None = None
        #: When the answer that is ready may be sent (monotonic), None where none is held back.
        self.due_s: float | None = None

    def _ready(self) -> None:
        # While an answer is on its way nothing is read: the next frame waits in the socket.
        if self._busy():
            self.advance()
            return
        if not self._receive(self._wanted_bytes()):
            self.end()
            return
        self._take_frame()

    def advance(self) -> None:
        """Send what is due."""
        if not self._open or not self._busy():
            return
        if self.due_s is not None:
            if time.monotonic() < self.due_s:
                return
            self.due_s = None
        if not self._send():
            self.end()
            return
        self._wait_for(selectors.EVENT_WRITE if self._outgoing else selectors.EVENT_READ)

    def _busy(self) -> bool:
        return bool(self._outgoing)

    def _wanted_bytes(self) -> int:
        body_bytes = self._head.request_body_bytes if self._head is not None else 0
        return wire.HEADER_BYTES + body_bytes

    def _take_frame(self) -> None:
        if self._head is None and len(self._incoming) == wire.HEADER_BYTES:
            try:
                self._head = self._next(wire.request_head(bytes(self._incoming)))
            except FormatError:
                self._host.counters["frames-broken"] += 1
                self.end()
                return
        if self._head is None or len(self._incoming) < self._wanted_bytes():
            return
        frame = Frame(self._head, bytes(self._incoming[wire.HEADER_BYTES :]))
        self._incoming.clear()
        self._head = None
        self._answer(frame)

    def _next(self, head: Head) -> Head:
        last = self._last_sequence
        if last is not None and head.sequence != last + 1:
            raise FormatError("sim-wire-sequence", f"frame {head.sequence} after {last}")
        self._last_sequence = head.sequence
        return head

    def _answer(self, frame: Frame) -> None:
        reply = self._host.answer(frame)
        if reply.close:
            self.end()
            return
        if reply.data is None:
            return
        self._outgoing = reply.data
        if reply.delay_ms:
            self.due_s = time.monotonic() + reply.delay_ms / 1000
            self._wait_for(0)
        self.advance()


class _Controller(_Connection):
    """One who commands: a line in, a line out."""

    def _ready(self) -> None:
        if self._outgoing:
            if not self._send():
                self.end()
                return
        elif not self._receive(control.MAX_LINE_BYTES + 1):
            self.end()
            return
        self._answer()

    def _answer(self) -> None:
        while not self._outgoing:
            line, newline, rest = self._incoming.partition(b"\n")
            if not newline:
                if len(line) > control.MAX_LINE_BYTES:
                    self.end()
                break
            self._incoming = rest
            self._outgoing = control.answer(bytes(line), self._host)
            if not self._send():
                self.end()
                return
        self._wait_for(selectors.EVENT_WRITE if self._outgoing else selectors.EVENT_READ)
