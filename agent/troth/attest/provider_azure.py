# SPDX-License-Identifier: Apache-2.0
"""Reports by the NV indices of Azure's paravisor.

Serves ``attest.choice``. The guest of a paravisor (HCL, OpenHCL) cannot ask the
secure processor itself. It writes 64 bytes into one index of the paravisor's
TPM and reads another, which holds a hardware report and claims; REPORT_DATA is
the digest of the claims, and the 64 bytes come back in the claims. Must never
hand on a report whose claims are not those that it binds, or that carries other
bytes than were written: what stood there since the boot is not fresh. Whether it
is a paravisor that answers, and not a TPM of the host's, the verifier proves.

Source: microsoft/openvmm, openhcl, "vtpm", "openhcl_attestation_protocol"; the
report is made anew when it is read, and not more often than every two seconds.
"""

from __future__ import annotations

import time

from troth.abi import guest_payload, hcl, snp_report, tpm_nv
from troth.abi.guest_payload import ReportRequest
from troth.attest import provider
from troth.attest.provider import Answer
from troth.documents import hcl_claims
from troth.errors import FormatError, HostError, ProviderError
from troth.linux import tpm as tpm_device
from troth.record import record
from troth.registers.tpm_nv import NvIndices

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from troth.abi.tpm_nv import NvPublic

    class Device(Protocol):
        """What ``linux.tpm.TpmDevice`` does, or a TPM reached another way."""

        def transmit(self, command: bytes) -> bytes:
            """The answer to ``command``; ``OSError`` where there is none."""
            ...

        def close(self) -> None:
            """Let go of it."""
            ...


NAME = "azure-vtpm"

_VMPL = 0
_TPM_TIMEOUT_S = 10.0
FRESH_WITHIN_S = 15.0
"""How long the paravisor may take until what was written comes back."""
_PAUSE_S = 0.5
_NT_ORDINARY = 0


def device_node() -> str:
    """The node of the machine's one TPM; ``HostError`` ``provider-device`` without or with more.

    The one with the kernel's resource manager: PID 1 or a service may hold the other.
    """
    names = tpm_device.present()
    if len(names) != 1:
        raise HostError(
            "provider-device",
            f"{len(names)} TPMs are here, a paravisor has one",
            hint="is this an Azure confidential VM, with the kernel's TPM driver loaded?",
        )
    return f"/dev/tpmrm{names[0].removeprefix('tpm')}"


