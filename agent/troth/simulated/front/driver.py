# SPDX-License-Identifier: Apache-2.0
"""The kernel driver's half of the guest message protocol, as a machine without a clock or a wire.

Serves ``main``, which carries its frames to the host and tells it the time. One
request at a time. Must never seal two payloads under one sequence number: what
has to be asked again is the same page, and where it is not known what became of
a page, the key is destroyed and everything later is ENOTTY until the next boot.

Source: AMD 56860 1.58, section 8.26, "SNP_GUEST_REQUEST"; AMD 56421, sections
4.1.7 and 4.1.8; errno: Linux, drivers/virt/coco/sev-guest/sev-guest.c.
"""

from __future__ import annotations

import errno

from troth.abi import guest_message, secrets_page, sev_guest
from troth.abi.guest_message import Header
from troth.errors import FormatError, ProviderError
from troth.record import record, replace
from troth.simulated import wire
from troth.simulated.wire import Frame, Head

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from troth.abi.guest_message import Aead
    from troth.abi.secrets_page import SecretsPage

RETRY_S = 2.0
"""From BUSY to the same page again."""
GIVE_UP_S = 60.0
"""From the first try to the end of patience, and of the key."""

NO_CALL = sev_guest.exit_info(sev_guest.NO_FIRMWARE_CALL, 0)
_TOO_FEW_PAGES = sev_guest.exit_info(0, sev_guest.VMM_INVALID_LENGTH)
_BUSY = sev_guest.exit_info(0, sev_guest.VMM_BUSY)


@record
class Ask:
    """What a caller wants.

    ``kind``, ``version``: of the message; ``payload``: its content;
    ``response_bytes``: the longest answer there is room for; ``pages``: room for
    certificates, none for a request that is not extended.
    """

    kind: int
    version: int
    payload: bytes
    response_bytes: int
    pages: int | None = None


@record
class Outcome:
    """What became of it.

    ``errno``: 0 where it succeeded; ``exit_info``: exitinfo2; ``payload``: of the
    response; ``certificates``: ``pages`` times 4096 bytes; ``pages``: what the
    host says they need, where the errno is EIO and the VMM error INVALID_LEN.
    """

    errno: int
    exit_info: int
    payload: bytes = b""
    certificates: bytes = b""
    pages: int = 0

    def __repr__(self) -> str:
        # The payload may be a key.
        return f"Outcome(errno={self.errno}, exit_info={self.exit_info:#x})"


@record
class Again:
    """The host is busy: call ``Driver.again`` in ``seconds``."""

    seconds: float


class _Pending:
    """The request on its way: the one page that stands for it, however often it is sent."""

    def __init__(self, ask: Ask, header: Header, page: bytes, started_s: float) -> None:
        self.ask = ask
        self.header = header
        self.page = page
        self.started_s = started_s
        #: Pages the certificates need: once known, the page is sent as a plain request.
        self.needed: int | None = None


