# SPDX-License-Identifier: Apache-2.0
"""ELF64 x86-64: what a loader needs to know of a file, and the sections of kernel modules.

Serves the packer (library and module closures) and ``troth inspect``. Reads
the System V ABI's ELF-64 object format and its AMD64 supplement, little
endian, and nothing else. Pure: bytes in, values out. It must never trust an
offset, size or count it read, follow an unbounded list, or load anything.
"""

from __future__ import annotations

import struct

from troth.errors import FormatError
from troth.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MAGIC = b"\x7fELF"
RELOCATABLE, EXECUTABLE, SHARED = 1, 2, 3  # e_type: ET_REL, ET_EXEC, ET_DYN

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_DYNAMIC = struct.Struct("<qQ")
_MACHINE_X86_64 = 62
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_STRSZ = 0, 1, 5, 10
_DT_SONAME, _DT_RPATH, _DT_RUNPATH = 14, 15, 29
_NAMING = (_DT_NEEDED, _DT_SONAME, _DT_RPATH, _DT_RUNPATH)
_SHT_NOBITS = 8

# Bounds far above any real library (libLLVM: 40 needed, 12 segments; vmlinux: 60 sections) so that
# a hostile file costs little.
_MAX_PROGRAM_HEADERS = 256
_MAX_SECTIONS = 8192
_MAX_DYNAMIC = 4096
_MAX_NAME_BYTES = 4096


@record
class Elf:
    """What a file asks of its loader.

    ``kind``: RELOCATABLE, EXECUTABLE or SHARED (which position-independent
    executables are too); ``interpreter``: of PT_INTERP, or empty; ``needed``:
    DT_NEEDED in order; ``soname``: or empty; ``rpath``, ``runpath``: the
    directories as written, ``$ORIGIN`` unexpanded; ``dynamic``: whether there
    is a dynamic section at all.
    """

    kind: int
    interpreter: str
    needed: tuple[str, ...]
    soname: str
    rpath: tuple[str, ...]
    runpath: tuple[str, ...]
    dynamic: bool


@record
class _Header:
    kind: int
    program_offset: int
    program_count: int
    section_offset: int
    section_count: int
    names_index: int


@record
class _Segment:
    kind: int
    offset: int
    address: int
    size_bytes: int


@record
class _Section:
    name_offset: int
    kind: int
    offset: int
    size_bytes: int


def is_elf(data: bytes) -> bool:
    """Whether ``data`` begins like an ELF file of any machine."""
    return data[:4] == MAGIC


def parse(data: bytes, *, where: str = "") -> Elf:
    """The loader's view of the ELF file ``data``.

    Raises ``FormatError``: ``elf-header`` (not ELF64 little endian x86-64),
    ``elf-bounds`` (a table or text leaves the file), ``elf-limit`` (more
    entries than any real file has), ``elf-text`` (a name is not UTF-8 text).
    """
    header = _header(data, where)
    segments = tuple(_segments(data, header, where))
    interpreters = [segment for segment in segments if segment.kind == _PT_INTERP]
    dynamics = [segment for segment in segments if segment.kind == _PT_DYNAMIC]
    if len(interpreters) > 1 or len(dynamics) > 1:
        raise FormatError("elf-header", "PT_INTERP or PT_DYNAMIC occurs twice", where=where)
    entries = tuple(_dynamic(data, dynamics[0], where)) if dynamics else ()
    names = _names(data, entries, segments, where)

    def directories(wanted: int) -> tuple[str, ...]:
        return tuple(
            part for tag, text in names if tag == wanted for part in text.split(":") if part
        )

    return Elf(
        kind=header.kind,
        interpreter=_interpreter(data, interpreters[0], where) if interpreters else "",
        needed=tuple(text for tag, text in names if tag == _DT_NEEDED),
        soname=next((text for tag, text in names if tag == _DT_SONAME), ""),
        rpath=directories(_DT_RPATH),
        runpath=directories(_DT_RUNPATH),
        dynamic=bool(dynamics),
    )


def _interpreter(data: bytes, segment: _Segment, where: str) -> str:
    if not 1 < segment.size_bytes <= _MAX_NAME_BYTES:
        raise FormatError("elf-text", f"PT_INTERP of {segment.size_bytes} bytes", where=where)
    content = _slice(data, segment.offset, segment.size_bytes, where)
    if content.find(b"\0") != len(content) - 1:
        raise FormatError("elf-text", "PT_INTERP is no terminated path", where=where)
    return _decode(content[:-1], where)


def _names(
    data: bytes, entries: tuple[tuple[int, int], ...], segments: tuple[_Segment, ...], where: str
) -> tuple[tuple[int, str], ...]:
    """(tag, text) of the dynamic entries whose values are offsets of text."""
    naming = [(tag, value) for tag, value in entries if tag in _NAMING]
    if not naming:
        return ()
    values = dict(entries)
    if _DT_STRTAB not in values or _DT_STRSZ not in values:
        raise FormatError("elf-bounds", "names without a string table", where=where)
    start = _file_offset(values[_DT_STRTAB], segments, where)
    texts = _slice(data, start, values[_DT_STRSZ], where)
    names = tuple((tag, _text(texts, value, where)) for tag, value in naming)
    if (_DT_NEEDED, "") in names:
        raise FormatError("elf-text", "a needed library without a name", where=where)
    return names


