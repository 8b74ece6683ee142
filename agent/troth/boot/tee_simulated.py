# SPDX-License-Identifier: Apache-2.0
"""Stage 4 where the policy states a simulated secure processor: first the devices, then as ever.

The front is a program of its own, started by name: PID 1 shares no code with
it. It outlives the boot, in the runtime. Only images whose policy says
``simulated`` have it.
"""

from __future__ import annotations

import os
import select
import sys
import time

from troth.boot import tee_snp
from troth.errors import Refusal
from troth.linux import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from troth.boot.state import State

#: The front waits 5 s for its port and 10 s for the host's first answer.
_TIMEOUT_S = 30.0
_READY = b"ready\n"
_PROGRAM = "import sys; from troth.simulated.front import main; main.main(int(sys.argv[1]))"
_MESSAGE_BYTES = 512


def run(state: State) -> None:
    """Raise ``Refusal`` ``snp-missing`` without the devices, else as ``tee_snp``."""
    _start_front()
    tee_snp.run(state)


def _start_front() -> None:
    """Start it and wait until both devices are there."""
    said, says = os.pipe()
    if not os.fork():
        _become_front(says)
    os.close(says)
    try:
        words = _read(said)
    finally:
        os.close(said)
    if words != _READY:
        reason = words.decode("ascii", "replace") or "its front ended without a word"
        raise Refusal("snp-missing", f"no simulated secure processor: {reason}")


def _become_front(says: int) -> NoReturn:
    # The child: any failure ends here, never in a second PID 1.
    try:
        os.setsid()
        os.set_inheritable(says, True)
        signals.restore_defaults()
        words = (sys.executable, "-ISB", "-c", _PROGRAM, str(says))
        os.execve(sys.executable, words, {})
    finally:
        os._exit(1)


def _read(fd: int) -> bytes:
    """What the front says until it closes the pipe; ``Refusal`` where it takes too long."""
    end_s = time.monotonic() + _TIMEOUT_S
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    found = b""
    while len(found) < _MESSAGE_BYTES:
        left_s = end_s - time.monotonic()
        if left_s <= 0 or not poll.poll(int(left_s * 1000) + 1):
            raise Refusal("snp-missing", "the simulated secure processor's front does not start")
        part = os.read(fd, _MESSAGE_BYTES)
        if not part:
            break
        found += part
    return found
