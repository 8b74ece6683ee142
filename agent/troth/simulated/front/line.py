# SPDX-License-Identifier: Apache-2.0
"""The port to the host: one frame out, exactly its answer in, never a wait.

Serves ``main``, which polls. The host is the other side: whatever it sends that
is not the one answer that is due ends the line for good.
"""

from __future__ import annotations

import os
import select

from troth.errors import FormatError
from troth.simulated import wire
from troth.simulated.wire import Frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.simulated.wire import Head


class Line:
    """An open port, without blocking. ``OSError`` where it is lost."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._out = b""
        self._request: Head | None = None
        self._in = bytearray()

    @property
    def events(self) -> int:
        """What to poll for; a port that has hung up is always reported."""
        return select.POLLIN | (select.POLLOUT if self._out else 0)

    def send(self, frame: Frame) -> None:
        """Send ``frame``, as much as goes now. Only where no answer is due."""
        if self._request is not None:
            raise RuntimeError("an answer is due")
        self._request = frame.head
        self._in.clear()
        self._out = wire.encode(frame)
        self._write()

    def ready(self, events: int) -> Frame | None:
        """Do what poll found possible; the answer once it is whole.

        ``OSError`` and ``FormatError``: the line is of no more use.
        """
        if events & select.POLLOUT:
            self._write()
        if events & select.POLLIN:
            return self._read()
        if events & (select.POLLHUP | select.POLLERR | select.POLLNVAL):
            raise ConnectionResetError("the host has closed the port")
        return None

    def _write(self) -> None:
        try:
            while self._out:
                self._out = self._out[os.write(self.fd, self._out) :]
        except BlockingIOError:
            return

    def _read(self) -> Frame | None:
        request = self._request
        if request is None:
            raise FormatError("sim-wire-size", "the host says something that was not asked")
        whole_bytes = wire.HEADER_BYTES + request.answer_body_bytes
        try:
            part = os.read(self.fd, whole_bytes - len(self._in))
        except BlockingIOError:
            return None
        if not part:
            raise ConnectionResetError("the host has closed the port")
        begun = len(self._in) < wire.HEADER_BYTES
        self._in += part
        if begun and len(self._in) >= wire.HEADER_BYTES:
            # Judged before its body is waited for.
            wire.answer_head(bytes(self._in[: wire.HEADER_BYTES]), request)
        if len(self._in) < whole_bytes:
            return None
        head = wire.answer_head(bytes(self._in[: wire.HEADER_BYTES]), request)
        self._request = None
        return Frame(head, bytes(self._in[wire.HEADER_BYTES :]))
