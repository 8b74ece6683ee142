# SPDX-License-Identifier: Apache-2.0
"""The keys of one volume, each for one use, out of the key that its source releases.

No two uses share a key, and no two volumes: the id and the profile are in each
derivation, so that a key released for one disk opens no other (SECURITY S36).
Serves guests and the host's ``volume`` verbs. Must never give out a weak XTS key.

Source: ``docs/formats.md``, "Keys of a volume"; RFC 5869.
"""

from __future__ import annotations

from troth.abi.hkdf import hkdf_sha256
from troth.errors import FormatError

#: Bytes that a source may release: 256 to 512 bits of full entropy.
LEAST_BYTES, MOST_BYTES = 32, 64

XTS, HMAC, GCM, RECORD, LUKS = "xts", "hmac", "gcm", "record", "luks"
_SIZES = {XTS: 64, HMAC: 32, GCM: 32, RECORD: 32, LUKS: 32}
_LABEL = b"troth-volume-v1"


def derive(secret: bytes, *, uuid: str, profile: str, role: str) -> bytes:
    """The key of ``role`` for the volume ``uuid`` of ``profile``.

    Raises ``FormatError``: ``volume-secret`` where ``secret`` is no key of 32 to 64
    bytes, ``volume-weak-key`` where both halves of an XTS key came out equal.
    """
    if not LEAST_BYTES <= len(secret) <= MOST_BYTES:
        raise FormatError(
            "volume-secret", f"a key has {LEAST_BYTES} to {MOST_BYTES} bytes, not {len(secret)}"
        )
    info = b"\0".join((_LABEL, uuid.encode("ascii"), profile.encode("ascii"), role.encode("ascii")))
    found = hkdf_sha256(secret, info, size_bytes=_SIZES[role])
    if role == XTS and found[:32] == found[32:]:
        raise FormatError("volume-weak-key", "both halves of the XTS key are equal")
    return found


def passphrase(secret: bytes, *, uuid: str, profile: str) -> bytes:
    """What opens the key slot of a LUKS2 volume of ours: 64 hexadecimal characters."""
    return derive(secret, uuid=uuid, profile=profile, role=LUKS).hex().encode("ascii")
