# SPDX-License-Identifier: Apache-2.0
"""The agent: sockets, log, provider and loop put together, from start to end.

Started by systemd's ``troth-agent.service``, or by PID 1 where that supervises.
Its policy is the baked one. Must never listen before everything it serves is
ready, nor hold a right that its callers could borrow.

Source: DESIGN sections 5 (The runtime) and 7.
"""

from __future__ import annotations

import os
import resource
import socket
import stat
import sys
import time

from troth.attest import notify, rights
from troth.attest.choice import allowed_by, choose
from troth.attest.endpoints import Endpoints
from troth.attest.evidence import EvidenceMaker, quoter_of
from troth.attest.metrics import Metrics
from troth.attest.pacing import Pacer
from troth.attest.parts import Parts
from troth.attest.reports import Reports
from troth.attest.server import BACKLOG, MAX_CONNECTIONS, Server
from troth.attest.worker import Worker
from troth.documents import event_log
from troth.documents.policy import from_tree
from troth.errors import HostError, TrothError
from troth.linux import signals
from troth.record import record
from troth.registers.runtime import RuntimeLog

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from troth.attest.evidence import Quoter
    from troth.attest.provider import Provider
    from troth.documents.policy import Policy

DIRECTORY = "/run/troth"
STATE = "/run/troth/state"
ATTEST_SOCKET, CONTROL_SOCKET = "attest.sock", "control.sock"
GRACE_S = 5.0

#: Descriptors beside those of connections: log, sockets, workers, one request to the platform.
_OWN_DESCRIPTORS = 64


@record
class Settings:
    """What the agent works with. ``directory``: of its sockets; ``choose``: finds the provider,
    among those that the policy allows where it is None; ``quoter_of``: what makes quotes.
    """  # noqa: D205 - the fields are the summary

    policy: Policy
    policy_sha256: str
    directory: str = DIRECTORY
    state: str = STATE
    log: str = event_log.PATH
    choose: Callable[[], Provider] | None = None
    pacer: Pacer = Pacer()
    interval_s: float = 2.0
    quoter_of: Callable[[Policy], Quoter | None] = quoter_of


class Agent:
    """One agent, made ready by its construction; ``run`` serves until it is told to end."""

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        """Raises ``HostError``: ``agent-directory``, ``agent-running``, ``agent-io``."""
        self._settings = settings
        self._manager = notify.Manager(environ)
        self._metrics = Metrics()
        self._log = _open_log(settings)
        self._report_worker, self._log_worker = Worker(), Worker()
        self._reports = Reports(
            settings.choose or (lambda: choose(allowed_by(settings.policy.vtpm_kind))),
            self._report_worker,
            self._metrics,
            maker=EvidenceMaker(settings.policy, self._log, settings.quoter_of(settings.policy)),
            pacer=settings.pacer,
            interval_s=settings.interval_s,
        )
        self.server = Server(settings.policy.attest, self._metrics, max_connections=_descriptors())
        endpoints = Endpoints(
            Parts(
                policy=settings.policy,
                policy_sha256=settings.policy_sha256,
                reports=self._reports,
                log=self._log,
                log_worker=self._log_worker,
                metrics=self._metrics,
                connections=lambda: self.server.count,
                reload=self.reload,
                shutdown=self.end,
            )
        )
        self.server.attach(endpoints.handle)
        for worker in (self._report_worker, self._log_worker):
            self.server.watch(worker.fd, worker.collect)
        self.server.every_second(self._reports.tick)
        self.server.every_second(self._alive)
        self._next_sign_s = 0.0
        self._signals: list[int] = []
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.server.watch(self._wake, self._signalled)
        # In this order: whoever finds the socket for everybody finds root's too.
        self._doors = [
            (f"{settings.directory}/{CONTROL_SOCKET}", rights.CONTROL, -1),
            (f"{settings.directory}/{ATTEST_SOCKET}", rights.ATTEST, settings.policy.attest.group),
        ]

    def run(self) -> None:
        """Open the sockets, say so, and serve."""
        _check_directory(self._settings.directory)
        made: list[str] = []
        try:
            for path, door, group in self._doors:
                listener = _listener(path, group)
                made.append(path)
                self.server.listen(listener, door)
            self._manager.say(notify.READY)
            self.server.run()
            self._manager.say(notify.STOPPING)
        finally:
            self.server.close()
            for path in made:
                os.unlink(path)
            self._report_worker.stop()
            self._log_worker.stop()
            if self._log is not None:
                self._log.close()
            os.close(self._wake)

    def signal(self, number: int) -> None:
        """What a signal's handler may do: note it, and wake the loop."""
        self._signals.append(number)
        os.eventfd_write(self._wake, 1)

    def reload(self) -> None:
        """Look for the provider anew, and compare the log with what is known of it."""
        self._reports.forget()
        if self._log is not None and not self._log_worker.pending:
            self._log.reload()

    def end(self) -> None:
        """Finish what is under way, and stop."""
        self.server.end(GRACE_S)

    def _signalled(self) -> None:
        os.eventfd_read(self._wake)
        while self._signals:
            if self._signals.pop() == signals.HUP:
                self.reload()
            else:
                self.end()

    def _alive(self) -> None:
        """A sign of life from the loop itself, three times as often as it is expected."""
        now_s = time.monotonic()
        if self._manager.watchdog_s and now_s >= self._next_sign_s:
            self._next_sign_s = now_s + self._manager.watchdog_s / 3
            self._manager.say(notify.ALIVE)


