# SPDX-License-Identifier: Apache-2.0
"""The in-toto statement: which files something is said of, and what is said.

Serves signed reference values: it is the payload of their DSSE envelope.
Source: in-toto attestation framework 1.0, Statement layer. Of the digests a
subject may have, troth writes and reads SHA-256 alone. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.documents import strict
from troth.errors import FormatError
from troth.record import record

if TYPE_CHECKING:
    from troth.documents.strict import Reader

TYPE = "https://in-toto.io/Statement/v1"
MAX_SUBJECTS = 4096
MAX_BYTES = 24 << 20


@record
class Statement:
    """``subject``: (file name, SHA-256 in hex); ``predicate``: the JSON tree of ``kind``."""

    subject: tuple[tuple[str, str], ...]
    kind: str
    predicate: object


def parse(data: bytes, *, where: str = "") -> Statement:
    """The statement in ``data``; ``FormatError`` ``json-*``, ``statement-type|subject``."""
    top = strict.Reader(strict.parse(data, where=where, limit_bytes=MAX_BYTES), where=where)
    found = top.text("_type")
    if found != TYPE:
        raise FormatError("statement-type", f"{found[:100]!r} is not {TYPE}", where=where)
    statement = Statement(
        subject=top.each("subject", _subject),
        kind=top.text("predicateType"),
        predicate=top.raw("predicate"),
    )
    top.close()
    names = [name for name, _digest in statement.subject]
    if not 0 < len(names) <= MAX_SUBJECTS or len(set(names)) != len(names):
        raise FormatError(
            "statement-subject", "no subject, too many, or one named twice", where=where
        )
    return statement


def _subject(reader: Reader) -> tuple[str, str]:
    name = reader.text("name")
    digests = reader.reader("digest")
    value = digests.digest("sha256", size_bytes=32)
    digests.close()
    return name, value


def print_(statement: Statement) -> bytes:
    """Canonical JSON (RFC 8785) of ``statement``, without a final newline."""
    return strict.canonical(
        {
            "_type": TYPE,
            "subject": [
                {"name": name, "digest": {"sha256": digest}} for name, digest in statement.subject
            ],
            "predicateType": statement.kind,
            "predicate": statement.predicate,
        }
    )
