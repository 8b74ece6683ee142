# SPDX-License-Identifier: Apache-2.0
"""What can go wrong on a platform, commanded while it runs.

Serves ``simulated.host`` (a hostile or busy host) and ``simulated.processor``
(firmware that lies). Each fault is set with a count, is used up by the requests
it fits, and is then gone: a guest that recovers is seen to recover. Must never
make the processor seal two answers under one number: what is altered is altered
after sealing.
"""

from __future__ import annotations

from troth.errors import UsageError
from troth.record import record, replace

MAX_COUNT = 1_000_000

# Faults of the host, which stands between guest and processor.
FIRMWARE_ERROR = "firmware-error"
VMM_ERROR = "vmm-error"
VMM_BUSY = "vmm-busy"
CERTIFICATES_SHORT = "certificates-short"
CERTIFICATES_CUT = "certificates-cut"
CERTIFICATES_NONE = "certificates-none"
STALE_ANSWER = "stale-answer"
ALTERED_ANSWER = "altered-answer"
DROPPED = "dropped"
DELAYED = "delayed"
DEATH = "death"
OTHER_CHAIN = "other-chain"
# Faults of the processor: the answer is sealed in order and says what it must not.
WRONG_NONCE = "wrong-nonce"
WRONG_VMPL = "wrong-vmpl"
BAD_SIGNATURE = "bad-signature"
STATUS = "status"
SHORT_REPORT = "short-report"


@record
class Kind:
    """One kind: what it does, the meaning of its value ("" where it has none), its default.

    ``reports_only``: whether only requests for reports use it up.
    """

    does: str
    value: str = ""
    default: int = 0
    maximum: int = 0
    reports_only: bool = False


KINDS = {
    FIRMWARE_ERROR: Kind(
        "the firmware refuses with this error; nothing advances", "error", 0x16, 0xFFFFFFFF
    ),
    VMM_ERROR: Kind(
        "the host refuses with this error and asks no firmware", "error", 0x80000000, 0xFFFFFFFF
    ),
    VMM_BUSY: Kind("the host lets the guest wait"),
    CERTIFICATES_SHORT: Kind(
        "the host wants a larger certificate buffer, whatever its size",
        "pages, 0 for one more than given",
        0,
        0xFFFF,
    ),
    CERTIFICATES_CUT: Kind("the certificate table is cut in the middle of its last certificate"),
    CERTIFICATES_NONE: Kind("the certificate table is empty"),
    STALE_ANSWER: Kind("the host gives the answer of an earlier request again"),
    ALTERED_ANSWER: Kind("the host changes one bit of the answer", "offset in the page", 96, 4095),
    DROPPED: Kind("no answer comes, ever"),
    DELAYED: Kind("the answer comes late", "milliseconds", 1000, 600_000),
    DEATH: Kind("the connection ends instead of an answer"),
    OTHER_CHAIN: Kind(
        "another platform's key signs, and its certificates come along", reports_only=True
    ),
    WRONG_NONCE: Kind("the report carries other report data", reports_only=True),
    WRONG_VMPL: Kind("the report names another VMPL", "vmpl", 3, 0xFFFFFFFF, reports_only=True),
    BAD_SIGNATURE: Kind("the report's signature does not hold", reports_only=True),
    STATUS: Kind("the answer has this status and no report", "status", 0x16, 0xFFFFFFFF,
                 reports_only=True),
    SHORT_REPORT: Kind(
        "the answer says this size of the report", "bytes", 1183, 1184, reports_only=True
    ),
}  # fmt: skip


@record
class Fault:
    """``count`` faults of ``kind`` to come, with ``value``."""

    kind: str
    count: int
    value: int


@record
class Twist:
    """What the processor does wrong in one report; as it is, nothing.

    ``vmpl``, ``status``, ``report_bytes``: said instead, None for the right ones.
    """

    wrong_nonce: bool = False
    bad_signature: bool = False
    vmpl: int | None = None
    status: int | None = None
    report_bytes: int | None = None


class Faults:
    """The faults still to come, at most one entry a kind."""

    def __init__(self) -> None:
        self._pending: dict[str, Fault] = {}

    def set(self, kind: str, *, count: int = 1, value: int | None = None) -> Fault:
        """Have the next ``count`` requests that fit meet ``kind``; 0 takes it back.

        Raises ``UsageError`` ``sim-fault``.
        """
        known = KINDS.get(kind)
        if known is None:
            raise UsageError("sim-fault", f"no fault is called {kind!r}", hint=", ".join(KINDS))
        if not 0 <= count <= MAX_COUNT:
            raise UsageError("sim-fault", f"a count of {count}; at most {MAX_COUNT}")
        if value is not None and not (known.value and 0 <= value <= known.maximum):
            raise UsageError(
                "sim-fault",
                f"{kind} takes a value of 0 to {known.maximum}: {known.value}"
                if known.value
                else f"{kind} takes no value",
            )
        fault = Fault(kind, count, known.default if value is None else value)
        self._pending.pop(kind, None)
        if count:
            self._pending[kind] = fault
        return fault

    def clear(self) -> None:
        """Take all back."""
        self._pending.clear()

    def pending(self) -> tuple[Fault, ...]:
        """Those still to come, in the order they were set."""
        return tuple(self._pending.values())

    def take(self, kind: str) -> Fault | None:
        """Use one of ``kind`` up, where there is one."""
        fault = self._pending.get(kind)
        if fault is None:
            return None
        if fault.count == 1:
            del self._pending[kind]
        else:
            self._pending[kind] = replace(fault, count=fault.count - 1)
        return fault

    def take_twist(self) -> Twist:
        """Use up what the processor is to do wrong in the report that is asked for now."""
        vmpl, status = self.take(WRONG_VMPL), self.take(STATUS)
        short = self.take(SHORT_REPORT)
        return Twist(
            wrong_nonce=self.take(WRONG_NONCE) is not None,
            bad_signature=self.take(BAD_SIGNATURE) is not None,
            vmpl=None if vmpl is None else vmpl.value,
            status=None if status is None else status.value,
            report_bytes=None if short is None else short.value,
        )
