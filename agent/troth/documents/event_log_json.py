# SPDX-License-Identifier: Apache-2.0
"""Reading an event log, which is hostile until it has been replayed.

Every record's digests are recomputed from its content; a log whose numbers
jump, whose keys repeat or whose digests do not fit is refused (SECURITY S29).
What cannot be recomputed counts for a replay and for nothing else.
"""

from __future__ import annotations

from troth.abi.hashes import BANKS, digest
from troth.documents import strict
from troth.documents.event_log import CONTENT_TYPE, Event, is_text
from troth.errors import FormatError
from troth.record import record

LIMIT_BYTES = 16 << 20
MAX_RECORDS = 100_000


#: Kinds whose digests are keyed, so that nobody without the key can recompute them (systemd's
#: HMAC event of a volume key).
KEYED = ("volume-key",)
#: Kind of the records of other writers.
FOREIGN = "foreign"


@record
class Record:
    """One record of a log. ``event``: its content is empty where the record has digests only, and
    its kind is ``FOREIGN`` where another program wrote it; ``unverified``: why nothing but its
    digests may be believed, "" where the content was hashed and gave them.
    """  # noqa: D205 - the fields are the summary

    event: Event
    unverified: str


def parse(data: bytes, *, where: str = "event log") -> tuple[Event, ...]:
    """The events in ``data`` (JSON lines), each with content that gives its digests.

    Those of a key alone cannot be recomputed: they replay, and their text proves nothing.
    Raises ``FormatError``: those of ``read``; ``log-content`` for another record whose
    digests cannot be recomputed.
    """
    found = read(data, where=where)
    for item in found:
        keyed = item.event.kind in KEYED and item.event.content
        if item.unverified and not keyed:
            raise FormatError(
                "log-content", item.unverified, where=f"{where}:{item.event.number + 1}"
            )
    return tuple(item.event for item in found)


def read(data: bytes, *, where: str = "event log") -> tuple[Record, ...]:
    """All records in ``data``, those too that count for a replay and say nothing.

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
    return tuple(
        _record(text, number, f"{where}:{number + 1}") for number, text in enumerate(lines)
    )


def _record(text: bytes, number: int, where: str) -> Record:
    top = strict.Reader(strict.parse(text, where=where), where=where)
    if top.integer("recnum") != number:
        raise FormatError("log-number", f"record {number} has another number", where=where)
    pcr = top.integer("pcr", maximum=23)
    digests = top.each("digests", _bank)
    if len({bank for bank, _ in digests}) != len(digests):
        raise FormatError("log-bank", "a bank occurs twice in one record", where=where)
    if top.text("content_type") == CONTENT_TYPE:
        kind, content, unverified = _content(top.reader("content"), where)
    else:
        top.raw("content")
        kind, content, unverified = FOREIGN, b"", "another program wrote the record"
    top.close()
    for bank, value in digests:
        if not unverified and digest(bank, content) != value:
            raise FormatError("log-digest", f"the {bank} digest is not of the content", where=where)
    event = Event(number=number, pcr=pcr, kind=kind, content=content, digests=digests)
    return Record(event, unverified)


def _content(body: strict.Reader, where: str) -> tuple[str, bytes, str]:
    """Kind, content, and why it is not verified."""
    kind = body.text("type")
    if body.has("text"):
        content = body.text("text").encode()
        if not is_text(content):
            raise FormatError("log-content", "text content must be printable ASCII", where=where)
    elif body.has("hex"):
        content = _hex(body.text("hex"), where)
        if is_text(content):
            raise FormatError("log-content", "printable content must be text", where=where)
    else:
        body.close()
        return kind, b"", "the record has digests only"
    body.close()
    return kind, content, "its digests are keyed" if kind in KEYED else ""


def _bank(reader: strict.Reader) -> tuple[str, bytes]:
    bank = reader.text("hashAlg", allowed=tuple(BANKS))
    return bank, bytes.fromhex(reader.digest("digest", size_bytes=BANKS[bank][1]))


def _hex(text: str, where: str) -> bytes:
    if len(text) % 2 or not set(text) <= set("0123456789abcdef"):
        raise FormatError("log-content", "hex content is not lower-case hex", where=where)
    return bytes.fromhex(text)
