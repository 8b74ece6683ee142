# SPDX-License-Identifier: Apache-2.0
"""From an accepted LUKS2 header and a passphrase to the volume key, and to map tables.

Serves the guest's worker and ``troth volume check``. Takes the same bytes that
``troth.volumes.luks2_profile`` judged, never the device, and only what it accepted. All of
it happens in a child with bounds, digest included, whose cost the header names too.
Must never say more about a wrong key than that it is wrong.

Source: LUKS2 On-Disk Format Specification 1.1, section 4; cryptsetup,
``lib/luks2/luks2_keyslot_luks2.c``; Linux, ``Documentation/admin-guide/device-mapper``.
"""

from __future__ import annotations

import sys

from troth.documents.volume_profile import CBC_ESSIV
from troth.errors import FormatError
from troth.record import record
from troth.volumes import anti_forensic, bounded, luks2_rules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.documents.luks2_metadata import Kdf
    from troth.documents.volume_profile import VolumeProfile
    from troth.volumes.luks2_profile import Accepted

TIMEOUT_S = 120.0
"""Argon2 with 1 GiB and four lanes takes 15 s on two old cores."""

_SECTOR_BYTES = 512
_CBC_ESSIV = "troth.ciphers.cbc_essiv"
# What a derivation takes besides the memory that Argon2 names.
_SLACK_BYTES = 64 << 20

# integrity of the profile -> cipher of dm-crypt, bytes of tag and stored IV in each sector
_AUTHENTICATED = {
    "hmac": ("capi:authenc(hmac(sha256),xts(aes))-plain64", 32),
    "aes-gcm": ("capi:gcm(aes)-random", 28),
}


@record
class IntegrityTable:
    """What a dm-integrity map below dm-crypt needs.

    Its superblock stands at ``offset_sectors`` (of 512 bytes) of the disk, and says how
    many sectors it provides.
    """

    offset_sectors: int
    tag_bytes: int
    options: tuple[str, ...]

    def text(self, device: str, *, mode: str = "J") -> str:
        """Parameters of target ``integrity``; ``mode``: "J" journal, "D" direct writes."""
        words = (device, str(self.offset_sectors), str(self.tag_bytes), mode)
        return " ".join((*words, str(len(self.options)), *self.options))


@record
class CryptTable:
    """What the dm-crypt map needs; ``integrity`` is the map below it, or None.

    Sectors have 512 bytes, whatever ``sector_bytes`` says. ``data_bytes``: 0 for all that
    the device below has.
    """

    cipher: str
    key_bytes: int
    iv_offset: int
    offset_sectors: int
    sector_bytes: int
    data_bytes: int
    options: tuple[str, ...]
    integrity: IntegrityTable | None

    def sectors(self, device_bytes: int) -> int:
        """The map's length, for a device of ``device_bytes``.

        Raises ``FormatError`` ``luks2-device-size`` where the data do not fit.
        """
        room = device_bytes - self.offset_sectors * _SECTOR_BYTES
        wanted = self.data_bytes or room // self.sector_bytes * self.sector_bytes
        if not 0 < wanted <= room:
            raise FormatError(
                "luks2-device-size", f"a device of {device_bytes} bytes has no room for the data"
            )
        return wanted // _SECTOR_BYTES

    def text(self, device: str, key: str) -> str:
        """Parameters of target ``crypt``; ``key``: such as ":96:logon:troth:data"."""
        words = (self.cipher, key, str(self.iv_offset), device, str(self.offset_sectors))
        if not self.options:
            return " ".join(words)
        return " ".join((*words, str(len(self.options)), *self.options))


def unlock(
    accepted: Accepted, area: bytes, passphrase: bytes, *, timeout_s: float = TIMEOUT_S
) -> bytearray:
    """The volume key; ``area``: the bytes that were judged.

    Raises ``FormatError``: ``luks2-key`` where it does not open the volume,
    ``luks2-volume-key-halves`` where its XTS halves are equal, and those of
    ``troth.ciphers``; ``HostError`` as ``bounded.run``.
    """
    memory_bytes = accepted.keyslot.kdf.memory_kib * 1024 + _SLACK_BYTES
    return bytearray(
        bounded.run(
            lambda: _unlock(accepted, area, passphrase),
            memory_bytes=memory_bytes,
            timeout_s=timeout_s,
        )
    )


