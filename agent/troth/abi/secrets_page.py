# SPDX-License-Identifier: Apache-2.0
"""The page of secrets that firmware injects into a guest at its launch.

Serves the simulated platform: the host half makes such a page, the guest half
takes its key from it. On Linux the real one is the kernel's alone, and no code
here reads it. It holds the keys of the guest message protocol: must never be
printed, logged, or kept after the key in use was taken out of it.

Source: AMD SEV Secure Nested Paging Firmware ABI Specification (56860) 1.58,
table "Secrets Page Format"; the SVSM's fields: AMD 58019 1.00, "Secure VM
Service Module", table "Secrets page"; little-endian.
"""

from __future__ import annotations

import struct

from troth.errors import FormatError
from troth.record import record, replace

PAGE_BYTES = 4096
VERSIONS = (2, 3)
VMPCKS = 4
VMPCK_BYTES = 32
NO_KEY = bytes(VMPCK_BYTES)
"""A key that was cleared, or that this level never had."""

# version, imi_en, fms, reserved, gosvw, four keys
_HEAD = struct.Struct("<IIII16s32s32s32s32s")
# os_area: four counts, ap_jump_table_pa, reserved, guest_usage; vmsa_tweak_bitmap
_OS_AREA = struct.Struct("<IIIIQ40s32s64s")
# svsm: base, size, caa, max_version, guest_vmpl, reserved; tsc_factor
_SVSM = struct.Struct("<QQQIB3sI")
_OS_AREA_AT = 0x0A0
_SVSM_AT = 0x140
_END = _SVSM_AT + _SVSM.size


@record
class Svsm:
    """What a service module at VMPL 0 tells the guest below it.

    ``base``, ``size_bytes``: its memory; ``calling_area``: guest physical
    address; ``max_version``: of its protocol; ``guest_vmpl``: the guest's level.
    """

    base: int
    size_bytes: int
    calling_area: int
    max_version: int
    guest_vmpl: int


@record
class SecretsPage:
    """The page.

    ``version``: 2 or 3; ``imi_enabled``: the migration image was measured;
    ``fms``: CPUID(1).EAX; ``gosvw``: 16 bytes; ``vmpcks``: four keys of 32
    bytes; ``counts``: messages sent so far under each; ``ap_jump_table``: guest
    physical address; ``guest_usage``: 32 bytes, the guest's own;
    ``vmsa_tweak_bitmap``: 64 bytes; ``svsm``: none where there is no service
    module, always none in version 2; ``tsc_factor``: 0 in version 2.
    """

    vmpcks: tuple[bytes, ...]
    version: int = 3
    imi_enabled: bool = False
    fms: int = 0
    gosvw: bytes = bytes(16)
    counts: tuple[int, ...] = (0, 0, 0, 0)
    ap_jump_table: int = 0
    guest_usage: bytes = bytes(32)
    vmsa_tweak_bitmap: bytes = bytes(64)
    svsm: Svsm | None = None
    tsc_factor: int = 0

    def __repr__(self) -> str:
        present = [number for number in range(VMPCKS) if self.has_key(number)]
        return f"SecretsPage(version={self.version}, vmpcks present: {present})"

    @property
    def guest_vmpl(self) -> int:
        """The level the guest runs at: 0 where no service module says another."""
        return 0 if self.svsm is None else self.svsm.guest_vmpl

    def has_key(self, number: int) -> bool:
        """Whether VMPCK ``number`` (0 to 3) is there."""
        return self.vmpcks[number] != NO_KEY


def without_keys(page: SecretsPage, *numbers: int) -> SecretsPage:
    """``page`` with the VMPCKs ``numbers`` cleared."""
    kept = tuple(NO_KEY if at in numbers else key for at, key in enumerate(page.vmpcks))
    return replace(page, vmpcks=kept)


