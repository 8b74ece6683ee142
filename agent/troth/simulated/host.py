# SPDX-License-Identifier: Apache-2.0
"""The host between guest and processor: hands pages on, and does what faults command.

Serves ``simulated.server``, which moves the frames. Here is decided what answers
a frame, and when; no socket, no clock, no thread. It holds the certificates, as
a real host does. Must never look into a sealed page beyond its header, and
must not be able to: the keys are the processor's.

Source: AMD 56421, sections 4.1.7 and 4.1.8 (requests by VMGEXIT, what is in
exitinfo2, pages needed); DESIGN section 6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.abi import guest_message, sev_guest
from troth.errors import FormatError, UsageError
from troth.record import record
from troth.simulated import faults as kinds
from troth.simulated import wire
from troth.simulated.faults import Faults
from troth.simulated.processor import Answer, Processor
from troth.simulated.wire import Frame, Head

if TYPE_CHECKING:
    from collections.abc import Callable

    from troth.simulated.launch import Launch
    from troth.simulated.pki import Pki

INVALID_GUEST_STATE = 0x02

COUNTERS = (
    "connections",
    "connections-refused",
    "frames",
    "frames-broken",
    "secrets",
    "secrets-refused",
    "requests",
    "extended-requests",
    "answers",
    "firmware-errors",
    "vmm-errors",
    "faults",
)


@record
class Reply:
    """What happens to a frame.

    ``data``: the answer, None where none comes; ``delay_ms``: until it is sent;
    ``close``: the connection ends instead.
    """

    data: bytes | None
    delay_ms: int = 0
    close: bool = False


_DEATH = Reply(None, close=True)


class Host:
    """One machine with one guest.

    ``other``: makes the platform of the fault ``other-chain``; it may take
    seconds and is called once. ``new_processor``: launches the guest.
    """

    def __init__(
        self,
        launch: Launch,
        pki: Pki,
        *,
        other: Callable[[], Pki] | None = None,
        new_processor: Callable[[Launch, Pki], Processor] = Processor,
    ) -> None:
        new_processor(launch, pki)  # an impossible launch is refused here, not in the guest's boot
        self.faults = Faults()
        self.counters = dict.fromkeys(COUNTERS, 0)
        self.processor: Processor | None = None
        self._launch = launch
        self._pki = pki
        self._other = other
        self._other_made: Pki | None = None
        self._new_processor = new_processor
        self._secrets_allowed = 1
        self._last_page = b""

    @property
    def launch(self) -> Launch:
        """The parameters of the launch."""
        return self._launch

    @property
    def root_sha256(self) -> str:
        """What a verification policy names."""
        return self._pki.root_sha256

    def relaunch(self, launch: Launch) -> None:
        """Take other parameters while nothing is launched yet.

        Raises ``UsageError`` ``sim-launched``, ``FormatError`` ``sim-launch``.
        """
        if self.processor is not None:
            raise UsageError(
                "sim-launched", "the guest is launched: its parameters are fixed for its life"
            )
        self._new_processor(launch, self._pki)
        self._launch = launch

    def allow_secrets(self) -> None:
        """Let the guest read its page of secrets once more, as no real one can."""
        self._secrets_allowed += 1

    def set_fault(self, kind: str, *, count: int, value: int | None) -> kinds.Fault:
        """As ``Faults.set``; makes the other platform where the fault needs it."""
        if kind == kinds.OTHER_CHAIN and self._other_made is None:
            if self._other is None:
                raise UsageError("sim-fault", "there is no other platform here")
            self._other_made = self._other()
        return self.faults.set(kind, count=count, value=value)

    def answer(self, frame: Frame) -> Reply:
        """What happens to ``frame``, whose head ``wire.request_head`` has read."""
        self.counters["frames"] += 1
        if frame.head.kind == wire.SECRETS:
            return self._secrets(frame.head)
        extended = frame.head.kind == wire.EXT_GUEST_REQUEST
        self.counters["extended-requests" if extended else "requests"] += 1
        return self._request(frame)

    def _secrets(self, head: Head) -> Reply:
        if not self._secrets_allowed:
            self.counters["secrets-refused"] += 1
            return _DEATH
        self._secrets_allowed -= 1
        self.counters["secrets"] += 1
        if self.processor is None:
            self.processor = self._new_processor(self._launch, self._pki)
        return self._reply(head, body=self.processor.secrets_page())

    def _request(self, frame: Frame) -> Reply:
        head = frame.head
        if self._takes(kinds.DEATH):
            return _DEATH
        if self._takes(kinds.VMM_BUSY):
            return self._refused(head, vmm=sev_guest.VMM_BUSY)
        if fault := self._take(kinds.VMM_ERROR):
            return self._refused(head, vmm=fault.value)
        extended = head.kind == wire.EXT_GUEST_REQUEST
        signs_other = self._is_report(frame.body) and self._takes(kinds.OTHER_CHAIN)
        pki = self._other_made if signs_other and self._other_made is not None else self._pki
        table = self._table(pki) if extended else b""
        if extended:
            needed = -(-len(table) // wire.PAGE_BYTES)
            if fault := self._take(kinds.CERTIFICATES_SHORT):
                needed = fault.value or head.value_a + 1
            if fault or head.value_a < needed:
                return self._refused(head, vmm=sev_guest.VMM_INVALID_LENGTH, needed=needed)
        if fault := self._take(kinds.FIRMWARE_ERROR):
            return self._refused(head, firmware=fault.value)
        answer = self._ask(frame.body, other=pki if signs_other else None)
        if answer.firmware_error:
            return self._refused(head, firmware=answer.firmware_error)
        self.counters["answers"] += 1
        return self._handed_over(head, answer.page, table)

    def _ask(self, page: bytes, *, other: Pki | None) -> Answer:
        if self.processor is None:
            return Answer(INVALID_GUEST_STATE)
        if not self._is_report(page):
            return self.processor.request(page)
        before = len(self.faults.pending())
        twist = self.faults.take_twist()
        self.counters["faults"] += int(twist != kinds.Twist()) if before else 0
        return self.processor.request(page, twist=twist, other=other)

    def _handed_over(self, head: Head, page: bytes, table: bytes) -> Reply:
        """The processor has answered; what the guest gets of it is the host's choice."""
        given, late = page, self._take(kinds.DELAYED)
        if self._last_page and self._takes(kinds.STALE_ANSWER):
            given = self._last_page
        self._last_page = page
        if fault := self._take(kinds.ALTERED_ANSWER):
            at = fault.value
            given = given[:at] + bytes((given[at] ^ 1,)) + given[at + 1 :]
        # The processor has counted this request: whoever asks again under its number gets nothing.
        if self._takes(kinds.DROPPED):
            return Reply(None)
        return self._reply(head, body=given + table, delay_ms=late.value if late else 0)

    def _table(self, pki: Pki) -> bytes:
        if self._takes(kinds.CERTIFICATES_NONE):
            return b""
        table = pki.table(vlek=self._launch.vlek and pki.vlek is not None)
        if self._takes(kinds.CERTIFICATES_CUT):
            # The entries still promise all of it; what is missing reads as zeros.
            table = table[:-256] + bytes(256)
        return table

    def _refused(self, head: Head, *, firmware: int = 0, vmm: int = 0, needed: int = 0) -> Reply:
        self.counters["vmm-errors" if vmm else "firmware-errors"] += 1
        return self._reply(
            head, body=b"", exit_info=sev_guest.exit_info(firmware, vmm), needed=needed
        )

    @staticmethod
    def _reply(
        head: Head, *, body: bytes, exit_info: int = 0, needed: int = 0, delay_ms: int = 0
    ) -> Reply:
        answer = Head(head.kind | wire.ANSWER, head.sequence, exit_info, needed)
        padded = body.ljust(head.answer_body_bytes, b"\0")
        return Reply(wire.encode(Frame(answer, padded)), delay_ms)

    @staticmethod
    def _is_report(page: bytes) -> bool:
        try:
            return guest_message.peek(page).kind == guest_message.REPORT_REQUEST
        except FormatError:
            return False

    def _take(self, kind: str) -> kinds.Fault | None:
        fault = self.faults.take(kind)
        self.counters["faults"] += fault is not None
        return fault

    def _takes(self, kind: str) -> bool:
        return self._take(kind) is not None
