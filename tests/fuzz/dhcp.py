# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: a packet that answers a boot's question for an address."""

from __future__ import annotations

import ipaddress

from troth.abi import dhcp, udp_packet
from troth.errors import FormatError

HARDWARE = bytes.fromhex("525400123456")
XID = 0x54726F74


def _reply(options: bytes) -> bytes:
    asked = dhcp.discover(XID, HARDWARE)
    head = bytes((2,)) + asked[1:16] + bytes((192, 0, 2, 10)) + asked[20:240]
    return udp_packet.build(
        head + options, source=bytes((192, 0, 2, 1)), source_port=67,
        target=bytes((255, 255, 255, 255)), target_port=68,
    )  # fmt: skip


_GOOD = bytes.fromhex("350105 3604c0000201 330400015180 0104ffffff00 0304c0000201 1a0205dc")
SEEDS = [
    _reply(_GOOD + bytes.fromhex("0608c0000201c6336401 ff")),
    _reply(_GOOD + bytes.fromhex("79050018c00002 0c0161 ff")),
    _reply(bytes.fromhex("350106 3604c0000201 ff") + bytes(60)),
]


def fuzz(data: bytes) -> None:
    try:
        payload = udp_packet.payload(data, source_port=67, target_port=68)
    except FormatError:
        # Most changes spoil the headers: the message itself is worth its own try.
        payload = data[28:]
    try:
        found = dhcp.parse(payload, transaction=XID, hardware=HARDWARE)
    except FormatError:
        return
    if found.kind == dhcp.NAK:
        return
    own = ipaddress.ip_interface(f"{found.address}/{found.prefix}")
    if own.ip.is_link_local or own.ip.is_loopback or own.ip.is_multicast:
        raise AssertionError("an address of nobody")
    if found.mtu and not 1280 <= found.mtu <= 1500:
        raise AssertionError("a size of frames that nobody wants")
    if found.router and found.prefix < 32:
        router = ipaddress.ip_address(found.router)
        if router not in own.network or router == own.ip:
            raise AssertionError("a router elsewhere")
    if any(ipaddress.ip_address(one).is_link_local for one in found.dns):
        raise AssertionError("the metadata service as a resolver")
