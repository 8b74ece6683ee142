# SPDX-License-Identifier: Apache-2.0
"""How often strangers may come: from one address, and from all together.

Serves ``keybroker.server``. Buckets that fill with time: a burst of guests that boot
together is let through, a stream is not. Who has begun a session is no stranger: to
turn guests away half way would cost the work that was done for them, and under
load nobody would get to the end. Must never remember more addresses than its bound:
forgotten is who asked least lately.
"""

from __future__ import annotations

import ipaddress
import threading

from troth.record import record

MAX_PEERS = 4096


@record
class Limit:
    """So many at once, and so many each second."""

    burst: float
    per_s: float


#: A host's guests share an address. Each begins once; some ask once before they begin.
PEER = Limit(500, 50)
GLOBAL = Limit(2000, 200)


class Rate:
    """``now`` of each call: seconds of a clock that only goes forward."""

    def __init__(self, peer: Limit = PEER, everybody: Limit = GLOBAL) -> None:
        self._peer = peer
        self._all = everybody
        self._lock = threading.Lock()
        self._of_all = (everybody.burst, 0.0)
        self._of_peer: dict[str, tuple[float, float]] = {}

    def take(self, peer: str, *, now: float) -> bool:
        """Whether one more stranger may come from ``peer``."""
        with self._lock:
            left, last = self._of_peer.pop(peer, (self._peer.burst, now))
            own = _filled(left, last, now, self._peer)
            whole = _filled(*self._of_all, now, self._all)
            good = own >= 1 and whole >= 1
            self._of_peer[peer] = (own - good, now)
            self._of_all = (whole - good, now)
            if len(self._of_peer) > MAX_PEERS:
                del self._of_peer[next(iter(self._of_peer))]
            return good


def counted_as(address: str) -> str:
    """Whom ``address`` is counted as: itself, and with IPv6 its /64, which one host has whole."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((int(found) >> 64 << 64, 64)))
    return address


def _filled(left: float, last: float, now: float, limit: Limit) -> float:
    return min(limit.burst, left + max(0.0, now - last) * limit.per_s)
