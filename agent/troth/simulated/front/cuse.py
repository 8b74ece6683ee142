# SPDX-License-Identifier: Apache-2.0
"""/dev/sev-guest as a character device in user space, with the driver's ioctls.

Serves ``main``. The kernel hands over an ioctl with nothing but its argument's
address; each answer names the memory that is needed next, until all is there
("unrestricted ioctl"). The caller's memory may change between those steps: what
is decided by is read anew in every one, and must never be larger than the
driver would take.

Source: Linux, include/uapi/linux/fuse.h and fs/fuse/ioctl.c; what the driver
does with an ioctl: drivers/virt/coco/sev-guest/sev-guest.c.
"""

from __future__ import annotations

import errno
import struct

from troth.abi import guest_message, guest_payload, sev_guest
from troth.errors import FormatError
from troth.record import record
from troth.simulated.front import driver, messages
from troth.simulated.front.driver import Ask

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

    from troth.abi.sev_guest import Request
    from troth.simulated.front.driver import Outcome
    from troth.simulated.front.messages import Message

    Work = Generator[Ask, Outcome, bytes]

NAME = "sev-guest"
NODE = "/dev/cuse"

_UNRESTRICTED = 1
_RETRY = 4
_INIT_IN = struct.Struct("<IIII")
_INIT_OUT = struct.Struct("<IIIIIIII40s")
_OPEN_OUT = struct.Struct("<QII")
_IOCTL_IN = struct.Struct("<QIIQII")
_IOCTL_OUT = struct.Struct("<iIII")
_VECTOR = struct.Struct("<QQ")
_ERRORS_AT = 24
_ERRORS_BYTES = 8
_CERTIFICATES_BYTES_AT = 104
_SIZE_BYTES = 4
#: struct: snp_guest_request_ioctl, then the request it points to.
_HEAD = sev_guest.REQUEST_BYTES


@record
class _Kind:
    """One ioctl: the message it becomes, and the sizes of request and response structures."""

    message: int
    request_bytes: int
    response_bytes: int


_KINDS = {
    sev_guest.GET_REPORT: _Kind(
        guest_message.REPORT_REQUEST,
        sev_guest.REPORT_REQUEST_BYTES,
        sev_guest.REPORT_RESPONSE_BYTES,
    ),
    sev_guest.GET_DERIVED_KEY: _Kind(
        guest_message.KEY_REQUEST,
        sev_guest.DERIVED_KEY_REQUEST_BYTES,
        sev_guest.DERIVED_KEY_RESPONSE_BYTES,
    ),
    sev_guest.GET_EXT_REPORT: _Kind(
        guest_message.REPORT_REQUEST,
        sev_guest.EXT_REPORT_REQUEST_BYTES,
        sev_guest.REPORT_RESPONSE_BYTES,
    ),
}


@record
class _Ioctl:
    """One step of an ioctl: ``command``, the caller's ``address``, and what was brought so far."""

    command: int
    address: int
    data: bytes
    out_bytes: int


def initialise(message: Message) -> bytes:
    """The reply to the first message, which makes the node. ``FormatError`` ``sim-message``."""
    major, minor, _, _ = messages.fields(_INIT_IN, message)
    if message.opcode != messages.CUSE_INIT or (major, minor) < (messages.MAJOR, messages.MINOR):
        raise FormatError("sim-message", f"CUSE speaks {major}.{minor}, opcode {message.opcode}")
    head = _INIT_OUT.pack(
        messages.MAJOR,
        messages.MINOR,
        0,
        _UNRESTRICTED,
        messages.MAX_WRITE_BYTES,
        messages.MAX_WRITE_BYTES,
        0,
        0,
        b"",
    )
    return messages.reply(message.unique, head + f"DEVNAME={NAME}\0".encode())


def answer(message: Message) -> bytes | Work | None:
    """The reply to ``message``, or the work that ends in the reply's body; none where none is due.

    ``FormatError`` ``sim-message``.
    """
    if message.opcode in messages.WITHOUT_REPLY:
        return None
    if message.opcode == messages.OPEN:
        return messages.reply(message.unique, _OPEN_OUT.pack(0, 0, 0))
    if message.opcode in (messages.RELEASE, messages.FLUSH):
        return messages.reply(message.unique)
    if message.opcode in (messages.READ, messages.WRITE):
        # The driver has neither.
        return messages.failure(message.unique, errno.EINVAL)
    if message.opcode != messages.IOCTL:
        return messages.failure(message.unique, errno.ENOSYS)
    _, _, command, address, in_bytes, out_bytes = messages.fields(_IOCTL_IN, message)
    data = message.body[_IOCTL_IN.size :]
    if len(data) != in_bytes:
        raise FormatError("sim-message", f"an ioctl with {len(data)} bytes, not {in_bytes}")
    step = _step(_Ioctl(command, address, data, out_bytes))
    return messages.reply(message.unique, step) if isinstance(step, bytes) else step


