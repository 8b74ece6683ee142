# SPDX-License-Identifier: Apache-2.0
"""What is in an IGVM file: platforms, policy, pages, parameters, first states, ID blocks.

Serves ``troth inspect FILE.igvm``. Tells what the file says, checked for its
form only, but for the ID block of SNP, which is compared with the file itself.
Whether it may be launched is for ``troth measure igvm`` and whoever compares
the digest. Must never write to what it inspects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.abi import vmsa
from troth.abi.igvm import headers as h
from troth.abi.igvm.file import MAGIC, FileSource, Pages, open_
from troth.image import id_block_check
from troth.record import record

if TYPE_CHECKING:
    from pathlib import Path

    from troth.abi.igvm.file import IgvmFile
    from troth.image.id_block_check import Checked

MAX_LISTED = 1000
"""Records of one kind in a summary; the count of all is in ``headers``."""


@record
class PageCount:
    """Pages of one kind for the platforms of ``mask``; ``lowest``, ``end``: where they lie."""

    mask: int
    kind: str
    pages: int
    lowest: int
    end: int


@record
class Area:
    """A parameter area: where it goes (None: nowhere), and what the host writes into it."""

    index: int
    size_bytes: int
    gpa: int | None
    host_writes: tuple[str, ...]
    has_data: bool


@record
class Context:
    """The first state of a processor; registers only where it is a VMSA."""

    mask: int
    vp_index: int
    gpa: int
    registers: tuple[tuple[str, int], ...]


@record
class Block:
    """An SNP ID block: what it expects, in its own words (policy excepted).

    ``checked``: what that is worth; None for a block that is not for SNP.
    """

    mask: int
    launch_digest: str
    family_id: str
    image_id: str
    guest_svn: int
    has_author_key: bool
    checked: Checked | None


@record
class Summary:
    """What one file holds; lists end at ``MAX_LISTED``. ``headers``: name -> how many."""

    version: int
    architecture: int
    size_bytes: int
    header_bytes: int
    platforms: tuple[h.SupportedPlatform, ...]
    policies: tuple[h.GuestPolicy, ...]
    headers: tuple[tuple[str, int], ...]
    pages: tuple[PageCount, ...]
    areas: tuple[Area, ...]
    memory: tuple[h.RequiredMemory, ...]
    contexts: tuple[Context, ...]
    id_blocks: tuple[Block, ...]
    warnings: tuple[str, ...]


_REGISTERS = ("rip", "rsp", "rsi", "cr0", "cr3", "cr4", "efer", "sev_features")
_VMSA_PLATFORMS = (h.SEV_SNP, h.SEV_ES)
_KINDS = {
    h.SECRETS: "secrets",
    h.CPUID_DATA: "cpuid",
    h.CPUID_XF: "cpuid",
}


def is_igvm(path: Path) -> bool:
    """Whether the file at ``path`` begins as IGVM files do."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(4) == MAGIC.to_bytes(4, "little")


def look(path: Path) -> Summary:
    """What is in the IGVM file at ``path``. Raises ``FormatError`` ``igvm-*``."""
    with path.open("rb") as stream:
        return summary(open_(FileSource(stream.fileno(), where=str(path))))


def summary(file: IgvmFile) -> Summary:
    """What is in ``file``. Raises ``FormatError`` ``igvm-*`` where it changed since."""
    look_at = _Look(file)
    for item in file.batches():
        if isinstance(item, Pages):
            look_at.pages(item)
        else:
            look_at.header(item)
    return look_at.summary()


