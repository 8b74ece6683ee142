# SPDX-License-Identifier: Apache-2.0
"""The list of services that a service module (SVSM) hands out with its report.

Serves the guest that asks for all services and the verifier, after it has
checked that the report of VMPL 0 carries SHA-512 of nonce and manifest. Asked
for a single service, a module gives that service's data without this table.
Must never be read before it is bound: the host may have written it.

Source: AMD 58019 1.00, "Secure VM Service Module for SEV-SNP Guests", table
"Services manifest"; little-endian, and so are the first groups of its GUIDs.
"""

from __future__ import annotations

import struct

from troth.abi.gpt import guid_text
from troth.errors import FormatError
from troth.record import record

VTPM = "c476f1eb-0123-45a5-9641-b4e7dde5bfe3"
"""Its data is a TPMT_PUBLIC: the endorsement key, big-endian, without a size before it."""
UEFI_MM = "a4453a59-9e1b-4787-a033-1986d6adbe55"

MAX_BYTES = 1 << 20
MAX_SERVICES = 64

_TABLE = "63849ebb-3d92-4670-a1ff-58f9c94b87bb"
_HEADER = struct.Struct("<16sII")
_ENTRY = struct.Struct("<16sII")


@record
class Service:
    """One service: its ``guid`` as lower-case text, and its ``data``."""

    guid: str
    data: bytes


def is_list(data: bytes) -> bool:
    """Whether ``data`` begins as a list does; a single service's data does not."""
    return len(data) >= _HEADER.size and guid_text(data[:16]) == _TABLE


def parse(data: bytes, *, where: str = "") -> tuple[Service, ...]:
    """The services in the manifest ``data``, in its order.

    Raises ``FormatError``: ``svsm-manifest-magic``, ``svsm-manifest-size``,
    ``svsm-manifest-count``, ``svsm-manifest-bounds``, ``svsm-manifest-overlap``,
    ``svsm-manifest-duplicate``.
    """
    if not _HEADER.size <= len(data) <= MAX_BYTES:
        raise FormatError("svsm-manifest-size", f"a manifest of {len(data)} bytes", where=where)
    magic, total_bytes, count = _HEADER.unpack_from(data)
    if guid_text(magic) != _TABLE:
        raise FormatError("svsm-manifest-magic", "this is no list of services", where=where)
    if total_bytes != len(data):
        raise FormatError(
            "svsm-manifest-size", f"{len(data)} bytes that claim to be {total_bytes}", where=where
        )
    first_free = _HEADER.size + count * _ENTRY.size
    if count > MAX_SERVICES or first_free > len(data):
        raise FormatError("svsm-manifest-count", f"{count} services", where=where)
    found = [_ENTRY.unpack_from(data, _HEADER.size + index * _ENTRY.size) for index in range(count)]
    taken = first_free
    for _, offset, size in sorted(found, key=lambda item: item[1:]):
        if offset < first_free or offset + size > len(data):
            raise FormatError(
                "svsm-manifest-bounds", f"{size} bytes at {offset} of {len(data)}", where=where
            )
        if offset < taken:
            raise FormatError("svsm-manifest-overlap", "two services overlap", where=where)
        taken = offset + size
    if len({guid for guid, _, _ in found}) != count:
        raise FormatError("svsm-manifest-duplicate", "a service is there twice", where=where)
    return tuple(
        Service(guid_text(guid), bytes(data[offset : offset + size]))
        for guid, offset, size in found
    )


def build(services: tuple[Service, ...]) -> bytes:
    """The manifest of ``services``. Raises ``svsm-manifest-guid``, and as ``parse`` does."""
    at = _HEADER.size + len(services) * _ENTRY.size
    entries, body = b"", b""
    for service in services:
        entries += _ENTRY.pack(_guid(service.guid), at + len(body), len(service.data))
        body += service.data
    made = _HEADER.pack(_guid(_TABLE), at + len(body), len(services)) + entries + body
    parse(made)
    return made


def _guid(text: str) -> bytes:
    try:
        raw = bytes.fromhex(text.replace("-", ""))
    except ValueError:
        raw = b""
    mixed = raw[3::-1] + raw[5:3:-1] + raw[7:5:-1] + raw[8:]
    if len(raw) != 16 or guid_text(mixed) != text:
        raise FormatError("svsm-manifest-guid", f"{text!r} is no GUID in lower case")
    return mixed
