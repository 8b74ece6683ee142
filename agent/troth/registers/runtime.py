# SPDX-License-Identifier: Apache-2.0
"""The event log after the boot: events of applications, and of the agent itself.

Serves the agent, the only writer once the boot is over. What PID 1 left is
replayed and compared with what it said of it; an event goes to the TPM first,
then to the log, then to the state file, under the log's lock. Must never append
to a log that is not the one it read, nor write a record of the boot's own kinds.

A guest's root can rewrite log and state together (SECURITY S5): this finds
accidents and tells a restart, it proves nothing to a relying party.

Source: DESIGN section 5; docs/formats.md, "Runtime events".
"""

from __future__ import annotations

import os

from troth.documents import boot_state, event_log, event_log_json, strict
from troth.documents.event_log import AGENT_RESTARTED, APPLICATION, RUNTIME_PCR, Event
from troth.errors import FormatError, HostError, Refusal, UsageError
from troth.linux import tpm as tpm_device
from troth.measure import pcr, register
from troth.measure.boot_events import DEFAULT_BANKS
from troth.registers import log_lock
from troth.registers.log_lock import LogLock
from troth.registers.tpm_raw import Tpm

BOOT_STATE = "boot.json"
AGENT_STATE = "agent.json"
SCHEMA = "troth-agent-v1"

MAX_EVENTS_A_USER = 1024
MAX_LOG_BYTES = 8 << 20

_TPM_TIMEOUT_S = 10.0
_STATE_BYTES = 64 << 10


