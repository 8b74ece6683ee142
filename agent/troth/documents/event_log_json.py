# SPDX-License-Identifier: Apache-2.0
"""Reading an event log, which is hostile until it has been replayed.

Every record's digests are recomputed from its content; a log whose numbers
jump, whose keys repeat or whose digests do not fit is refused (SECURITY S29).
"""

from __future__ import annotations

from troth.abi.hashes import BANKS, digest
from troth.documents import strict
from troth.documents.event_log import CONTENT_TYPE, Event, is_text
from troth.errors import FormatError

LIMIT_BYTES = 16 << 20
MAX_RECORDS = 100_000


def parse(data: bytes, *, where: str = "event log") -> tuple[Event, ...]:
    """The events in ``data`` (JSON lines).

    Raises ``FormatError``: ``json-*``, ``log-size``, ``log-number``,
    ``log-bank``, ``log-digest``, ``log-content``.
    """
    if len(data) > LIMIT_BYTES:
        raise FormatError("log-size", f"{len(data)} bytes, at most {LIMIT_BYTES}", where=where)
    if data and not data.endswith(b"\n"):
        raise FormatError("log-size", "the last record is cut off", where=where)
    lines = data.split(b"\n")[:-1]
    if len(lines) > MAX_RECORDS:
        raise FormatError("log-size", f"{len(lines)} records, at most {MAX_RECORDS}", where=where)
    return tuple(_event(text, number, f"{where}:{number + 1}") for number, text in enumerate(lines))


def _event(text: bytes, number: int, where: str) -> Event:
    top = strict.Reader(strict.parse(text, where=where), where=where)
    if top.integer("recnum") != number:
        raise FormatError("log-number", f"record {number} has another number", where=where)
    pcr = top.integer("pcr", maximum=23)
    digests = top.each("digests", _bank)
    top.text("content_type", allowed=(CONTENT_TYPE,))
    body = top.reader("content")
    kind = body.text("type")
    if body.has("text"):
        content = body.text("text").encode()
        if not is_text(content):
            raise FormatError("log-content", "text content must be printable ASCII", where=where)
    else:
        content = _hex(body.text("hex"), where)
        if is_text(content):
            raise FormatError("log-content", "printable content must be text", where=where)
    body.close()
    top.close()
    if len({bank for bank, _ in digests}) != len(digests):
        raise FormatError("log-bank", "a bank occurs twice in one record", where=where)
    for bank, value in digests:
        if digest(bank, content) != value:
            raise FormatError("log-digest", f"the {bank} digest is not of the content", where=where)
    return Event(number=number, pcr=pcr, kind=kind, content=content, digests=digests)


def _bank(reader: strict.Reader) -> tuple[str, bytes]:
    bank = reader.text("hashAlg", allowed=tuple(BANKS))
    return bank, bytes.fromhex(reader.digest("digest", size_bytes=BANKS[bank][1]))


def _hex(text: str, where: str) -> bytes:
    if len(text) % 2 or not set(text) <= set("0123456789abcdef"):
        raise FormatError("log-content", "hex content is not lower-case hex", where=where)
    return bytes.fromhex(text)
