# SPDX-License-Identifier: Apache-2.0
"""Reports written byte by byte, as the simulated secure processor signs them.

Serves ``simulated.processor``. Written from the specification's table and apart
from ``abi.snp_report``, which reads it: one mistake in both would show nowhere.

Source: AMD 56860 1.58, table "ATTESTATION_REPORT structure", "Format for an
ECDSA P-384 Signature"; little-endian.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.record import record
from troth.signing import keys

if TYPE_CHECKING:
    from troth.signing.keys import PrivateKey
    from troth.simulated.chip import Chip
    from troth.simulated.launch import Launch

REPORT_BYTES = 0x4A0
SIGNED_BYTES = 0x2A0
_NUMBER_BYTES = 72

SIGNING_VCEK, SIGNING_VLEK, SIGNING_NONE = 0, 1, 7
NO_MIGRATION_AGENT = b"\xff" * 32


@record
class Asked:
    """What a report says beyond the launch.

    ``report_data``: 64 bytes; ``vmpl``: as requested; ``report_id``: 32 bytes;
    ``signing``: one of ``SIGNING_*``.
    """

    report_data: bytes
    vmpl: int
    report_id: bytes
    signing: int


def unsigned(launch: Launch, chip: Chip, asked: Asked) -> bytes:
    """The first 672 bytes of the report."""
    current, committed, at_launch = launch.tcbs(chip)
    masked_id = launch.mask_chip_id or asked.signing == SIGNING_VLEK
    key_info = int(launch.author_key) | int(launch.mask_chip_key) << 1 | asked.signing << 2
    fields: list[tuple[int, bytes]] = [
        (0x000, _u32(launch.report_version)),
        (0x004, _u32(launch.guest_svn)),
        (0x008, _u64(launch.policy)),
        (0x010, launch.family_id),
        (0x020, launch.image_id),
        (0x030, _u32(asked.vmpl)),
        (0x034, _u32(1)),
        (0x038, current),
        (0x040, _u64(launch.platform_info)),
        (0x048, _u32(key_info)),
        (0x050, asked.report_data),
        (0x090, launch.measurement),
        (0x0C0, launch.host_data),
        (0x0E0, launch.id_key_digest),
        (0x110, launch.author_key_digest),
        (0x140, asked.report_id),
        (0x160, NO_MIGRATION_AGENT),
        (0x180, chip.tcb),
        (0x1A0, bytes(64) if masked_id else chip.chip_id),
        (0x1E0, committed),
        (0x1E8, bytes(reversed(launch.current_firmware))),
        (0x1EC, bytes(reversed(launch.committed_firmware))),
        (0x1F0, at_launch),
    ]
    if launch.report_version >= 3:
        fields.append((0x188, bytes((chip.family, chip.model, chip.stepping))))
    if launch.report_version >= 5:
        fields.append((0x1F8, _u64(launch.launch_mit_vector)))
        fields.append((0x200, _u64(launch.current_mit_vector)))
    raw = bytearray(SIGNED_BYTES)
    for offset, value in fields:
        raw[offset : offset + len(value)] = value
    return bytes(raw)


def signed(body: bytes, key: PrivateKey | None) -> bytes:
    """All 1184 bytes: ``body`` and the signature of ``key``, or zeros where the key is masked."""
    if key is None:
        return body.ljust(REPORT_BYTES, b"\0")
    numbers = keys.signature_numbers(key.sign(body))
    signature = b"".join(number.to_bytes(_NUMBER_BYTES, "little") for number in numbers)
    return (body + signature).ljust(REPORT_BYTES, b"\0")


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "little")


def _u64(value: int) -> bytes:
    return value.to_bytes(8, "little")
