# SPDX-License-Identifier: Apache-2.0
"""The process that holds keys: gets them, opens volumes with them, and ends before the handover.

Started by stage keys as a program of its own, with nothing of PID 1's memory.
It decides by the baked policy alone; PID 1 tells it disks and banks, in the
lines that ``boot.keys`` describes. What it says goes to PID 1, never to the
console. Must never write a key anywhere but into the kernel's keyring, and
never go on after a doubt.
"""

from __future__ import annotations

import os
import resource

import troth_baked
from troth.boot.key_sources import sources
from troth.boot.keys import HEADER_REFUSED, KEY_REFUSED, VOLUME_REFUSED
from troth.documents.policy import from_tree
from troth.errors import TrothError
from troth.linux import syscalls
from troth.linux.block import Disk
from troth.linux.dm import Control
from troth.record import record
from troth.volumes import opening

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.boot.key_sources.sources import KeySource
    from troth.documents.policy import Policy
    from troth.documents.policy_keys import Encrypted
    from troth.volumes.headerless import Opened
    from troth.volumes.released import Released

_PR_SET_DUMPABLE = 4
_MOST_SENTENCE = 400
#: Codes of what a header or record says; everything else that goes wrong has been proved to be
#: the right volume.
_HEADER = ("record-", "luks2-", "volume-secret", "volume-weak-key", "integrity-superblock")


@record
class _Failed:
    """What went wrong: ``public``: code of the stage; ``exact``, ``sentence``: for the operator."""

    public: str
    exact: str
    sentence: str


class Work:
    """The volumes of one boot, from ``release`` to ``open``."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.disks: dict[str, Disk] = {}
        self.banks: list[str] = []
        self._sources: dict[str, KeySource] = {}
        self._released: dict[str, Released] = {}

    def release(self) -> list[str]:
        """Get every key; lines for PID 1."""
        lines = []
        for volume in self._policy.encrypted:
            source = self._source(volume)
            found = source.release(volume, self.disks[volume.name])
            self._released[volume.name] = found
            said = f"{found.identity} {volume.key} {volume.name}".encode("ascii", "replace")
            lines.append(f"released {volume.name} {said.hex()}")
        return lines

    def _source(self, volume: Encrypted) -> KeySource:
        """One source for all volumes that ask the same: one attested session."""
        name = sources.name_of(volume, self._policy)
        if name not in self._sources:
            self._sources[name] = sources.make(volume, self._policy)
        return self._sources[name]

    def open(self) -> list[str]:
        """Open every volume, commit what was written, end the session; lines for PID 1."""
        control = Control()
        lines = []
        try:
            for volume in self._policy.encrypted:
                found = opening.open_(
                    control, volume, self.disks[volume.name], self._released[volume.name]
                )
                if found.digest:
                    self._source(volume).commit(volume, found.generation, found.digest)
                lines.append(self._line(volume, found))
        finally:
            control.close()
        for source in self._sources.values():
            source.finish()
        return lines

    def _line(self, volume: Encrypted, found: Opened) -> str:
        content, digests = opening.key_event(volume, found.key, tuple(self.banks))
        listed = ",".join(f"{bank}={value.hex()}" for bank, value in digests)
        made = found.map
        return f"opened {volume.name} {made.name} {made.minor} {content.hex()} {listed}"


def main() -> None:
    """Serve PID 1 on standard input and output until it closes them or something is wrong."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    syscalls.prctl(_PR_SET_DUMPABLE, 0)
    work = Work(from_tree(troth_baked.POLICY))
    with os.fdopen(0, "rb") as orders:
        for line in orders:
            words = line.decode("ascii").split()
            if words[0] == "disk":
                _, name, kernel_name, sectors, number = words
                work.disks[name] = Disk(kernel_name, "", "", 0, int(sectors), number)
            elif words[0] == "bank":
                work.banks.append(words[1])
            else:
                failed = _serve(work, words[0])
                if failed is not None:
                    _say([f"refused {failed.public} {failed.exact} {_hex(failed.sentence)}"])
                    return


def _serve(work: Work, order: str) -> _Failed | None:
    public = KEY_REFUSED if order == "release" else VOLUME_REFUSED
    try:
        _say(work.release() if order == "release" else work.open())
    except TrothError as error:
        if order == "open" and error.code.startswith(_HEADER):
            public = HEADER_REFUSED
        return _Failed(public, error.code, error.message)
    except OSError as error:
        # The kernel's answer to a map or a socket, which names no key.
        return _Failed(public, "kernel-answer", f"{error.strerror}: {error.filename or ''}")
    return None


def _say(lines: list[str]) -> None:
    data = "".join(f"{line}\n" for line in (*lines, "done")).encode("ascii")
    while data:
        data = data[os.write(1, data) :]


def _hex(sentence: str) -> str:
    # What a broker or a header said may stand in it: nothing of it may end PID 1's line.
    return ascii(sentence)[1:-1][:_MOST_SENTENCE].encode("ascii").hex() or "2e"
