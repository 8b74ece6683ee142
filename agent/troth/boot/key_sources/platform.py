# SPDX-License-Identifier: Apache-2.0
"""How the sources of keys ask the secure processor.

Serves the key worker. Requests take their turn with those of other processes,
because a host that is asked too often makes the kernel destroy its key. Must
never be asked under a paravisor, whose evidence has another form.

Source: DESIGN section 6; ``attest.provider`` for what an answer must be.
"""

from __future__ import annotations

import binascii
import time

from troth.abi import cert_table, guest_payload
from troth.attest import choice
from troth.attest.pacing import Pacer
from troth.attest.provider_sev_guest import SevGuestProvider
from troth.errors import FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.abi.guest_payload import KeyRequest
    from troth.attest.provider import Provider

_KERNELS = tuple(name for name in choice.NAMES if name != choice.AZURE)
_PEM = b"-----BEGIN CERTIFICATE-----"
_PEM_END = b"-----END CERTIFICATE-----"


class Platform:
    """This guest's secure processor; ``deadline_s`` on the monotonic clock, for waiting.

    ``provider`` and ``device``: who is asked for reports and for keys; the first
    allowed by the kernel, and its device, unless given.
    """

    def __init__(
        self,
        *,
        deadline_s: float,
        pacer: Pacer | None = None,
        provider: Provider | None = None,
        device: SevGuestProvider | None = None,
    ) -> None:
        self._deadline_s = deadline_s
        self._pacer = pacer or Pacer()
        self._provider = provider
        self._device = device

    def evidence(self, report_data: bytes) -> tuple[bytes, tuple[tuple[str, bytes], ...]]:
        """See ``sources.Evidence``.

        Raises ``ProviderError``: ``provider-*``, ``vmpck-lost``; ``HostError``
        ``no-provider``; ``FormatError``: ``cert-table-*``.
        """
        provider = self._provider or choice.choose(_KERNELS)
        answer = self._pacer.run(
            lambda: provider.report(
                report_data, vmpl=None, key_selection=guest_payload.KEY_SELECTION_AUTO
            ),
            timeout_s=self._left_s(),
        )
        return answer.report, certificates_of(answer.certificates)

    def derived_key(self, request: KeyRequest) -> bytes:
        """32 bytes. Raises as ``SevGuestProvider.derived_key``."""
        device = self._device or SevGuestProvider()
        return self._pacer.run(lambda: device.derived_key(request), timeout_s=self._left_s())

    def _left_s(self) -> float:
        return max(0.0, self._deadline_s - time.monotonic())


def certificates_of(table: bytes) -> tuple[tuple[str, bytes], ...]:
    """(kind, DER) of what a host gave, in its order; some hosts give PEM.

    What is no certificate of a chip's chain is left out: a broker needs no more.
    ``FormatError``: ``cert-table-*``.
    """
    kinds = ("vcek", "vlek", "ask", "ark")
    entries = cert_table.parse(table)
    return tuple((entry.name, _der(entry.blob)) for entry in entries if entry.name in kinds)


def _der(blob: bytes) -> bytes:
    text = blob.strip()
    if not text.startswith(_PEM):
        return blob
    body, end, _rest = text[len(_PEM) :].partition(_PEM_END)
    try:
        return binascii.a2b_base64(b"".join(body.split()), strict_mode=True) if end else blob
    except ValueError:
        raise FormatError("cert-table-pem", "a certificate of the host is no PEM") from None
