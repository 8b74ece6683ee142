# SPDX-License-Identifier: Apache-2.0
"""How much memory a guest can be given on this machine.

Serves ``troth run``. Linux refuses a single mapping larger than memory and
swap together (vm/overcommit-accounting, heuristic mode), and QEMU maps a
guest's memory in one piece. Must never allocate to find out.
"""

from __future__ import annotations

from pathlib import Path

from troth.errors import HostError

_MEMINFO = Path("/proc/meminfo")
#: 40 address bits of TCG's processors, less what QEMU keeps free below 1 TiB for devices.
_ADDRESSABLE_MIB = 1000 << 10


def most_mib(meminfo: Path = _MEMINFO) -> int:
    """The largest memory of a guest, in MiB; ``HostError`` ``host-memory`` if not known."""
    wanted = {"MemTotal": 0, "SwapTotal": 0}
    try:
        for line in meminfo.read_text("ascii").splitlines():
            name, _, value = line.partition(":")
            if name in wanted:
                wanted[name] = int(value.removesuffix("kB"))
    except (OSError, ValueError) as error:
        raise HostError("host-memory", f"cannot be read: {error}", where=str(meminfo)) from None
    return min(sum(wanted.values()) >> 10, _ADDRESSABLE_MIB)