class AzureProvider:
    """Reports by the TPM at ``node``; none takes the machine's.

    ``open_device``, ``sleep`` and ``monotonic`` are for TPMs reached another way.
    """

    name = NAME

    def __init__(
        self,
        node: str | None = None,
        *,
        open_device: Callable[[str], Device] | None = None,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node = node
        self._open_device: Callable[[str], Device] = open_device or _open
        self._sleep = sleep
        self._monotonic = monotonic

    def probe(self) -> None:
        """Look whether there is an index that can hold a report.

        Raises ``HostError`` ``provider-device``; ``ProviderError`` as ``report`` does.
        """
        where, device = self._device()
        try:
            _report_index(NvIndices(device, where=where, sleep=self._sleep), where)
        finally:
            device.close()

    def report(
        self,
        report_data: bytes,
        *,
        vmpl: int | None = None,
        key_selection: int = guest_payload.KEY_SELECTION_AUTO,
    ) -> Answer:
        """See ``provider.Provider``; the answer's ``manifest`` is the paravisor's whole report.

        ``report_data`` becomes the claims' user data. The hardware's report is of
        VMPL 0, where the paravisor is, and nobody can choose its key. Besides:
        ``HostError`` ``provider-device``; ``ProviderError`` ``provider-tpm``,
        ``provider-index``, ``provider-stale``, ``provider-conflict`` and, for a
        report that cannot be read, ``hcl-*``, ``json-*``, ``snp-report-*``.
        """
        provider.check_request(report_data, vmpl)
        if vmpl not in (None, _VMPL) or key_selection != guest_payload.KEY_SELECTION_AUTO:
            raise ProviderError(
                "provider-request",
                "a paravisor gives reports of VMPL 0, and chooses the key itself",
                hint="leave --vmpl out",
            )
        where, device = self._device()
        try:
            indices = NvIndices(device, where=where, sleep=self._sleep)
            return self._fresh(indices, report_data, where)
        finally:
            device.close()

    def _device(self) -> tuple[str, Device]:
        where = self._node or device_node()
        try:
            return where, self._open_device(where)
        except OSError as error:
            raise HostError(
                "provider-device",
                f"the TPM cannot be opened: {error.strerror}",
                where=where,
                hint="only root can, with the kernel's TPM driver loaded",
            ) from None

    def _fresh(self, indices: NvIndices, sent: bytes, where: str) -> Answer:
        index = _report_index(indices, where)
        user_data = _user_data_index(indices, where)
        indices.write(user_data, sent)
        until_s = self._monotonic() + FRESH_WITHIN_S
        while True:
            # Several commands read the index, and it may be made anew between two of them:
            # what does not fit together is read again, and counts only when time is up.
            try:
                found = _read(indices.read(index), where)
                problem = _problem(found, sent, where)
            except FormatError as error:
                problem = ProviderError(error.code, error.message, where=where)
            else:
                if problem is None:
                    return Answer(found.hardware, b"", found.blob, NAME)
            if indices.read(user_data) != sent:
                raise ProviderError(
                    "provider-conflict",
                    "another process has written other user data meanwhile",
                    where=where,
                    hint="ask again; if it stays, look who else uses the paravisor's report",
                )
            if self._monotonic() >= until_s:
                raise problem
            self._sleep(_PAUSE_S)


@record
class _Found:
    """``blob``: the index; ``bound``: what REPORT_DATA must be; ``user_data``: of the claims."""

    blob: bytes
    hardware: bytes
    bound: bytes
    user_data: bytes
    report_type: int


def _read(data: bytes, where: str) -> _Found:
    found = hcl.parse(data, where=where)
    return _Found(
        blob=data,
        hardware=found.hardware_report,
        bound=found.report_data,
        user_data=hcl_claims.parse(found.claims, where=where).user_data,
        report_type=found.report_type,
    )


def _problem(found: _Found, sent: bytes, where: str) -> ProviderError | None:
    """What keeps ``found`` from being the answer; ``FormatError`` for an unknown version."""
    if found.report_type != hcl.SNP:
        return ProviderError(
            "provider-mismatch",
            f"the paravisor's report is of type {found.report_type}, not of SEV-SNP",
            where=where,
            hint="is this an Azure confidential VM with SEV-SNP?",
        )
    try:
        # The claims are bound if REPORT_DATA is their digest; and VMPL 0 asked.
        provider.check_report(found.hardware, ReportRequest(found.bound, _VMPL), where=where)
    except ProviderError as error:
        return error
    if found.user_data != sent:
        return ProviderError(
            "provider-stale",
            f"what was written did not come back within {FRESH_WITHIN_S:.0f} s",
            where=where,
            hint="the report that is there was made before; ask again",
        )
    return None


def _report_index(indices: NvIndices, where: str) -> NvPublic:
    public = indices.public(hcl.NV_REPORT)
    if public is None:
        raise ProviderError(
            "provider-index",
            f"the TPM has no index 0x{hcl.NV_REPORT:08x}, where a paravisor keeps its report",
            where=where,
            hint="this TPM is no paravisor's",
        )
    least = snp_report.REPORT_BYTES
    if public.kind != _NT_ORDINARY or not public.attributes & tpm_nv.WRITTEN:
        raise _wrong_index(hcl.NV_REPORT, "holds no bytes", where)
    if not least < public.size_bytes <= hcl.MAX_BYTES:
        raise _wrong_index(hcl.NV_REPORT, f"has {public.size_bytes} bytes", where)
    return public


def _user_data_index(indices: NvIndices, where: str) -> NvPublic:
    public = indices.public(hcl.NV_USER_DATA)
    if public is None:
        return indices.define(hcl.NV_USER_DATA, size_bytes=hcl.USER_DATA_BYTES)
    if public.kind != _NT_ORDINARY or public.attributes & tpm_nv.WRITE_LOCKED:
        raise _wrong_index(hcl.NV_USER_DATA, "cannot be written", where)
    if public.size_bytes != hcl.USER_DATA_BYTES:
        raise _wrong_index(hcl.NV_USER_DATA, f"has {public.size_bytes} bytes, not 64", where)
    return public


def _wrong_index(index: int, what: str, where: str) -> ProviderError:
    return ProviderError(
        "provider-index",
        f"index 0x{index:08x} of the TPM {what}",
        where=where,
        hint="another program made it; a paravisor's are of another form",
    )


def _open(node: str) -> Device:
    return tpm_device.TpmDevice(node, timeout_s=_TPM_TIMEOUT_S)
