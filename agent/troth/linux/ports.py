# SPDX-License-Identifier: Apache-2.0
"""Virtio-serial ports by the name the host gave them.

Serves the front of the simulated platform. A name says only where to speak; who
listens there is the host's to arrange, so nothing said through a port may be
believed for its name.

Source: Linux, drivers/char/virtio_console.c.
"""

from __future__ import annotations

import os

_CLASS = "/sys/class/virtio-ports"
_DEVICES = "/sys/bus/virtio/devices"
_CONSOLE_ID = 3  # include/uapi/linux/virtio_ids.h


def find(name: str, *, base: str = _CLASS) -> str | None:
    """The node of port ``name``, None where there is none yet; the first where there are two."""
    try:
        ports = sorted(os.listdir(base))
    except FileNotFoundError:
        return None
    for port in ports:
        try:
            with open(f"{base}/{port}/name", "rb", buffering=0) as file:
                found = file.read(256).strip()
        except OSError:
            # A port without a name, or one that has just gone.
            continue
        if found == name.encode():
            return f"/dev/{port}"
    return None


def possible(*, base: str = _DEVICES) -> bool:
    """Whether there is a device whose ports may still come."""
    try:
        devices = os.listdir(base)
    except FileNotFoundError:
        return False
    for device in devices:
        try:
            with open(f"{base}/{device}/device", "rb", buffering=0) as file:
                number = int(file.read(16), 16)
        except (OSError, ValueError):
            continue
        if number == _CONSOLE_ID:
            return True
    return False
