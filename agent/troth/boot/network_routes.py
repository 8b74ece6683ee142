# SPDX-License-Identifier: Apache-2.0
"""Addresses and routes of the boot's network device: the one door to pyroute2.

Serves ``network_worker``. Only the library's messages are used, which are its
account of the kernel's structures; its own sockets would bring asyncio, ssl and a
mock of the kernel into the image. Must never be imported by PID 1.

Source: rtnetlink(7), include/uapi/linux/{netlink,rtnetlink,if_addr}.h.
"""

from __future__ import annotations

import _socket
import errno
import os
from struct import Struct

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from troth.errors import Refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyroute2.netlink import nlmsg

_HEADER = Struct("=IHHII")
_ERROR, _DONE = 2, 3
_NEW_ADDRESS, _DELETE_ADDRESS, _GET_ADDRESS = 20, 21, 22
_NEW_ROUTE, _DELETE_ROUTE, _GET_ROUTE = 24, 25, 26
_REQUEST, _ACKNOWLEDGE, _DUMP, _EXCLUSIVE, _CREATE = 0x1, 0x4, 0x300, 0x200, 0x400
_NETLINK_ROUTE = 0
_MAIN, _UNICAST, _BLACKHOLE, _BY_BOOT = 254, 1, 6, 3
_EVERYWHERE, _ON_LINK = 0, 4
_NO_DUPLICATE_SEARCH = 0x02
_ANSWER_S = 5.0
_MOST_BYTES = 1 << 16
_ROUTE_FIELDS = ("family", "dst_len", "table", "proto", "scope", "type")
_ROUTE_KEYS = ("RTA_DST", "RTA_GATEWAY", "RTA_OIF", "RTA_PRIORITY")
_ADDRESS_FIELDS = ("family", "prefixlen", "index")
_ADDRESS_KEYS = ("IFA_LOCAL", "IFA_ADDRESS")

#: Where clouds keep the services that tell a guest's secrets to whoever asks from it (S31).
DENIED = (("169.254.0.0", 16),)
DENIED_IPV6 = (("fd00:ec2::254", 128),)


def family(address: str) -> int:
    """Of a textual address."""
    return _socket.AF_INET6 if ":" in address else _socket.AF_INET


