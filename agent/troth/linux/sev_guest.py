# SPDX-License-Identifier: Apache-2.0
"""/dev/sev-guest: one ioctl at a time, and all that the driver said about it.

Serves the provider in ``attest``, which judges what comes back: nothing here
decides. An ioctl can take a minute while the host lets the guest wait, and only
a fatal signal ends it: must never be called from PID 1's loop.

Source: Linux, Documentation/virt/coco/sev-guest.rst, and
Documentation/ABI/testing/sysfs-hypervisor for the guest's level.
"""

from __future__ import annotations

import _ctypes
import fcntl
import os

from troth.abi import sev_guest
from troth.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.abi.guest_payload import KeyRequest, ReportRequest

NODE = "/dev/sev-guest"
#: Where kernels since 6.11 tell the guest's level, the newer place first.
_LEVELS = ("/sys/hypervisor/sev/vmpl", "/sys/devices/system/cpu/sev/vmpl")

_CHAR = type("c", (_ctypes._SimpleCData,), {"_type_": "c"})  # noqa: SLF001 - its only name


@record
class Outcome:
    """What one ioctl left behind.

    ``errno``: 0 where it succeeded; ``firmware_error``, ``vmm_error``: as in
    ``abi.sev_guest``; ``response``: the whole buffer, zeros where the driver
    wrote nothing; ``certificates``: likewise, empty where none were asked for;
    ``certificates_bytes``: the size that the driver says they need.
    """

    errno: int
    firmware_error: int
    vmm_error: int
    response: bytes
    certificates: bytes = b""
    certificates_bytes: int = 0

    def __repr__(self) -> str:
        # The response may be a key.
        errors = f"firmware_error={self.firmware_error:#x}, vmm_error={self.vmm_error:#x}"
        return f"Outcome(errno={self.errno}, {errors})"


class SevGuest:
    """An open /dev/sev-guest."""

    def __init__(self, node: str = NODE) -> None:
        self._fd = os.open(node, os.O_RDWR | os.O_CLOEXEC)

    def close(self) -> None:
        """Close the node."""
        os.close(self._fd)

    def report(self, request: ReportRequest, *, certificates_bytes: int = 0) -> Outcome:
        """Ask for a report, with a buffer for certificates where ``certificates_bytes`` says so.

        ``FormatError`` ``sev-guest-field``, ``guest-payload-field`` for a request
        that cannot be written down; what the driver answers is in the outcome.
        """
        room, certificates = _memory(bytes(max(certificates_bytes, 1)))
        body = sev_guest.encode_extended(
            sev_guest.ExtendedReportRequest(
                report=request,
                certificates_address=room if certificates_bytes else 0,
                certificates_bytes=certificates_bytes,
            )
        )
        if not certificates_bytes:
            body = body[: sev_guest.REPORT_REQUEST_BYTES]
            return self._ask(sev_guest.GET_REPORT, body, sev_guest.REPORT_RESPONSE_BYTES)[0]
        outcome, body = self._ask(sev_guest.GET_EXT_REPORT, body, sev_guest.REPORT_RESPONSE_BYTES)
        return Outcome(
            errno=outcome.errno,
            firmware_error=outcome.firmware_error,
            vmm_error=outcome.vmm_error,
            response=outcome.response,
            certificates=bytes(certificates),
            certificates_bytes=sev_guest.decode_extended(body).certificates_bytes,
        )

    def derived_key(self, request: KeyRequest) -> Outcome:
        """Ask for a key. ``FormatError`` as ``report``."""
        body = sev_guest.encode_derived_key_request(request)
        return self._ask(sev_guest.GET_DERIVED_KEY, body, sev_guest.DERIVED_KEY_RESPONSE_BYTES)[0]

    def _ask(self, number: int, body: bytes, response_bytes: int) -> tuple[Outcome, bytes]:
        """The outcome, and the request as the driver left it."""
        request_address, request = _memory(body)
        response_address, response = _memory(bytes(response_bytes))
        # The driver copies its errors back only where there are some: ours must be zero.
        argument = bytearray(
            sev_guest.encode_request(
                sev_guest.Request(sev_guest.MESSAGE_VERSION, request_address, response_address)
            )
        )
        errno = 0
        try:
            fcntl.ioctl(self._fd, number, argument, True)
        except OSError as error:
            errno = error.errno or 0
        said = sev_guest.decode_request(bytes(argument))
        outcome = Outcome(errno, said.firmware_error, said.vmm_error, bytes(response))
        response[:] = bytes(response_bytes)
        return outcome, bytes(request)


def own_level(paths: tuple[str, ...] = _LEVELS) -> int | None:
    """The VMPL that the guest runs at, none where the kernel does not tell."""
    for path in paths:
        try:
            with open(path, "rb", buffering=0) as file:
                text = file.read(16).strip()
        except OSError:
            continue
        if len(text) == 1 and text in b"0123":
            return int(text)
    return None


def _memory(content: bytes) -> tuple[int, bytearray]:
    """Memory that holds ``content``; its address is good while the array keeps its size."""
    kept = bytearray(content)
    kind = type("Memory", (_ctypes.Array,), {"_type_": _CHAR, "_length_": len(kept)})
    array = kind.from_buffer(kept)  # type: ignore[attr-defined]
    return _ctypes.addressof(array), kept
