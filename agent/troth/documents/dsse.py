# SPDX-License-Identifier: Apache-2.0
"""The DSSE envelope: bytes, their type, and signatures over both.

Serves the signing and the checking of reference values. Source: DSSE protocol
1.0.0 and envelope 1.0.0. Two choices are narrower than the source, so that an
envelope has one spelling: base64 is the standard alphabet with its padding,
and a field that is not known is refused. ``keyid`` is a hint and decides
nothing. Must never verify: keys and signatures are ``troth.signing``'s.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from troth.documents import strict
from troth.errors import FormatError
from troth.record import record

if TYPE_CHECKING:
    from troth.documents.strict import Reader

#: The type of an in-toto statement (in-toto attestation framework 1.0, envelope layer).
IN_TOTO = "application/vnd.in-toto+json"

MAX_ENVELOPE_BYTES = 32 << 20
MAX_SIGNATURES = 16
#: More than any key that can be used here makes (DER of P-384: 104), less than a page.
MAX_SIGNATURE_BYTES = 1024
MAX_KEY_ID_CHARACTERS = 256
MAX_TYPE_CHARACTERS = 256


@record
class Signature:
    """One signature: ``key_id`` as the signer wrote it, unauthenticated; ``value``: raw bytes."""

    key_id: str
    value: bytes


@record
class Envelope:
    """``payload`` of ``payload_type``, and who signed it; the payload is not looked into."""

    payload_type: str
    payload: bytes
    signatures: tuple[Signature, ...]


def pae(payload_type: str, payload: bytes) -> bytes:
    """The bytes that are signed: the pre-authentication encoding (DSSE protocol, PAE).

    >>> pae("text", b"hi")
    b'DSSEv1 4 text 2 hi'
    """
    kind = payload_type.encode("utf-8", "surrogatepass")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def is_envelope(tree: object) -> bool:
    """Whether a JSON tree means to be an envelope: it has a ``payloadType``."""
    return isinstance(tree, dict) and "payloadType" in tree


def parse(data: bytes, *, where: str = "") -> Envelope:
    """The envelope in ``data``.

    Raises ``FormatError``: ``json-*``; ``dsse-type`` (empty or overlong),
    ``dsse-base64``, ``dsse-signatures`` (none, too many, or one of no or too
    many bytes), ``dsse-key-id``.
    """
    tree = strict.parse(data, where=where, limit_bytes=MAX_ENVELOPE_BYTES)
    top = strict.Reader(tree, where=where)
    kind = top.text("payloadType")
    if not 0 < len(kind) <= MAX_TYPE_CHARACTERS or not kind.isprintable() or not kind.isascii():
        raise FormatError("dsse-type", "payloadType is no type", where=where)
    payload = _bytes(top.text("payload"), "payload", where=where)
    signatures = top.each("signatures", lambda reader: _signature(reader, where=where))
    top.close()
    if not 0 < len(signatures) <= MAX_SIGNATURES:
        raise FormatError(
            "dsse-signatures",
            f"{len(signatures)} signatures; an envelope has 1 to {MAX_SIGNATURES}",
            where=where,
        )
    return Envelope(kind, payload, signatures)


def _signature(reader: Reader, *, where: str) -> Signature:
    key_id = reader.text("keyid") if reader.has("keyid") else ""
    if len(key_id) > MAX_KEY_ID_CHARACTERS or not (key_id.isprintable() and key_id.isascii()):
        raise FormatError("dsse-key-id", "a keyid is overlong or not plain text", where=where)
    value = _bytes(reader.text("sig"), "sig", where=where)
    if not 0 < len(value) <= MAX_SIGNATURE_BYTES:
        raise FormatError("dsse-signatures", f"a signature has {len(value)} bytes", where=where)
    return Signature(key_id, value)


def _bytes(text: str, name: str, *, where: str) -> bytes:
    try:
        value = base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error, ValueError):
        value = None
    # Stray bits in the last group would make several texts of one value.
    if value is None or base64.b64encode(value).decode() != text:
        raise FormatError(
            "dsse-base64",
            f"{name} is not base64 of the standard alphabet with padding",
            where=where,
        )
    return value


def print_(envelope: Envelope) -> bytes:
    """The envelope as one line of canonical JSON with a final newline."""
    return (
        strict.canonical(
            {
                "payloadType": envelope.payload_type,
                "payload": base64.b64encode(envelope.payload).decode(),
                "signatures": [
                    {"keyid": item.key_id, "sig": base64.b64encode(item.value).decode()}
                    for item in envelope.signatures
                ],
            }
        )
        + b"\n"
    )
