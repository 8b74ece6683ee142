# SPDX-License-Identifier: Apache-2.0
"""DHCPv4 messages, as far as a boot asks for an address.

Serves the worker of stage network. Whoever is on the wire writes the answers, the
host first of all, so one message is read as strictly as it can be, and of it only
what ``Answer`` holds: classless routes, names, time servers, proxies and all else
are stepped over unread (SECURITY S31). Must never trust a length, follow a name or
take a part of an answer whose rest is wrong.

Sources: RFC 2131 (messages; fields in section 2, table 1), RFC 2132 (options). An
option that stands twice is refused, which RFC 3396 would join.
"""

from __future__ import annotations

from struct import Struct

from troth.errors import FormatError
from troth.record import record

SERVER_PORT, CLIENT_PORT = 67, 68
OFFER, ACK, NAK = "offer", "ack", "nak"
MAX_BYTES = 1472
"""Of one message: a frame of 1500 bytes without the headers of IPv4 and UDP."""
LEAST_MTU, MOST_MTU = 1280, 1500
"""Bytes of the frames that a boot sends, whoever says so."""
MAX_DNS = 3
_LEAST_PREFIX = 8

#: op, htype, hlen, hops, xid, secs, flags, ciaddr, yiaddr, siaddr, giaddr, chaddr, sname, file,
#: magic cookie.
_FIXED = Struct(">BBBBIHH4s4s4s4s16s64s128s4s")
_COOKIE = b"\x63\x82\x53\x63"
_REQUEST, _REPLY, _ETHERNET, _ETHERNET_BYTES = 1, 2, 1, 6
_MESSAGE_BYTES = 300  # BOOTP's, which relays may still insist on (RFC 1542, section 2.1)

_PAD, _END = 0, 255
_MASK, _ROUTER, _DNS, _MTU, _ADDRESS, _LEASE, _OVERLOAD, _TYPE, _SERVER, _LIST, _MOST_BYTES = (
    1, 3, 6, 26, 50, 51, 52, 53, 54, 55, 57,
)  # fmt: skip
_DISCOVER_TYPE, _REQUEST_TYPE = 1, 3
_KINDS = {2: OFFER, 5: ACK, 6: NAK}
#: Options that are looked at: (unit of the length, whether several units may stand there).
_READ = {
    _MASK: (4, False),
    _ROUTER: (4, True),
    _DNS: (4, True),
    _MTU: (2, False),
    _LEASE: (4, False),
    _OVERLOAD: (1, False),
    _TYPE: (1, False),
    _SERVER: (4, False),
}


@record
class Answer:
    """What one message of a server says; of a "nak" only ``kind`` and ``server``.

    ``address``, ``router`` ("" for none), ``dns`` (at most three) and ``server``:
    dotted; ``prefix``: bits of the subnet; ``mtu``: 0 where none was given within
    1280 to 1500; ``lease_s``: 0xFFFFFFFF for ever.
    """

    kind: str
    server: str
    address: str = ""
    prefix: int = 0
    router: str = ""
    dns: tuple[str, ...] = ()
    mtu: int = 0
    lease_s: int = 0


def discover(transaction: int, hardware: bytes) -> bytes:
    """DHCPDISCOVER of the 6-byte address ``hardware``; ``transaction``: 32 random bits."""
    return _message(transaction, hardware, b"%c\x01%c" % (_TYPE, _DISCOVER_TYPE))


def request(transaction: int, hardware: bytes, offer: Answer) -> bytes:
    """DHCPREQUEST for what ``offer`` offers (RFC 2131, section 4.3.2, state SELECTING)."""
    options = b"%c\x01%c%c\x04%s%c\x04%s" % (
        _TYPE, _REQUEST_TYPE, _ADDRESS, _bytes(offer.address), _SERVER, _bytes(offer.server),
    )  # fmt: skip
    return _message(transaction, hardware, options)


def _message(transaction: int, hardware: bytes, options: bytes) -> bytes:
    none = bytes(4)
    fixed = _FIXED.pack(
        _REQUEST, _ETHERNET, _ETHERNET_BYTES, 0, transaction, 0, 0, none, none, none, none,
        hardware, b"", b"", _COOKIE,
    )  # fmt: skip
    wanted = bytes((_MASK, _ROUTER, _DNS, _MTU))
    size = bytes((_MOST_BYTES, 2)) + (1500).to_bytes(2, "big")
    asked = bytes((_LIST, len(wanted))) + wanted
    return (fixed + options + size + asked + bytes((_END,))).ljust(_MESSAGE_BYTES, b"\0")


