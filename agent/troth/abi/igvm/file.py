# SPDX-License-Identifier: Apache-2.0
"""An IGVM file: its fixed header checked, its variable headers in file order.

Serves everything that looks into one. The file is hostile until it is
measured: every length, offset and count is bounded before it is used, time is
linear, and memory does not grow with the file. Strict where loaders are
lenient: two readers must never see two files in the same bytes.

Source: microsoft/igvm, ``igvm_defs/src/lib.rs``, IGVM_FIXED_HEADER and
IGVM_FIXED_HEADER_V2; the crate ``igvm``, ``IgvmFile::new_from_binary``.
"""

from __future__ import annotations

import struct
import zlib

from troth.abi.igvm import headers as h
from troth.abi.igvm.rules import Pages, Rules
from troth.abi.igvm.source import BytesSource, FileSource
from troth.errors import FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from troth.abi.igvm.source import Source

__all__ = ["BytesSource", "Contents", "FileSource", "IgvmFile", "Pages", "open_"]

MAGIC = 0x4D56_4749
VERSIONS = (1, 2)
X64, AARCH64 = 0, 1
ARCHITECTURES = {X64: "x64", AARCH64: "aarch64"}

MAX_HEADER_BYTES = 256 << 20
"""Of all variable headers: eight million pages, 32 GiB; more is refused unread."""

FIXED = struct.Struct("<IIIIII")
FIXED_2 = struct.Struct("<IIIIIIII")
CHECKSUM_OFFSET = 20

_CHUNK_BYTES = 1 << 20
_HEAD = struct.Struct("<II")
# type and length as one number, then the body of PAGE_DATA
_PAGE = struct.Struct("<QQIIIHH")
_PAGE_TAG = h.PAGE_DATA_TYPE | 24 << 32
_FEWEST, _MOST = 4, 8192
_VBS_REGISTER_BYTES = 32
_MAX_VBS_REGISTERS = 4096
_ASCII_ZERO = ord("0")


