# SPDX-License-Identifier: Apache-2.0
"""One caller's connection: what was read, what is to be written, until when.

Serves the server's loop. A connection is in one of four states: it reads a
request, waits for the answer, writes it, or listens out a caller that was turned
away, so that the refusal arrives. Must never read on while it waits: callers
who send more stop at the kernel's buffer, not in this process's memory.
"""

from __future__ import annotations

import os
import select
import socket

from troth.attest import http
from troth.attest.http import FilePart, Parser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.attest.exchange import Exchange
    from troth.attest.http import Request, Response
    from troth.attest.peers import Peer
    from troth.attest.rights import Rights

READING, WAITING, WRITING, LEAVING = "reading", "waiting", "writing", "leaving"
EVENTS = {
    READING: select.EPOLLIN,
    # Nothing but the caller's end, which is always told.
    WAITING: 0,
    WRITING: select.EPOLLOUT,
    LEAVING: select.EPOLLIN,
}

REQUEST_S = 10.0
"""From a request's first byte, or from connecting, to its last byte."""
IDLE_S = 30.0
"""Between an answer and the next request."""
WRITE_S = 10.0
"""Without a byte of the answer being taken."""
LEAVE_S = 2.0
"""For a caller that was turned away to stop sending."""

_CHUNK_BYTES = 64 << 10
_LEAVE_BYTES = 512 << 10


class Connection:
    """``deadline_s``: when it is closed whatever it does; ``ended``: the caller sends no more;
    ``events``: what the loop looks out for.
    """  # noqa: D205 - the fields are the summary

    __slots__ = (
        "_file", "_file_at", "_left_bytes", "_out", "deadline_s", "door", "ended", "events",
        "exchange", "fd", "keep", "parser", "peer", "rights", "sock", "state",
    )  # fmt: skip

    def __init__(
        self, sock: socket.socket, *, door: str, peer: Peer, rights: Rights, now_s: float
    ) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.door = door
        self.peer = peer
        self.rights = rights
        self.parser = Parser()
        self.state = READING
        self.events: int = EVENTS[READING]
        self.deadline_s = now_s + REQUEST_S
        self.ended = False
        self.keep = True
        self.exchange: Exchange | None = None
        self._out = b""
        self._file: FilePart | None = None
        self._file_at = 0
        self._left_bytes = _LEAVE_BYTES

    def read(self, now_s: float) -> bool:
        """Take what has come; whether there was anything. ``OSError`` where it broke."""
        room = min(self.parser.room, _CHUNK_BYTES)
        if not room:
            return True
        try:
            data = self.sock.recv(room)
        except BlockingIOError:
            return False
        if not data:
            self.ended = True
            return True
        if not self.parser.started:
            self.deadline_s = now_s + REQUEST_S
        self.parser.feed(data)
        return True

    def listen_out(self) -> bool:
        """Drop what still comes; False once the caller has stopped, or said too much."""
        try:
            data = self.sock.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return True
        self._left_bytes -= len(data)
        return bool(data) and self._left_bytes > 0

    def next(self) -> Request | None:
        """The next complete request. ``FormatError`` with a code of ``http.STATUS``."""
        request = self.parser.next()
        if request is None and self.parser.take_continue():
            # A few bytes into an empty buffer; who does not take them waits in vain.
            self.sock.send(http.CONTINUE)
        return request

    def begin(self, response: Response, *, keep: bool, now_s: float) -> None:
        """Set out to write ``response``."""
        self.state = WRITING
        self.keep = keep and not response.close
        self.deadline_s = now_s + WRITE_S
        self._out = http.head(response, keep=self.keep)
        self._file = None
        if isinstance(response.body, FilePart):
            self._file, self._file_at = response.body, 0
        else:
            self._out += response.body

    def write(self, now_s: float) -> bool:
        """Write what the caller takes; whether the answer is complete.

        ``OSError`` where the caller is gone, or the file shorter than it was.
        """
        while True:
            if not self._out and not self._more():
                return True
            try:
                sent = self.sock.send(self._out)
            except BlockingIOError:
                return False
            self._out = self._out[sent:]
            self.deadline_s = now_s + WRITE_S

    def _more(self) -> bool:
        """Fill the buffer from the file; whether there was anything left of it."""
        part = self._file
        if part is None or self._file_at >= part.size_bytes:
            return False
        missing_bytes = part.size_bytes - self._file_at
        self._out = os.pread(part.fd, min(_CHUNK_BYTES, missing_bytes), self._file_at)
        if not self._out:
            raise OSError("the file became shorter while it was sent")
        self._file_at += len(self._out)
        return True

    def rest(self, now_s: float) -> None:
        """The answer is written, and another request may come."""
        self.state = READING
        self.exchange = None
        self.deadline_s = now_s + (REQUEST_S if self.parser.started else IDLE_S)

    def leave(self, now_s: float) -> None:
        """The last answer is written: stop sending, and listen out the caller."""
        self.state = LEAVING
        self.deadline_s = now_s + LEAVE_S
        self.sock.shutdown(socket.SHUT_WR)