def require_halves(volume_key: bytes, profile: VolumeProfile) -> None:
    """Refuse an XTS key with equal halves: ``FormatError`` ``luks2-volume-key-halves``.

    Source: FIPS 140-3 implementation guidance, C.I: Rogaway's attack on equal keys.
    """
    half = (64 if profile.integrity == "hmac" else len(volume_key)) // 2
    if "xts" in profile.encryption and volume_key[:half] == volume_key[half : 2 * half]:
        raise FormatError("luks2-volume-key-halves", "both XTS halves of the volume key are equal")


def table(accepted: Accepted) -> CryptTable:
    """The maps for the volume of ``accepted``: constants of its profile and judged numbers."""
    segment, profile = accepted.segment, accepted.profile
    sized = () if profile.sector_bytes == _SECTOR_BYTES else (profile.sector_bytes,)
    options = tuple(f"sector_size:{size}" for size in sized)
    offset_sectors = segment.offset_bytes // _SECTOR_BYTES
    if profile.integrity not in _AUTHENTICATED:
        return CryptTable(
            cipher=profile.encryption,
            key_bytes=profile.volume_key_bytes,
            iv_offset=segment.iv_tweak,
            offset_sectors=offset_sectors,
            sector_bytes=profile.sector_bytes,
            data_bytes=segment.size_bytes,
            options=options,
            integrity=None,
        )
    cipher, tag_bytes = _AUTHENTICATED[profile.integrity]
    return CryptTable(
        cipher=cipher,
        key_bytes=profile.volume_key_bytes,
        iv_offset=segment.iv_tweak,
        offset_sectors=0,
        sector_bytes=profile.sector_bytes,
        data_bytes=segment.size_bytes,
        options=(f"integrity:{tag_bytes}:aead", *options),
        integrity=IntegrityTable(
            offset_sectors=offset_sectors,
            tag_bytes=tag_bytes,
            options=tuple(f"block_size:{size}" for size in sized),
        ),
    )


def _unlock(accepted: Accepted, area: bytes, passphrase: bytes) -> bytes:
    from troth.ciphers import pbkdf2, xts

    slot, digest = accepted.keyslot, accepted.digest
    key = _derive(slot.kdf, passphrase, slot.area_key_bytes)
    used_bytes = slot.key_bytes * slot.af_stripes
    whole_bytes = -(-used_bytes // _SECTOR_BYTES) * _SECTOR_BYTES
    start = slot.area_offset_bytes
    stored = area[start : start + whole_bytes]
    if len(stored) != whole_bytes:
        raise FormatError("luks2-short", "the key-slot's material is not whole")
    # The IV counts from the beginning of the area, not of the disk.
    if slot.area_encryption == CBC_ESSIV:
        # By name: no guest's profile lets it come here, and no image carries it.
        __import__(_CBC_ESSIV)
        blocks = sys.modules[_CBC_ESSIV].decrypt(key, stored)
    else:
        blocks = xts.decrypt(key, stored)
    volume_key = anti_forensic.merge(
        blocks[:used_bytes], key_bytes=slot.key_bytes, stripes=slot.af_stripes
    )
    # Its length is that of the profile's cipher, which was checked: HMAC would take a
    # shorter key, filled with zeros, for the same.
    found = pbkdf2.derive(
        volume_key,
        digest.salt,
        hash_name=digest.hash,
        iterations=digest.iterations,
        length_bytes=luks2_rules.DIGEST_BYTES,
    )
    # No secret is compared: the digest is on the disk, and so is all that it is made of.
    if found != digest.digest:
        raise FormatError("luks2-key", "this key does not open the volume")
    require_halves(volume_key, accepted.profile)
    return volume_key


def _derive(kdf: Kdf, passphrase: bytes, length_bytes: int) -> bytes:
    if kdf.kind == "pbkdf2":
        from troth.ciphers import pbkdf2

        return pbkdf2.derive(
            passphrase,
            kdf.salt,
            hash_name=kdf.hash,
            iterations=kdf.iterations,
            length_bytes=length_bytes,
        )
    from troth.ciphers import argon2

    return argon2.derive(
        kdf.kind,
        passphrase,
        kdf.salt,
        time=kdf.time,
        memory_kib=kdf.memory_kib,
        lanes=kdf.cpus,
        length_bytes=length_bytes,
    )
