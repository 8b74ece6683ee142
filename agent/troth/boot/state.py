# SPDX-License-Identifier: Apache-2.0
"""What the stages of one boot hand to each other."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from troth.abi.snp_report import SnpReport
    from troth.boot.keys import KeyWorker
    from troth.documents.policy import Policy
    from troth.linux.block import Disk
    from troth.linux.dm import Map
    from troth.linux.kmsg import Kmsg
    from troth.linux.tpm import TpmDevice
    from troth.registers.log import EventLog

    class Guard(Protocol):
        """Whoever ends the boot when it takes too long (``fail.Deadline``)."""

        def cancel(self) -> None:
            """The boot is over in time."""

    class Connection(Protocol):
        """The network before the handover (``network.Worker``)."""

        def close(self) -> None:
            """Take it down; nothing where that is done. ``Refusal`` ``network-down``."""


#: The new root is put together here, and everything it stands on beside it.
SYSROOT, LOWER, UPPER = "/sysroot", "/lower", "/upper"
RUNTIME = "/runtime"
RUN = "/run/troth"


class State:
    """Mutable on purpose: one boot, one thread of control, in stage order.

    ``environ``, ``arguments``: as the kernel gave them; ``names``: what the
    rootfs held before anything was mounted; ``cmdline``: as found, without
    newline; ``log``: None until stage tee; ``tpm_clock``: resets, restarts and
    milliseconds before the first event, where the policy wants quotes; ``disks``,
    ``maps`` (verified) and ``opened`` (decrypted): by volume name;
    ``own_report``: after stage tee, where the policy wants SNP; ``sealed``:
    after the caps, when nothing may be measured any more;
    ``times_ms``: (stage, duration); ``workers``: processes that a refusal ends first;
    ``key_worker``: from stage keys to stage volumes; ``network``: from stage network to
    stage volumes, where the policy has one.
    """

    __slots__ = (
        "arguments",
        "cmdline",
        "deadline_ns",
        "disks",
        "environ",
        "guard",
        "key_worker",
        "kmsg",
        "log",
        "maps",
        "names",
        "network",
        "opened",
        "own_report",
        "policy",
        "policy_bytes",
        "sealed",
        "stage",
        "started_ns",
        "times_ms",
        "tpm",
        "tpm_clock",
        "tpm_kind",
        "workers",
    )

    def __init__(self, environ: dict[str, str], arguments: list[str], started_ns: int) -> None:
        self.environ = environ
        self.arguments = arguments
        self.started_ns = started_ns
        self.deadline_ns = 0
        self.stage = "start"
        self.names: set[str] = set()
        self.cmdline = b""
        self.policy: Policy
        self.guard: Guard
        self.policy_bytes = b""
        self.kmsg: Kmsg | None = None
        self.log: EventLog | None = None
        self.tpm: TpmDevice | None = None
        self.tpm_clock: tuple[int, int, int] | None = None
        self.tpm_kind = ""
        self.disks: dict[str, Disk] = {}
        self.maps: dict[str, Map] = {}
        self.opened: dict[str, Map] = {}
        self.own_report: SnpReport | None = None
        self.network: Connection | None = None
        self.sealed = False
        self.times_ms: list[tuple[str, int]] = []
        self.workers: list[int] = []
        self.key_worker: KeyWorker | None = None

    @property
    def events(self) -> EventLog:
        """The event log, which exists after stage tee."""
        if self.log is None:
            raise RuntimeError("no event log before stage tee")
        return self.log

    def say(self, text: str) -> None:
        """One line for the operator."""
        if self.kmsg is not None:
            self.kmsg.say(text)