class RuntimeLog:
    """The log at ``path``, opened for more; ``state_directory`` holds what is known of it.

    ``broken``: why it cannot be what this guest measured, "" where it may be;
    ``restarted``: whether an agent ran before this one.
    """

    def __init__(self, path: str, *, state_directory: str) -> None:
        """Raises ``HostError`` ``no-event-log``."""
        try:
            self.fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            raise HostError(
                "no-event-log", f"the event log cannot be opened: {error.strerror}", where=path,
                hint="this machine was not booted by troth",
            ) from None  # fmt: skip
        self.path = path
        self._state = state_directory
        self.broken = ""
        self.restarted = False
        self.tpm_used = False
        #: Resets, restarts and milliseconds of the TPM as the boot found it, where it looked.
        self.tpm_clock: tuple[int, int, int] | None = None
        self.size_bytes = 0
        self.count = 0
        self.register = register.START
        self._of_user: dict[int, int] = {}
        self.reload()

    def reload(self) -> None:
        """Replay the whole log and compare it with boot's and agent's own words."""
        # Said at the end and at once: evidence is made in another thread meanwhile.
        broken = ""
        try:
            self._replay()
        except (FormatError, HostError, OSError) as error:
            broken = str(error)
        self.broken = broken

    def close(self) -> None:
        """Give back the descriptor."""
        os.close(self.fd)

    def restarted_event(self) -> None:
        """Say in the log that another agent ran before. Raises as ``extend`` does."""
        self._append(AGENT_RESTARTED, f"events={self.count}".encode())

    def extend(self, uid: int, content: bytes) -> int:
        """Add an application's event; its number.

        ``content`` begins with ``uid=<uid> ``, which the agent wrote. Raises
        ``UsageError`` ``extend-quota``; ``HostError``: ``log-broken``,
        ``log-busy``, ``register-tpm``.
        """
        if self._of_user.get(uid, 0) >= MAX_EVENTS_A_USER or self.size_bytes >= MAX_LOG_BYTES:
            raise UsageError(
                "extend-quota", f"user {uid} has added its {MAX_EVENTS_A_USER} events of this boot"
            )
        number = self._append(APPLICATION, content)
        self._of_user[uid] = self._of_user.get(uid, 0) + 1
        return number

    def _replay(self) -> None:
        data = os.pread(self.fd, event_log_json.LIMIT_BYTES + 1, 0)
        events = event_log_json.parse(data, where=self.path)
        boot = _read(f"{self._state}/{BOOT_STATE}")
        own = _read(f"{self._state}/{AGENT_STATE}")
        self.restarted = own is not None
        if boot is not None:
            # Of the boot's words only those about the log.
            self.tpm_used = bool(boot.text("tpm_kind"))
            if boot.has("tpm_clock"):
                self.tpm_clock = boot_state.clock(boot.raw("tpm_clock"), BOOT_STATE)
            self._compare(events, boot)
        if own is not None:
            self._compare(events, own)
        self.size_bytes, self.count = len(data), len(events)
        self.register = register.replay(events)
        self._of_user = {}
        for event in events:
            if event.kind == APPLICATION:
                uid = _user_of(event.content)
                self._of_user[uid] = self._of_user.get(uid, 0) + 1

    def _compare(self, events: tuple[Event, ...], said: strict.Reader) -> None:
        count = said.integer("events")
        value = said.digest("software_register", size_bytes=48)
        if count > len(events):
            raise HostError(
                "log-broken", f"the log has {len(events)} records, and had {count}", where=self.path
            )
        if register.replay(events[:count]).hex() != value:
            raise HostError(
                "log-broken", f"the first {count} records are not those it had", where=self.path
            )

    def _append(self, kind: str, content: bytes) -> int:
        if self.broken:
            raise HostError("log-broken", self.broken)
        with self.locked():
            if os.fstat(self.fd).st_size != self.size_bytes:
                self.broken = "somebody else wrote into the log"
                raise HostError("log-broken", self.broken, where=self.path)
            digests = pcr.event_digests(DEFAULT_BANKS, content)
            if self.tpm_used:
                digests = _extend_tpm(content)
            line = event_log.line(Event(self.count, RUNTIME_PCR, kind, content, digests))
            if os.write(self.fd, line) != len(line):
                self.broken = "a record was cut off"
                raise HostError("log-broken", self.broken, where=self.path)
            number = self.count
            self.count += 1
            self.size_bytes += len(line)
            self.register = register.extend(self.register, kind, content)
            self.save()
        return number

    def copy(self) -> tuple[bytes, tuple[Event, ...]]:
        """The log's bytes and its events; called inside ``locked``.

        Raises ``HostError`` ``log-broken`` where they are not what was written.
        """
        data = os.pread(self.fd, event_log_json.LIMIT_BYTES + 1, 0)
        try:
            events = event_log_json.parse(data, where=self.path)
        except FormatError as error:
            self.broken = str(error)
            raise HostError("log-broken", self.broken, where=self.path) from None
        if len(data) != self.size_bytes or register.replay(events) != self.register:
            self.broken = "somebody else wrote into the log"
            raise HostError("log-broken", self.broken, where=self.path)
        return data, events

    def locked(self) -> LogLock:
        """The lock for a ``with`` block: nobody adds meanwhile. ``HostError`` ``log-busy``."""
        return LogLock(f"{self._state}/{log_lock.FILE_NAME}")

    def save(self) -> None:
        """Write down how far the log goes: a next agent will look."""
        path = f"{self._state}/{AGENT_STATE}"
        body = {"schema": SCHEMA, "events": self.count, "software_register": self.register.hex()}
        fd = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            os.write(fd, strict.canonical(body) + b"\n")
        finally:
            os.close(fd)
        os.rename(f"{path}.new", path)


def _extend_tpm(content: bytes) -> tuple[tuple[str, bytes], ...]:
    """Extend the register of applications in every active bank; the digests."""
    names = tpm_device.present()
    node = f"/dev/tpmrm{names[0].removeprefix('tpm')}" if names else "no TPM"
    try:
        device = tpm_device.TpmDevice(node, timeout_s=_TPM_TIMEOUT_S)
        try:
            tpm = Tpm(device)
            digests = pcr.event_digests(tpm.banks(), content)
            tpm.extend(RUNTIME_PCR, digests)
        finally:
            device.close()
    except (OSError, Refusal) as error:
        raise HostError("register-tpm", f"the TPM took no event: {error}", where=node) from None
    return digests


def _read(path: str) -> strict.Reader | None:
    """The JSON object in the small file ``path``; None where there is none."""
    try:
        with open(path, "rb") as file:
            data = file.read(_STATE_BYTES)
    except FileNotFoundError:
        return None
    return strict.Reader(strict.parse(data, where=path), where=path)


def _user_of(content: bytes) -> int:
    """The user that ``content`` begins with; -1 for none."""
    word = content.split(b" ", 1)[0].removeprefix(b"uid=")
    return int(word) if word.isdigit() and len(word) <= 10 else -1
