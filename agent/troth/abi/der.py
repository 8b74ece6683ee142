# SPDX-License-Identifier: Apache-2.0
"""Single DER values: INTEGER, IA5String, OCTET STRING.

Serves the readers of AMD's certificate extensions, whose values are such single
values. One value must be the whole input: must never skip or guess a byte, and
never accept a second way to write the same value.

Source: ITU-T X.690 (02/2021), sections 8.1, 8.3, 10 and 11.
"""

from __future__ import annotations

from troth.errors import FormatError

INTEGER = 0x02
OCTET_STRING = 0x04
IA5_STRING = 0x16

MAX_CONTENT_BYTES = 0xFFFF


def content(data: bytes, tag: int, *, where: str = "") -> bytes:
    """The content of the one value of ``tag`` that ``data`` is.

    Raises ``FormatError`` ``der-value``: another tag, a length that is not
    minimal or not that of the data, more than ``MAX_CONTENT_BYTES``.
    """
    if len(data) < 2 or data[0] != tag:
        raise _refused(f"no value of tag {tag:#04x}", where)
    start, length = 2, data[1]
    if length & 0x80:
        octets = length & 0x7F
        # 0x80 alone is the indefinite form, which DER does not have.
        if not 1 <= octets <= 2 or len(data) < 2 + octets:
            raise _refused("a length in a form that is not allowed here", where)
        start = 2 + octets
        length = int.from_bytes(data[2:start], "big")
        if length < 0x80 or data[2] == 0:
            raise _refused("a length that is longer than it must be", where)
    if len(data) != start + length:
        raise _refused(f"{len(data) - start} bytes of content where {length} must be", where)
    return data[start:]


def integer(data: bytes, *, where: str = "") -> int:
    """The INTEGER ``data``. Raises ``FormatError`` ``der-value``."""
    raw = content(data, INTEGER, where=where)
    if not raw:
        raise _refused("an integer without content", where)
    if len(raw) > 1 and (raw[0], raw[1] >> 7) in ((0x00, 0), (0xFF, 1)):
        raise _refused("an integer that is longer than it must be", where)
    return int.from_bytes(raw, "big", signed=True)


def ia5_string(data: bytes, *, where: str = "") -> str:
    """The IA5String ``data``, printable ASCII only. Raises ``FormatError`` ``der-value``."""
    raw = content(data, IA5_STRING, where=where)
    if any(not 0x20 <= letter < 0x7F for letter in raw):
        raise _refused("text with letters that cannot be printed", where)
    return raw.decode("ascii")


def encode(tag: int, raw: bytes) -> bytes:
    """The DER value of ``tag`` with the content ``raw``. Raises ``FormatError`` ``der-value``."""
    length = len(raw)
    if length > MAX_CONTENT_BYTES:
        raise _refused(f"{length} bytes of content", "")
    if length < 0x80:
        return bytes((tag, length)) + raw
    octets = length.to_bytes(1 if length < 0x100 else 2, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + raw


def _refused(said: str, where: str) -> FormatError:
    return FormatError("der-value", f"not DER: {said}", where=where)
