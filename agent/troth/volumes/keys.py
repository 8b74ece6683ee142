# SPDX-License-Identifier: Apache-2.0
"""The keys of a volume: each use has its own, all follow from one source key.

Serves the guest's worker and the host. What a broker releases is never used as it is:
volume, profile and role go into the derivation, so that a key brought for one volume
opens no other, and neither a MAC nor a passphrase says anything about a data key.
"""

from __future__ import annotations

from troth.errors import FormatError
from troth.measure import hkdf

ROLES = {"xts": 64, "hmac": 32, "gcm": 32, "record": 32, "luks": 32}
"""What a key is for -> its size in bytes."""
MIN_SOURCE_BYTES, MAX_SOURCE_BYTES = 32, 64

_LABEL = b"troth-volume-v1"


def derive(source: bytes, role: str, *, uuid: str, profile: str) -> bytes:
    """The key for ``role`` of the volume ``uuid`` (lower case) made after ``profile``.

    HKDF-SHA256 with an empty salt; label, uuid, profile and role are the info, with a
    zero byte between them. Raises ``FormatError``: ``volume-key-size`` where ``source``
    has not 32 to 64 bytes, ``volume-key-halves`` where an XTS key has equal halves.
    """
    if not MIN_SOURCE_BYTES <= len(source) <= MAX_SOURCE_BYTES:
        raise FormatError(
            "volume-key-size",
            f"a source key has {MIN_SOURCE_BYTES} to {MAX_SOURCE_BYTES} bytes, not {len(source)}",
        )
    info = b"\0".join((_LABEL, uuid.encode(), profile.encode(), role.encode()))
    key = hkdf.derive(source, info=info, length_bytes=ROLES[role])
    if role == "xts" and key[:32] == key[32:]:
        raise FormatError("volume-key-halves", "both halves of the XTS key are equal")
    return key


def luks_passphrase(source: bytes, *, uuid: str, profile: str) -> bytes:
    """The passphrase of a LUKS2 volume: the role ``luks`` as 64 lower-case hex digits."""
    return derive(source, "luks", uuid=uuid, profile=profile).hex().encode()