def parse(data: bytes, *, transaction: int, hardware: bytes) -> Answer:
    """The answer in the UDP payload ``data`` to our ``transaction`` and ``hardware``.

    Raises ``FormatError``: ``dhcp-size``, ``dhcp-header``, ``dhcp-foreign`` (an answer
    to somebody else), ``dhcp-option``, ``dhcp-repeated``, ``dhcp-overload``,
    ``dhcp-missing``, ``dhcp-address`` (one that no host can have or reach).
    """
    if not _FIXED.size < len(data) <= MAX_BYTES:
        raise FormatError("dhcp-size", f"a message of {len(data)} bytes")
    fields = _FIXED.unpack_from(data)
    operation, kind, length, _hops, found = fields[:5]
    if (operation, kind, length) != (_REPLY, _ETHERNET, _ETHERNET_BYTES) or fields[-1] != _COOKIE:
        raise FormatError("dhcp-header", "no answer of a DHCP server to an Ethernet device")
    if found != transaction or fields[11] != hardware.ljust(16, b"\0"):
        raise FormatError("dhcp-foreign", "an answer to another client or question")
    return _answer(_options(data), fields[8])


def _options(data: bytes) -> dict[int, bytes]:
    """Those of ``_READ``, their lengths checked; all others are stepped over."""
    found: dict[int, bytes] = {}
    at = _FIXED.size
    while at < len(data) and data[at] != _END:
        number = data[at]
        if number == _PAD:
            at += 1
            continue
        start = at + 2
        if start > len(data) or start + data[at + 1] > len(data):
            raise FormatError("dhcp-option", f"option {number} ends behind the message")
        at = start + data[start - 1]
        if number not in _READ:
            continue
        if number in found:
            raise FormatError("dhcp-repeated", f"option {number} stands there twice")
        found[number] = data[start:at]
        unit, several = _READ[number]
        size = at - start
        if not size or size % unit or (size > unit and not several):
            raise FormatError("dhcp-option", f"option {number} has {size} bytes")
    if at >= len(data):
        raise FormatError("dhcp-option", "the options have no end")
    return found


def _answer(options: dict[int, bytes], own: bytes) -> Answer:
    if _OVERLOAD in options:
        raise FormatError("dhcp-overload", "options stand in the fields of other things")
    kind = _KINDS.get(_need(options, _TYPE)[0], "")
    if not kind:
        raise FormatError("dhcp-option", f"a server does not say message {options[_TYPE][0]}")
    server = _need(options, _SERVER)
    if kind == NAK:
        return Answer(kind=kind, server=_text(server))
    prefix = _prefix(_need(options, _MASK))
    if not _is_host(own, prefix) or not _is_host(server, 32):
        raise FormatError("dhcp-address", f"{_text(own)} of {_text(server)}: of no single host")
    dns = options.get(_DNS, b"")
    servers = [dns[at : at + 4] for at in range(0, len(dns), 4)]
    usable = dict.fromkeys(_text(one) for one in servers if _is_host(one, 32))
    mtu = int.from_bytes(options.get(_MTU, b""), "big")
    return Answer(
        kind=kind,
        server=_text(server),
        address=_text(own),
        prefix=prefix,
        router=_router(options.get(_ROUTER, b"")[:4], own, prefix),
        dns=tuple(usable)[:MAX_DNS],
        mtu=mtu if LEAST_MTU <= mtu <= MOST_MTU else 0,
        lease_s=int.from_bytes(_need(options, _LEASE), "big"),
    )


def _need(options: dict[int, bytes], number: int) -> bytes:
    if number not in options:
        raise FormatError("dhcp-missing", f"option {number} is missing")
    return options[number]


def _prefix(mask: bytes) -> int:
    outside = _number(mask) ^ 0xFFFFFFFF
    # Ones, then zeros: then one more than the zeros' number is a power of two.
    prefix = 32 - outside.bit_length()
    if outside & (outside + 1) or prefix < _LEAST_PREFIX:
        raise FormatError("dhcp-address", f"{_text(mask)} is the mask of no subnet")
    return prefix


def _router(found: bytes, own: bytes, prefix: int) -> str:
    """The first router; one outside the subnet only where the subnet is the guest alone."""
    if not found:
        return ""
    outside = 32 - prefix
    inside = _number(found) >> outside == _number(own) >> outside
    if found == own or not _is_host(found, prefix if inside else 32) or not (inside or not outside):
        raise FormatError("dhcp-address", f"{_text(found)} is no router of {_text(own)}/{prefix}")
    return _text(found)


def _is_host(address: bytes, prefix: int) -> bool:
    """Whether ``address`` can be one host's, in a subnet of ``prefix`` bits.

    Link-local ones are where clouds keep their metadata services (S31).
    """
    first, second = address[0], address[1]
    if first in (0, 127) or first >= 224 or (first, second) == (169, 254):
        return False
    rest = (1 << (32 - prefix)) - 1
    # All zeros is the subnet, all ones everybody in it; two addresses alone have neither.
    return prefix >= 31 or _number(address) & rest not in (0, rest)


def _number(address: bytes) -> int:
    return int.from_bytes(address, "big")


def _text(address: bytes) -> str:
    return ".".join(map(str, address))


def _bytes(address: str) -> bytes:
    return bytes(map(int, address.split(".")))
