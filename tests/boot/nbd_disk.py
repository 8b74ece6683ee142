# SPDX-License-Identifier: Apache-2.0
"""A disk whose host lies: an NBD server that counts reads and may answer with something else.

QEMU attaches it by a unix socket, so every sector the guest asks for is seen here.
Source: the NBD protocol, doc/proto.md of NetworkBlockDevice/nbd.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_HELLO = b"NBDMAGIC" + b"IHAVEOPT" + struct.pack(">H", 0b11)
_OPTION = struct.Struct(">8sII")
_REPLY = struct.Struct(">QIII")
_REPLY_MAGIC = 0x3E889045565A9
_REQUEST = struct.Struct(">IHHQQI")
_ANSWER = struct.Struct(">IIQ")
_ANSWER_MAGIC = 0x67446698
_GO, _INFO, _ABORT = 7, 6, 2
_ACK, _INFO_REPLY, _UNSUPPORTED = 1, 3, 0x80000001
_READ, _WRITE, _DISCONNECT = 0, 1, 2
#: HAS_FLAGS and SEND_FLUSH.
_FLAGS = 0b101


class NbdDisk:
    """Serves ``path`` at ``socket_path`` to one client, until ``close``.

    ``answer``: (offset, the file's bytes) -> what the guest gets. ``reads``: (offset, size) of
    all there were, in order.
    """

    def __init__(
        self, path: Path, socket_path: Path, answer: Callable[[int, bytes], bytes]
    ) -> None:
        self.reads: list[tuple[int, int]] = []
        self._answer = answer
        self._file = path.open("r+b", buffering=0)
        self._size = path.stat().st_size
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(socket_path))
        self._listener.listen(1)
        self._listener.settimeout(60)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Wait for the end of the client, which has ended or never came."""
        self._listener.close()
        self._thread.join(timeout=10)
        self._file.close()

    def _serve(self) -> None:
        # A guest that was switched off leaves in the middle of a word.
        with contextlib.suppress(OSError, EOFError):
            client, _ = self._listener.accept()
            with client:
                client.settimeout(120)
                if self._negotiate(client):
                    while self._request(client):
                        pass

    def _negotiate(self, client: socket.socket) -> bool:
        client.sendall(_HELLO)
        _take(client, 4)
        while True:
            _magic, option, size = _OPTION.unpack(_take(client, _OPTION.size))
            _take(client, size)
            if option == _ABORT:
                return False
            if option in (_GO, _INFO):
                said = struct.pack(">HQH", 0, self._size, _FLAGS)
                client.sendall(_REPLY.pack(_REPLY_MAGIC, option, _INFO_REPLY, len(said)) + said)
                client.sendall(_REPLY.pack(_REPLY_MAGIC, option, _ACK, 0))
                if option == _GO:
                    return True
            else:
                client.sendall(_REPLY.pack(_REPLY_MAGIC, option, _UNSUPPORTED, 0))

    def _request(self, client: socket.socket) -> bool:
        _magic, _flags, kind, handle, offset, size = _REQUEST.unpack(_take(client, _REQUEST.size))
        if kind == _DISCONNECT:
            return False
        self._file.seek(offset)
        data = b""
        if kind == _READ:
            self.reads.append((offset, size))
            data = self._answer(offset, self._file.read(size))
        elif kind == _WRITE:
            self._file.write(_take(client, size))
        client.sendall(_ANSWER.pack(_ANSWER_MAGIC, 0, handle) + data)
        return True


def _take(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = client.recv(size - len(data))
        if not part:
            raise EOFError
        data += part
    return data
