# SPDX-License-Identifier: Apache-2.0
"""Whether QEMU and KVM launch an IGVM file as it is measured.

Serves ``troth measure igvm --check-kvm`` and the builder's tests. A superset
of igvmmeasure's check: QEMU hands pages and first state to KVM in its own
order, and KVM overwrites parts of the state. Every rule looks at the headers
of the platform only, but for types that QEMU refuses anywhere. Must never
stop at the first fault: whoever makes a file wants all of them.

Sources: coconut-svsm, ``tools/igvmmeasure/src/igvm_measure.rs``; QEMU,
``backends/igvm.c`` and ``target/i386/sev.c`` (``check_vmsa_supported``,
``check_sev_features``); Linux, ``arch/x86/kvm/svm/svm.c`` (``svm_set_cr4``,
``svm_set_efer``) and ``sev.c``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.abi import snp_policy, vmsa
from troth.abi.igvm import headers as h
from troth.abi.igvm.file import Pages
from troth.errors import FormatError
from troth.measure.igvm import PLATFORMS
from troth.measure.launch import VMSA_GPA_KVM
from troth.measure.vcpu import SNP_ACTIVE
from troth.record import record

if TYPE_CHECKING:
    from troth.abi.igvm.file import IgvmFile

HANDLED_USAGES = ("VP_COUNT", "MEMORY_MAP", "ENVIRONMENT_INFO", "MADT", "COMMAND_LINE",
                  "DEVICE_TREE")  # fmt: skip
"""What QEMU can write into parameter areas, the last three since later versions only."""

CR0S = (0x30, 0x31)
"""What KVM leaves of CR0: caching is on, ET is set, with or without protected mode."""

EFER_SVME = 0x1000
CR4_MCE = 0x40

_GENERAL = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "rip", "rflags")
_NUMBERED = tuple(f"r{number}" for number in range(8, 16))
_CONTROL = ("cr0", "cr3", "cr4", "efer", "xcr0", "g_pat", "dr6", "dr7", "x87_fcw", "mxcsr")
ALLOWED_FIELDS = frozenset((*vmsa.SEGMENTS, *_GENERAL, *_NUMBERED, *_CONTROL, "sev_features"))
"""Fields of a VMSA that QEMU copies; any other must be zero."""

_AUTHOR_ENABLED = 4
_AUTHOR_KEY = 544


@record
class Violation:
    """A broken rule: its ``code``, a sentence, and how often it is broken."""

    code: str
    message: str
    times: int = 1


def check(file: IgvmFile, *, platform: str = "sev-snp") -> tuple[Violation, ...]:
    """Every rule that ``file`` breaks on ``platform``, in the order of their first breach.

    A second ID block, which QEMU refuses too, is refused by the reader. Raises
    ``FormatError`` ``igvm-platform-absent`` and those of reading.
    """
    found = file.platform(PLATFORMS[platform])
    if found is None:
        raise FormatError(
            "igvm-platform-absent", f"the file is not compatible with {platform}", where=file.where
        )
    rules = _Rules(file, found)
    for item in file.batches():
        if isinstance(item, Pages):
            rules.pages(item)
        else:
            rules.header(item)
    rules.finish()
    return tuple(rules.found.values())


class _Rules:
    def __init__(self, file: IgvmFile, platform: h.SupportedPlatform) -> None:
        self._file = file
        self._mask = platform.compatibility_mask
        self._type = platform.platform_type
        self._vmsas = 0
        self._has_pages = False
        self.found: dict[str, Violation] = {}

    def pages(self, pages: Pages) -> None:
        mask, shared = self._mask, 0
        count = 0
        for _, page_mask, _, flags, _ in pages.rows():
            if page_mask & mask:
                count += 1
                if flags & h.SHARED:
                    shared += 1
        if not count:
            return
        self._has_pages = True
        if shared:
            self._break(
                "igvm-kvm-shared", "QEMU does not know shared pages and measures them", shared
            )
        self._after_vmsa("a page", count)

    def header(self, header: h.Header) -> None:
        match header:
            case h.ParameterInsert():
                if header.compatibility_mask & self._mask:
                    self._after_vmsa("a parameter area")
                    if self._has_pages:
                        self._break(
                            "igvm-kvm-insert-order",
                            "a parameter area is inserted after a page: QEMU adds it before the"
                            " pages in front of it, which it collects",
                        )
            case h.VpContext():
                if header.compatibility_mask & self._mask:
                    self._context(header)
            case h.GuestPolicy():
                if header.compatibility_mask & self._mask and self._type == h.SEV_SNP:
                    self._policy(header.policy)
            case h.SnpIdBlock():
                if header.compatibility_mask & self._mask:
                    self._id_block(header.body)
            case h.Usage():
                if h.NAMES[header.type] not in HANDLED_USAGES:
                    self._unknown(header)
            case h.ParameterArea():
                if header.file_offset:
                    self._break(
                        "igvm-kvm-parameter-data",
                        "QEMU starts parameter areas with zeros, not with data of the file",
                    )
            case h.SupportedPlatform() | h.RequiredMemory():
                pass
            case _:
                self._unknown(header)

    def finish(self) -> None:
        if not self._vmsas and self._type != h.SEV:
            self._break(
                "igvm-kvm-vmsa-absent",
                "the file does not describe the first processor: KVM measures its reset state",
            )

    def _break(self, code: str, message: str, times: int = 1) -> None:
        old = self.found.get(code)
        if old is None:
            self.found[code] = Violation(code, message, times)
        else:
            self.found[code] = Violation(code, old.message, old.times + times)

    def _after_vmsa(self, what: str, times: int = 1) -> None:
        if self._vmsas:
            self._break(
                "igvm-kvm-order",
                f"{what} comes after the VMSA, which KVM measures last in any case",
                times,
            )

    def _unknown(self, header: h.Header) -> None:
        name = h.NAMES[h.type_of(header)]
        self._break("igvm-kvm-header", f"QEMU does not load a file with {name}")

    def _policy(self, policy: int) -> None:
        try:
            snp_policy.parse(policy)
        except FormatError as error:
            self._break("igvm-kvm-policy", error.message)

    def _id_block(self, body: bytes) -> None:
        if bool(body[_AUTHOR_ENABLED]) != bool(body[_AUTHOR_KEY]):
            self._break(
                "igvm-kvm-author-key",
                "QEMU takes the first byte of the author key for what author_key_enabled says,"
                " and they differ",
            )

    def _context(self, header: h.VpContext) -> None:
        if self._type == h.SEV:
            self._break(
                "igvm-kvm-vmsa-sev", "QEMU takes no first state of a processor for plain SEV"
            )
            return
        self._vmsas += 1
        if self._vmsas > 1:
            self._break(
                "igvm-kvm-vmsa-twice", "more than one VMSA: QEMU takes that of the first processor"
            )
        if header.vp_index:
            self._break(
                "igvm-kvm-vmsa-index",
                f"a VMSA for processor {header.vp_index}: QEMU takes that of the first processor",
            )
        if header.gpa != VMSA_GPA_KVM:
            self._break(
                "igvm-kvm-vmsa-gpa",
                f"the VMSA is at {header.gpa:#x}: KVM has it at {VMSA_GPA_KVM:#x}",
            )
        self._state(self._file.data(header))

    def _state(self, page: bytes) -> None:
        values = vmsa.decode(page, where=self._file.where)
        cr0, cr4, efer, features = (
            value if isinstance(value := values[name], int) else 0
            for name in ("cr0", "cr4", "efer", "sev_features")
        )
        if cr0 not in CR0S:
            self._break(
                "igvm-kvm-vmsa-cr0",
                f"CR0 is {cr0:#x}: igvmmeasure takes 0x31 or 0x30, because KVM overwrites it",
            )
        if not cr4 & CR4_MCE:
            self._break("igvm-kvm-vmsa-cr4", f"CR4 is {cr4:#x}: KVM sets MCE (0x40) in it")
        if not efer & EFER_SVME:
            self._break("igvm-kvm-vmsa-efer", f"EFER is {efer:#x}: KVM sets SVME (0x1000) in it")
        if bool(features & SNP_ACTIVE) != (self._type == h.SEV_SNP):
            wanted = "lacks" if self._type == h.SEV_SNP else "must not have"
            self._break(
                "igvm-kvm-sev-features",
                f"SEV_FEATURES is {features:#x}: it {wanted} SNP (bit 0)",
            )
        empty = (0, vmsa.Segment())
        odd = [
            name
            for name, value in values.items()
            if value not in empty and name not in ALLOWED_FIELDS
        ]
        reserved = vmsa.first_reserved(page)
        if reserved is not None:
            odd.append(f"byte {reserved:#x}")
        if odd:
            self._break(
                "igvm-kvm-vmsa-field",
                f"the VMSA sets what QEMU cannot: {', '.join(odd)}",
            )
