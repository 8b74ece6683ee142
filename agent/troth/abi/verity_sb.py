# SPDX-License-Identifier: Apache-2.0
"""The dm-verity superblock, version 1: 512 bytes, little-endian.

Serves the builder, which writes it, and PID 1, which compares it with the
baked geometry. The kernel never reads it and nothing in it is authenticated:
it must never decide what a guest maps. Imports nothing beyond ``struct``.

Source: cryptsetup, ``lib/verity/verity.c``, ``struct verity_sb``.
"""

from __future__ import annotations

import struct

from troth.errors import FormatError
from troth.record import record

SIZE_BYTES = 512
MAGIC = b"verity\0\0"
MAX_SALT_BYTES = 256
MIN_BLOCK_BYTES = 512
MAX_BLOCK_BYTES = 512 << 10
MAX_DATA_BYTES = 2**63 - 1
"""The kernel counts in loff_t; no device is larger."""

DIGEST_BYTES = {"sha1": 20, "sha224": 28, "sha256": 32, "sha384": 48, "sha512": 64}
"""Every algorithm troth reads or writes, with the size of its digest in bytes."""

# magic, version, hash type, uuid, algorithm, data block, hash block, data blocks, salt size, salt
_LAYOUT = struct.Struct("<8sII16s32sIIQH6s256s168s")


@record
class Superblock:
    """What a superblock says.

    ``uuid``: 16 bytes; ``algorithm``: a key of ``DIGEST_BYTES``; ``data_blocks``:
    number of blocks of ``data_block_bytes``; ``salt``: 0 to 256 bytes;
    ``hash_type``: 1 normal, 0 the old Chromium form.
    """

    uuid: bytes
    algorithm: str
    data_blocks: int
    salt: bytes
    data_block_bytes: int = 4096
    hash_block_bytes: int = 4096
    hash_type: int = 1

    @property
    def uuid_text(self) -> str:
        """The UUID as lower case text, 36 characters."""
        digits = self.uuid.hex()
        parts = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
        return "-".join(parts)

    @property
    def data_bytes(self) -> int:
        """Size of the protected data in bytes."""
        return self.data_blocks * self.data_block_bytes


def parse(data: bytes, *, where: str = "") -> Superblock:
    """The superblock in the first 512 bytes of ``data``.

    Every field is checked and every unused byte must be zero. Raises
    ``FormatError``: ``verity-superblock-short``, ``-magic``, ``-version``,
    ``-padding``, and those of ``pack``.
    """
    if len(data) < SIZE_BYTES:
        raise FormatError(
            "verity-superblock-short",
            f"a verity superblock has {SIZE_BYTES} bytes, here are {len(data)}",
            where=where,
        )
    (
        magic,
        version,
        hash_type,
        uuid,
        algorithm,
        data_block_bytes,
        hash_block_bytes,
        data_blocks,
        salt_bytes,
        gap,
        salt,
        rest,
    ) = _LAYOUT.unpack_from(data)
    if magic != MAGIC:
        raise FormatError(
            "verity-superblock-magic", "there is no verity superblock here", where=where
        )
    if version != 1:
        raise FormatError(
            "verity-superblock-version",
            f"verity superblock version {version} is not known, only 1 is",
            where=where,
        )
    if salt_bytes > MAX_SALT_BYTES:
        raise FormatError(
            "verity-superblock-salt",
            f"the salt has {salt_bytes} bytes, at most {MAX_SALT_BYTES} are possible",
            where=where,
        )
    name, _, after_name = algorithm.partition(b"\0")
    if gap.strip(b"\0") or rest.strip(b"\0") or salt[salt_bytes:].strip(b"\0") or any(after_name):
        raise FormatError(
            "verity-superblock-padding", "unused bytes of the superblock are not zero", where=where
        )
    superblock = Superblock(
        uuid=uuid,
        # latin-1 maps every byte, so that an unknown name is refused below with what it says
        algorithm=name.decode("latin-1"),
        data_blocks=data_blocks,
        salt=salt[:salt_bytes],
        data_block_bytes=data_block_bytes,
        hash_block_bytes=hash_block_bytes,
        hash_type=hash_type,
    )
    _check(superblock, where)
    return superblock


def pack(superblock: Superblock) -> bytes:
    """The 512 bytes of ``superblock``, as ``veritysetup format`` writes them.

    Raises ``FormatError``: ``verity-superblock-type``, ``-algorithm``,
    ``-block-size``, ``-data-blocks``, ``-salt``, ``-uuid``.
    """
    _check(superblock, "")
    return _LAYOUT.pack(
        MAGIC,
        1,
        superblock.hash_type,
        superblock.uuid,
        superblock.algorithm.encode("ascii"),
        superblock.data_block_bytes,
        superblock.hash_block_bytes,
        superblock.data_blocks,
        len(superblock.salt),
        b"",
        superblock.salt,
        b"",
    )


def _check(superblock: Superblock, where: str) -> None:
    if superblock.hash_type not in (0, 1):
        raise FormatError(
            "verity-superblock-type",
            f"verity hash type {superblock.hash_type} is not known, only 0 and 1 are",
            where=where,
        )
    if superblock.algorithm not in DIGEST_BYTES:
        raise FormatError(
            "verity-superblock-algorithm",
            f"the hash algorithm {superblock.algorithm!r} is not one of {', '.join(DIGEST_BYTES)}",
            where=where,
        )
    for noun, size_bytes in (
        ("data", superblock.data_block_bytes),
        ("hash", superblock.hash_block_bytes),
    ):
        in_bounds = MIN_BLOCK_BYTES <= size_bytes <= MAX_BLOCK_BYTES
        if not in_bounds or size_bytes & (size_bytes - 1):
            raise FormatError(
                "verity-superblock-block-size",
                f"{noun} blocks of {size_bytes} bytes: it must be a power of two"
                f" from {MIN_BLOCK_BYTES} to {MAX_BLOCK_BYTES}",
                where=where,
            )
    if not 1 <= superblock.data_blocks <= MAX_DATA_BYTES // superblock.data_block_bytes:
        raise FormatError(
            "verity-superblock-data-blocks",
            f"{superblock.data_blocks} data blocks are not possible",
            where=where,
        )
    if len(superblock.salt) > MAX_SALT_BYTES:
        raise FormatError(
            "verity-superblock-salt",
            f"the salt has {len(superblock.salt)} bytes, at most {MAX_SALT_BYTES} are possible",
            where=where,
        )
    if len(superblock.uuid) != 16:
        raise FormatError(
            "verity-superblock-uuid",
            f"a UUID has 16 bytes, here are {len(superblock.uuid)}",
            where=where,
        )
