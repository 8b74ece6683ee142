# SPDX-License-Identifier: Apache-2.0
"""tar archives, read as a stream: ustar, pax and the GNU long names.

Serves the root builder. Source: POSIX.1-2017 pax, "ustar Interchange Format"
and "pax Header Block"; GNU tar manual, "Basic Tar Format". Own reader because
the standard library's believes negative and huge sizes in several versions
that are still in use. Every size is bounded before it is used; forms that
cannot be kept exactly (sparse files, multi-volume parts) are refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.errors import FormatError
from troth.record import record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol

    class Stream(Protocol):
        """Anything with ``read``; short reads are allowed."""

        def read(self, size: int, /) -> bytes: ...


BLOCK_BYTES = 512
MAX_EXTRA_BYTES = 1 << 20
_PIECE_BYTES = 1 << 20

FILE, HARD_LINK, LINK, CHARACTER, BLOCK, DIRECTORY, FIFO = "0123456"
_XATTR = "SCHILY.xattr."


@record
class Member:
    """One member: ``kind`` is one of the type characters above, contiguous files being files.

    Texts are decoded as file names are (surrogates for other bytes);
    ``attributes``: extended attributes by name; ``acls``: whether it carries access
    control lists.
    """

    path: str
    kind: str
    mode: int
    uid: int
    gid: int
    size_bytes: int
    target: str
    device: tuple[int, int]
    attributes: tuple[tuple[str, bytes], ...]
    acls: bool


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _number(field: bytes, name: str) -> int:
    """An octal field, or GNU's base 256 with the high bit of the first byte set."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if not digits:
        return 0
    if len(digits) > 12 or not set(digits) <= set(b"01234567"):
        raise FormatError("tar-header", f"the field {name} is no number: {field!r}")
    return int(digits, 8)


def _is_header(block: bytes) -> bool:
    stored = _number(block[148:156], "checksum")
    return stored == sum(block) - sum(block[148:156]) + 8 * 32


def parse_pax(data: bytes) -> dict[str, bytes]:
    """The records of a pax header; the last of a key wins, as POSIX says."""
    found = {}
    offset = 0
    while offset < len(data):
        space = data.find(b" ", offset, offset + 12)
        digits = data[offset:space] if space > 0 else b""
        if not digits.isdigit():
            raise FormatError("tar-pax", f"a pax record without length at {offset}")
        end = offset + int(digits)
        if not space < end <= len(data) or data[end - 1 : end] != b"\n":
            raise FormatError("tar-pax", f"a pax record of wrong length at {offset}")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not equals or not key:
            raise FormatError("tar-pax", f"a pax record without key at {offset}")
        found[_text(key)] = value
        offset = end
    return found