class Driver:
    """Holds the key of the guest's own level, taken out of ``page``.

    ``make_aead``: AES-256-GCM for a key. Raises ``ProviderError``
    ``vmpck-lost`` where the page has no key for that level.
    """

    def __init__(self, page: SecretsPage, make_aead: Callable[[bytes], Aead]) -> None:
        self.vmpck = page.guest_vmpl
        if not page.has_key(self.vmpck):
            raise ProviderError("vmpck-lost", f"the page of secrets has no VMPCK {self.vmpck}")
        self._aead: Aead | None = make_aead(page.vmpcks[self.vmpck])
        self._page = secrets_page.without_keys(page, *range(secrets_page.VMPCKS))
        self._pending: _Pending | None = None
        self._frames = 0

    @property
    def wiped(self) -> bool:
        """Whether the key is gone for good."""
        return self._aead is None

    @property
    def count(self) -> int:
        """How many messages were sent and answered under the key, as the os_area keeps it."""
        return self._page.counts[self.vmpck]

    def begin(self, ask: Ask, *, now_s: float) -> Frame | Outcome:
        """The frame to send, or what the caller gets at once. Only where nothing is pending."""
        if self._pending is not None:
            raise RuntimeError("one request at a time")
        if self._aead is None:
            return Outcome(errno.ENOTTY, NO_CALL)
        sequence = self.count + 1
        # The answer and the next count must fit into 32 bits as well.
        if sequence >= guest_message.LAST_COUNT:
            return Outcome(errno.EIO, NO_CALL)
        header = Header(sequence, ask.kind, ask.version, self.vmpck)
        try:
            page = guest_message.seal(header, ask.payload, self._aead)
        except OSError:
            # The kernel's cipher failed, and who knows how far it came under this number.
            self._wipe()
            return Outcome(errno.EIO, NO_CALL)
        self._pending = _Pending(ask, header, page, now_s)
        return self._frame(self._pending)

    def answered(self, frame: Frame, *, now_s: float) -> Frame | Again | Outcome:
        """Take the answer to the last frame: the next frame, a pause, or what the caller gets."""
        pending = self._need()
        exit_info = frame.head.value_a
        if exit_info == _BUSY:
            if now_s - pending.started_s > GIVE_UP_S:
                return self._fail(errno.ETIMEDOUT, exit_info)
            return Again(RETRY_S)
        is_extended = pending.ask.pages is not None and pending.needed is None
        if exit_info == _TOO_FEW_PAGES and is_extended:
            # The same page, as a request without certificates: the firmware counts it, and
            # the number is used up by this payload and no other.
            pending.needed = frame.head.value_b
            return self._frame(pending)
        if exit_info:
            return self._fail(errno.EIO, exit_info)
        if pending.needed is not None:
            self._finish()
            return Outcome(errno.EIO, _TOO_FEW_PAGES, pages=pending.needed)
        return self._opened(pending, frame)

    def again(self) -> Frame:
        """The frame to send after a pause: the same page."""
        return self._frame(self._need())

    def lost(self, number: int) -> Outcome | None:
        """No answer will come any more: errno ``number`` for whoever waits, and the key's end."""
        if self._pending is not None:
            return self._fail(number, NO_CALL)
        self._wipe()
        return None

    def _opened(self, pending: _Pending, frame: Frame) -> Outcome:
        aead, ask = self._aead, pending.ask
        if aead is None:
            raise RuntimeError("a request is pending without a key")
        try:
            payload = guest_message.open_(
                frame.body[: guest_message.PAGE_BYTES],
                guest_message.answer_to(pending.header),
                aead,
                max_payload_bytes=ask.response_bytes,
            )
        except (FormatError, OSError):
            return self._fail(errno.EBADMSG, 0)
        self._finish()
        certificates = frame.body[guest_message.PAGE_BYTES :]
        return Outcome(0, 0, payload.ljust(ask.response_bytes, b"\0"), certificates)

    def _frame(self, pending: _Pending) -> Frame:
        self._frames += 1
        pages = pending.ask.pages
        if pages is None or pending.needed is not None:
            return Frame(Head(wire.GUEST_REQUEST, self._frames), pending.page)
        return Frame(Head(wire.EXT_GUEST_REQUEST, self._frames, pages), pending.page)

    def _need(self) -> _Pending:
        if self._pending is None:
            raise RuntimeError("nothing is pending")
        return self._pending

    def _finish(self) -> None:
        """The number and its answer's are used, whatever came of them."""
        self._pending = None
        counts = list(self._page.counts)
        counts[self.vmpck] += 2
        self._page = replace(self._page, counts=tuple(counts))

    def _fail(self, number: int, exit_info: int) -> Outcome:
        self._finish()
        self._wipe()
        return Outcome(number, exit_info)

    def _wipe(self) -> None:
        self._aead = None
