# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: what listens on the agent's socket answers anything."""

from troth.attest.client import AgentClient
from troth.documents import report_answer
from troth.errors import FormatError, ProviderError

NONCE = bytes(range(32))


class _Peer:
    """A socket that has sent ``data`` and hung up."""

    def __init__(self, data):
        self._data = data

    def settimeout(self, _seconds):
        pass

    def recv(self, size):
        part, self._data = self._data[:size], self._data[size:]
        return part


def fuzz(data: bytes) -> None:
    client = AgentClient("/nowhere")
    for candidate in (data, b"HTTP/1.1 200 OK\r\n" + data, _whole(data)):
        try:
            status, _, body = client._receive(_Peer(candidate), float("inf"))
        except (FormatError, ProviderError):
            continue
        if not 0 <= status <= 999 or not candidate.endswith(body):
            raise AssertionError("an answer that was not sent")
    try:
        answer = report_answer.parse(data)
    except FormatError:
        return
    if report_answer.parse(report_answer.print_(answer)) != answer:
        raise AssertionError("a document is not what was read")


def _whole(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


SEEDS = [
    report_answer.print_(report_answer.ReportAnswer(bytes(1184), b"c", "sev-guest", NONCE, b"")),
    _whole(b"{}"),
]