def main() -> int:
    """Serve by the baked policy until SIGTERM; the exit status."""
    import troth_baked

    settings = Settings(from_tree(troth_baked.POLICY), troth_baked.POLICY_SHA256)
    try:
        serve(settings)
    except TrothError as error:
        sys.stderr.write(f"troth-agent: error [{error.code}]: {error}\n")
        return error.exit_status
    return 0


def serve(settings: Settings) -> None:
    """Run an agent with ``settings`` in the main thread, until a signal ends it."""
    agent = Agent(settings, os.environ)
    signals.catch((signals.TERM, signals.INT, signals.HUP), agent.signal)
    agent.run()


def _open_log(settings: Settings) -> RuntimeLog | None:
    """The log this boot left; None on a machine that troth did not boot."""
    try:
        log = RuntimeLog(settings.log, state_directory=settings.state)
    except HostError as error:
        sys.stderr.write(f"troth-agent: {error}\n")
        return None
    try:
        if log.restarted:
            log.restarted_event()
        elif not log.broken:
            log.save()
    except HostError as error:
        # Served all the same, marked: whoever asks is told, and nothing is added.
        log.broken = log.broken or str(error)
    if log.broken:
        sys.stderr.write(f"troth-agent: the event log is broken: {log.broken}\n")
    return log


def _check_directory(path: str) -> None:
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        pass
    except OSError as error:
        raise HostError(
            "agent-directory", f"cannot be made: {error.strerror}", where=path
        ) from None
    found = os.lstat(path)
    others = stat.S_IWGRP | stat.S_IWOTH
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & others:
        raise HostError(
            "agent-directory",
            "another user could put sockets of its own there",
            where=path,
            hint="the directory belongs to the agent's user, with mode 0755",
        )


def _listener(path: str, group: int) -> socket.socket:
    """A socket at ``path``, for ``group`` too, or for its owner alone where -1.

    It gets its name last: whoever finds it there is heard.
    """
    _remove_stale(path)
    unnamed = f"{path}.new"
    _remove_stale(unnamed)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Nobody may connect before owner and mode are right.
    before = os.umask(0o777)
    try:
        listener.bind(unnamed)
    except OSError as error:
        listener.close()
        raise HostError("agent-io", f"no socket there: {error.strerror}", where=path) from None
    finally:
        os.umask(before)
    os.chown(unnamed, -1, group)
    os.chmod(unnamed, 0o600 if group < 0 else 0o660)
    listener.setblocking(False)
    listener.listen(BACKLOG)
    try:
        # Not renamed: what is there and no socket was put there by somebody for a reason.
        os.link(unnamed, path)
    except OSError as error:
        listener.close()
        raise HostError("agent-io", f"no socket there: {error.strerror}", where=path) from None
    finally:
        os.unlink(unnamed)
    return listener


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            if stat.S_ISSOCK(os.lstat(path).st_mode):
                os.unlink(path)
            return
        except OSError as error:
            raise HostError("agent-io", f"{error.strerror}", where=path) from None
    raise HostError("agent-running", "another agent answers there", where=path)


def _descriptors() -> int:
    """How many connections the limits of this process allow, raised as far as they go."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + _OWN_DESCRIPTORS
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limit, _soft), hard))
    return min(MAX_CONNECTIONS, limit - _OWN_DESCRIPTORS)
