# SPDX-License-Identifier: Apache-2.0
"""The device-mapper control node: create, load, resume, look, remove.

No udev and no cookies: the node is /dev/dm-N, made by devtmpfs. A map whose
table the kernel refuses is removed again before the error leaves this module.
"""

from __future__ import annotations

import fcntl
import os

from troth.abi import dm
from troth.record import record

CONTROL = "/dev/mapper/control"
_STATUS_BYTES = 16384


@record
class Map:
    """A live map: its ``name`` and ``minor``."""

    name: str
    minor: int

    @property
    def node(self) -> str:
        """The device node devtmpfs made."""
        return f"/dev/dm-{self.minor}"


class Control:
    """An open /dev/mapper/control."""

    def __init__(self) -> None:
        self._fd = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)

    def close(self) -> None:
        """Close the node; maps stay."""
        os.close(self._fd)

    def _ask(self, command: int, message: bytearray) -> dm.Answer:
        fcntl.ioctl(self._fd, dm.ioctl_number(command), message, True)
        return dm.answer(message)

    def create(
        self, name: str, *, uuid: str, targets: tuple[dm.Target, ...], readonly: bool
    ) -> Map:
        """A map with this table, resumed. ``OSError`` with the kernel's errno."""
        flags = dm.READONLY if readonly else 0
        made = self._ask(dm.DEV_CREATE, dm.request(name, uuid=uuid, flags=flags))
        try:
            self._ask(dm.TABLE_LOAD, dm.request(name, flags=flags, targets=targets))
            self._ask(dm.DEV_SUSPEND, dm.request(name))
        except OSError:
            self._ask(dm.DEV_REMOVE, dm.request(name))
            raise
        return Map(name=name, minor=made.minor)

    def status(self, name: str) -> tuple[dm.Target, ...]:
        """The status lines of map ``name``."""
        return self._ask(dm.TABLE_STATUS, dm.request(name, room=_STATUS_BYTES)).targets

    def table(self, name: str) -> tuple[dm.Target, ...]:
        """The live table of map ``name``, as the kernel writes it."""
        message = dm.request(name, room=_STATUS_BYTES, flags=dm.STATUS_TABLE)
        return self._ask(dm.TABLE_STATUS, message).targets

    def remove(self, name: str) -> None:
        """Take map ``name`` away; ``OSError`` ``EBUSY`` while somebody has it open."""
        self._ask(dm.DEV_REMOVE, dm.request(name))

    @staticmethod
    def number(made: Map) -> str:
        """``major:minor`` of a map, as a table of another one names it."""
        with open(f"/sys/block/dm-{made.minor}/dev", "rb", buffering=0) as file:
            return file.read(64).decode("ascii").strip()
