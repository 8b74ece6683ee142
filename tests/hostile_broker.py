# SPDX-License-Identifier: Apache-2.0
"""Whoever sits on the wire between a guest and its broker: nothing of troth in it.

``Wire`` is the address that a guest knows; what stands behind it changes from boot
to boot: the broker itself (``straight_to``), or a program of the host (``Hostile``)
with whatever key it has, which answers by itself or asks the broker and bends what
comes. Connections, their number and every wait are bounded.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading

WAIT_S = 60
MOST_CONNECTIONS = 64
_PIECE = 65536


class Message:
    """A request or an answer: ``head`` without its empty line, ``body``."""

    def __init__(self, head, body):
        self.head = head
        self.body = body

    @property
    def path(self):
        return self.head.split(b" ", 2)[1].decode()

    @property
    def raw(self):
        return self.head + b"\r\n\r\n" + self.body

    def with_body(self, body):
        """The same with another body, its length set right."""
        first, *lines = self.head.split(b"\r\n")
        kept = [line for line in lines if not line.lower().startswith(b"content-length:")]
        length = b"content-length: %d" % len(body)
        return Message(b"\r\n".join([first, *kept, length]), body)


def answer(body=b"{}", status="200 OK", *, more=""):
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{more}"
    return Message(head.encode() + b"Content-Length: %d" % len(body), body)


def receive(connection):
    """The next message of ``connection``, None at its end."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(_PIECE)
        if not piece:
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    parts = [line.partition(b":") for line in head.split(b"\r\n")[1:]]
    fields = {name.strip().lower(): value.strip() for name, _, value in parts}
    while len(body) < int(fields.get(b"content-length", b"0")):
        piece = connection.recv(_PIECE)
        if not piece:
            return None
        body += piece
    return Message(head, body)


class Wire:
    """A port of the loopback; ``leads_to(handle)``: who answers there for a while.

    ``handle(connection)`` runs in a thread for each connection.
    """

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.over = threading.Event()
        """Whoever is slow on purpose waits for it: nobody is there any more."""
        self._handle = None
        self._busy = []
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    @contextlib.contextmanager
    def leads_to(self, handle):
        assert self._handle is None
        self._busy = []
        self.over.clear()
        self._handle = handle
        try:
            yield handle
        finally:
            self._handle = None
            self.over.set()
            for connection, thread in self._busy:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                thread.join(10)
                assert not thread.is_alive()

    def _serve(self):
        while True:
            try:
                connection, _address = self._listener.accept()
            except OSError:
                return
            handle = self._handle
            if handle is None or len(self._busy) >= MOST_CONNECTIONS:
                connection.close()
                continue
            connection.settimeout(WAIT_S)
            thread = threading.Thread(target=self._one, args=(handle, connection), daemon=True)
            self._busy.append((connection, thread))
            thread.start()

    @staticmethod
    def _one(handle, connection):
        # Either side may break off anywhere: that is what is tried.
        with connection, contextlib.suppress(OSError):
            handle(connection)


def straight_to(port):
    """Nobody: bytes go to the broker at ``port``, and come back."""

    def copy(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(_PIECE):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def handle(connection):
        with socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as other:
            back = threading.Thread(target=copy, args=(other, connection), daemon=True)
            back.start()
            copy(connection, other)
            back.join(WAIT_S)

    return handle


class Hostile:
    """Answers guests under the key and certificate in ``own`` (PEM files: certificate, key).

    ``script(request, broker)``: a ``Message``, an iterable of bytes to be sent one by
    one before the connection ends, or None to end it. ``broker(request)`` is what the
    broker at ``broker.port`` answers. All requests, and answers that are whole, are kept.
    """

    def __init__(self, script, *, own, port=0):
        self._script = script
        self._port = port
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(*own)
        self.requests = []
        self.answers = []
        self.connections = 0

    def __call__(self, plain):
        self.connections += 1
        connection = self._context.wrap_socket(plain, server_side=True)
        with connection, contextlib.ExitStack() as stack:
            behind = []

            def broker(request):
                if not behind:
                    behind.append(stack.enter_context(client(self._port)))
                return ask(behind[0], request)

            broker.port = self._port
            while (request := receive(connection)) is not None:
                self.requests.append(request)
                said = self._script(request, broker)
                if not isinstance(said, Message):
                    for piece in said or ():
                        connection.sendall(piece)
                    return
                self.answers.append(said)
                connection.sendall(said.raw)

    def asked(self, path):
        """How often."""
        return sum(item.path.startswith(path) for item in self.requests)


def client(port):
    """A connection to the broker at ``port``, whoever it is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    plain = socket.create_connection(("127.0.0.1", port), timeout=WAIT_S)
    return context.wrap_socket(plain)


def ask(connection, request):
    connection.sendall(request.raw)
    found = receive(connection)
    assert found is not None
    return found


def pull_the_plug(monitor, name):
    """The link of QEMU's network device ``name`` goes down; ``monitor``: its QMP socket."""
    with socket.socket(socket.AF_UNIX) as control:
        control.settimeout(WAIT_S)
        control.connect(str(monitor))
        with control.makefile("rw") as lines:
            assert "QMP" in json.loads(lines.readline())
            arguments = {"name": name, "up": False}
            for order in (
                {"execute": "qmp_capabilities"},
                {"execute": "set_link", "arguments": arguments},
            ):
                lines.write(json.dumps(order) + "\n")
                lines.flush()
                while "event" in (said := json.loads(lines.readline())):
                    continue
                assert "return" in said, said