class Routes:
    """A netlink socket. Every call raises ``OSError`` with the kernel's verdict."""

    def __init__(self) -> None:
        kind = _socket.SOCK_RAW | _socket.SOCK_CLOEXEC
        self._socket = _socket.socket(_socket.AF_NETLINK, kind, _NETLINK_ROUTE)
        self._socket.bind((0, 0))
        self._socket.settimeout(_ANSWER_S)
        self._sequence = 0

    def deny(self, *, ipv6: bool) -> None:
        """Let no packet leave for metadata services, whatever other routes come."""
        for network, prefix in DENIED + DENIED_IPV6 * ipv6:
            message = _route(family(network), _BLACKHOLE)
            message["dst_len"] = prefix
            message["attrs"] = [("RTA_DST", network)]
            self._change(message, _NEW_ROUTE, _CREATE | _EXCLUSIVE)

    def add_address(self, index: int, address: str, prefix: int) -> None:
        """Give the device ``index`` the ``address``, and so the route to its subnet."""
        message = ifaddrmsg()
        message["family"] = family(address)
        message["prefixlen"] = prefix
        message["index"] = index
        attributes: list[tuple[str, object]] = [("IFA_LOCAL", address), ("IFA_ADDRESS", address)]
        if family(address) == _socket.AF_INET6:
            attributes.append(("IFA_FLAGS", _NO_DUPLICATE_SEARCH))
        message["attrs"] = attributes
        self._change(message, _NEW_ADDRESS, _CREATE | _EXCLUSIVE)

    def add_default(self, index: int, router: str, *, on_link: bool) -> None:
        """Send all else to ``router``; ``on_link``: it is reached though no subnet holds it."""
        message = _route(family(router), _UNICAST)
        message["flags"] = _ON_LINK if on_link else 0
        message["attrs"] = [("RTA_GATEWAY", router), ("RTA_OIF", index)]
        self._change(message, _NEW_ROUTE, _CREATE | _EXCLUSIVE)

    def flush(self, index: int) -> None:
        """Take away every address of the device, every route over it, and the denials."""
        for route in self._routes(index):
            self._remove(_copy(route, rtmsg(), _ROUTE_FIELDS, _ROUTE_KEYS), _DELETE_ROUTE)
        for address in self._addresses(index):
            message = _copy(address, ifaddrmsg(), _ADDRESS_FIELDS, _ADDRESS_KEYS)
            self._remove(message, _DELETE_ADDRESS)

    def check_flushed(self, index: int) -> None:
        """Refuse what ``flush`` should have left nothing of; ``Refusal`` ``network-down``."""
        left = len(self._addresses(index)), len(self._routes(index))
        if any(left):
            raise Refusal("network-down", f"{left[0]} addresses and {left[1]} routes are left")

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _addresses(self, index: int) -> list[nlmsg]:
        found = [_decoded(ifaddrmsg(data)) for data in self._dump(ifaddrmsg, _GET_ADDRESS)]
        return [one for one in found if one["index"] == index]

    def _routes(self, index: int) -> list[nlmsg]:
        found = [_decoded(rtmsg(data)) for data in self._dump(rtmsg, _GET_ROUTE)]
        return [
            one
            for one in found
            if one["table"] == _MAIN
            and (
                (one["type"] == _BLACKHOLE and one["proto"] == _BY_BOOT)
                or one.get_attr("RTA_OIF") == index
            )
        ]

    def _change(self, message: nlmsg, kind: int, flags: int) -> None:
        self._send(message, kind, _ACKNOWLEDGE | flags)
        for _ in self._answers():
            continue

    def _remove(self, message: nlmsg, kind: int) -> None:
        try:
            self._change(message, kind, 0)
        except OSError as error:
            # Routes go with their address, and addresses of a subnet with its first one.
            if error.errno not in (errno.ESRCH, errno.EADDRNOTAVAIL):
                raise

    def _dump(self, structure: type[nlmsg], kind: int) -> list[bytes]:
        found: list[bytes] = []
        # One by one: asked for all families, kernels have left out one.
        for number in (_socket.AF_INET, _socket.AF_INET6):
            message = structure()
            message["family"] = number
            self._send(message, kind, _DUMP)
            found += self._answers()
        return found

    def _send(self, message: nlmsg, kind: int, flags: int) -> None:
        self._sequence += 1
        header = message["header"]
        header["type"], header["flags"] = kind, _REQUEST | flags
        header["sequence_number"], header["pid"] = self._sequence, 0
        message.encode()
        self._socket.sendto(bytes(message.data), (0, 0))

    def _answers(self) -> Iterator[bytes]:
        """Messages up to the acknowledgement or the end of a dump."""
        while True:
            data, (port, _groups) = self._socket.recvfrom(_MOST_BYTES)
            at = 0
            # Only the kernel has port 0.
            while port == 0 and at + _HEADER.size <= len(data):
                size, kind, _flags, sequence, _pid = _HEADER.unpack_from(data, at)
                message = data[at : at + size]
                at += max(_HEADER.size, size + 3 & ~3)
                if sequence != self._sequence:
                    continue
                if kind == _DONE:
                    return
                if kind != _ERROR:
                    yield message
                    continue
                number = -int.from_bytes(message[16:20], "little", signed=True)
                if number:
                    raise OSError(number, os.strerror(number))
                return


def _decoded(message: nlmsg) -> nlmsg:
    message.decode()
    return message


def _copy(found: nlmsg, message: nlmsg, fields: tuple[str, ...], keys: tuple[str, ...]) -> nlmsg:
    """Of a dumped message what a deletion goes by."""
    for name in fields:
        message[name] = found[name]
    values = [(name, found.get_attr(name)) for name in keys]
    message["attrs"] = [(name, value) for name, value in values if value is not None]
    return message


def _route(kind: int, type_: int) -> nlmsg:
    message = rtmsg()
    message["family"], message["type"] = kind, type_
    message["table"], message["proto"], message["scope"] = _MAIN, _BY_BOOT, _EVERYWHERE
    return message
