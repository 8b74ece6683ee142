# SPDX-License-Identifier: Apache-2.0
"""The process behind /dev/sev-guest and configfs-tsm in a simulated guest: one loop over three.

Started by ``boot.tee_simulated`` before anything secret exists; lives on from
the runtime after the handover. Requests queue for the driver, as they do for
the kernel's mutex; what needs no driver is answered meanwhile. Must never end
because of what the host or a caller says: a line that is lost is a key that is
wiped, and the devices go on to say so.
"""

from __future__ import annotations

import errno
import os
import select
import sys
import time

from troth.abi import secrets_page
from troth.errors import FormatError, TrothError
from troth.linux import kmsg, ports
from troth.linux.mount import TIGHT, mount
from troth.simulated import wire
from troth.simulated.front import cuse, fuse, messages, tsm_tree
from troth.simulated.front.aead import KernelAead
from troth.simulated.front.driver import GIVE_UP_S, Again, Driver, Outcome
from troth.simulated.front.line import Line
from troth.simulated.wire import Frame, Head

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import NoReturn

    from troth.simulated.front.driver import Ask
    from troth.simulated.front.messages import Message

    Work = Generator[Ask, Outcome, bytes]
    Answers = Callable[[Message], bytes | Work | None]

READY = b"ready\n"
"""What PID 1 reads from the pipe once both devices are there; anything else is why they are not."""

#: A port shows up some milliseconds after its device.
_PORT_S = 5.0
_SECRETS_S = 10.0
_LOOK_S = 0.02


class Front:
    """The loop.

    ``devices``: open kernel devices and who answers for each; ``say``: tells the
    operator what was lost.
    """

    def __init__(
        self,
        driver: Driver,
        line: Line,
        devices: dict[int, Answers],
        *,
        say: Callable[[str], object],
    ) -> None:
        self._say = say
        self._driver = driver
        self._line: Line | None = line
        self._devices = devices
        #: (device, number of the request, what is left to do for it); the first is at work.
        self._queue: list[tuple[int, int, Work]] = []
        self._is_at_work = False
        self._due_s: float | None = None
        self._patience_s = 0.0

    def run(self) -> NoReturn:
        """For ever."""
        while True:
            self.step()

    def step(self) -> None:
        """Wait for something to happen, and see to it."""
        poll = select.poll()
        for fd in self._devices:
            poll.register(fd, select.POLLIN)
        if self._line is not None:
            poll.register(self._line.fd, self._line.events)
        for fd, events in poll.poll(self._wait_ms()):
            if fd in self._devices:
                self._take(fd)
            elif self._line is not None:
                self._hear(self._line, events)
        self._look_at_the_clock()

    def _wait_ms(self) -> int | None:
        if not self._is_at_work:
            return None
        due_s = self._patience_s if self._due_s is None else min(self._due_s, self._patience_s)
        return max(0, int((due_s - time.monotonic()) * 1000)) + 1

    def _take(self, fd: int) -> None:
        """One request of the kernel's."""
        try:
            data = os.read(fd, messages.READ_BYTES)
        except OSError as error:
            if error.errno == errno.ENODEV:
                # Unmounted.
                del self._devices[fd]
            return
        message = messages.parse(data)
        try:
            found = self._devices[fd](message)
        except FormatError:
            found = messages.failure(message.unique, errno.EIO)
        if found is None:
            return
        if isinstance(found, bytes):
            _reply(fd, found)
            return
        self._queue.append((fd, message.unique, found))
        self._go_on(None)

    def _go_on(self, outcome: Outcome | None) -> None:
        """Work at the head of the queue until it waits for the host, or nothing is left.

        ``outcome``: what the request at work was waiting for.
        """
        while self._queue and (outcome is not None or not self._is_at_work):
            fd, unique, work = self._queue[0]
            self._is_at_work = False
            try:
                ask = next(work) if outcome is None else work.send(outcome)
            except StopIteration as end:
                _reply(fd, messages.reply(unique, end.value))
            except OSError as error:
                _reply(fd, messages.failure(unique, error.errno or errno.EIO))
            except FormatError:
                _reply(fd, messages.failure(unique, errno.EIO))
            else:
                outcome = self._begin(ask)
                continue
            outcome = None
            del self._queue[0]

    def _begin(self, ask: Ask) -> Outcome | None:
        """Send it; what came of it where that is known at once."""
        now_s = time.monotonic()
        found = self._driver.begin(ask, now_s=now_s)
        if isinstance(found, Outcome):
            return found
        self._is_at_work = True
        self._patience_s = now_s + GIVE_UP_S
        return self._send(found)

    def _send(self, frame: Frame) -> Outcome | None:
        try:
            if self._line is None:
                raise ConnectionResetError("the line is lost")
            self._line.send(frame)
        except OSError as error:
            return self._lose(str(error), errno.EIO)
        return None

    def _hear(self, line: Line, events: int) -> None:
        try:
            frame = line.ready(events)
        except (OSError, FormatError) as error:
            self._go_on(self._lose(str(error), errno.EIO))
            return
        if frame is None:
            return
        found = self._driver.answered(frame, now_s=time.monotonic())
        if isinstance(found, Again):
            self._due_s = time.monotonic() + found.seconds
        elif isinstance(found, Outcome):
            self._go_on(found)
        else:
            self._go_on(self._send(found))

    def _look_at_the_clock(self) -> None:
        now_s = time.monotonic()
        if not self._is_at_work:
            return
        if self._due_s is not None and now_s >= self._due_s:
            self._due_s = None
            self._go_on(self._send(self._driver.again()))
        elif self._due_s is None and now_s >= self._patience_s + 1:
            self._go_on(self._lose("the host does not answer", errno.ETIMEDOUT))

    def _lose(self, why: str, number: int) -> Outcome | None:
        """The line is of no more use, and with it the key."""
        self._say(f"troth: the simulated platform is lost: {why}")
        if self._line is not None:
            os.close(self._line.fd)
            self._line = None
        return self._driver.lost(number)


