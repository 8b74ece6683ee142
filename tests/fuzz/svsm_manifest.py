# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: the list of services, also with its first 24 bytes repaired."""

import uuid

from troth.abi import svsm_manifest
from troth.abi.svsm_manifest import Service
from troth.errors import FormatError

MAGIC = uuid.UUID("63849ebb-3d92-4670-a1ff-58f9c94b87bb").bytes_le


def fuzz(data: bytes) -> None:
    repaired = MAGIC + (len(data) + 20).to_bytes(4, "little") + data
    for candidate in (data, repaired):
        try:
            services = svsm_manifest.parse(candidate)
        except FormatError:
            continue
        if sum(len(service.data) for service in services) > len(candidate):
            raise AssertionError("more data than there is")
        if svsm_manifest.parse(svsm_manifest.build(services)) != services:
            raise AssertionError("a manifest is not what was read")


SEEDS = [
    svsm_manifest.build((Service(svsm_manifest.VTPM, b"v"), Service(svsm_manifest.UEFI_MM, b""))),
]
