# SPDX-License-Identifier: Apache-2.0
"""Frames between the guest's front and the host: sealed pages over a serial port.

Serves ``simulated.server`` on the host and the front in the guest; where a real
guest leaves itself by VMGEXIT, the front writes a frame. Each side knows how
long the next frame is before it reads it, so nothing is ever read beyond one.
Must never take a length from the other side without a bound: the guest's number
of certificate pages is the only one, and has one.

Source: DESIGN section 6; what the values mean: AMD 56421, section 4.1.7 (SNP
Guest Request) and 4.1.8 (SNP Extended Guest Request). Little-endian.
"""

from __future__ import annotations

import struct

from troth.errors import FormatError
from troth.record import record

PORT = "troth.sim-snp"
"""Name of the virtio-serial port."""

MAGIC = 0x31505354  # "TSP1"
HEADER_BYTES = 32
PAGE_BYTES = 4096
MAX_CERTIFICATE_PAGES = 16
"""A driver gives four at most."""

SECRETS = 1
GUEST_REQUEST = 2
EXT_GUEST_REQUEST = 3
REQUESTS = (SECRETS, GUEST_REQUEST, EXT_GUEST_REQUEST)
ANSWER = 0x80
"""Added to the kind of a request in its answer."""

_HEADER = struct.Struct("<IIQQQ")


@record
class Head:
    """The head of a frame.

    ``kind``: one of ``REQUESTS``, or that plus ``ANSWER``; ``sequence``: the
    front's own count, echoed; ``value_a``: of EXT_GUEST_REQUEST the pages of the
    certificate buffer, of answers to requests exitinfo2; ``value_b``: of an
    answer to EXT_GUEST_REQUEST the pages needed, where they were too few.
    """

    kind: int
    sequence: int
    value_a: int = 0
    value_b: int = 0

    @property
    def request_body_bytes(self) -> int:
        """How many bytes follow, in a request."""
        return 0 if self.kind == SECRETS else PAGE_BYTES

    @property
    def answer_body_bytes(self) -> int:
        """How many bytes follow the head of the answer to this request."""
        pages = self.value_a if self.kind == EXT_GUEST_REQUEST else 0
        return PAGE_BYTES * (1 + pages)


@record
class Frame:
    """A whole frame: its head and what follows."""

    head: Head
    body: bytes


def encode(frame: Frame) -> bytes:
    """The bytes of ``frame``. Raises ``FormatError`` ``sim-wire-value``."""
    head = frame.head
    try:
        raw = _HEADER.pack(MAGIC, head.kind, head.sequence, head.value_a, head.value_b)
    except struct.error as error:
        raise FormatError("sim-wire-value", f"a value of a frame: {error}") from None
    return raw + frame.body


def request_head(data: bytes) -> Head:
    """The head of a request in ``data``, exactly 32 bytes.

    Raises ``FormatError``: ``sim-wire-size``, ``sim-wire-magic``,
    ``sim-wire-kind``, ``sim-wire-value`` (too many pages, or a value where none is).
    """
    head = _head(data)
    if head.kind not in REQUESTS:
        raise FormatError("sim-wire-kind", f"no request has the kind {head.kind:#x}")
    pages = MAX_CERTIFICATE_PAGES if head.kind == EXT_GUEST_REQUEST else 0
    if head.value_a > pages or head.value_b:
        raise FormatError("sim-wire-value", f"a value that kind {head.kind} does not have")
    return head


def answer_head(data: bytes, request: Head) -> Head:
    """The head of the answer to ``request`` in ``data``, exactly 32 bytes.

    Raises ``FormatError``: ``sim-wire-size``, ``sim-wire-magic``,
    ``sim-wire-kind``, ``sim-wire-sequence``.
    """
    head = _head(data)
    if head.kind != request.kind | ANSWER:
        raise FormatError(
            "sim-wire-kind", f"an answer of kind {head.kind:#x} to a request of {request.kind:#x}"
        )
    if head.sequence != request.sequence:
        raise FormatError(
            "sim-wire-sequence", f"the answer to {head.sequence}, not to {request.sequence}"
        )
    return head


def _head(data: bytes) -> Head:
    if len(data) != HEADER_BYTES:
        raise FormatError("sim-wire-size", f"a head of {len(data)} bytes, not {HEADER_BYTES}")
    magic, kind, sequence, value_a, value_b = _HEADER.unpack(data)
    if magic != MAGIC:
        raise FormatError("sim-wire-magic", f"{magic:#x} begins no frame")
    return Head(kind, sequence, value_a, value_b)