def main(ready_fd: int) -> NoReturn:
    """Set up, tell ``ready_fd``, and serve for ever; exit where that cannot be."""
    try:
        front = _set_up()
    except (TrothError, OSError) as error:
        os.write(ready_fd, str(error).encode("ascii", "replace")[:400])
        sys.exit(1)
    os.write(ready_fd, READY)
    os.close(ready_fd)
    front.run()


def _set_up() -> Front:
    line = Line(os.open(_port(), os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK))
    driver = Driver(secrets_page.parse(_secrets(line)), KernelAead)
    tree = fuse.FileSystem(tsm_tree.Reports(driver.vmpck))
    devices: dict[int, Answers] = {}
    fd = os.open(fuse.NODE, os.O_RDWR | os.O_CLOEXEC)
    devices[fd] = tree.answer
    mount("fuse", fuse.MOUNT_POINT, source=fuse.SOURCE, flags=TIGHT, data=fuse.mount_options(fd))
    fd = os.open(cuse.NODE, os.O_RDWR | os.O_CLOEXEC)
    # The node is there when the write of this reply has returned.
    os.write(fd, cuse.initialise(messages.parse(os.read(fd, messages.READ_BYTES))))
    devices[fd] = cuse.answer
    # Opened now: after the handover this process still sees the initramfs, without its /dev.
    return Front(driver, line, devices, say=kmsg.Kmsg().say)


def _port() -> str:
    """The node of the port, waited for while it can still come."""
    end_s = time.monotonic() + _PORT_S
    while True:
        node = ports.find(wire.PORT)
        if node is not None and os.path.exists(node):
            return node
        if not ports.possible() or time.monotonic() > end_s:
            raise OSError(errno.ENODEV, f"the machine has no port {wire.PORT}")
        time.sleep(_LOOK_S)


def _secrets(line: Line) -> bytes:
    """The page that a launch would have put into memory."""
    end_s = time.monotonic() + _SECRETS_S
    line.send(Frame(Head(wire.SECRETS, 0), b""))
    poll = select.poll()
    while True:
        left_s = end_s - time.monotonic()
        if left_s <= 0:
            raise OSError(errno.ETIMEDOUT, "no simulated processor answers")
        poll.register(line.fd, line.events)
        for _, events in poll.poll(int(left_s * 1000) + 1):
            frame = line.ready(events)
            if frame is not None:
                return frame.body


def _reply(fd: int, data: bytes) -> None:
    try:
        os.write(fd, data)
    except OSError:
        # ENOENT: whoever asked has been killed meanwhile.
        return
