# SPDX-License-Identifier: Apache-2.0
"""Who gives reports: one interface, and the checks that every answer passes.

Serves ``troth report`` and the agent. A provider is another program of the
kernel or the host; its success is only a word. Every answer is looked at for
what the firmware said, its size, and that the report carries what was sent.
Must never hand on a report it has not compared with the request: programs that
did showed their users all zeros. No signature is checked here; that is the
verifier's, outside.

Source: DESIGN section 6; Linux, Documentation/virt/coco/sev-guest.rst.
"""

from __future__ import annotations

import errno

from troth.abi import guest_payload, sev_guest, snp_report
from troth.errors import ProviderError
from troth.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from troth.abi.guest_payload import ReportRequest

    class Provider(Protocol):
        """One way to a report."""

        name: str

        def report(self, report_data: bytes, *, vmpl: int | None, key_selection: int) -> Answer:
            """A report that carries ``report_data``, 64 bytes.

            ``vmpl``: none takes the guest's own level; ``key_selection``: one of
            ``guest_payload.KEY_SELECTION_*``. Under a paravisor the bytes are in the
            claims that the report binds, and nowhere else. Raises ``ProviderError``, ``HostError``
            where the way is barred, ``FormatError`` for an unknown report version.
            """
            ...


MAX_VMPL = 3
MAX_CERTIFICATES_BYTES = 1 << 20

_LOST_HINT = (
    "this lasts until the guest is rebooted; an earlier request had failed in a way that "
    "makes going on unsafe, see the kernel's log"
)
_STATUS_HINTS = {
    guest_payload.STATUS_INVALID_PARAM: "the VMPL asked for must not be below the guest's own",
    guest_payload.STATUS_INVALID_KEY: "the host has loaded no such signing key",
}


@record
class Answer:
    """A checked answer.

    ``report``: 1184 bytes; ``certificates``: the host's table as it came, not
    looked into, empty where it gave none; ``manifest``: of a service module, or
    the whole report of a paravisor, empty elsewhere; ``provider``: who gave it.
    """

    report: bytes
    certificates: bytes
    manifest: bytes
    provider: str


def check_request(report_data: bytes, vmpl: int | None) -> None:
    """Refuse what no provider takes: ``ProviderError`` ``provider-request``."""
    if len(report_data) != guest_payload.REPORT_DATA_BYTES:
        raise ProviderError(
            "provider-request", f"REPORT_DATA has 64 bytes, these are {len(report_data)}"
        )
    if vmpl is not None and not 0 <= vmpl <= MAX_VMPL:
        raise ProviderError("provider-request", f"a VMPL is 0 to {MAX_VMPL}, not {vmpl}")


def check_report(report: bytes, sent: ReportRequest, *, where: str) -> None:
    """Whether ``report`` is one, and answers ``sent``.

    Raises ``ProviderError``: ``provider-empty``, ``provider-size``,
    ``provider-mismatch``; ``FormatError`` ``snp-report-version``.
    """
    if not any(report):
        raise ProviderError(
            "provider-empty",
            f"{len(report)} bytes of zeros came instead of a report",
            where=where,
            hint="the request had failed without saying so; see the kernel's log",
        )
    if len(report) != snp_report.REPORT_BYTES:
        raise ProviderError(
            "provider-size",
            f"a report has {snp_report.REPORT_BYTES} bytes, this one {len(report)}",
            where=where,
        )
    found = snp_report.parse(report, where=where)
    if found.report_data != sent.report_data:
        raise _mismatch("the report carries other REPORT_DATA than was sent", where)
    if found.vmpl != sent.vmpl:
        raise _mismatch(f"the report is of VMPL {found.vmpl}, not {sent.vmpl}", where)
    wanted = {
        guest_payload.KEY_SELECTION_VCEK: snp_report.VCEK,
        guest_payload.KEY_SELECTION_VLEK: snp_report.VLEK,
    }.get(sent.key_selection, found.signing_key)
    if found.signing_key != wanted:
        raise _mismatch(f"the report is signed by {found.signing_key}, not {wanted}", where)


def check_status(status: int, *, where: str) -> None:
    """Raise ``ProviderError`` ``provider-refused`` for a status of the firmware but 0."""
    if status != guest_payload.STATUS_OK:
        raise ProviderError(
            "provider-refused",
            f"the firmware answered {sev_guest.firmware_error_name(status)}",
            where=where,
            hint=_STATUS_HINTS.get(status, ""),
        )


def failure(
    number: int, *, where: str, firmware_error: int = 0, vmm_error: int = 0
) -> ProviderError:
    """The error for errno ``number`` of a driver, 0 where it called its failure a success.

    Its code: ``vmpck-lost``, ``provider-answer``, ``provider-timeout``,
    ``provider-conflict`` or ``provider-refused``.
    """
    if number == errno.ENOTTY:
        return ProviderError(
            "vmpck-lost",
            "the kernel has no key left to speak with the secure processor",
            where=where,
            hint=_LOST_HINT,
        )
    if number == errno.EBADMSG:
        return ProviderError(
            "provider-answer",
            "the answer was not sealed by the secure processor; the kernel destroyed its key",
            where=where,
            hint=_LOST_HINT,
        )
    if number == errno.ETIMEDOUT:
        return ProviderError(
            "provider-timeout",
            "the host let the guest wait for a minute; the kernel destroyed its key",
            where=where,
            hint=_LOST_HINT,
        )
    if number in (errno.EWOULDBLOCK, errno.EBUSY):
        return conflict(where)
    words = errno.errorcode.get(number, str(number)) if number else "success"
    said = [f"errno {words}"]
    if firmware_error not in (0, sev_guest.NO_FIRMWARE_CALL):
        said.append(f"firmware {sev_guest.firmware_error_name(firmware_error)}")
    if vmm_error:
        said.append(f"host {sev_guest.vmm_error_name(vmm_error)}")
    return ProviderError(
        "provider-refused",
        f"the request failed: {', '.join(said)}",
        where=where,
        hint="wait two seconds, and ask again"
        if vmm_error == sev_guest.VMM_BUSY
        else _STATUS_HINTS.get(firmware_error, ""),
    )


def certificates_of(data: bytes) -> bytes:
    """``data``, or nothing where it is zeros: a host that gave no certificates."""
    return data if any(data) else b""


def conflict(where: str) -> ProviderError:
    """``provider-conflict``: the directory does not hold what was written, and only that."""
    return ProviderError(
        "provider-conflict",
        "another process wrote into the request, or the kernel refused a value",
        where=where,
        hint="ask again; if it stays, look who else uses the directory",
    )


def _mismatch(message: str, where: str) -> ProviderError:
    return ProviderError(
        "provider-mismatch", message, where=where, hint="do not use it; see the kernel's log"
    )