class Reader:
    """Members of the archive in ``stream``, in order.

    >>> for member in Reader(stream):      # doctest: +SKIP
    ...     pieces = reader.content()

    ``content`` yields the pieces of the current member's data; what is not
    taken is skipped. Raises ``FormatError``: ``tar-header``, ``tar-pax``,
    ``tar-truncated``, ``tar-size`` (more than ``limit_bytes`` in all),
    ``tar-sparse``, ``tar-type``.
    """

    def __init__(self, stream: Stream, *, limit_bytes: int = 64 << 30) -> None:
        self._stream = stream
        self._left = 0
        self._padding = 0
        self._budget = limit_bytes

    def _take(self, count: int) -> bytes:
        """Exactly ``count`` bytes, fewer only at the end of the stream."""
        parts = []
        while count > 0:
            piece = self._stream.read(min(count, _PIECE_BYTES))
            if not piece:
                break
            parts.append(piece)
            count -= len(piece)
        return b"".join(parts)

    def _spend(self, size_bytes: int) -> None:
        self._budget -= size_bytes + BLOCK_BYTES
        if self._budget < 0:
            raise FormatError("tar-size", "the archive holds more than the limit")

    def content(self) -> Iterator[bytes]:
        """The data of the member read last, in pieces."""
        while self._left:
            piece = self._stream.read(min(self._left, _PIECE_BYTES))
            if not piece:
                raise FormatError("tar-truncated", "the archive ends inside a member")
            self._left -= len(piece)
            yield piece

    def _finish_member(self) -> None:
        for _piece in self.content():
            pass
        if len(self._take(self._padding)) != self._padding:
            raise FormatError("tar-truncated", "the archive ends inside a member")
        self._padding = 0

    def _extra(self, size_bytes: int) -> bytes:
        if size_bytes > MAX_EXTRA_BYTES:
            raise FormatError("tar-pax", f"an extended header of {size_bytes} bytes")
        data = self._take(size_bytes)
        rest = -size_bytes % BLOCK_BYTES
        if len(data) != size_bytes or len(self._take(rest)) != rest:
            raise FormatError("tar-truncated", "the archive ends inside an extended header")
        return data

    def __iter__(self) -> Iterator[Member]:
        shared: dict[str, bytes] = {}
        own: dict[str, bytes] = {}
        while True:
            self._finish_member()
            block = self._take(BLOCK_BYTES)
            if len(block) < BLOCK_BYTES:
                raise FormatError("tar-truncated", "the archive has no end mark")
            if not any(block):
                if own:
                    raise FormatError("tar-header", "an extended header without member")
                return
            if not _is_header(block):
                raise FormatError("tar-header", "not a tar header, or its checksum is wrong")
            kind = chr(block[156])
            size_bytes = _number(block[124:136], "size")
            self._spend(size_bytes)
            if kind == "x":
                own |= parse_pax(self._extra(size_bytes))
            elif kind == "g":
                shared |= parse_pax(self._extra(size_bytes))
            elif kind == "L":
                own["path"] = self._extra(size_bytes).split(b"\0")[0]
            elif kind == "K":
                own["linkpath"] = self._extra(size_bytes).split(b"\0")[0]
            else:
                member = self._member(block, kind, size_bytes, shared | own)
                own = {}
                yield member

    def _member(self, block: bytes, kind: str, size_bytes: int, extra: dict[str, bytes]) -> Member:
        name = block[:100].split(b"\0")[0]
        if block[257:263] == b"ustar\0" and (prefix := block[345:500].split(b"\0")[0]):
            name = prefix + b"/" + name
        path = extra.get("path", name)
        if b"\0" in path:
            raise FormatError("tar-header", "a name with a NUL byte")
        if kind == "S" or any(key.startswith("GNU.sparse") for key in extra):
            raise FormatError(
                "tar-sparse",
                f"{_text(path)[:200]!r} is stored sparse",
                hint="make the archive without --sparse",
            )
        # Types: old archives write NUL for a file, and end a directory's name with a slash.
        kind = FILE if kind in ("\0", "7") else kind
        if kind == FILE and path.endswith(b"/"):
            kind = DIRECTORY
        if kind not in "0123456":
            raise FormatError("tar-type", f"{_text(path)[:200]!r} has the member type {kind!r}")
        numbers = {
            "uid": _number(block[108:116], "uid"),
            "gid": _number(block[116:124], "gid"),
            "size": size_bytes,
        }
        for key in numbers:
            if key in extra:
                if not extra[key].isdigit() or len(extra[key]) > 18:
                    raise FormatError("tar-pax", f"the pax record {key} is no number")
                numbers[key] = int(extra[key])
        if numbers["uid"] >= 2**32 - 1 or numbers["gid"] >= 2**32 - 1:
            raise FormatError("tar-header", f"{_text(path)[:200]!r} has an impossible owner")
        if kind != FILE:
            # A directory's size is a hint without data; a link with data would be kept wrongly.
            if kind in (HARD_LINK, LINK) and numbers["size"]:
                raise FormatError("tar-header", f"{_text(path)[:200]!r} is a link with data")
            numbers["size"] = 0
        else:
            self._spend(numbers["size"])
            self._left = numbers["size"]
            self._padding = -numbers["size"] % BLOCK_BYTES
        is_node = kind in (CHARACTER, BLOCK)
        return Member(
            path=_text(path),
            kind=kind,
            mode=_number(block[100:108], "mode") & 0o7777,
            uid=numbers["uid"],
            gid=numbers["gid"],
            size_bytes=numbers["size"],
            target=_text(extra.get("linkpath", block[157:257].split(b"\0")[0]))
            if kind in (LINK, HARD_LINK)
            else "",
            device=(_number(block[329:337], "major"), _number(block[337:345], "minor"))
            if is_node
            else (0, 0),
            attributes=tuple(
                sorted(
                    (key.removeprefix(_XATTR), value)
                    for key, value in extra.items()
                    if key.startswith(_XATTR)
                )
            ),
            acls=any(key.startswith("SCHILY.acl.") for key in extra),
        )
