# SPDX-License-Identifier: Apache-2.0
"""A file of reference values as it comes: plain, or inside a signed envelope.

Serves all who take such a file. Which of the two it is follows from the file;
whether the signature is good is ``troth.signing.reference``'s to say, and until
then the payload of an envelope is only bytes. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.documents import dsse, reference_values_json, strict
from troth.errors import FormatError
from troth.record import record

if TYPE_CHECKING:
    from troth.documents.dsse import Envelope
    from troth.documents.reference_values import ReferenceValues

MAX_BYTES = dsse.MAX_ENVELOPE_BYTES


@record
class Document:
    """``data`` as it was read; ``envelope`` is None for values that nobody has signed."""

    data: bytes
    envelope: Envelope | None
    where: str


def read(data: bytes, *, where: str = "") -> Document:
    """The document in ``data``, its values not looked at yet.

    Raises ``FormatError``: those of ``dsse.parse``; ``dsse-payload-type`` for an
    envelope around something that is no in-toto statement.
    """
    if not dsse.is_envelope(strict.parse(data, where=where, limit_bytes=MAX_BYTES)):
        return Document(data, None, where)
    envelope = dsse.parse(data, where=where)
    if envelope.payload_type != dsse.IN_TOTO:
        raise FormatError(
            "dsse-payload-type",
            f"payloadType {envelope.payload_type!r} is not {dsse.IN_TOTO}",
            where=where,
        )
    return Document(data, envelope, where)


def values(document: Document) -> ReferenceValues:
    """What the document says, whoever has signed it.

    Raises ``FormatError`` as ``reference_values_json.parse`` and ``from_statement``;
    ``reference-dates`` for signed values without dates.
    """
    if document.envelope is None:
        return reference_values_json.parse(document.data, where=document.where)
    found = reference_values_json.from_statement(document.envelope.payload, where=document.where)
    if not found.issued:
        raise FormatError(
            "reference-dates",
            "signed values say when they were signed and when they expire; these do not",
            where=document.where,
            hint="sign them with troth reference sign",
        )
    return found
