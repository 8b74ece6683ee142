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
import sys

import troth_baked
from troth.abi import volume_record
from troth.boot.key_sources import sources
from troth.boot.key_sources.sources import Surroundings, Wanted
from troth.boot.keys import HEADER_REFUSED, KEY_REFUSED, VOLUME_REFUSED
from troth.documents import instance_disk, key_uri
from troth.documents.policy import from_tree
from troth.documents.policy_keys import HEADERLESS
from troth.errors import TrothError
from troth.linux import syscalls
from troth.linux.block import Disk
from troth.linux.dm import Control
from troth.record import record, replace
from troth.volumes import headerless, opening

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.boot.key_sources.platform import Platform
    from troth.boot.key_sources.sources import KeySource
    from troth.documents.policy import Policy
    from troth.documents.policy_keys import Broker, Encrypted
    from troth.volumes.opened import Opened
    from troth.volumes.release import Release

_PR_SET_DUMPABLE = 4
_MOST_SENTENCE = 400
#: Codes of what a header or record says, or costs to look at; everything else that goes wrong
#: has been proved to be the right volume.
_HEADER = (
    "record-", "luks2-", "volume-secret", "volume-weak-key", "volume-profile", "volume-not-made",
    "integrity-superblock", "bounded-", "argon2-", "pbkdf2-", "af-", "xts-",
)  # fmt: skip


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
        self.deadline_s = 0.0
        self._sources: dict[str, KeySource] = {}
        self._released: dict[str, Release] = {}
        self._surroundings: Surroundings | None = None
        self._asked: Platform | None = None

    def release(self) -> list[str]:
        """Get every key; lines for PID 1."""
        self._surroundings = Surroundings(
            _with_addresses(self._policy),
            evidence=lambda report_data: self._platform().evidence(report_data),
            derived_key=lambda request: self._platform().derived_key(request),
            deadline_s=self.deadline_s,
        )
        lines = []
        for volume in self._policy.encrypted:
            source = sources.source(key_uri.parse(volume.key), self._surroundings)
            found = source.release(self._wanted(volume))
            self._sources[volume.name] = source
            self._released[volume.name] = found
            said = f"{found.identity} {volume.key} {volume.name}".encode("ascii", "replace")
            lines.append(f"released {volume.name} {said.hex()}")
        return lines

    def _platform(self) -> Platform:
        if self._asked is None:
            # By name: where no key comes from it or after it, no image packs what asks it.
            __import__(key_uri.PLATFORM)
            made = sys.modules[key_uri.PLATFORM].Platform
            self._asked = made(deadline_s=self.deadline_s)
        return self._asked

    def _wanted(self, volume: Encrypted) -> Wanted:
        """A derived key is asked for as the one before was; who lies about it gets another."""
        if volume.format != HEADERLESS or not volume.key.startswith(f"{key_uri.SNP}:"):
            return Wanted(volume.uuid, volume.profile)
        level = volume_record.claimed_level(headerless.read_head(self.disks[volume.name]))
        if level is None:
            return Wanted(volume.uuid, volume.profile)
        return Wanted(volume.uuid, volume.profile, tcb=level[0], guest_svn=level[1])

    def open(self) -> list[str]:
        """Open every volume, commit what was written, end the session; lines for PID 1."""
        if self._surroundings is None:
            raise RuntimeError("nothing was released")
        control = Control()
        lines = []
        try:
            for volume in self._policy.encrypted:
                released = self._released[volume.name]
                found = opening.open_(control, volume, self.disks[volume.name], released)
                released.wipe()
                if released.tracked and found.digest:
                    self._sources[volume.name].commit(found.generation, found.digest)
                lines.append(self._line(volume, found))
        finally:
            control.close()
        self._surroundings.finish()
        self._surroundings.close()
        return lines

    def _line(self, volume: Encrypted, found: Opened) -> str:
        content, digests = opening.key_event(volume, found.key, tuple(self.banks))
        listed = ",".join(f"{bank}={value.hex()}" for bank, value in digests)
        made = found.map
        return f"opened {volume.name} {made.name} {made.minor} {content.hex()} {listed}"


def _with_addresses(policy: Policy) -> tuple[Broker, ...]:
    """The brokers of the policy where this launch says they are; who they are stays as it was."""
    try:
        with open(instance_disk.PATH, "rb") as file:
            content = file.read(instance_disk.MAX_BYTES)
    except FileNotFoundError:
        return policy.brokers
    # Here: the file's reader costs an import that launches without one do not need.
    from troth.documents import instance

    placed = dict(instance.parse(content).brokers)
    return tuple(
        replace(one, addresses=placed[one.name]) if one.name in placed else one
        for one in policy.brokers
    )


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
            elif words[0] == "deadline":
                work.deadline_s = int(words[1]) / 1e9
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
