# SPDX-License-Identifier: Apache-2.0
"""An address from a DHCP server: the conversation, with a bound on everything.

Serves ``network_worker``. Whoever answers first with something usable is believed,
for there is nothing to tell servers apart by; what they can choose is where packets
go. An unusable answer is as none: the next one may be good. Must never renew: the
boot is over before the lease is.

Source: RFC 2131, section 3.1 and 4.4.1; packet(7).
"""

from __future__ import annotations

import _socket
import os
import select
import time

from troth.abi import dhcp, udp_packet
from troth.errors import FormatError, Refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.abi.dhcp import Answer
    from troth.linux.link import Link

_IPV4 = 0x0800
_NOBODY, _EVERYBODY = bytes(4), b"\xff" * 4
_BROADCAST = b"\xff" * 6
#: How long the first, second, ... question waits for its answer. RFC 2131 has 4 s first, for
#: networks where thousands start at once.
_WAITS_S = (1.0, 2.0, 4.0)
_READ_BYTES = 2048


def obtain(link: Link, *, end_ns: int, least_s: int) -> Answer:
    """The accepted answer, its lease at least ``least_s`` seconds long.

    ``end_ns``: when to give up, on the monotonic clock. Raises ``Refusal``
    ``network-dhcp``, and ``OSError`` where the device cannot send.
    """
    # The kernel delivers nothing to an address that is not there yet, and so a packet socket;
    # it takes nothing from whoever listens otherwise, and nobody does.
    kind = _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
    wire = _socket.socket(_socket.AF_PACKET, kind, 0)
    try:
        wire.bind((link.name, _IPV4))
        return _Client(wire, link, end_ns).obtain(least_s)
    finally:
        wire.close()


class _Client:
    def __init__(self, wire: _socket.socket, link: Link, end_ns: int) -> None:
        self._wire = wire
        self._link = link
        self._end_ns = end_ns
        self._problem = "nobody answered"
        self._poll = select.poll()
        self._poll.register(wire.fileno(), select.POLLIN)

    def obtain(self, least_s: int) -> Answer:
        turn = 0
        while time.monotonic_ns() < self._end_ns:
            wait_s = _WAITS_S[min(turn, len(_WAITS_S) - 1)]
            turn += 1
            transaction = int.from_bytes(os.urandom(4), "big")
            asked_ns = time.monotonic_ns()
            found = self._exchange(transaction, None, wait_s)
            if found is not None:
                found = self._accepted(transaction, found)
            if found is not None and found.lease_s < least_s:
                self._problem = f"a lease of {found.lease_s} s, and the boot may take {least_s} s"
                found = None
            if found is not None:
                return found
            # Servers that answer at once with nothing usable are not asked without a pause.
            left_s = asked_ns / 1e9 + wait_s - time.monotonic()
            end_s = (self._end_ns - time.monotonic_ns()) / 1e9
            time.sleep(max(0.0, min(left_s, end_s)))
        raise Refusal("network-dhcp", f"no address on {self._link.name}: {self._problem}")

    def _accepted(self, transaction: int, offer: Answer) -> Answer | None:
        """What the server of ``offer`` gives after all; None where it does not."""
        for wait_s in _WAITS_S:
            found = self._exchange(transaction, offer, wait_s)
            if found is None:
                continue
            if found.kind == dhcp.ACK and found.address == offer.address:
                return found
            self._problem = f"{found.server} takes its offer back"
            return None
        return None

    def _exchange(self, transaction: int, offer: Answer | None, wait_s: float) -> Answer | None:
        """Ask, for ``offer`` or for any, and wait for one answer of the right kind."""
        kinds = (dhcp.OFFER,) if offer is None else (dhcp.ACK, dhcp.NAK)
        if offer is None:
            message = dhcp.discover(transaction, self._link.hardware)
        else:
            message = dhcp.request(transaction, self._link.hardware, offer)
        packet = udp_packet.build(
            message, source=_NOBODY, source_port=dhcp.CLIENT_PORT, target=_EVERYBODY,
            target_port=dhcp.SERVER_PORT,
        )  # fmt: skip
        self._wire.sendto(packet, (self._link.name, _IPV4, 0, 0, _BROADCAST))
        end_ns = min(self._end_ns, time.monotonic_ns() + int(wait_s * 1e9))
        while (left_ns := end_ns - time.monotonic_ns()) > 0:
            if not self._poll.poll(left_ns // 1_000_000 + 1):
                continue
            found = self._read(transaction)
            if found is not None and found.kind in kinds:
                if offer is None or found.server == offer.server:
                    return found
                self._problem = f"{found.server} answers what {offer.server} was asked"
        return None

    def _read(self, transaction: int) -> Answer | None:
        """One packet, where it is an answer to us that can be used."""
        try:
            packet = self._wire.recv(_READ_BYTES)
            payload = udp_packet.payload(
                packet, source_port=dhcp.SERVER_PORT, target_port=dhcp.CLIENT_PORT
            )
        except (BlockingIOError, FormatError):
            # Other traffic of the wire.
            return None
        try:
            return dhcp.parse(payload, transaction=transaction, hardware=self._link.hardware)
        except FormatError as error:
            self._problem = f"{error.code}: {error.message}"
            return None