def below(page: SecretsPage, svsm: Svsm) -> SecretsPage:
    """What a service module passes on: its own fields set, the keys of the levels above cleared."""
    return without_keys(replace(page, svsm=svsm), *range(svsm.guest_vmpl))


def parse(data: bytes) -> SecretsPage:
    """The page in ``data``, exactly 4096 bytes.

    What is reserved is passed over: firmware takes it into use without a new
    version. Raises ``FormatError``: ``secrets-page-size``,
    ``secrets-page-version``, ``secrets-page-field`` for a level above 3 and for
    a service module that left the guest a key of its own level.
    """
    if len(data) != PAGE_BYTES:
        raise FormatError("secrets-page-size", f"a secrets page of {len(data)} bytes")
    version, imi, fms, _, gosvw, *vmpcks = _HEAD.unpack_from(data)
    if version not in VERSIONS:
        raise FormatError("secrets-page-version", f"secrets page version {version} is not known")
    *counts, jump_table, _, usage, tweak = _OS_AREA.unpack_from(data, _OS_AREA_AT)
    page = SecretsPage(
        version=version,
        imi_enabled=bool(imi & 1),
        fms=fms,
        gosvw=gosvw,
        vmpcks=tuple(vmpcks),
        counts=tuple(counts),
        ap_jump_table=jump_table,
        guest_usage=usage,
        vmsa_tweak_bitmap=tweak,
    )
    if version == 2:
        return page
    base, size, area, max_version, guest_vmpl, _, factor = _SVSM.unpack_from(data, _SVSM_AT)
    svsm = Svsm(base, size, area, max_version, guest_vmpl) if size else None
    page = replace(page, svsm=svsm, tsc_factor=factor)
    _check_svsm(page)
    return page


def encode(page: SecretsPage) -> bytes:
    """The 4096 bytes of ``page``. Raises ``FormatError``: ``secrets-page-field``, ``-version``."""
    if page.version not in VERSIONS:
        raise FormatError(
            "secrets-page-version", f"secrets page version {page.version} is not known"
        )
    if page.version == 2 and (page.svsm is not None or page.tsc_factor):
        raise FormatError("secrets-page-field", "version 2 has no SVSM and no TSC factor")
    sizes = [(key, VMPCK_BYTES) for key in page.vmpcks]
    sizes += [(page.gosvw, 16), (page.guest_usage, 32), (page.vmsa_tweak_bitmap, 64)]
    wrong = [len(value) for value, size_bytes in sizes if len(value) != size_bytes]
    if wrong or len(page.vmpcks) != VMPCKS or len(page.counts) != VMPCKS:
        raise FormatError("secrets-page-field", "a field of the secrets page has another size")
    _check_svsm(page)
    svsm = page.svsm or Svsm(0, 0, 0, 0, 0)
    try:
        head = _HEAD.pack(
            page.version, int(page.imi_enabled), page.fms, 0, page.gosvw, *page.vmpcks
        )
        area = _OS_AREA.pack(
            *page.counts, page.ap_jump_table, b"", page.guest_usage, page.vmsa_tweak_bitmap
        )
        tail = _SVSM.pack(
            svsm.base,
            svsm.size_bytes,
            svsm.calling_area,
            svsm.max_version,
            svsm.guest_vmpl,
            b"",
            page.tsc_factor,
        )
    except struct.error as error:
        raise FormatError("secrets-page-field", f"a number of the secrets page: {error}") from None
    return (head + area + tail).ljust(PAGE_BYTES, b"\0")


def _check_svsm(page: SecretsPage) -> None:
    svsm = page.svsm
    if svsm is None:
        return
    if not 0 <= svsm.guest_vmpl <= 3 or svsm.size_bytes <= 0:
        raise FormatError("secrets-page-field", f"a service module cannot be as {svsm}")
    if any(page.has_key(number) for number in range(svsm.guest_vmpl)):
        raise FormatError(
            "secrets-page-field",
            f"a guest at VMPL {svsm.guest_vmpl} holds the key of a level above it",
        )
