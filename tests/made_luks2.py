# SPDX-License-Identifier: Apache-2.0
"""LUKS2 volumes for tests: ours with fixed random bytes, altered ones with right checksums."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from troth.abi import luks2
from troth.documents.volume_profile import VolumeProfile
from troth.record import replace
from troth.volumes import luks2_write

VECTORS = Path(os.environ.get("TROTH_VECTORS", Path(__file__).parents[2] / "shared/vectors"))
UUID = "0c5f4a3e-7b11-4f7e-9d59-3f6f5d0f2a10"
PASSPHRASE = b"correct horse battery staple"
#: Memory of the machine that judges, where a test does not care.
MEMORY_BYTES = 8 << 30


def vector(*names):
    path = VECTORS.joinpath("luks2", *names)
    if not path.exists():
        pytest.skip(f"no vectors at {path} (set TROTH_VECTORS)")
    return path


class Random:
    """Bytes that look random and are the same each time; notes how many were asked for."""

    def __init__(self, seed=b"troth"):
        self.seed = seed
        self.count = 0

    def __call__(self, size):
        self.count += 1
        return hashlib.shake_128(self.seed + self.count.to_bytes(4, "big")).digest(size)


def profile(**changes):
    return replace(VolumeProfile(integrity="none", uuid=UUID), **changes)


def written(passphrase=PASSPHRASE, *, seed=b"troth", offset=1 << 20, **changes):
    return luks2_write.new(
        profile(**changes), passphrase, random=Random(seed), data_offset_bytes=offset
    )


def metadata(area):
    return json.loads(luks2.parse(area).metadata)


def packed(area, tree, *, header=None, text=None):
    """``area`` with other metadata in both copies, and with fields of its header changed."""
    data = json.dumps(tree).encode() if text is None else text
    heads = b""
    for secondary in (False, True):
        copy = luks2.parse(area, offset_bytes=16384 * secondary)
        changed = luks2.Copy(replace(copy.header, **(header or {})), data)
        heads += luks2.pack(changed, secondary=secondary)
    return heads + area[32768:]
