# SPDX-License-Identifier: Apache-2.0
"""What configfs-tsm does with a report directory: generations, levels, blobs and errors.

Serves ``fuse``, which puts file names and descriptors around it. Errors are
``OSError`` with the kernel's errno. Must never give out a blob that was made of
another request than the directory holds now.

Source: Linux, drivers/virt/coco/guest/report.c and
Documentation/ABI/testing/configfs-tsm-report; what the SEV provider does with a
request: drivers/virt/coco/sev-guest/sev-guest.c, sev_report_new.
"""

from __future__ import annotations

import errno
import os

from troth.abi import guest_message, guest_payload, sev_guest
from troth.abi.guest_payload import ReportRequest
from troth.errors import FormatError
from troth.record import record
from troth.simulated.front.driver import Ask

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

    from troth.abi.guest_payload import ReportResponse
    from troth.simulated.front.driver import Outcome

    Work = Generator[Ask, Outcome, bytes]

PROVIDER = b"sev_guest\n"
IN_BYTES = 64
OUT_BYTES = 32 << 10
"""Largest blob, as kernels before 6.16 have it."""
MAX_LEVEL = 3
MAX_DIRECTORIES = 1024
"""The kernel has no such number; this process has no kernel's memory."""
_MESSAGE_VERSION = 1
_TABLE_ENTRY_BYTES = 24
_HEX = b"0123456789abcdefABCDEF"
_UINT_MAX = (1 << 32) - 1
_ULONG_MAX = (1 << 64) - 1
#: A number of 64 bits has at most so many, in base 8.
_MAX_DIGITS = 22


@record
class Attribute:
    """A file of a report directory: ``mode`` says who may do what, ``is_binary`` how."""

    name: str
    mode: int
    is_binary: bool


ATTRIBUTES = (
    Attribute("auxblob", 0o444, is_binary=True),
    Attribute("generation", 0o444, is_binary=False),
    Attribute("inblob", 0o200, is_binary=True),
    Attribute("outblob", 0o444, is_binary=True),
    Attribute("privlevel", 0o200, is_binary=False),
    Attribute("privlevel_floor", 0o444, is_binary=False),
    Attribute("provider", 0o444, is_binary=False),
)


class Report:
    """One report directory. ``floor``: the lowest level that may be asked for."""

    def __init__(self, floor: int) -> None:
        self._floor = floor
        self._inblob = b""
        self._level = 0
        self._written = 0
        self._made: int | None = None
        self._blobs = {"outblob": b"", "auxblob": b""}

    def text(self, name: str) -> bytes:
        """The content of a readable attribute that is text."""
        texts = {
            "generation": b"%d\n" % self._written,
            "privlevel_floor": b"%d\n" % self._floor,
            "provider": PROVIDER,
        }
        return texts[name]

    def store_level(self, text: bytes) -> None:
        """Privlevel: a number as kstrtouint reads it, floor to 3. ``OSError`` EINVAL, ERANGE."""
        level = _number(text)
        if not self._floor <= level <= MAX_LEVEL:
            raise _error(errno.EINVAL)
        self._written += 1
        self._level = level

    def store_inblob(self, blob: bytes) -> None:
        """Inblob, which replaces what was there."""
        if len(blob) > IN_BYTES:
            raise _error(errno.EINVAL)
        self._written += 1
        self._inblob = blob

    def blob(self, name: str) -> Work:
        """Give outblob or auxblob, made now if anything was written since the last.

        ``OSError``: EINVAL without 64 bytes of inblob or for what the firmware
        does not take, ENXIO for its other refusals, else what the driver said.
        """
        if not self._inblob:
            raise _error(errno.EINVAL)
        if self._made != self._written:
            generation = self._written
            self._blobs = yield from self._new()
            self._made = generation
        found = self._blobs[name]
        if len(found) > OUT_BYTES:
            raise _error(errno.EFBIG)
        return found

    def _new(self) -> Generator[Ask, Outcome, dict[str, bytes]]:
        if len(self._inblob) != IN_BYTES:
            raise _error(errno.EINVAL)
        request = ReportRequest(self._inblob, self._level)
        outcome = yield Ask(
            guest_message.REPORT_REQUEST,
            _MESSAGE_VERSION,
            guest_payload.encode_report_request(request),
            sev_guest.REPORT_RESPONSE_BYTES,
            pages=sev_guest.MAX_CERTIFICATES_BYTES // sev_guest.PAGE_BYTES,
        )
        if outcome.errno:
            raise _error(outcome.errno)
        response = _response(outcome.payload)
        if response.status in (
            guest_payload.STATUS_INVALID_PARAM,
            guest_payload.STATUS_INVALID_KEY,
        ):
            raise _error(errno.EINVAL)
        if response.status:
            raise _error(errno.ENXIO)
        return {
            "outblob": response.report,
            "auxblob": outcome.certificates[: _table_bytes(outcome.certificates)],
        }


class Reports:
    """All directories, by name. ``floor``: the guest's own level."""

    def __init__(self, floor: int) -> None:
        self._floor = floor
        self.found: dict[str, Report] = {}

    def make(self, name: str) -> None:
        """As mkdir(2). ``OSError``: EEXIST, ENOMEM."""
        if name in self.found:
            raise _error(errno.EEXIST)
        if len(self.found) >= MAX_DIRECTORIES:
            raise _error(errno.ENOMEM)
        self.found[name] = Report(self._floor)

    def remove(self, name: str) -> None:
        """As rmdir(2), attributes and all. ``OSError`` ENOENT."""
        if self.found.pop(name, None) is None:
            raise _error(errno.ENOENT)


def _response(payload: bytes) -> ReportResponse:
    try:
        return guest_payload.decode_report_response(payload)
    except FormatError:
        # It says a size that its own message has no room for.
        raise _error(errno.ENOMEM) from None


def _table_bytes(buffer: bytes) -> int:
    """Where the last certificate ends, as the table in front of them says; 0 without a table.

    What the host wrote is bounded here and judged by nobody before the verifier.
    """
    end = 0
    for at in range(0, len(buffer) - _TABLE_ENTRY_BYTES + 1, _TABLE_ENTRY_BYTES):
        entry = buffer[at : at + _TABLE_ENTRY_BYTES]
        if not any(entry[:16]):
            break
        offset = int.from_bytes(entry[16:20], "little")
        size_bytes = int.from_bytes(entry[20:24], "little")
        end = max(end, offset + size_bytes)
    return min(end, len(buffer))


def _number(text: bytes) -> int:
    """What kstrtouint(text, 0) makes of a string of C. ``OSError``: EINVAL, ERANGE."""
    rest = text.partition(b"\0")[0].removeprefix(b"+")
    base = 10
    if rest[:1] == b"0":
        base = 8
        if rest[1:2] in (b"x", b"X") and rest[2:3] and rest[2:3] in _HEX:
            base, rest = 16, rest[2:]
    digits = rest[: len(rest) - len(rest.lstrip(_HEX[:base] if base < 16 else _HEX))]
    significant = digits.lstrip(b"0")
    found = int(significant or b"0", base) if len(significant) <= _MAX_DIGITS else _ULONG_MAX + 1
    # What 64 bits do not hold counts before what stands behind it, and that before 32 bits.
    if found > _ULONG_MAX:
        raise _error(errno.ERANGE)
    if not digits or rest[len(digits) :].removesuffix(b"\n"):
        raise _error(errno.EINVAL)
    if found > _UINT_MAX:
        raise _error(errno.ERANGE)
    return found


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
