# SPDX-License-Identifier: Apache-2.0
"""The profile that a header itself asks for, for people who have none at hand.

Serves ``troth volume check`` without ``--profile``, on the host. Every check that needs no
expectation is made as ever; of what a profile would decide, only what some strict opener
could accept is taken over. Must never be asked by a guest: there the policy is the profile,
and what a header wishes is the host's wish.
"""

from __future__ import annotations

from troth.abi import luks2
from troth.documents import luks2_json
from troth.documents.volume_profile import (
    CBC_ESSIV,
    KDFS,
    KEYSLOT_CIPHERS,
    SECTOR_SIZES,
    XTS,
    VolumeProfile,
)
from troth.errors import FormatError

_INTEGRITIES = {"hmac(sha256)": "hmac", "aead": "aes-gcm"}
# Ciphers and bytes of their keys, besides an integrity's own: of older volumes, and AES-128.
_OTHERS = ((CBC_ESSIV, 16), (CBC_ESSIV, 32), (XTS, 32))


def profile_of(area: bytes) -> VolumeProfile:
    """What ``area`` shows of itself, within bounds; our own profile where it shows nothing."""
    copy = luks2.selected(luks2.pair(area))
    if copy is None:
        return VolumeProfile()
    try:
        metadata = luks2_json.parse(copy.metadata)
    except FormatError:
        return VolumeProfile()
    crypts = [item for item in metadata.segments if item.kind == "crypt"]
    slots = [item for item in metadata.keyslots if item.kind == "luks2"]
    if not crypts or not slots:
        return VolumeProfile()
    segment, slot = crypts[0], slots[0]
    found: dict[str, object] = {"kdfs": KDFS}
    if segment.integrity is None:
        found["integrity"] = "none"
    elif segment.integrity.kind in _INTEGRITIES:
        found["integrity"] = _INTEGRITIES[segment.integrity.kind]
    if segment.integrity is None and (segment.encryption, slot.key_bytes) in _OTHERS:
        found |= {"cipher": segment.encryption, "key_bytes": slot.key_bytes}
    if segment.sector_bytes in SECTOR_SIZES:
        found["sector_bytes"] = segment.sector_bytes
    if slot.area_key_bytes in KEYSLOT_CIPHERS.get(slot.area_encryption, ()):
        found["keyslot_cipher"] = slot.area_encryption
        found["keyslot_key_bytes"] = slot.area_key_bytes
    behind = 2 * copy.header.size_bytes + metadata.keyslots_bytes
    if segment.offset_bytes % 4096 == 0 and segment.offset_bytes >= behind:
        found["data_offsets"] = (segment.offset_bytes,)
    try:
        return VolumeProfile(**found)  # type: ignore[arg-type]  # each of its field's type
    except FormatError:
        return VolumeProfile()
