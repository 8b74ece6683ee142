# SPDX-License-Identifier: Apache-2.0
"""A UDP datagram in an IPv4 packet, for a guest that has no address yet.

Serves the worker of stage network: before it has an address the kernel neither
sends nor delivers such packets itself. Must never put fragments together or look
at IP options; those packets are refused.

Sources: RFC 791, section 3.1; RFC 768. The checksum of UDP is made but not
compared: between guests of one host, drivers leave it undone (virtio 1.2, section
5.1.6.2), and it would stop nobody who means harm.
"""

from __future__ import annotations

from struct import Struct, unpack

from troth.errors import FormatError

_IP = Struct(">BBHHHBBH4s4s")
_UDP = Struct(">HHHH")
_HEADER_BYTES = _IP.size + _UDP.size
_VERSION_AND_WORDS, _LIFE, _PROTOCOL = 0x45, 64, 17
_FRAGMENT = 0x3FFF  # more fragments follow, or this one is not the first


def build(
    payload: bytes, *, source: bytes, source_port: int, target: bytes, target_port: int
) -> bytes:
    """The packet with ``payload``; ``source``, ``target``: 4 bytes each."""
    size = _UDP.size + len(payload)
    pseudo = source + target + bytes((0, _PROTOCOL)) + size.to_bytes(2, "big")
    bare = _UDP.pack(source_port, target_port, size, 0) + payload
    # 0 would say that there is no checksum.
    sum_ = _checksum(pseudo + bare) or 0xFFFF
    head = [_VERSION_AND_WORDS, 0, _IP.size + size, 0, 0, _LIFE, _PROTOCOL, 0, source, target]
    head[7] = _checksum(_IP.pack(*head))
    return _IP.pack(*head) + _UDP.pack(source_port, target_port, size, sum_) + payload


def payload(packet: bytes, *, source_port: int, target_port: int) -> bytes:
    """The payload of ``packet``, which goes from one port to the other.

    Bytes behind the packet are padding of the frame. Raises ``FormatError``
    ``udp-packet`` for every other packet.
    """
    if len(packet) < _HEADER_BYTES:
        raise FormatError("udp-packet", f"a packet of {len(packet)} bytes")
    first, _, size, _, fragment, _, protocol, _, _, _ = _IP.unpack_from(packet)
    if first != _VERSION_AND_WORDS or protocol != _PROTOCOL or fragment & _FRAGMENT:
        raise FormatError("udp-packet", "no whole UDP datagram without IP options")
    if not _HEADER_BYTES <= size <= len(packet) or _checksum(packet[: _IP.size]):
        raise FormatError("udp-packet", "the header of IPv4 is damaged")
    source, target, length, _ = _UDP.unpack_from(packet, _IP.size)
    if (source, target) != (source_port, target_port) or length != size - _IP.size:
        raise FormatError("udp-packet", "of other ports, or of another length")
    return packet[_HEADER_BYTES:size]


def _checksum(data: bytes) -> int:
    """RFC 1071; 0 over data that holds its own right checksum."""
    even = data + bytes(len(data) % 2)
    total: int = sum(unpack(f">{len(even) // 2}H", even))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF
