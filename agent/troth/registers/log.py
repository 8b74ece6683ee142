# SPDX-License-Identifier: Apache-2.0
"""Append and extend under one lock, and confirm that the TPM took it.

The lock is a BSD lock on the log file, taken before the extend, so that log
and registers never disagree for another reader (SECURITY S28).
"""

from __future__ import annotations

import _thread
import fcntl
import os

from troth.abi.hashes import zero
from troth.documents import event_log
from troth.documents.event_log import Event
from troth.errors import Refusal
from troth.measure import pcr, register
from troth.measure.boot_events import DEFAULT_BANKS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Registers(Protocol):
        """What the log needs of a TPM (``registers.tpm_raw.Tpm``)."""

        def extend(self, pcr: int, digests: tuple[tuple[str, bytes], ...], /) -> None:
            """Extend in every bank given."""

        def read(
            self, banks: tuple[str, ...], pcrs: tuple[int, ...], /
        ) -> dict[tuple[str, int], bytes]:
            """(bank, PCR) -> value."""


class EventLog:
    """The event log of this boot and the registers behind it.

    ``tpm`` None: events go to the log and the software register alone.
    """

    def __init__(self, path: str, *, tpm: Registers | None, banks: tuple[str, ...] = ()) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._tpm = tpm
        self._banks = banks or DEFAULT_BANKS
        self._count = 0
        # The deadline's thread may measure a refusal while a stage is measuring.
        self._turn = _thread.allocate_lock()
        self._expected: dict[tuple[str, int], bytes] = {}
        self._touched: set[int] = set()
        #: The software register, 48 bytes.
        self.register = register.START

    @property
    def banks(self) -> tuple[str, ...]:
        """The banks of each record, in order."""
        return self._banks

    @property
    def count(self) -> int:
        """Records written so far."""
        return self._count

    def measure(self, kind: str, content: bytes, *, pcr_index: int | None = None) -> None:
        """Extend the register of ``kind`` (or ``pcr_index``) and append the record."""
        index = event_log.PCR_OF[kind] if pcr_index is None else pcr_index
        with self._turn:
            self._measure(index, kind, content, pcr.event_digests(self._banks, content))

    def measure_keyed(
        self, kind: str, content: bytes, digests: tuple[tuple[str, bytes], ...]
    ) -> None:
        """The same with ``digests`` that only who holds a key can make, in the log's banks."""
        if tuple(bank for bank, _ in digests) != self._banks:
            raise ValueError(f"{kind}: digests of other banks than the log has")
        with self._turn:
            self._measure(event_log.PCR_OF[kind], kind, content, digests)

    def _measure(
        self, index: int, kind: str, content: bytes, digests: tuple[tuple[str, bytes], ...]
    ) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            if self._tpm is not None:
                self._tpm.extend(index, digests)
            record = Event(self._count, index, kind, content, digests)
            os.write(self._fd, event_log.line(record))
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        self._count += 1
        self._touched.add(index)
        self.register = register.extend(self.register, kind, content)
        for bank, value in digests:
            key = (bank, index)
            self._expected[key] = pcr.extend(bank, self._expected.get(key, zero(bank)), value)

    def adopt(self, pcrs: tuple[int, ...]) -> None:
        """Read ``pcrs`` first: what is there before the first event must be all zero.

        Raises ``Refusal`` ``tpm-used``: whoever extended an owned PCR before
        PID 1 would make every later value unexplainable by this log.
        """
        if self._tpm is None:
            return
        for (bank, index), value in self._tpm.read(self._banks, pcrs).items():
            if any(value):
                raise Refusal("tpm-used", f"PCR {index} ({bank}) was extended before PID 1")

    def confirm(self) -> None:
        """Read back what was extended since the last time (SECURITY S25).

        Values chain, so one read after several extends detects the loss of any
        of them. Raises ``Refusal`` ``tpm-mismatch``.
        """
        if self._tpm is None or not self._touched:
            return
        for key, value in self._tpm.read(self._banks, tuple(sorted(self._touched))).items():
            if value != self._expected[key]:
                bank, index = key
                raise Refusal(
                    "tpm-mismatch", f"PCR {index} ({bank}) does not hold what was extended"
                )
        self._touched.clear()