def section(data: bytes, name: str, *, where: str = "") -> bytes:
    """The content of the first section called ``name``, empty where there is none.

    Raises ``FormatError`` as ``parse`` does.
    """
    header = _header(data, where)
    if header.section_count == 0 and header.section_offset == 0:
        return b""
    # A count of 0 with a table means "more than fit in 16 bits" (e_shnum, System V ABI).
    if not 0 < header.section_count <= _MAX_SECTIONS:
        raise FormatError("elf-limit", f"{header.section_count} sections", where=where)
    if header.names_index >= header.section_count:
        raise FormatError("elf-bounds", "no section holds the section names", where=where)
    names_at = _section_at(data, header, header.names_index, where)
    names = _slice(data, names_at.offset, names_at.size_bytes, where)
    wanted = name.encode() + b"\0"
    for index in range(header.section_count):
        found = _section_at(data, header, index, where)
        if names[found.name_offset : found.name_offset + len(wanted)] == wanted:
            if found.kind == _SHT_NOBITS:
                return b""
            return _slice(data, found.offset, found.size_bytes, where)
    return b""


def _header(data: bytes, where: str) -> _Header:
    if len(data) < _HEADER.size or not is_elf(data):
        raise FormatError("elf-header", "not an ELF file", where=where)
    (ident, kind, machine, version, _entry, program_offset, section_offset, _flags, header_size,
     program_size, program_count, section_size, section_count, names_index) = _HEADER.unpack_from(
        data
    )  # fmt: skip
    if ident[4:7] != b"\x02\x01\x01" or version != 1:
        raise FormatError("elf-header", "not 64-bit little-endian ELF, version 1", where=where)
    if machine != _MACHINE_X86_64:
        raise FormatError("elf-header", f"machine {machine} is not x86-64", where=where)
    if kind not in (RELOCATABLE, EXECUTABLE, SHARED):
        raise FormatError("elf-header", f"type {kind} is neither program nor library", where=where)
    if header_size != _HEADER.size:
        raise FormatError("elf-header", f"a header of {header_size} bytes", where=where)
    if program_count and program_size != _PROGRAM.size:
        raise FormatError("elf-header", f"program headers of {program_size} bytes", where=where)
    if section_count and section_size != _SECTION.size:
        raise FormatError("elf-header", f"section headers of {section_size} bytes", where=where)
    if program_count > _MAX_PROGRAM_HEADERS:
        raise FormatError("elf-limit", f"{program_count} program headers", where=where)
    return _Header(
        kind, program_offset, program_count, section_offset, section_count, names_index
    )  # fmt: skip


def _slice(data: bytes, offset: int, size_bytes: int, where: str) -> bytes:
    if offset > len(data) or size_bytes > len(data) - offset:
        raise FormatError(
            "elf-bounds",
            f"{size_bytes} bytes at {offset} leave a file of {len(data)}",
            where=where,
        )
    return data[offset : offset + size_bytes]


def _segments(data: bytes, header: _Header, where: str) -> Iterator[_Segment]:
    table = _slice(data, header.program_offset, header.program_count * _PROGRAM.size, where)
    for kind, _flags, offset, address, _physical, size_bytes, _memory, _align in (
        _PROGRAM.iter_unpack(table)
    ):  # fmt: skip
        yield _Segment(kind, offset, address, size_bytes)


def _section_at(data: bytes, header: _Header, index: int, where: str) -> _Section:
    raw = _slice(data, header.section_offset + index * _SECTION.size, _SECTION.size, where)
    name_offset, kind, _flags, _address, offset, size_bytes, *_rest = _SECTION.unpack(raw)
    return _Section(name_offset, kind, offset, size_bytes)


def _dynamic(data: bytes, segment: _Segment, where: str) -> Iterator[tuple[int, int]]:
    count = segment.size_bytes // _DYNAMIC.size
    if count > _MAX_DYNAMIC:
        raise FormatError("elf-limit", f"{count} dynamic entries", where=where)
    table = _slice(data, segment.offset, count * _DYNAMIC.size, where)
    for tag, value in _DYNAMIC.iter_unpack(table):
        if tag == _DT_NULL:
            return
        yield tag, value


def _file_offset(address: int, segments: tuple[_Segment, ...], where: str) -> int:
    for segment in segments:
        if segment.kind == _PT_LOAD and 0 <= address - segment.address < segment.size_bytes:
            return segment.offset + address - segment.address
    raise FormatError("elf-bounds", f"address {address:#x} is in no segment", where=where)


def _text(texts: bytes, offset: int, where: str) -> str:
    end = texts.find(b"\0", offset, offset + _MAX_NAME_BYTES) if offset < len(texts) else -1
    if end < 0:
        raise FormatError("elf-bounds", f"the name at {offset} does not end", where=where)
    return _decode(texts[offset:end], where)


def _decode(raw: bytes, where: str) -> str:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise FormatError("elf-text", f"the name {raw[:64]!r} is not UTF-8", where=where) from None
    if not text.isprintable():
        raise FormatError("elf-text", f"the name {raw[:64]!r} is not printable", where=where)
    return text
