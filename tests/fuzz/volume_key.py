# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: the key of a volume and its label."""

from troth.documents import volume_key
from troth.documents.volume_key import VolumeKey
from troth.errors import FormatError

UUID = "6f1c0d1e-9f3a-4a39-8d3e-0242ac120002"
VALUES = [
    VolumeKey(UUID, "headerless/hmac/4096", bytes(range(48))),
    VolumeKey(UUID, "luks2/none/4096", bytes(range(32)), "formatting", 3, "ab" * 32),
]
SEEDS = [volume_key.print_(value) for value in VALUES]


def fuzz(data: bytes) -> None:
    try:
        found = volume_key.parse(data)
    except FormatError:
        return
    # Whoever does not know how to make a MAC finds only what was there before.
    if found not in VALUES:
        raise AssertionError("a label was changed")
