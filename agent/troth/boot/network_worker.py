# SPDX-License-Identifier: Apache-2.0
"""The process that has the network before the handover, and no key.

Started by stage network, it sets the one network device up as the policy says,
says one line, ``up ...`` or ``refused CODE SENTENCE``, and waits until its standard
input says a word or ends. Then it takes all down, looks whether it is down, and says
``down``. Must never listen, and never use what a server says beyond ``abi.dhcp``.

Source of what it may use: SECURITY S31, ``docs/network.md``.
"""

from __future__ import annotations

import os
import time

import troth_baked
from troth.abi import dhcp
from troth.boot import network_lease
from troth.boot.network_routes import Routes, family
from troth.boot.network_sysctls import Sysctls
from troth.documents.instance_disk import PATH as INSTANCE_PATH
from troth.documents.policy import DHCP, FROM_INSTANCE, from_tree
from troth.errors import Refusal, TrothError
from troth.linux import link
from troth.linux.uevent import Uevents
from troth.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from troth.documents.policy import Network
    from troth.linux.link import Link

_RESOLVERS = "/etc/resolv.conf"
_IPV6 = ":"
_CARRIER_NS, _PAUSE_S = 2 * 10**9, 0.002


@record
class Settings:
    """What the device gets.

    ``address``: bare, with ``prefix`` beside it; ``router``: "" for none; ``mtu``: 0
    for the device's own, within 1280 to 1500.
    """

    address: str
    prefix: int
    router: str
    dns: tuple[str, ...]
    mtu: int = 0


class Connection:
    """The device while it is up. ``down`` takes back all that ``up`` did, from wherever it came."""

    def __init__(self, rules: Network, *, deadline_s: int) -> None:
        """``deadline_s``: of the whole boot, which no lease may be shorter than."""
        self._rules = rules
        self._deadline_s = deadline_s
        self._sysctls = Sysctls()
        self._routes = Routes()
        self._made: list[str] = []

    def up(self, end_ns: int) -> str:
        """One line about what is up. ``Refusal`` ``network-*``, ``OSError``."""
        self._link = device = find(end_ns)
        self._sysctls.tighten(device.name, ipv6=self._rules.ipv6)
        self._routes.deny(ipv6=self._rules.ipv6)
        link.up(device.name)
        _wait_for_carrier(device.name, end_ns)
        settings = self._settings(device, end_ns)
        # The device's own size of frames is the host's word as well.
        mtu = settings.mtu or min(max(device.mtu, dhcp.LEAST_MTU), dhcp.MOST_MTU)
        if mtu != device.mtu:
            link.set_mtu(device.name, mtu)
        self._routes.add_address(device.index, settings.address, settings.prefix)
        if settings.router:
            alone = settings.prefix == (128 if _IPV6 in settings.address else 32)
            self._routes.add_default(device.index, settings.router, on_link=alone)
        self._write_resolvers(settings.dns)
        return f"{device.name} {settings.address}/{settings.prefix}"

    def down(self) -> None:
        """``Refusal`` ``network-down`` where something is left; ``OSError``."""
        device = self._link
        self._routes.flush(device.index)
        link.down(device.name)
        self._routes.check_flushed(device.index)
        if link.is_up(device.name):
            raise Refusal("network-down", f"{device.name} is still up")
        link.set_mtu(device.name, device.mtu)
        self._sysctls.restore()
        for path in reversed(self._made):
            (os.rmdir if os.path.isdir(path) else os.unlink)(path)
        self._routes.close()

    def _settings(self, device: Link, end_ns: int) -> Settings:
        rules = self._rules
        if rules.method == FROM_INSTANCE:
            rules = from_instance(rules)
        if rules.method == DHCP:
            found = network_lease.obtain(device, end_ns=end_ns, least_s=self._deadline_s)
            return Settings(found.address, found.prefix, found.router, found.dns, found.mtu)
        for address in (rules.address, *rules.dns):
            if family(address) == family("::") and not rules.ipv6:
                raise Refusal("network-config", f"{address} is IPv6, which the policy leaves off")
        address, _, prefix = rules.address.partition("/")
        return Settings(address, int(prefix), rules.router, rules.dns)

    def _write_resolvers(self, servers: tuple[str, ...]) -> None:
        if not servers:
            return
        folder = os.path.dirname(_RESOLVERS)
        if not os.path.isdir(folder):
            os.mkdir(folder, 0o755)
            self._made.append(folder)
        fd = os.open(_RESOLVERS, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self._made.append(_RESOLVERS)
        try:
            lines = "".join(f"nameserver {server}\n" for server in servers)
            os.write(fd, f"{lines}options timeout:2 attempts:2\n".encode())
        finally:
            os.close(fd)


def _wait_for_carrier(name: str, end_ns: int) -> None:
    """A link that was set up before its carrier was there drops all it is given, in silence.

    It stops to when the kernel has heard of the carrier. A link that never gets one is
    tried all the same.
    """
    if link.has_carrier(name):
        return
    end_ns = min(end_ns, time.monotonic_ns() + _CARRIER_NS)
    while not link.runs(name) and time.monotonic_ns() < end_ns:
        time.sleep(_PAUSE_S)


def find(end_ns: int) -> Link:
    """The one network device, waited for until ``end_ns``.

    Raises ``Refusal`` ``network-missing``, ``network-ambiguous``.
    """
    # Listening before the first look: an arrival in between is then not lost.
    uevents = Uevents()
    try:
        while not (found := link.ethernet()):
            left_s = (end_ns - time.monotonic_ns()) / 1e9
            if left_s <= 0:
                raise Refusal("network-missing", "no network device appeared")
            uevents.wait(left_s)
    finally:
        uevents.close()
    if len(found) > 1:
        names = ", ".join(one.name for one in found)
        raise Refusal("network-ambiguous", f"{len(found)} network devices: {names}")
    return found[0]


def from_instance(rules: Network) -> Network:
    """``rules`` with what the instance configuration says; ``Refusal`` ``network-config``.

    Stage instance has left the file behind the comparison of its digest, judged.
    """
    from troth.documents import instance
    from troth.record import replace

    try:
        with open(INSTANCE_PATH, "rb", buffering=0) as file:
            found = instance.parse(file.read()).network
    except FileNotFoundError:
        found = None
    if found is None:
        raise Refusal("network-config", "the instance configuration says nothing of a network")
    return replace(
        rules, method=found.method, address=found.address, router=found.router, dns=found.dns
    )


def main(words: list[str]) -> None:
    """Serve one boot; ``words``: the nanosecond of the monotonic clock to be up by."""
    policy = from_tree(troth_baked.POLICY)
    if policy.network is None:
        raise RuntimeError("a policy without a network")
    serve(Connection(policy.network, deadline_s=policy.fail.deadline_s), int(words[0]))


def serve(connection: Connection, end_ns: int) -> None:
    """Up, one line, wait for a word, down, one line."""
    if not _tried("network-config", lambda: f"up {connection.up(end_ns)}"):
        return
    os.read(0, 16)

    def down() -> str:
        connection.down()
        return "down"

    _tried("network-down", down)


def _tried(code: str, work: Callable[[], str]) -> bool:
    """Say what ``work`` says, or why it did not; ``code``: for what the kernel refused."""
    try:
        line, good = work(), True
    except TrothError as error:
        line, good = f"refused {error.code} {error}", False
    except OSError as error:
        line, good = f"refused {code} {error.filename or 'the kernel'}: {error.strerror}", False
    # Words of the instance configuration may stand in the sentence: none may end its line.
    os.write(1, ascii(line)[1:-1].encode()[:500] + b"\n")
    return good
