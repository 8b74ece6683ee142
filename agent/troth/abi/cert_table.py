# SPDX-License-Identifier: Apache-2.0
"""The table of certificates that a host hands to a guest with an extended report.

Serves the guest's providers, which pass it on, and the verifier, which looks
into it. The host writes it: every number is checked before use, the blobs are
opaque (DER, or PEM from some hosts), and must never be believed for standing
here. A table of zeros, or none, is a host that gave nothing, which is common.

Source: AMD 56421, "SEV-ES Guest-Hypervisor Communication Block Standardization",
section 4.1.8.1 (SNP Extended Guest Request); GUIDs stand in the order they are
printed, as AMD's own sev-guest writes them.
"""

from __future__ import annotations

import struct

from troth.errors import FormatError
from troth.record import record

VCEK = "63da758d-e664-4564-adc5-f4b93be8accd"
VLEK = "a8074bc2-a25a-483e-aae6-39c045a0b8a1"
ASK = "4ab7b379-bbac-4fe4-a02f-05aef327c782"
ARK = "c0b406a4-a803-4952-9743-3fb6014cd0ae"
CRL = "92f81bc3-5811-4d3d-97ff-d19f88dc67ea"

NAMES = {VCEK: "vcek", VLEK: "vlek", ASK: "ask", ARK: "ark", CRL: "crl"}
"""What the known GUIDs stand for; ``ask`` is the ASVK beside a VLEK."""

MAX_TABLE_BYTES = 1 << 20
MAX_ENTRIES = 32
"""Twice and more what any host has been seen to give."""

_ENTRY = struct.Struct("<16sII")
_END = bytes(_ENTRY.size)


@record
class Entry:
    """One blob: its ``guid`` as lower-case text, and its bytes."""

    guid: str
    blob: bytes

    @property
    def name(self) -> str:
        """What the GUID stands for, or the GUID itself."""
        return NAMES.get(self.guid, self.guid)


def parse(data: bytes, *, where: str = "") -> tuple[Entry, ...]:
    """The entries of the table at the start of ``data``, in its order.

    What no entry points to is padding and is passed over. Raises
    ``FormatError``: ``cert-table-size``, ``cert-table-entries`` (no end, too
    many, or one without GUID), ``cert-table-bounds``, ``cert-table-overlap``,
    ``cert-table-duplicate``.
    """
    if len(data) > MAX_TABLE_BYTES:
        raise FormatError(
            "cert-table-size", f"a certificate table of {len(data)} bytes", where=where
        )
    if not data:
        return ()
    found: list[tuple[str, int, int]] = []
    while True:
        at = len(found) * _ENTRY.size
        entry = data[at : at + _ENTRY.size]
        if len(entry) < _ENTRY.size:
            raise FormatError("cert-table-entries", "the certificate table has no end", where=where)
        if entry == _END:
            break
        if len(found) == MAX_ENTRIES:
            raise FormatError(
                "cert-table-entries", f"more than {MAX_ENTRIES} certificates", where=where
            )
        guid, offset, length = _ENTRY.unpack(entry)
        if not any(guid):
            raise FormatError(
                "cert-table-entries", "an entry without a GUID that is not the end", where=where
            )
        found.append((_text(guid), offset, length))
    first_free = (len(found) + 1) * _ENTRY.size
    for guid, offset, length in found:
        if not first_free <= offset <= offset + length <= len(data) or not length:
            raise FormatError(
                "cert-table-bounds",
                f"{NAMES.get(guid, guid)}: {length} bytes at {offset} of {len(data)}",
                where=where,
            )
    by_place = sorted(found, key=lambda item: item[1])
    for index in range(1, len(by_place)):
        before, after = by_place[index - 1], by_place[index]
        if before[1] + before[2] > after[1]:
            raise FormatError("cert-table-overlap", "two certificates overlap", where=where)
    if len({guid for guid, _, _ in found}) != len(found):
        raise FormatError("cert-table-duplicate", "two certificates of one kind", where=where)
    return tuple(Entry(guid, bytes(data[at : at + length])) for guid, at, length in found)


def build(entries: tuple[Entry, ...]) -> bytes:
    """The table of ``entries``, without padding. No entries give one of zeros.

    Raises ``FormatError``: ``cert-table-guid``, and as ``parse`` does.
    """
    offset = (len(entries) + 1) * _ENTRY.size
    head, blobs = bytearray(), bytearray()
    for entry in entries:
        if len(entry.blob) > MAX_TABLE_BYTES:
            raise FormatError("cert-table-size", f"{entry.name} has {len(entry.blob)} bytes")
        head += _ENTRY.pack(_guid(entry.guid), offset + len(blobs), len(entry.blob))
        blobs += entry.blob
    table = bytes(head) + _END + bytes(blobs)
    parse(table)
    return table


def _text(guid: bytes) -> str:
    raw = guid.hex()
    return "-".join((raw[:8], raw[8:12], raw[12:16], raw[16:20], raw[20:]))


def _guid(text: str) -> bytes:
    try:
        raw = bytes.fromhex(text.replace("-", ""))
    except ValueError:
        raw = b""
    if len(raw) != 16 or not any(raw) or _text(raw) != text:
        raise FormatError("cert-table-guid", f"{text!r} is no GUID in lower case")
    return raw
