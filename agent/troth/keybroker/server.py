# SPDX-License-Identifier: Apache-2.0
"""The broker's sockets: TLS 1.3, bounded HTTP/1.1, a fixed pool of workers.

Serves ``troth keybroker serve``. One loop reads and writes for all connections, so
that a slow peer costs memory and no worker; requests are answered in the pool. What
goes over a bound is told to come again (429, 503 with Retry-After) where it can be
told, and cut off where not. Must never wait for a peer without an end, nor hold more
of its bytes than one request (SECURITY S22).
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from troth.attest import http
from troth.documents import kbs
from troth.errors import FormatError
from troth.keybroker.rate import Rate, counted_as
from troth.keybroker.routes import MALFORMED, Peer, busy, refusal
from troth.record import record

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from troth.attest.http import Request, Response

BACKLOG = 1024
_ACCEPTS_AT_ONCE = 64
_PAUSE_S = 0.1
_BUFFER_BYTES = 64 << 10


@record
class Bounds:
    """``connections``: at once, and ``spare`` more, where strangers are told to come again;
    ``of_peer``, ``peer_spare``: the same of one address, so that none can have them all;
    ``queued``: requests in work or waiting for it, where a stranger's still is taken;
    ``workers``: threads that answer;
    ``handshake_s``; ``request_s``: from a request's first wait to its last byte;
    ``write_s``: for an answer; ``connection_s``, ``requests``: of one connection;
    ``end_s``: for what is under way when the server ends.
    """  # noqa: D205 - the fields are the summary

    connections: int = 512
    spare: int = 128
    of_peer: int = 96
    peer_spare: int = 32
    queued: int = 256
    workers: int = 8
    handshake_s: float = 10.0
    request_s: float = 15.0
    write_s: float = 10.0
    connection_s: float = 120.0
    requests: int = 64
    end_s: float = 5.0


class Server:
    """Answers by ``answer``, which is called in a worker. ``context``: of TLS; ``knows``: whether
    a request is of somebody who has begun already, and is let through where strangers wait.
    """  # noqa: D205 - the parameters are the summary

    def __init__(
        self,
        answer: Callable[[Request, Peer], Response],
        context: ssl.SSLContext,
        *,
        knows: Callable[[Request, Peer], bool],
        bounds: Bounds | None = None,
        rate: Rate | None = None,
    ) -> None:
        self._answer = answer
        self._knows = knows
        self._context = context
        self._bounds = bounds or Bounds()
        self._rate = rate or Rate()
        self._open: dict[asyncio.Task[None], str] = {}
        self._of_peer: Counter[str] = Counter()
        self._waiting: dict[asyncio.Task[None], http.Parser] = {}
        self._queued = 0
        self._pool = ThreadPoolExecutor(self._bounds.workers, thread_name_prefix="broker")
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self, listener: socket.socket) -> None:
        """Serve the bound socket ``listener``, which is closed at the end, until ``stop``."""
        self._loop = asyncio.get_running_loop()
        # A peer that breaks off in its handshake is no news.
        self._loop.set_exception_handler(_unless_tls)
        listener.setblocking(False)
        listener.listen(BACKLOG)
        self._listen(listener)
        await self._stop.wait()
        self._loop.remove_reader(listener)
        listener.close()
        for task, parser in tuple(self._waiting.items()):
            if not parser.started:
                task.cancel()
        if self._open:
            await asyncio.wait(self._open, timeout=self._bounds.end_s)
        for task in tuple(self._open):
            task.cancel()
        if self._open:
            await asyncio.wait(self._open)
        self._pool.shutdown()

    def stop(self) -> None:
        """End soon: no new connections, and what is under way is finished.

        From any thread once it runs; before, ``run`` will end at once.
        """
        if self._loop is None:
            self._stop.set()
        else:
            self._loop.call_soon_threadsafe(self._stop.set)

    def _listen(self, listener: socket.socket) -> None:
        if self._loop is not None and not self._ending:
            self._loop.add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        """Take what waits; a callback and no task, which could be ended with a socket in hand."""
        loop, bounds = asyncio.get_running_loop(), self._bounds
        for _ in range(_ACCEPTS_AT_ONCE):
            try:
                sock, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                # No descriptors left: those that are open will end.
                loop.remove_reader(listener)
                loop.call_later(_PAUSE_S, self._listen, listener)
                return
            peer = counted_as(str(address[0]))
            full = len(self._open) >= bounds.connections + bounds.spare
            if full or self._of_peer[peer] >= bounds.of_peer + bounds.peer_spare:
                sock.close()
                continue
            sock.setblocking(False)
            task = loop.create_task(self._connection(sock, str(address[0])))
            self._open[task] = peer
            self._of_peer[peer] += 1
            task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        peer = self._open.pop(task)
        self._of_peer[peer] -= 1
        if not self._of_peer[peer]:
            del self._of_peer[peer]
        self._waiting.pop(task, None)

    async def _connection(self, sock: socket.socket, address: str) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(_BUFFER_BYTES)
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol,
                sock,
                ssl=self._context,
                ssl_handshake_timeout=self._bounds.handshake_s,
                ssl_shutdown_timeout=self._bounds.write_s,
            )
        except (OSError, ssl.SSLError, asyncio.CancelledError):
            sock.close()
            return
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        told = writer.get_extra_info("ssl_object")
        peer = Peer(address, told.getpeercert(binary_form=True))
        try:
            async with asyncio.timeout(self._bounds.connection_s):
                await self._requests(reader, writer, peer)
            transport.close()
            # Until the last byte went out, or will not: it counts as open, and is not for ever.
            async with asyncio.timeout(self._bounds.write_s):
                await writer.wait_closed()
        except (OSError, ssl.SSLError, TimeoutError, asyncio.CancelledError):
            pass
        finally:
            transport.abort()

    async def _requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer
    ) -> None:
        parser = http.Parser(kbs.MAX_BODY_BYTES)
        for number in range(1, self._bounds.requests + 1):
            self._wait(parser)
            try:
                async with asyncio.timeout(self._bounds.request_s):
                    request = await _next(parser, reader, writer)
            except TimeoutError:
                if parser.started:
                    late = refusal(408, MALFORMED, "the request took too long")
                    await self._write(writer, late, keep=False)
                return
            except FormatError as error:
                wrong = refusal(http.STATUS[error.code], MALFORMED, error.message)
                await self._write(writer, wrong, keep=False)
                return
            if request is None:
                return
            self._wait(None)
            response = await self._answered(request, peer)
            last = number == self._bounds.requests or self._ending
            keep = request.keep and not response.close and not last
            await self._write(writer, response, keep=keep)
            if not keep:
                return

    def _wait(self, parser: http.Parser | None) -> None:
        """This connection waits for a request, or no longer; who has sent none may be ended."""
        task = asyncio.current_task()
        if task is not None and parser is not None:
            self._waiting[task] = parser
        elif task is not None:
            self._waiting.pop(task, None)

    async def _answered(self, request: Request, peer: Peer) -> Response:
        bounds = self._bounds
        # What is queued for those who are known is bounded by their connections.
        if not self._knows(request, peer):
            counted = counted_as(peer.address)
            if not self._rate.take(counted, now=time.monotonic()):
                return busy(429, "too many requests")
            crowd = self._of_peer[counted] > bounds.of_peer
            if crowd or self._queued >= bounds.queued or len(self._open) > bounds.connections:
                return busy(503, "too much to do")
        loop = asyncio.get_running_loop()
        self._queued += 1
        try:
            # A worker that has begun goes on to its end, also where its peer went away.
            return await loop.run_in_executor(self._pool, self._answer, request, peer)
        finally:
            self._queued -= 1

    async def _write(self, writer: asyncio.StreamWriter, response: Response, *, keep: bool) -> None:
        body = response.body
        if not isinstance(body, bytes):
            raise TypeError("a broker's answer is bytes")
        async with asyncio.timeout(self._bounds.write_s):
            writer.write(http.head(response, keep=keep) + body)
            await writer.drain()

    @property
    def _ending(self) -> bool:
        return self._stop.is_set()


async def _next(
    parser: http.Parser, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> Request | None:
    """The next request; None where the peer has ended."""
    while (request := parser.next()) is None:
        if parser.take_continue():
            writer.write(http.CONTINUE)
        data = await reader.read(min(parser.room, _BUFFER_BYTES))
        if not data:
            return None
        parser.feed(data)
    return request


def _unless_tls(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    if not isinstance(context.get("exception"), OSError):
        loop.default_exception_handler(context)
