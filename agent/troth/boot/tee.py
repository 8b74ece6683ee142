# SPDX-License-Identifier: Apache-2.0
"""Stage 4: the TPM by kind, the entropy gate, and the first measurements.

Everything that was decided at build is measured here, before any disk is
looked at (SECURITY S16): policy, command line, root hashes, ``enter-initrd``.
"""

from __future__ import annotations

import os

from troth.boot import vtpm
from troth.documents import event_log
from troth.errors import Refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.boot.state import State
    from troth.documents.policy import Policy


def run(state: State) -> None:
    """Raise ``Refusal`` ``entropy`` or ``tpm-*``; leave ``state.log`` open."""
    check_entropy(state.policy)
    measure(state)


def measure(state: State) -> None:
    """Open the log and measure what was decided at build; ``Refusal`` ``tpm-*``."""
    log = vtpm.open_log(state)
    log.measure(event_log.POLICY, state.policy_bytes)
    log.measure(event_log.CMDLINE, state.cmdline)
    for volume in state.policy.volumes:
        content = event_log.verity_content(volume.name, volume.verity.root_hash)
        log.measure(event_log.VERITY, content)
    log.measure(event_log.PHASE, event_log.ENTER_INITRD)
    log.confirm()


def check_entropy(policy: Policy) -> None:
    """The processor must have a random generator and the kernel must be seeded (S32).

    SNP processors have both instructions, QEMU's software one has not. Raises
    ``Refusal`` ``entropy``. Where the kernel has no seed at all, the interpreter
    itself does not start and the boot ends before this line, as a kernel panic.
    """
    with open("/proc/cpuinfo", "rb", buffering=0) as file:
        # The flags of the first processor stand in the first page.
        flags = file.read(4096).partition(b"\nflags")[2].partition(b"\n")[0].split()
    for flag in (b"rdrand", b"rdseed") if policy.snp == "required" else (b"rdrand",):
        if flag not in flags:
            raise Refusal("entropy", f"the processor has no {flag.decode()}")
    try:
        os.getrandom(1, os.GRND_NONBLOCK)
    except BlockingIOError:
        raise Refusal("entropy", "the kernel's random generator is not seeded") from None