def _step(call: _Ioctl) -> bytes | Work:
    """The body of a reply, or the work behind it, by how much has been brought."""
    if not call.data:
        return _bring([(call.address, _HEAD)])
    request = sev_guest.decode_request(call.data[:_HEAD])
    if not request.message_version:
        return _done(-errno.EINVAL)
    errors = (call.address + _ERRORS_AT, _ERRORS_BYTES)
    kind = _KINDS.get(call.command)
    if kind is None:
        return _refused(call, errno.ENOTTY)
    if not request.request_address or not request.response_address:
        return _refused(call, errno.EINVAL)
    if len(call.data) not in (_HEAD, _HEAD + kind.request_bytes):
        return _done(-errno.EIO)
    vectors = [(call.address, _HEAD), (request.request_address, kind.request_bytes)]
    response = (request.response_address, kind.response_bytes)
    if call.command != sev_guest.GET_EXT_REPORT:
        if len(call.data) == _HEAD:
            return _bring(vectors, [errors, response])
        return _ask(call, request, kind)
    return _extended(call, request, vectors, [errors, response])


def _extended(
    call: _Ioctl,
    request: Request,
    vectors: list[tuple[int, int]],
    out: list[tuple[int, int]],
) -> bytes | Work:
    """The certificates' place is known only when the request that names it has been brought."""
    errors, response = out
    if len(call.data) == _HEAD:
        return _bring(vectors, [errors])
    body = call.data[_HEAD:]
    address = int.from_bytes(body[96:_CERTIFICATES_BYTES_AT], "little")
    size_bytes = int.from_bytes(body[_CERTIFICATES_BYTES_AT:][:_SIZE_BYTES], "little")
    if not address:
        size_bytes = 0
    if size_bytes > sev_guest.MAX_CERTIFICATES_BYTES or size_bytes % sev_guest.PAGE_BYTES:
        return _done(-errno.EINVAL, _errors(driver.NO_CALL))
    room_bytes = _ERRORS_BYTES + _SIZE_BYTES + response[1] + size_bytes
    if call.out_bytes == _ERRORS_BYTES:
        size_field = (request.request_address + _CERTIFICATES_BYTES_AT, _SIZE_BYTES)
        certificates = [(address, size_bytes)] if size_bytes else []
        return _bring(vectors, [errors, size_field, response, *certificates])
    if call.out_bytes != room_bytes:
        # The caller changed the size between two steps.
        return _done(-errno.EINVAL, _errors(driver.NO_CALL))
    return _ask_extended(call, request, size_bytes)


def _ask(call: _Ioctl, request: Request, kind: _Kind) -> Work:
    body = call.data[_HEAD:]
    outcome = yield Ask(kind.message, request.message_version, body, kind.response_bytes)
    if outcome.errno:
        return _done(-outcome.errno, _errors(outcome.exit_info))
    # As it was: the driver writes errors only where there are some.
    return _done(0, call.data[_ERRORS_AT:_HEAD] + outcome.payload)


def _ask_extended(call: _Ioctl, request: Request, size_bytes: int) -> Work:
    body = call.data[_HEAD:]
    outcome = yield Ask(
        guest_message.REPORT_REQUEST,
        request.message_version,
        body[: guest_payload.REPORT_REQUEST_BYTES],
        sev_guest.REPORT_RESPONSE_BYTES,
        pages=size_bytes // sev_guest.PAGE_BYTES,
    )
    if outcome.errno:
        needed = body[_CERTIFICATES_BYTES_AT:][:_SIZE_BYTES]
        if sev_guest.split_exit_info(outcome.exit_info)[1] == sev_guest.VMM_INVALID_LENGTH:
            needed = (outcome.pages * sev_guest.PAGE_BYTES & 0xFFFFFFFF).to_bytes(4, "little")
        return _done(-outcome.errno, _errors(outcome.exit_info) + needed)
    return _done(
        0,
        call.data[_ERRORS_AT:_HEAD]
        + body[_CERTIFICATES_BYTES_AT:][:_SIZE_BYTES]
        + outcome.payload
        + outcome.certificates,
    )


def _refused(call: _Ioctl, number: int) -> bytes:
    """Errno ``number``, once there is a place to say that the firmware was not asked."""
    if call.out_bytes < _ERRORS_BYTES:
        errors = (call.address + _ERRORS_AT, _ERRORS_BYTES)
        return _bring([(call.address, _HEAD)], [errors])
    return _done(-number, _errors(driver.NO_CALL))


def _errors(exit_info: int) -> bytes:
    return exit_info.to_bytes(_ERRORS_BYTES, "little")


def _bring(wanted: list[tuple[int, int]], out: list[tuple[int, int]] | None = None) -> bytes:
    """Come again with the memory ``wanted``, and room for ``out``: pairs of address and size."""
    vectors = [*wanted, *(out or [])]
    if any(address + size_bytes >= 1 << 64 for address, size_bytes in vectors):
        return _done(-errno.EFAULT)
    head = _IOCTL_OUT.pack(0, _RETRY, len(wanted), len(vectors) - len(wanted))
    return head + b"".join(_VECTOR.pack(*vector) for vector in vectors)


def _done(result: int, data: bytes = b"") -> bytes:
    """The end of the ioctl: ``data`` fills the places for it in their order, and may be short."""
    return _IOCTL_OUT.pack(result, 0, 0, 0) + data