class IgvmFile:
    """A file that ``open_`` has checked.

    ``version``: 1 or 2; ``architecture``: a key of ``ARCHITECTURES``;
    ``platforms``: in file order; ``size_bytes``: of the whole file;
    ``header_bytes``: of all variable headers; ``warnings``: what is odd, but
    harmless. Reading later raises ``FormatError`` as ``open_`` does where the
    file has changed, and ``OSError``.
    """

    def __init__(
        self, source: Source, *, version: int, architecture: int, start: int, end: int
    ) -> None:
        self.source = source
        self.where = source.where
        self.version = version
        self.architecture = architecture
        self.size_bytes = source.size_bytes
        self.header_bytes = end - start
        self.platforms: tuple[h.SupportedPlatform, ...] = ()
        self.warnings: tuple[str, ...] = ()
        self._start = start
        self._end = end
        rules = self._rules()
        padded_oddly = False
        for item, odd in self._walk(rules):
            padded_oddly = padded_oddly or odd
            if isinstance(item, h.VpContext):
                self._context_bytes(item, rules)
        self.platforms = tuple(rules.platforms.values())
        if padded_oddly:
            rules.warnings.append("headers are padded with the character 0 instead of zero bytes")
        self.warnings = tuple(rules.warnings)

    def batches(self) -> Iterator[h.Header | Pages]:
        """All headers in file order, runs of PAGE_DATA as ``Pages``; checks them again."""
        return (item for item, _ in self._walk(self._rules()))

    def headers(self) -> Iterator[h.Header]:
        """All headers in file order, one record each."""
        for item in self.batches():
            if isinstance(item, Pages):
                for row in item.rows():
                    yield h.PageData(*row)
            else:
                yield item

    def platform(self, platform_type: int) -> h.SupportedPlatform | None:
        """The platform of that type, where the file supports it."""
        for item in self.platforms:
            if item.platform_type == platform_type:
                return item
        return None

    def data(self, header: h.Header) -> bytes:
        """The file's data for ``header``, of this file; empty where it has none.

        4096 bytes for PAGE_DATA and VP_CONTEXT (for VSM as many as its registers
        need), the whole area for PARAMETER_AREA, the document for CoRIM: never
        padded, because data must be whole in the file.
        """
        match header:
            case h.PageData() if header.file_offset:
                return self.source.read(header.file_offset, h.PAGE_BYTES)
            case h.ParameterArea() if header.file_offset:
                return self.source.read(header.file_offset, header.size_bytes)
            case h.CorimDocument() | h.CorimSignature():
                return self.source.read(header.file_offset, header.size_bytes)
            case h.VpContext():
                rules = self._rules()
                rules.platforms = {item.compatibility_mask: item for item in self.platforms}
                return self.source.read(header.file_offset, self._context_bytes(header, rules))
            case _:
                return b""

    def _context_bytes(self, header: h.VpContext, rules: Rules) -> int:
        if rules.platform_of(header, self._start).platform_type != h.VSM:
            return h.PAGE_BYTES
        count = int.from_bytes(self.source.read(header.file_offset, 4), "little")
        if count > _MAX_VBS_REGISTERS:
            raise FormatError("igvm-limit", f"{count} registers of a processor", where=self.where)
        size_bytes = 4 + count * _VBS_REGISTER_BYTES
        rules.inside(header.file_offset, size_bytes, self._start)
        return size_bytes

    def _rules(self) -> Rules:
        return Rules(data_start=self._end, size_bytes=self.size_bytes, where=self.where)

    def _walk(self, rules: Rules) -> Iterator[tuple[h.Header | Pages, bool]]:
        """Each header after its check, and whether its padding is of ASCII zeros."""
        at = self._start
        while at < self._end:
            chunk = self.source.read(at, min(_CHUNK_BYTES, self._end - at))
            last = at + len(chunk) == self._end
            used, count = 0, _FEWEST
            while used < len(chunk):
                pages, reserved = self._pages(chunk, used, at + used, count)
                if pages is not None:
                    rules.section(h.PAGE_DATA_TYPE, at + used)
                    rules.pages(pages, reserved)
                    yield pages, False
                    done = len(pages.gpas)
                    used += done * _PAGE.size
                    # Guess that a run goes on: a wrong guess costs as much as the run was long.
                    count = min(count * 2, _MOST) if done == count else _FEWEST
                    continue
                found = self._header(chunk, used, rules, at=at + used, last=last)
                if found is None:
                    break
                header, odd, length = found
                yield header, odd
                used += length
            at += used
        rules.finish()

    @staticmethod
    def _pages(
        chunk: bytes, used: int, at: int, count: int
    ) -> tuple[Pages | None, tuple[int, ...]]:
        whole = min(count, (len(chunk) - used) // _PAGE.size)
        if not whole or int.from_bytes(chunk[used : used + 8], "little") != _PAGE_TAG:
            return None, ()
        rows = list(_PAGE.iter_unpack(memoryview(chunk)[used : used + whole * _PAGE.size]))
        tags, gpas, masks, offsets, flags, types, reserved = zip(*rows, strict=True)
        run = tags.count(_PAGE_TAG)
        if run != whole:
            run = next(index for index, tag in enumerate(tags) if tag != _PAGE_TAG)
        columns = (column[:run] for column in (gpas, masks, offsets, flags, types))
        return Pages(at, *columns), reserved[:run]

    @staticmethod
    def _header(
        chunk: bytes, used: int, rules: Rules, *, at: int, last: bool
    ) -> tuple[h.Header, bool, int] | None:
        """The header at ``used``, its odd padding, its length; None where the chunk ends in it."""
        left = len(chunk) - used
        if left < _HEAD.size:
            if last:
                raise rules.error("igvm-header-bounds", "the headers end within a header", at)
            return None
        kind, length = _HEAD.unpack_from(chunk, used)
        where = rules.place(at)
        wanted = h.body_bytes(kind, where=where)
        if length != wanted:
            raise rules.error(
                "igvm-header-length", f"{h.NAMES[kind]} has {wanted} bytes, not {length}", at
            )
        whole = _HEAD.size + h.padded(length)
        if left < whole:
            if last:
                raise rules.error("igvm-header-bounds", f"{h.NAMES[kind]} leaves the headers", at)
            return None
        start = used + _HEAD.size
        header = h.decode(kind, chunk[start : start + length], where=where)
        padding = set(chunk[start + length : used + whole])
        if padding - {0} and padding != {_ASCII_ZERO}:
            raise rules.error("igvm-padding", "padding that is not zero", at)
        rules.section(kind, at)
        rules.header(header, at)
        return header, bool(padding - {0}), whole


class Contents:
    """Every header of ``file`` with its data, read anew each time: what ``write.write`` takes."""

    def __init__(self, file: IgvmFile) -> None:
        self._file = file

    def __iter__(self) -> Iterator[tuple[h.Header, bytes]]:
        for header in self._file.headers():
            yield header, self._file.data(header)


def open_(source: Source) -> IgvmFile:
    """The file in ``source``, with every header checked once.

    Raises ``FormatError``: ``igvm-magic``, ``igvm-version``,
    ``igvm-architecture``, ``igvm-page-size``, ``igvm-size``,
    ``igvm-header-bounds``, ``igvm-header-limit``, ``igvm-checksum``,
    ``igvm-truncated``, and those of the headers, see ``rules``.
    """
    where = source.where
    head = source.read(0, min(FIXED_2.size, source.size_bytes))
    if int.from_bytes(head[:4], "little") != MAGIC:
        raise FormatError("igvm-magic", "this is no IGVM file", where=where)
    if len(head) < FIXED.size:
        raise FormatError("igvm-truncated", "the fixed header is cut off", where=where)
    _, version, start, size, total_bytes, checksum = FIXED.unpack_from(head)
    if version not in VERSIONS:
        raise FormatError("igvm-version", f"format version {version} is unknown", where=where)
    architecture, fixed_bytes = X64, FIXED.size
    if version > 1:
        if len(head) < FIXED_2.size:
            raise FormatError("igvm-truncated", "the fixed header is cut off", where=where)
        architecture, page_bytes = struct.unpack_from("<II", head, FIXED.size)
        fixed_bytes = FIXED_2.size
        if architecture not in ARCHITECTURES:
            raise FormatError(
                "igvm-architecture", f"architecture {architecture} is unknown", where=where
            )
        if page_bytes != h.PAGE_BYTES:
            raise FormatError(
                "igvm-page-size", f"pages of {page_bytes} bytes; known are 4096", where=where
            )
    if total_bytes != source.size_bytes:
        raise FormatError(
            "igvm-size",
            f"the file has {source.size_bytes} bytes and says {total_bytes}",
            where=where,
        )
    end = start + size
    if start < fixed_bytes or start % 8 or size % 8 or not size or end >= total_bytes:
        raise FormatError(
            "igvm-header-bounds",
            f"variable headers at {start:#x} to {end:#x} do not fit between the fixed header and"
            " the data",
            where=where,
        )
    if size > MAX_HEADER_BYTES:
        raise FormatError(
            "igvm-header-limit",
            f"variable headers of {size} bytes; {MAX_HEADER_BYTES} are read",
            where=where,
        )
    crc = zlib.crc32(head[:CHECKSUM_OFFSET] + bytes(4) + head[FIXED.size : fixed_bytes])
    for offset in range(start, end, _CHUNK_BYTES):
        crc = zlib.crc32(source.read(offset, min(_CHUNK_BYTES, end - offset)), crc)
    if crc != checksum:
        raise FormatError(
            "igvm-checksum",
            f"the headers' checksum is {crc:08x}, the file says {checksum:08x}",
            where=where,
        )
    return IgvmFile(source, version=version, architecture=architecture, start=start, end=end)
