# SPDX-License-Identifier: Apache-2.0
"""The SNP launch digest: what the secure processor computes while pages are added.

Serves ``measure.direct_boot`` and ``measure.igvm``, which know the order of pages
of a kind of launch. Knows no file format, and must never guess an order. The
digest does not cover the guest policy, HOST_DATA, the ID block or the contents
of CPUID and secrets pages.

Source: SEV Secure Nested Paging Firmware ABI (AMD 56860), SNP_LAUNCH_UPDATE,
structure PAGE_INFO; the address of KVM's VMSA pages from Linux,
``arch/x86/kvm/svm/sev.c``, ``INITIAL_VMSA_GPA``.
"""

from __future__ import annotations

import struct
from hashlib import sha384
from typing import TYPE_CHECKING

from troth.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterable

    Bytes = bytes | bytearray | memoryview

PAGE_BYTES = 4096
DIGEST_BYTES = 48
MAX_GPA = 2**52 - PAGE_BYTES
"""The last page that can be addressed: RMP entries hold bits 12 to 51."""

VMSA_GPA_KVM = 0x0000_FFFF_FFFF_F000
"""Where KVM adds the VMSA pages of all processors."""

NORMAL = 1
VMSA = 2
ZERO = 3
UNMEASURED = 4
SECRETS = 5
CPUID = 6

PAGE_TYPES = {
    NORMAL: "normal",
    VMSA: "vmsa",
    ZERO: "zero",
    UNMEASURED: "unmeasured",
    SECRETS: "secrets",
    CPUID: "cpuid",
}

ZERO_CONTENT = sha384(bytes(PAGE_BYTES)).digest()
"""The content digest of a NORMAL page of zero bytes."""

_NO_CONTENT = bytes(DIGEST_BYTES)
_PAGE_INFO_BYTES = 0x70
# length, page type, IMI, VMPL permissions and a reserved byte (all zero under KVM), address
_TAIL = struct.Struct("<HB5xQ")


class LaunchDigest:
    """A launch digest that grows page by page.

    ``start``: 48 bytes, the digest so far; zeros are where a launch begins.
    ``value`` is the digest after all updates. Methods raise ``FormatError``
    ``launch-page`` for an address that is not that of a page, or for contents
    that are not whole pages.
    """

    __slots__ = ("value",)

    def __init__(self, start: bytes = _NO_CONTENT) -> None:
        if len(start) != DIGEST_BYTES:
            raise FormatError("launch-page", f"a launch digest has 48 bytes, not {len(start)}")
        self.value = start

    def normal(self, gpa: int, page: Bytes) -> None:
        """One NORMAL page at ``gpa`` with the 4096 bytes of ``page``."""
        self._page(NORMAL, gpa, page)

    def vmsa(self, page: Bytes, gpa: int = VMSA_GPA_KVM) -> None:
        """One processor's state: the 4096 bytes of ``page``."""
        self._page(VMSA, gpa, page)

    def region(self, gpa: int, data: Bytes) -> None:
        """NORMAL pages from ``gpa`` on with the bytes of ``data``, whole pages."""
        pages, rest = divmod(len(data), PAGE_BYTES)
        if rest:
            raise FormatError("launch-page", f"{len(data)} bytes are no whole number of pages")
        view = memoryview(data)
        self._run(
            NORMAL,
            gpa,
            contents=(
                sha384(view[at : at + PAGE_BYTES]).digest()
                for at in range(0, pages * PAGE_BYTES, PAGE_BYTES)
            ),
            pages=pages,
        )

    def zeros(self, gpa: int, pages: int = 1) -> None:
        """NORMAL pages of zero bytes, which are not ZERO pages."""
        self._run(NORMAL, gpa, contents=(ZERO_CONTENT for _ in range(pages)), pages=pages)

    def update(self, page_type: int, gpa: int, *, pages: int = 1) -> None:
        """Pages without measured contents: ``page_type`` is ZERO, UNMEASURED, SECRETS or CPUID."""
        if page_type not in (ZERO, UNMEASURED, SECRETS, CPUID):
            raise FormatError("launch-page", f"a page of type {page_type} has contents")
        self._run(page_type, gpa, contents=(_NO_CONTENT for _ in range(pages)), pages=pages)

    def _page(self, page_type: int, gpa: int, page: Bytes) -> None:
        if len(page) != PAGE_BYTES:
            raise FormatError("launch-page", f"a page has 4096 bytes, not {len(page)}")
        self._run(page_type, gpa, contents=(sha384(page).digest(),), pages=1)

    def _run(self, page_type: int, gpa: int, *, contents: Iterable[bytes], pages: int) -> None:
        if gpa % PAGE_BYTES or not 0 <= gpa <= MAX_GPA - (pages - 1) * PAGE_BYTES or pages < 0:
            raise FormatError("launch-page", f"{pages} pages at {gpa:#x} cannot be")
        value, pack = self.value, _TAIL.pack
        for content in contents:
            value = sha384(value + content + pack(_PAGE_INFO_BYTES, page_type, gpa)).digest()
            gpa += PAGE_BYTES
        self.value = value
