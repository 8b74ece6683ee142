# SPDX-License-Identifier: Apache-2.0
"""What an IGVM image of Linux was made from, and where the machine has memory for it."""

from __future__ import annotations

from dataclasses import dataclass

#: q35 keeps at most this below 4 GiB; a larger memory is split at 2 GiB.
LOW_LIMIT, LOW_SPLIT, FOUR_GIB = 0xB000_0000, 0x8000_0000, 1 << 32
#: Option ROMs, then the BIOS, up to 1 MiB; to QEMU two regions.
ROMS, BIOS, MIB = 0xC0000, 0xE0000, 0x100000


@dataclass(frozen=True)
class Given:
    """What the image was made from."""

    kernel: bytes
    initramfs: bytes
    cmdline: str
    memory_bytes: int
    vcpus: int
    policy: int
    tpm: bool = False

    def field(self, at: int, size: int) -> int:
        """A field of the kernel's setup header, by its offset in the file."""
        return int.from_bytes(self.kernel[at : at + size], "little")

    @property
    def protected(self) -> bytes:
        """What follows the real-mode sectors."""
        return self.kernel[((self.kernel[0x1F1] or 4) + 1) * 512 :]

    @property
    def load_address(self) -> int:
        return self.field(0x258, 8)

    @property
    def init_bytes(self) -> int:
        return self.field(0x260, 4)

    @property
    def machine(self) -> list[tuple[int, int]]:
        """Where q35 has memory, and may be given some: one row for each of its memory regions."""
        low = self.memory_bytes if self.memory_bytes < LOW_LIMIT else LOW_SPLIT
        rows = [(0, 0xA0000), (ROMS, BIOS), (BIOS, MIB), (MIB, low)]
        if low < self.memory_bytes:
            rows.append((FOUR_GIB, FOUR_GIB + self.memory_bytes - low))
        return rows
