# SPDX-License-Identifier: Apache-2.0
"""Loading kernel modules, and asking which devices still lack a driver."""

from __future__ import annotations

import os

from troth.linux import syscalls

_STORAGE = "bc01"  # PCI base class 1: mass storage


def load(path: str) -> None:
    """Load the plain .ko at ``path``; loading one that is there already is no error.

    Raises ``OSError``: ENOENT where the file is missing, else the kernel's verdict.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.finit_module(fd, where=path)
    except FileExistsError:
        return
    finally:
        os.close(fd)


def undriven() -> tuple[str, ...]:
    """Aliases of virtio devices and PCI storage that no driver claimed, sorted."""
    found = []
    for bus in ("pci", "virtio"):
        base = f"/sys/bus/{bus}/devices"
        try:
            names = os.listdir(base)
        except FileNotFoundError:
            continue
        for name in names:
            if os.path.lexists(f"{base}/{name}/driver"):
                continue
            try:
                with open(f"{base}/{name}/modalias", "rb", buffering=0) as file:
                    alias = file.read(512).decode("ascii", "replace").strip()
            except OSError:
                continue
            if bus == "virtio" or _STORAGE in alias:
                found.append(alias)
    return tuple(sorted(set(found)))
