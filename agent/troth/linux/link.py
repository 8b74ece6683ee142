# SPDX-License-Identifier: Apache-2.0
"""Network links, as far as a machine without a network needs them: loopback up."""

from __future__ import annotations

import _socket
import fcntl
from struct import pack, unpack_from

_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914  # include/uapi/linux/sockios.h
_IFF_UP = 0x1


def up(name: str) -> None:
    """Set link ``name`` up; ``OSError`` where there is none."""
    with_socket = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    try:
        request = bytearray(pack("16s24x", name.encode()))
        fcntl.ioctl(with_socket.fileno(), _SIOCGIFFLAGS, request, True)
        (flags,) = unpack_from("<H", request, 16)
        request[16:18] = pack("<H", flags | _IFF_UP)
        fcntl.ioctl(with_socket.fileno(), _SIOCSIFFLAGS, request, True)
    finally:
        with_socket.close()
