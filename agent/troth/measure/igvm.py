# SPDX-License-Identifier: Apache-2.0
"""The launch digest of an IGVM file, and by name what it does not cover.

Serves ``troth measure igvm``, signing and reference values. Follows the file's
order, the crate ``igvm`` and QEMU; igvmmeasure's differing answers are on
request only. Must never leave out an input of the launch in silence: what the
host may choose is in ``Measured.unmeasured``.

Sources: microsoft/igvm, ``igvm/src/measurement/snp.rs``; QEMU,
``backends/igvm.c`` and ``target/i386/sev.c``; coconut-svsm,
``tools/igvmmeasure/src/igvm_measure.rs``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.abi import snp_policy
from troth.abi.igvm import headers as h
from troth.abi.igvm.file import ARCHITECTURES, X64, Pages
from troth.errors import FormatError, UsageError
from troth.measure import launch
from troth.measure.igvm_runs import Memory, Notes, Runs, count
from troth.measure.igvm_sinks import PlainSink, SnpSink
from troth.record import record

if TYPE_CHECKING:
    from collections.abc import Callable

    from troth.abi.igvm.file import IgvmFile

PLATFORMS = {"sev": h.SEV, "sev-es": h.SEV_ES, "sev-snp": h.SEV_SNP}
"""What is measured for -> its platform type."""

COMPATS = ("igvmmeasure",)
MAX_VCPUS = 512

_STRETCH_PAGES = 256  # read and hashed at once: 1 MiB
_PAGE = h.PAGE_BYTES
_FEATURES = slice(0x3B0, 0x3B8)  # SEV_FEATURES in a VMSA
_CR0 = slice(0x158, 0x160)
_VMSA_PLATFORMS = (h.SEV_SNP, h.SEV_ES)

# What becomes of a page; data and zeros are both of type NORMAL.
_DATA, _NO_DATA, _UNMEASURED, _SECRETS, _CPUID, _NOT_SEEN = range(6)


@record
class Vmsa:
    """A processor's first state as it was measured.

    ``in_file``: false for the reset state that KVM gives to a processor the
    file does not describe.
    """

    vp_index: int
    gpa: int
    sev_features: int
    cr0: int
    in_file: bool = True


@record
class Measured:
    """What a launch of the file measures.

    ``digest``: 48 bytes for SNP, 32 for SEV and SEV-ES; ``runs``: in the order
    of measuring; ``unmeasured``: one line for each input that the digest does
    not cover; ``warnings``: what weakens the guest or is odd; ``policy``: of the
    file, None where it has none; ``id_block_digest``: the digest that its ID
    block was made for.
    """

    digest: bytes
    platform: str
    runs: Runs
    unmeasured: tuple[str, ...]
    warnings: tuple[str, ...]
    policy: int | None
    id_block_digest: bytes | None
    vmsas: tuple[Vmsa, ...]

    @property
    def id_block_agrees(self) -> bool:
        """Whether an ID block, where there is one, was made for this digest."""
        return self.id_block_digest in (None, self.digest)


def measure(
    file: IgvmFile,
    *,
    platform: str = "sev-snp",
    native_zero: bool = False,
    compat: str | None = None,
    vcpus: int = 1,
    vcpu_signature: int | None = None,
) -> Measured:
    """Measure ``file`` as a launch on ``platform``, a key of ``PLATFORMS``.

    ``native_zero``: pages without data are the hardware's ZERO pages, which no
    QEMU makes; ``compat``: one of ``COMPATS``; ``vcpus``: processors of the
    machine: KVM measures the reset state of each that the file does not
    describe, which needs their ``vcpu_signature``. Raises ``FormatError``:
    ``igvm-architecture``, ``igvm-platform-absent``, those of reading;
    ``UsageError``: ``vcpu-count``, ``vcpu-type``, ``igvm-first-processor``. A file
    without a policy is measured; ``check_policy`` refuses it.
    """
    if file.architecture != X64:
        raise FormatError(
            "igvm-architecture",
            f"a file for {ARCHITECTURES[file.architecture]}; {platform} is of x64",
            where=file.where,
        )
    found = file.platform(PLATFORMS[platform])
    if found is None:
        names = ", ".join(h.PLATFORMS[item.platform_type] for item in file.platforms)
        raise FormatError(
            "igvm-platform-absent",
            f"the file is not compatible with {platform}: it is for {names}",
            where=file.where,
        )
    if not 1 <= vcpus <= MAX_VCPUS:
        raise UsageError("vcpu-count", f"{vcpus} processors: possible are 1 to {MAX_VCPUS}")
    if vcpus > 1 and platform != "sev" and vcpu_signature is None:
        raise UsageError(
            "vcpu-type",
            "KVM measures the state of further processors, which tells their type",
            hint="name it with --vcpu-type, such as EPYC-v4, or --vcpu-sig",
        )
    walk = _Walk(file, found, native_zero=native_zero, compat=compat)
    walk.run()
    if vcpus > 1 and platform != "sev":
        walk.further_processors(vcpus, vcpu_signature or 0)
    return walk.measured(platform)


def check_policy(measured: Measured, *, where: str = "") -> None:
    """Refuse an SNP launch without a policy, as the crate ``igvm`` does.

    Raises ``FormatError`` ``igvm-policy-absent``.
    """
    if measured.platform == "sev-snp" and measured.policy is None:
        raise FormatError(
            "igvm-policy-absent",
            "the file holds no guest policy for sev-snp",
            where=where,
            hint="--compat igvmmeasure measures it all the same",
        )


class _Walk:
    """One pass over the headers of ``file`` for ``platform``."""

    def __init__(
        self,
        file: IgvmFile,
        platform: h.SupportedPlatform,
        *,
        native_zero: bool,
        compat: str | None,
    ) -> None:
        self._file = file
        self._mask = platform.compatibility_mask
        self._snp = platform.platform_type == h.SEV_SNP
        self._peer = compat is not None
        self._types = {item.compatibility_mask: item.platform_type for item in file.platforms}
        self._sink: SnpSink | PlainSink = (
            SnpSink(native_zero=native_zero) if self._snp else PlainSink(zeros=not self._peer)
        )
        self._kinds = _kinds(snp=self._snp, peer=self._peer)
        self._steps: dict[int, Callable[[int, int], None]] = {
            _NO_DATA: self._sink.zeros,
            _UNMEASURED: self._sink.unmeasured,
            _SECRETS: self._sink.secrets,
            _CPUID: self._sink.cpuid,
        }
        self._notes = Notes()
        self._memory = Memory()
        self._warnings = list(file.warnings)
        self._areas: dict[int, tuple[h.ParameterArea, list[str]]] = {}
        self._vmsas: list[Vmsa] = []
        self._no_data = False
        self._policy: int | None = None
        self._id_block: bytes | None = None

    def run(self) -> None:
        """Measure every directive in file order."""
        for item in self._file.batches():
            if isinstance(item, Pages):
                self._pages(item)
            else:
                self._header(item)

    def further_processors(self, vcpus: int, signature: int) -> None:
        """Measure the reset states of the processors that the file does not describe."""
        from troth.measure import vcpu  # most files need none of it

        known = {item.vp_index: item for item in self._vmsas}
        if 0 not in known:
            raise UsageError(
                "igvm-first-processor",
                "the file does not describe the first processor, so what it shares with others"
                " is not known",
            )
        features = known[0].sev_features
        page = vcpu.reset_vmsa(vcpu.BSP_EIP, signature=signature, features=features, bsp=False)
        for index in range(vcpus):
            if index not in known:
                self._vmsa(page, index, launch.VMSA_GPA_KVM, in_file=False)

    def measured(self, platform: str) -> Measured:
        """The result of what was measured so far."""
        for gpa, pages, left in self._memory.unfilled(self._sink.runs):
            self._notes.line(
                "memory that must be there and that the file does not fill:"
                f" {left} of {count(pages)} at {gpa:#x}"
            )
        if self._snp:
            self._policy_notes()
            self._notes.line(
                "HOST_DATA: 32 bytes that the host chooses; compare them in the report"
            )
        elif self._no_data and not self._peer:
            self._warnings.append(
                "pages without data are hashed as zeros, as QEMU does; igvmmeasure leaves them out"
            )
        return Measured(
            digest=self._sink.value(),
            platform=platform,
            runs=self._sink.runs,
            unmeasured=self._notes.lines(),
            warnings=tuple(self._warnings),
            policy=self._policy,
            id_block_digest=self._id_block,
            vmsas=tuple(self._vmsas),
        )

    def _policy_notes(self) -> None:
        if self._policy is None:
            self._notes.line("guest policy: none in the file, the host chooses it")
            return
        self._notes.line(
            f"guest policy: {self._policy:#x} in the file; compare the report's POLICY with it"
        )
        try:
            self._warnings += snp_policy.warnings(snp_policy.parse(self._policy))
        except FormatError as error:
            self._warnings.append(error.message)
            if self._policy & 1 << snp_policy.BITS["debug"]:
                self._warnings += snp_policy.warnings(snp_policy.SnpPolicy(debug=True))

    def _pages(self, pages: Pages) -> None:
        """Measure a run of PAGE_DATA in stretches: same kind, ascending, data side by side."""
        mask, kinds = self._mask, self._kinds
        kind, start, count, data = _NOT_SEEN, 0, 0, 0
        for gpa, page_mask, offset, flags, data_type in pages.rows():
            if not page_mask & mask:
                continue
            now = kinds[flags, data_type, offset != 0]
            if flags & h.SHARED:
                size_bytes = h.LARGE_PAGE_BYTES if flags & h.LARGE else _PAGE
                self._notes.pages("shared page, which the host can write", gpa, size_bytes // _PAGE)
            if (
                now == kind
                and gpa == start + count * _PAGE
                and (now != _DATA or offset == data + count * _PAGE)
                and count < _STRETCH_PAGES
                and not flags & h.LARGE
            ):
                count += 1
                continue
            self._stretch(kind, start, count, data)
            kind, start, count, data = now, gpa, 1, offset
            if flags & h.LARGE:
                count = h.LARGE_PAGE_BYTES // _PAGE
        self._stretch(kind, start, count, data)

    def _stretch(self, kind: int, gpa: int, pages: int, offset: int) -> None:
        if kind == _NOT_SEEN:
            return
        if kind == _DATA:
            self._sink.data(gpa, self._file.source.read(offset, pages * _PAGE))
            return
        self._steps[kind](gpa, pages)
        self._no_data = self._no_data or kind == _NO_DATA
        if kind == _UNMEASURED:
            self._notes.pages("contents of an unmeasured page", gpa, pages)
        elif kind == _SECRETS:
            self._notes.pages("secrets page, which the secure processor fills", gpa, pages)
        elif kind == _CPUID:
            self._notes.pages(
                "contents of a CPUID page, which the host proposes and the secure processor checks",
                gpa,
                pages,
            )

    def _header(self, header: h.Header) -> None:
        match header:
            case h.ParameterArea():
                self._areas[header.index] = (header, [])
            case h.Usage():
                self._areas[header.index][1].append(h.NAMES[header.type])
            case h.ParameterInsert() if header.compatibility_mask & self._mask:
                self._insert(header)
            case h.VpContext():
                platform = self._types[header.compatibility_mask & self._known()]
                mine = header.compatibility_mask & self._mask
                if (mine or self._peer) and platform in _VMSA_PLATFORMS:
                    self._vmsa(self._file.data(header), header.vp_index, header.gpa)
                elif mine:
                    self._notes.line(f"first state of processor {header.vp_index}")
            case h.GuestPolicy() if header.compatibility_mask & self._mask:
                self._policy = header.policy
            case h.SnpIdBlock() if self._snp and header.compatibility_mask & self._mask:
                self._id_block = header.launch_digest
                self._notes.line(
                    "ID block: not measured; the secure processor compares it with the digest"
                )
            case h.RequiredMemory() if header.compatibility_mask & self._mask:
                self._memory.add(header.gpa, header.size_bytes // _PAGE)
            case h.ErrorRange() if header.compatibility_mask & self._mask:
                self._notes.pages(
                    "error range, which is shared with the host",
                    header.gpa,
                    header.size_bytes // _PAGE,
                )
            case h.RelocatableRegion() if header.compatibility_mask & self._mask:
                self._notes.pages(
                    "relocatable region, which the loader may move (then nothing here holds)",
                    header.gpa,
                    header.size_bytes // _PAGE,
                )
            case h.PageTableRelocation() if header.compatibility_mask & self._mask:
                self._notes.pages(
                    "page tables, which the loader may rewrite (then nothing here holds)",
                    header.gpa,
                    header.size_bytes // _PAGE,
                )
            case _:
                pass

    def _known(self) -> int:
        return sum(self._types)

    def _insert(self, header: h.ParameterInsert) -> None:
        area, names = self._areas[header.index]
        pages = area.size_bytes // _PAGE
        self._sink.unmeasured(header.gpa, 1 if self._peer else pages)
        written = ", ".join(dict.fromkeys(names)) or "nothing"
        first = ", over contents of the file that are not measured" if area.file_offset else ""
        self._notes.line(
            f"parameter area {header.index} at {header.gpa:#x}, {count(pages)}:"
            f" the host writes {written}{first}"
        )

    def _vmsa(self, page: bytes, vp_index: int, gpa: int, *, in_file: bool = True) -> None:
        self._sink.vmsa(gpa, page)
        features, cr0 = (int.from_bytes(page[field], "little") for field in (_FEATURES, _CR0))
        self._vmsas.append(Vmsa(vp_index, gpa, features, cr0, in_file))


def _kinds(*, snp: bool, peer: bool) -> dict[tuple[int, int, bool], int]:
    """(flags, data type, has data) -> what becomes of the page."""
    table = {}
    for flags in range(8):
        for has_data in (False, True):
            content = _DATA if has_data else _NO_DATA
            normal = _UNMEASURED if flags & h.UNMEASURED else content
            if flags & h.SHARED and not peer:
                normal = _NOT_SEEN
            if not snp and peer:
                # igvmmeasure hashes whatever data a page has, of any type.
                normal = content
            table[flags, h.NORMAL, has_data] = normal
            other = not snp and peer
            table[flags, h.SECRETS, has_data] = content if other else _SECRETS
            table[flags, h.CPUID_DATA, has_data] = content if other else _CPUID
            table[flags, h.CPUID_XF, has_data] = content if other else _CPUID
    return table
