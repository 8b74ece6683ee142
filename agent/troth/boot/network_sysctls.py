# SPDX-License-Identifier: Apache-2.0
"""How the kernel treats the network before the handover: set first, put back last.

Serves ``network_worker``. What the next init would find otherwise is its own
business, so every value is kept. Must never touch loopback's.

Source: Linux Documentation/networking/ip-sysctl.rst; SECURITY S31.
"""

from __future__ import annotations

BASE = "/proc/sys/net"
#: For all devices and for each: packets only by the way their answer would go, no word of
#: others about routes.
_IPV4 = (
    ("rp_filter", b"1"),
    ("accept_redirects", b"0"),
    ("secure_redirects", b"0"),
    ("accept_source_route", b"0"),
    ("send_redirects", b"0"),
)
#: No router's word, no address of the kernel's own making, no wait for a duplicate's owner. All
#: with IPv6 off, and put back with it off: the kernel acts on some at once.
_IPV6 = (
    ("disable_ipv6", b"1"),
    ("accept_ra", b"0"),
    ("autoconf", b"0"),
    ("accept_redirects", b"0"),
    ("addr_gen_mode", b"1"),
    ("accept_dad", b"0"),
)
_IPV6_ON = (("disable_ipv6", b"0"),)


class Sysctls:
    """Values under ``BASE``, with those they had before. Every call may raise ``OSError``."""

    def __init__(self) -> None:
        self._before: list[tuple[str, bytes]] = []

    def tighten(self, device: str, *, ipv6: bool) -> None:
        """Before ``device`` is up. Without ``ipv6`` the kernel may have none of it."""
        wanted = [
            (f"ipv4/conf/{where}/{name}", value)
            for where in ("all", "default", device)
            for name, value in _IPV4
        ]
        # Kept before the first is set: the kernel hands a default on to the devices there are.
        self._before += [(f"{BASE}/{name}", _read(f"{BASE}/{name}")) for name, _ in wanted]
        for name, value in wanted:
            _write(f"{BASE}/{name}", value)
        for where in ("default", device):
            for name, value in (*_IPV6, *_IPV6_ON * ipv6):
                try:
                    self._set(f"ipv6/conf/{where}/{name}", value)
                except FileNotFoundError:
                    if ipv6:
                        raise

    def restore(self) -> None:
        """All as it was, the last first."""
        while self._before:
            path, value = self._before[-1]
            _write(path, value)
            self._before.pop()

    def _set(self, name: str, value: bytes) -> None:
        path = f"{BASE}/{name}"
        self._before.append((path, _read(path)))
        _write(path, value)


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read(64)


def _write(path: str, value: bytes) -> None:
    with open(path, "wb", buffering=0) as file:
        file.write(value)