class _Look:
    def __init__(self, file: IgvmFile) -> None:
        self._file = file
        self._count: dict[str, int] = {}
        self._pages: dict[tuple[int, str], PageCount] = {}
        self._areas: dict[int, Area] = {}
        self._policies: list[h.GuestPolicy] = []
        self._memory: list[h.RequiredMemory] = []
        self._contexts: list[Context] = []
        self._blocks: list[Block] = []
        self._vmsa_masks = sum(
            item.compatibility_mask
            for item in file.platforms
            if item.platform_type in _VMSA_PLATFORMS
        )
        self._known = sum(item.compatibility_mask for item in file.platforms)

    def pages(self, pages: Pages) -> None:
        name = h.NAMES[h.PAGE_DATA_TYPE]
        self._count[name] = self._count.get(name, 0) + len(pages.gpas)
        found: dict[tuple[int, str], list[int]] = {}
        for gpa, mask, offset, flags, data_type in pages.rows():
            key = mask & self._known, _kind(flags, data_type, has_data=offset != 0)
            size_bytes = h.LARGE_PAGE_BYTES if flags & h.LARGE else h.PAGE_BYTES
            total = found.setdefault(key, [0, gpa, 0])
            total[0] += size_bytes // h.PAGE_BYTES
            total[1] = min(total[1], gpa)
            total[2] = max(total[2], gpa + size_bytes)
        for key, (count, lowest, end) in found.items():
            old = self._pages.get(key, PageCount(*key, 0, lowest, end))
            self._pages[key] = PageCount(
                *key, old.pages + count, min(lowest, old.lowest), max(end, old.end)
            )

    def header(self, header: h.Header) -> None:
        name = h.NAMES[h.type_of(header)]
        self._count[name] = self._count.get(name, 0) + 1
        match header:
            case h.GuestPolicy():
                self._policies.append(header)
            case h.RequiredMemory() if len(self._memory) < MAX_LISTED:
                self._memory.append(header)
            case h.ParameterArea():
                self._areas[header.index] = Area(
                    header.index, header.size_bytes, None, (), header.file_offset != 0
                )
            case h.Usage():
                old = self._areas[header.index]
                if name not in old.host_writes:
                    self._areas[header.index] = Area(
                        old.index, old.size_bytes, None, (*old.host_writes, name), old.has_data
                    )
            case h.ParameterInsert():
                old = self._areas[header.index]
                self._areas[header.index] = Area(
                    old.index, old.size_bytes, header.gpa, old.host_writes, old.has_data
                )
            case h.VpContext() if len(self._contexts) < MAX_LISTED:
                self._contexts.append(self._context(header))
            case h.SnpIdBlock():
                self._blocks.append(self._block(header))
            case _:
                pass

    def _context(self, header: h.VpContext) -> Context:
        registers: tuple[tuple[str, int], ...] = ()
        mask = header.compatibility_mask & self._known
        if mask & self._vmsa_masks:
            values = vmsa.decode(self._file.data(header))
            registers = tuple(
                (name, value) for name in _REGISTERS if isinstance(value := values[name], int)
            )
        return Context(mask, header.vp_index, header.gpa, registers)

    def _block(self, header: h.SnpIdBlock) -> Block:
        # By offset, not through abi.id_block: a block that cannot be right is worth showing too.
        body, platform = header.body, self._file.platform(h.SEV_SNP)
        mine = platform is not None and header.compatibility_mask & platform.compatibility_mask
        return Block(
            mask=header.compatibility_mask & self._known,
            launch_digest=body[8:56].hex(),
            family_id=body[56:72].hex(),
            image_id=body[72:88].hex(),
            guest_svn=int.from_bytes(body[92:96], "little"),
            has_author_key=body[4] != 0,
            checked=id_block_check.check(self._file) if mine else None,
        )

    def summary(self) -> Summary:
        file = self._file
        return Summary(
            version=file.version,
            architecture=file.architecture,
            size_bytes=file.size_bytes,
            header_bytes=file.header_bytes,
            platforms=file.platforms,
            policies=tuple(self._policies),
            headers=tuple(self._count.items()),
            pages=tuple(self._pages.values()),
            areas=tuple(self._areas.values())[:MAX_LISTED],
            memory=tuple(self._memory),
            contexts=tuple(self._contexts),
            id_blocks=tuple(self._blocks),
            warnings=file.warnings,
        )


def _kind(flags: int, data_type: int, *, has_data: bool) -> str:
    if data_type != h.NORMAL:
        return _KINDS[data_type]
    if flags & h.SHARED:
        return "shared"
    if flags & h.UNMEASURED:
        return "unmeasured"
    return "data" if has_data else "zeros"
