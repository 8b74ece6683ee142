# SPDX-License-Identifier: Apache-2.0
"""Reports and derived keys by the ioctls of /dev/sev-guest.

Serves ``attest.choice``. The one way that lets a caller choose the signing key,
and on kernels before 6.7 the only one. Must never keep or print a derived key.

Source: Linux, Documentation/virt/coco/sev-guest.rst.
"""

from __future__ import annotations

from troth.abi import guest_payload, sev_guest
from troth.abi.guest_payload import ReportRequest
from troth.attest import provider
from troth.attest.provider import Answer
from troth.errors import HostError, ProviderError
from troth.linux import sev_guest as device

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.abi.guest_payload import KeyRequest
    from troth.linux.sev_guest import Outcome

NAME = "sev-guest"


class SevGuestProvider:
    """The device ``node``, opened for each request.

    ``certificates_bytes``: the buffer for the host's certificates, whole pages
    or 0 to ask for none; ``level``: the guest's own VMPL, none to ask the kernel.
    """

    name = NAME

    def __init__(
        self,
        node: str = device.NODE,
        *,
        certificates_bytes: int = sev_guest.MAX_CERTIFICATES_BYTES,
        level: int | None = None,
    ) -> None:
        self.node = node
        self._certificates_bytes = certificates_bytes
        self._level = level

    def report(
        self,
        report_data: bytes,
        *,
        vmpl: int | None = None,
        key_selection: int = guest_payload.KEY_SELECTION_AUTO,
    ) -> Answer:
        """See ``provider.Provider``. A buffer too small is made larger once.

        Besides: ``ProviderError`` ``provider-certificates``, ``HostError``
        ``provider-device``.
        """
        provider.check_request(report_data, vmpl)
        asked = ReportRequest(report_data, self._vmpl(vmpl), key_selection)
        guest = self._open()
        try:
            size_bytes = self._certificates_bytes
            outcome = guest.report(asked, certificates_bytes=size_bytes)
            if outcome.errno and outcome.vmm_error == sev_guest.VMM_INVALID_LENGTH:
                # The kernel has already spent the message, so this is a new request.
                size_bytes = self._needed(outcome, size_bytes)
                outcome = guest.report(asked, certificates_bytes=size_bytes)
                if outcome.errno and outcome.vmm_error == sev_guest.VMM_INVALID_LENGTH:
                    raise self._certificates("the host asks for yet more room for them")
        finally:
            guest.close()
        self._check(outcome)
        answer = sev_guest.decode_report_response(outcome.response)
        provider.check_status(answer.status, where=self.node)
        provider.check_report(answer.report, asked, where=self.node)
        certificates = provider.certificates_of(outcome.certificates)
        return Answer(answer.report, certificates, b"", self.name)

    def derived_key(self, request: KeyRequest) -> bytes:
        """32 bytes that firmware derives from a root key and what ``request`` mixes in.

        The same guest on another chip, or after firmware changed what is mixed
        in, gets another key. Raises ``ProviderError``, ``HostError``
        ``provider-device``; ``FormatError`` for a request that cannot be written.
        """
        guest = self._open()
        try:
            outcome = guest.derived_key(request)
        finally:
            guest.close()
        self._check(outcome)
        answer = sev_guest.decode_derived_key_response(outcome.response)
        provider.check_status(answer.status, where=self.node)
        if not any(answer.key):
            raise ProviderError(
                "provider-empty", "zeros came instead of a derived key", where=self.node
            )
        return answer.key

    def _vmpl(self, asked: int | None) -> int:
        if asked is not None:
            return asked
        own = device.own_level() if self._level is None else self._level
        return own or 0

    def _open(self) -> device.SevGuest:
        try:
            return device.SevGuest(self.node)
        except OSError as error:
            raise HostError(
                "provider-device",
                f"cannot be opened: {error.strerror}",
                where=self.node,
                hint="only root may, in an SNP guest with the kernel module sev-guest",
            ) from None

    def _check(self, outcome: Outcome) -> None:
        # The driver fills in no error without one, so a success with an error is none.
        if outcome.errno or outcome.firmware_error or outcome.vmm_error:
            raise provider.failure(
                outcome.errno,
                where=self.node,
                firmware_error=outcome.firmware_error,
                vmm_error=outcome.vmm_error,
            )

    def _needed(self, outcome: Outcome, size_bytes: int) -> int:
        needed_bytes = outcome.certificates_bytes
        allowed = range(size_bytes + 1, sev_guest.MAX_CERTIFICATES_BYTES + 1)
        if needed_bytes not in allowed or needed_bytes % sev_guest.PAGE_BYTES:
            raise self._certificates(
                f"the host says they need {needed_bytes} bytes, and had {size_bytes}"
            )
        return needed_bytes

    def _certificates(self, message: str) -> ProviderError:
        return ProviderError(
            "provider-certificates",
            f"certificates of the host: {message}",
            where=self.node,
            hint=f"the driver takes {sev_guest.MAX_CERTIFICATES_BYTES} bytes at most",
        )
