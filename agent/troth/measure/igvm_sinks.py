# SPDX-License-Identifier: Apache-2.0
"""Where pages of a launch go: they become a digest and runs, one class a kind of platform.

Serves ``measure.igvm``, which knows the order and the kind of each page. All
have the same methods; ``gpa`` is page-aligned and data are whole pages.

Sources: as of ``measure.launch``; for SEV and SEV-ES the SEV API (AMD 55766),
LAUNCH_UPDATE_DATA and LAUNCH_MEASURE.
"""

from __future__ import annotations

from hashlib import sha256

from troth.measure import launch
from troth.measure.igvm_runs import PAGE_BYTES, Runs

_ZEROS = bytes(PAGE_BYTES)


class SnpSink:
    """Pages go in, a digest comes out: SNP's."""

    def __init__(self, *, native_zero: bool) -> None:
        self._digest = launch.LaunchDigest()
        self._native_zero = native_zero
        self.runs = Runs()

    def data(self, gpa: int, data: bytes) -> None:
        self._digest.region(gpa, data)
        self.runs.add("Normal", gpa, len(data) // PAGE_BYTES)

    def zeros(self, gpa: int, pages: int) -> None:
        if self._native_zero:
            self._update(launch.ZERO, "Zero", gpa, pages)
        else:
            self._digest.zeros(gpa, pages)
            self.runs.add("Normal", gpa, pages)

    def unmeasured(self, gpa: int, pages: int) -> None:
        self._update(launch.UNMEASURED, "Unmeasured", gpa, pages)

    def secrets(self, gpa: int, pages: int) -> None:
        self._update(launch.SECRETS, "Secrets", gpa, pages)

    def cpuid(self, gpa: int, pages: int) -> None:
        self._update(launch.CPUID, "Cpuid", gpa, pages)

    def vmsa(self, gpa: int, page: bytes) -> None:
        self._digest.vmsa(page, gpa)
        self.runs.add("VMSA", gpa, 1)

    def value(self) -> bytes:
        return self._digest.value

    def _update(self, page_type: int, name: str, gpa: int, pages: int) -> None:
        self._digest.update(page_type, gpa, pages=pages)
        self.runs.add(name, gpa, pages)


class PlainSink:
    """The digest of SEV and SEV-ES: the bytes that are encrypted in place, without addresses."""

    def __init__(self, *, zeros: bool) -> None:
        self._digest = sha256()
        self._zeros = zeros
        self.runs = Runs()

    def data(self, gpa: int, data: bytes) -> None:
        self._digest.update(data)
        self.runs.add("Normal", gpa, len(data) // PAGE_BYTES)

    def zeros(self, gpa: int, pages: int) -> None:
        if self._zeros:
            for _ in range(pages):
                self._digest.update(_ZEROS)
        self.runs.add("Normal", gpa, pages)

    def unmeasured(self, gpa: int, pages: int) -> None:
        """Nothing is done with such pages before SNP."""

    # No SEV platform has these; a file's data for them are not used.
    secrets = cpuid = unmeasured

    def vmsa(self, gpa: int, page: bytes) -> None:
        self._digest.update(page)
        self.runs.add("VMSA", gpa, 1)

    def value(self) -> bytes:
        return self._digest.digest()
