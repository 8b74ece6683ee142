# SPDX-License-Identifier: Apache-2.0
"""SNP reports written by offsets of the specification, apart from the reader under test."""

import json
import os
from pathlib import Path

import pytest

VECTORS = (
    Path(os.environ.get("TROTH_VECTORS", Path(__file__).parents[2] / "shared/vectors")) / "snp"
)

#: name -> (offset, size); integers are little-endian.
FIELDS = {
    "version": (0x000, 4),
    "guest_svn": (0x004, 4),
    "policy": (0x008, 8),
    "family_id": (0x010, 16),
    "image_id": (0x020, 16),
    "vmpl": (0x030, 4),
    "signature_algo": (0x034, 4),
    "current_tcb": (0x038, 8),
    "platform_info": (0x040, 8),
    "key_info": (0x048, 4),
    "report_data": (0x050, 64),
    "measurement": (0x090, 48),
    "host_data": (0x0C0, 32),
    "id_key_digest": (0x0E0, 48),
    "author_key_digest": (0x110, 48),
    "report_id": (0x140, 32),
    "report_id_ma": (0x160, 32),
    "reported_tcb": (0x180, 8),
    "cpuid_family": (0x188, 1),
    "cpuid_model": (0x189, 1),
    "cpuid_stepping": (0x18A, 1),
    "chip_id": (0x1A0, 64),
    "committed_tcb": (0x1E0, 8),
    "current_build": (0x1E8, 1),
    "current_minor": (0x1E9, 1),
    "current_major": (0x1EA, 1),
    "committed_build": (0x1EC, 1),
    "committed_minor": (0x1ED, 1),
    "committed_major": (0x1EE, 1),
    "launch_tcb": (0x1F0, 8),
    "launch_mit_vector": (0x1F8, 8),
    "current_mit_vector": (0x200, 8),
    "r": (0x2A0, 72),
    "s": (0x2E8, 72),
}
DEFAULTS = {
    "version": 3,
    "policy": 0x30000,
    "signature_algo": 1,
    "platform_info": 0x25,
    "report_id_ma": b"\xff" * 32,
    "cpuid_family": 0x19,
    "cpuid_model": 0x11,
    "cpuid_stepping": 1,
    "chip_id": bytes(range(1, 65)),
}


def report(**fields):
    """1184 bytes with ``fields`` (ints or bytes) over ``DEFAULTS``; not signed."""
    data = bytearray(1184)
    for name, value in (DEFAULTS | fields).items():
        offset, size = FIELDS[name]
        raw = value.to_bytes(size, "little") if isinstance(value, int) else value
        assert len(raw) == size, name
        data[offset : offset + size] = raw
    return bytes(data)


def vectors():
    """The manifest of the shared vectors; skips where they are not."""
    if not VECTORS.exists():
        pytest.skip(f"no vectors at {VECTORS} (set TROTH_VECTORS)")
    return json.loads((VECTORS / "manifest.json").read_text())
