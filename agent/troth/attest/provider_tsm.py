# SPDX-License-Identifier: Apache-2.0
"""Reports by the kernel's configfs-tsm directory.

Serves ``attest.choice``. A fresh directory for each request, removed whatever
happens. The generation counts what was written: one that is not ours, or one of
ours that the kernel did not take, must never go unnoticed.

Source: Linux, Documentation/ABI/testing/configfs-tsm; services: AMD 58019 1.00,
"Secure VM Service Module for SEV-SNP Guests", chapter 7.
"""

from __future__ import annotations

import os

from troth.abi import guest_payload, snp_report
from troth.abi.guest_payload import ReportRequest
from troth.abi.hashes import sha512
from troth.attest import provider
from troth.attest.provider import Answer
from troth.errors import HostError, ProviderError
from troth.linux import tsm

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Directory(Protocol):
        """What ``linux.tsm.ReportDirectory`` does, or a model of it."""

        path: str

        def has(self, name: str) -> bool: ...

        def write(self, name: str, value: bytes) -> None: ...

        def read(self, name: str, *, limit_bytes: int) -> bytes: ...

        def remove(self) -> None: ...

    class Reports(Protocol):
        """What ``linux.tsm.Reports`` does, or a model of it."""

        root: str

        def make(self, name: str) -> Directory: ...


NAME = "configfs-tsm"
SNP_PROVIDER = b"sev_guest"
SVSM = "svsm"

_TEXT_BYTES = 64
_MANIFEST_BYTES = 1 << 20
_SERVICE_VMPL = 0


class TsmProvider:
    """Reports made below ``reports``, the directory of configfs unless given."""

    name = NAME

    def __init__(self, reports: Reports | None = None) -> None:
        self._reports: Reports = tsm.Reports() if reports is None else reports

    def probe(self) -> None:
        """Make a directory and remove it. Raises ``HostError`` ``provider-device``."""
        directory = self._make()
        try:
            self._check_provider(directory)
        finally:
            directory.remove()

    def report(
        self,
        report_data: bytes,
        *,
        vmpl: int | None = None,
        key_selection: int = guest_payload.KEY_SELECTION_AUTO,
    ) -> Answer:
        """See ``provider.Provider``. This interface cannot choose a signing key.

        Besides: ``HostError`` ``provider-device``.
        """
        provider.check_request(report_data, vmpl)
        if key_selection != guest_payload.KEY_SELECTION_AUTO:
            raise ProviderError(
                "provider-request",
                "configfs-tsm cannot choose the key that signs",
                where=self._reports.root,
                hint="use the provider sev-guest",
            )
        directory = self._make()
        try:
            self._check_provider(directory)
            request = _Request(directory)
            sent = ReportRequest(report_data, request.level(vmpl))
            request.write("inblob", report_data)
            answer = request.answer()
        finally:
            directory.remove()
        provider.check_report(answer.report, sent, where=directory.path)
        return answer

    def service_report(self, nonce: bytes, *, service: str = SVSM, guid: str = "") -> Answer:
        """What a service module at VMPL 0 says of its services, ``guid`` alone where given.

        ``nonce``: 64 bytes. The answer's report carries SHA-512 of nonce and
        manifest. Raises as ``report`` does.
        """
        provider.check_request(nonce, None)
        directory = self._make()
        try:
            self._check_provider(directory)
            if not directory.has("service_provider"):
                raise HostError(
                    "provider-service",
                    "there is no service module below this guest, or the kernel knows none",
                    where=directory.path,
                    hint="services need an SVSM and Linux 6.10 or later",
                )
            request = _Request(directory)
            request.write("service_provider", service.encode())
            if guid:
                request.write("service_guid", guid.encode())
            request.write("service_manifest_version", b"0")
            request.write("inblob", nonce)
            answer = request.answer(with_manifest=True)
        finally:
            directory.remove()
        bound = sha512(nonce + answer.manifest).digest()
        provider.check_report(
            answer.report, ReportRequest(bound, _SERVICE_VMPL), where=directory.path
        )
        return answer

    def _make(self) -> Directory:
        try:
            return self._reports.make(f"troth-{os.urandom(8).hex()}")
        except OSError as error:
            raise HostError(
                "provider-device",
                f"no report directory can be made: {error.strerror}",
                where=self._reports.root,
                hint="only root can, with Linux 6.7 or later in an SNP guest and sev-guest loaded",
            ) from None

    def _check_provider(self, directory: Directory) -> None:
        try:
            found = directory.read("provider", limit_bytes=_TEXT_BYTES).strip()
        except OSError as error:
            raise provider.failure(error.errno or 0, where=directory.path) from None
        if found != SNP_PROVIDER:
            shown = found.decode("ascii", "replace")
            raise HostError(
                "provider-device",
                f"reports are made by {shown!r}, not by SEV-SNP",
                where=directory.path,
            )


class _Request:
    """What is written into one directory, counted."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._where = directory.path
        self._expected = self._number("generation")

    def level(self, asked: int | None) -> int:
        """The VMPL to ask for, written down; the lowest that is allowed where none is asked."""
        has_floor = self._directory.has("privlevel_floor")
        floor = self._number("privlevel_floor") if has_floor else 0
        wanted = floor if asked is None else asked
        if not floor <= wanted <= provider.MAX_VMPL:
            raise ProviderError(
                "provider-request",
                f"VMPL {wanted} is not within {floor} to {provider.MAX_VMPL}",
                where=self._where,
                hint="a guest speaks for its own level and those below it",
            )
        if has_floor or wanted:
            self.write("privlevel", str(wanted).encode())
        return wanted

    def write(self, name: str, value: bytes) -> None:
        try:
            self._directory.write(name, value)
        except OSError as error:
            raise provider.failure(error.errno or 0, where=f"{self._where}/{name}") from None
        self._expected += 1

    def answer(self, *, with_manifest: bool = False) -> Answer:
        """Read all blobs, and only then believe that they belong together."""
        report = self._read("outblob", snp_report.REPORT_BYTES)
        certificates = self._optional("auxblob")
        manifest = self._read("manifestblob", _MANIFEST_BYTES) if with_manifest else b""
        if self._number("generation") != self._expected:
            raise provider.conflict(self._where)
        return Answer(report, provider.certificates_of(certificates), manifest, NAME)

    def _optional(self, name: str) -> bytes:
        if not self._directory.has(name):
            return b""
        return self._read(name, provider.MAX_CERTIFICATES_BYTES)

    def _read(self, name: str, limit_bytes: int) -> bytes:
        try:
            found = self._directory.read(name, limit_bytes=limit_bytes)
        except OSError as error:
            raise provider.failure(error.errno or 0, where=f"{self._where}/{name}") from None
        if len(found) > limit_bytes:
            raise ProviderError(
                "provider-size",
                f"{name} has more than {limit_bytes} bytes",
                where=self._where,
            )
        return found

    def _number(self, name: str) -> int:
        text = self._read(name, _TEXT_BYTES).strip()
        if not text.isdigit() or len(text) > 20:
            raise ProviderError("provider-answer", f"{name} is no number", where=self._where)
        return int(text)
