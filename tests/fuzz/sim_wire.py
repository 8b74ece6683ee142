# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: frames from a guest's front, and what a host makes of them."""

import struct

from made_platform import platform
from troth.errors import FormatError
from troth.simulated import wire
from troth.simulated.host import Host
from troth.simulated.launch import Launch

SEEDS = [
    struct.pack("<IIQQQ", wire.MAGIC, kind, 1, pages, 0) for kind, pages in ((1, 0), (2, 0), (3, 4))
]
_LAUNCH = Launch(measurement=bytes(48))


def fuzz(data: bytes) -> None:
    try:
        head = wire.request_head(data[:32])
    except FormatError:
        return
    if not 0 <= head.request_body_bytes <= 4096 or not 4096 <= head.answer_body_bytes <= 17 * 4096:
        raise AssertionError("a frame of unbounded length")
    body = data[32:][: head.request_body_bytes].ljust(head.request_body_bytes, b"\0")
    host = Host(_LAUNCH, platform())
    reply = host.answer(wire.Frame(head, body))
    if reply.data is None or reply.close:
        raise AssertionError("no answer to a first frame")
    if len(reply.data) != 32 + head.answer_body_bytes:
        raise AssertionError("an answer of another length than the front awaits")
    wire.answer_head(reply.data[:32], head)
