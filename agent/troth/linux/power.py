# SPDX-License-Identifier: Apache-2.0
"""The end of the machine (include/uapi/linux/reboot.h)."""

from __future__ import annotations

from troth.linux import syscalls

_COMMANDS = {
    "poweroff": 0x4321FEDC,
    "reboot": 0x01234567,
    "halt": 0xCDEF0123 - (1 << 32),  # the C argument is a signed int
}


def end(action: str) -> None:
    """Power off, reboot or halt. Returns only when the kernel refuses (OSError)."""
    syscalls.reboot(_COMMANDS[action])


def force() -> None:
    """Restart at once, past drivers that hang in their shutdown.

    emergency_restart() by sysrq ``b``: writing the trigger file works whatever
    kernel.sysrq says (drivers/tty/sysrq.c, write_sysrq_trigger).
    """
    with open("/proc/sysrq-trigger", "wb", buffering=0) as trigger:
        trigger.write(b"b")
