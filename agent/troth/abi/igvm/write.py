# SPDX-License-Identifier: Apache-2.0
"""The serialiser of IGVM files: the same headers and data give the same bytes.

Serves the builder and whoever puts an ID block into a file. Data follow the
headers in the order headers name them first; equal data are stored once, as
the crate ``igvm`` does. Writes what it is given: open the result to check it.

Source: microsoft/igvm, ``igvm_defs/src/lib.rs``; the crate's ``serializer.rs``.
"""

from __future__ import annotations

import hashlib
import zlib
from array import array

from troth.abi.igvm import headers as h
from troth.abi.igvm.file import CHECKSUM_OFFSET, FIXED, FIXED_2, MAGIC, MAX_HEADER_BYTES, X64
from troth.errors import FormatError
from troth.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import BinaryIO

_MAX_FILE_BYTES = 2**32 - 1


def write(
    headers: Iterable[tuple[h.Header, bytes]],
    *,
    version: int,
    stream: BinaryIO,
    architecture: int = X64,
) -> int:
    """Write a file of ``headers`` with their data to ``stream``; return its size in bytes.

    ``headers`` is gone through twice and must give the same both times: a list,
    ``file.Contents``, or another object whose ``__iter__`` begins anew. Data: empty
    for none (a page of zeros), up to 4096 bytes for PAGE_DATA (zeros are added),
    else as long as the header's type wants; the records' own ``file_offset``
    is not looked at. Memory grows with the headers and 32 bytes a distinct
    page, never with the data. Raises ``FormatError`` ``igvm-value`` for data
    that its header cannot have, ``igvm-too-large`` where sizes exceed the
    format's, ``igvm-no-data`` where no header has data, which loaders refuse;
    ``TypeError`` for an iterator.
    """
    if iter(headers) is headers:
        raise TypeError("headers are gone through twice: give no iterator")
    encoded = bytearray()
    stored: dict[bytes, int] = {}
    relative = array("Q")  # where each header's data begins, for those that have any
    places = array("Q")  # where in `encoded` those headers begin
    data_bytes = 0
    for header, given in headers:
        data = _stored(header, given)
        if data:
            digest = hashlib.sha256(data).digest()
            offset = stored.setdefault(digest, data_bytes)
            if offset == data_bytes:
                data_bytes += len(data)
            relative.append(offset)
            places.append(len(encoded))
        encoded += h.encode(_unplaced(header))
        if len(encoded) > MAX_HEADER_BYTES:
            raise FormatError("igvm-too-large", f"headers of more than {MAX_HEADER_BYTES} bytes")
    stored.clear()
    if not data_bytes:
        raise FormatError("igvm-no-data", "a file without any data is refused by its readers")
    fixed_bytes = FIXED.size if version == 1 else FIXED_2.size
    start = fixed_bytes + len(encoded)
    if start + data_bytes > _MAX_FILE_BYTES:
        raise FormatError(
            "igvm-too-large", f"{start + data_bytes} bytes; the format ends at {_MAX_FILE_BYTES}"
        )
    for place, offset in zip(places, relative, strict=True):
        at = place + _OFFSET_FIELD[int.from_bytes(encoded[place : place + 4], "little")]
        encoded[at : at + 4] = (start + offset).to_bytes(4, "little")
    fixed = bytearray(FIXED.pack(MAGIC, version, fixed_bytes, len(encoded), start + data_bytes, 0))
    if version > 1:
        fixed += architecture.to_bytes(4, "little") + h.PAGE_BYTES.to_bytes(4, "little")
    crc = zlib.crc32(encoded, zlib.crc32(fixed))
    fixed[CHECKSUM_OFFSET : CHECKSUM_OFFSET + 4] = crc.to_bytes(4, "little")
    stream.write(fixed)
    stream.write(encoded)
    _write_data(headers, relative, stream)
    return start + data_bytes


def _write_data(
    headers: Iterable[tuple[h.Header, bytes]], relative: array[int], stream: BinaryIO
) -> None:
    written, index = 0, 0
    for header, given in headers:
        data = _stored(header, given)
        if data:
            if relative[index] == written:
                stream.write(data)
                written += len(data)
            index += 1


# Type -> where in a header, with its head, the file offset is.
_OFFSET_FIELD = {0x104: 12, 0x105: 12, 0x301: 20, 0x302: 20, 0x304: 20}


def _stored(header: h.Header, data: bytes) -> bytes:
    """What the file holds for ``header``; ``data`` as the caller has it."""
    match header:
        case h.PageData():
            if len(data) <= h.PAGE_BYTES:
                return data.ljust(h.PAGE_BYTES, b"\0") if data else b""
        case h.ParameterArea():
            if len(data) in {0, header.size_bytes}:
                return data
        case h.CorimDocument() | h.CorimSignature():
            if data and len(data) == header.size_bytes:
                return data
        case h.VpContext():
            if data:
                return data
        case _:
            if not data:
                return b""
    name = h.NAMES[h.type_of(header)]
    raise FormatError("igvm-value", f"{name} cannot have {len(data)} bytes of data")


def _unplaced(header: h.Header) -> h.Header:
    """``header`` without a file offset; itself where it has none, as all of the builder's."""
    if (
        isinstance(
            header, h.PageData | h.ParameterArea | h.VpContext | h.CorimDocument | h.CorimSignature
        )
        and header.file_offset
    ):
        return replace(header, file_offset=0)
    return header
