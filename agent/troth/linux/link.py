# SPDX-License-Identifier: Apache-2.0
"""Network links by the oldest of interfaces: which there are, up and down, the size of frames.

Serves PID 1, which sets loopback up, and the worker of stage network. Addresses and
routes are not here. The host chooses which devices there are: what sysfs says finds
one and makes none trusted. Source: netdevice(7), include/uapi/linux/sockios.h.
"""

from __future__ import annotations

import _socket
import fcntl
import os
from struct import pack, unpack_from

from troth.record import record

BASE = "/sys/class/net"
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCSIFMTU = 0x8913, 0x8914, 0x8922
_IFF_UP, _IFF_RUNNING = 0x1, 0x40
_ETHERNET = "1"  # ARPHRD_ETHER
_HARDWARE_BYTES = 6


@record
class Link:
    """One network device: kernel ``name``, ``index``, ``hardware`` address, ``mtu`` in bytes."""

    name: str
    index: int
    hardware: bytes
    mtu: int


def ethernet() -> tuple[Link, ...]:
    """All Ethernet devices with hardware behind them, by name."""
    found = []
    for name in sorted(os.listdir(BASE)):
        base = f"{BASE}/{name}"
        if not os.path.lexists(f"{base}/device") or _read(f"{base}/type") != _ETHERNET:
            continue
        index, mtu = _read(f"{base}/ifindex"), _read(f"{base}/mtu")
        try:
            hardware = bytes.fromhex(_read(f"{base}/address").replace(":", ""))
        except ValueError:
            continue
        if index.isdecimal() and mtu.isdecimal() and len(hardware) == _HARDWARE_BYTES:
            found.append(Link(name, int(index), hardware, int(mtu)))
    return tuple(found)


def _read(path: str) -> str:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(256).decode("ascii", "replace").strip()
    except OSError:
        # It went while it was being looked at.
        return ""


def up(name: str) -> None:
    """Set link ``name`` up; ``OSError`` where there is none."""
    _set_flag(name, on=True)


def down(name: str) -> None:
    """Set link ``name`` down; ``OSError`` where there is none."""
    _set_flag(name, on=False)


def is_up(name: str) -> bool:
    """Whether link ``name`` is up; ``OSError`` where there is none."""
    return bool(_flags(name) & _IFF_UP)


def has_carrier(name: str) -> bool:
    """Whether the driver of link ``name``, which is up, says that there is a wire."""
    return _read(f"{BASE}/{name}/carrier") == "1"


def runs(name: str) -> bool:
    """Whether the kernel has heard of the carrier of ``name``; ``OSError`` where there is none."""
    return bool(_flags(name) & _IFF_RUNNING)


def set_mtu(name: str, mtu: int) -> None:
    """Let link ``name`` send frames of up to ``mtu`` bytes; ``OSError``."""
    _ioctl(name, _SIOCSIFMTU, pack("<i", mtu))


def _flags(name: str) -> int:
    (flags,) = unpack_from("<H", _ioctl(name, _SIOCGIFFLAGS), 16)
    return int(flags)


def _set_flag(name: str, *, on: bool) -> None:
    flags = _flags(name)
    _ioctl(name, _SIOCSIFFLAGS, pack("<H", flags | _IFF_UP if on else flags & ~_IFF_UP))


def _ioctl(name: str, number: int, value: bytes = b"") -> bytearray:
    """``struct ifreq`` after the call: 16 bytes of name, then what the call is about."""
    with_socket = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    try:
        request = bytearray(pack("16s24x", name.encode()))
        request[16 : 16 + len(value)] = value
        fcntl.ioctl(with_socket.fileno(), number, request, True)
    finally:
        with_socket.close()
    return request
