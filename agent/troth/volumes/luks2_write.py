# SPDX-License-Identifier: Apache-2.0
"""A new LUKS2 volume: both headers and one key-slot, as values; nothing is written here.

Serves ``troth volume format`` and the guest that formats a volume. All randomness comes
from the caller, so the same random bytes give the same header. The key-slot uses PBKDF2
with the fewest iterations that LUKS2 has, because passphrases here are derived from keys
of full entropy: a person's password must not be used. What it makes is judged by
the strict profile before anybody gets it.

Source: LUKS2 On-Disk Format Specification 1.1.
"""

from __future__ import annotations

from troth.abi import luks2
from troth.documents import luks2_json
from troth.documents.luks2_metadata import Digest, Integrity, Kdf, Keyslot, Metadata, Segment
from troth.errors import FormatError
from troth.record import record
from troth.volumes import anti_forensic, luks2_open, luks2_profile, luks2_rules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from troth.documents.volume_profile import VolumeProfile
    from troth.volumes.luks2_open import CryptTable
    from troth.volumes.luks2_profile import Accepted

DATA_OFFSET_BYTES = 16 << 20
"""Where cryptsetup puts data; 1 MiB is the other choice, for small volumes."""
ITERATIONS = luks2_rules.MIN_ITERATIONS

_HASH = "sha256"


@record
class Written:
    """A new volume.

    ``head``: bytes from 0 to the end of the key-slot's material; what follows up to
    ``data_offset_bytes`` has to be zeros. With integrity, the superblock of dm-integrity
    goes to ``data_offset_bytes``, where the kernel writes it when the map of
    ``table.integrity`` is made over zeros.
    """

    head: bytes
    data_offset_bytes: int
    volume_key: bytearray
    accepted: Accepted
    table: CryptTable

    def __repr__(self) -> str:
        return f"Written({self.accepted.header.uuid}, {self.accepted.profile.text})"


def new(
    profile: VolumeProfile,
    passphrase: bytes,
    *,
    random: Callable[[int], bytes],
    data_offset_bytes: int = DATA_OFFSET_BYTES,
    label: str = "",
    volume_key: bytes = b"",
) -> Written:
    """A volume after ``profile``, which names its UUID.

    ``random``: n -> n random bytes; ``volume_key``: random where none is given. Raises
    ``FormatError``: ``luks2-new`` where a value has no place in a volume that the profile
    accepts, ``luks2-volume-key-halves``, and those of ``troth.abi.luks2.pack``.
    """
    key_bytes = profile.volume_key_bytes
    if not profile.uuid:
        raise FormatError("luks2-new", "a new volume needs a UUID")
    if volume_key and len(volume_key) != key_bytes:
        raise FormatError(
            "luks2-new", f"the volume key has {len(volume_key)} bytes, {key_bytes} are needed"
        )
    key = volume_key or random(key_bytes)
    luks2_open.require_halves(key, profile)
    slot, material = _keyslot(key, passphrase, random, area_key_bytes=profile.keyslot_key_bytes)
    metadata = luks2_json.print_(
        Metadata(
            keyslots=(slot,),
            segments=(_segment(profile, data_offset_bytes),),
            digests=(_digest(key, random),),
            tokens=(),
            json_bytes=luks2_rules.HEADER_BYTES - luks2.BINARY_BYTES,
            keyslots_bytes=data_offset_bytes - 2 * luks2_rules.HEADER_BYTES,
        )
    )
    head = b""
    for secondary in (False, True):
        header = luks2.Header(
            size_bytes=luks2_rules.HEADER_BYTES,
            seqid=1,
            uuid=profile.uuid,
            salt=random(luks2.SALT_BYTES),
            label=label,
        )
        head += luks2.pack(luks2.Copy(header, metadata), secondary=secondary)
    head += material
    try:
        accepted = luks2_profile.require(head, profile, memory_bytes=0)
    except FormatError as error:
        raise FormatError(
            "luks2-new", f"no volume of this profile: {error.message}", where=error.code
        ) from None
    return Written(
        head=head,
        data_offset_bytes=data_offset_bytes,
        volume_key=bytearray(key),
        accepted=accepted,
        table=luks2_open.table(accepted),
    )


def _keyslot(
    key: bytes, passphrase: bytes, random: Callable[[int], bytes], *, area_key_bytes: int
) -> tuple[Keyslot, bytes]:
    from troth.ciphers import pbkdf2, xts

    area_bytes = luks2_rules.area_size(len(key))
    salt = random(luks2_rules.SALT_BYTES)
    slot = Keyslot(
        name="0",
        kind="luks2",
        key_bytes=len(key),
        af_kind="luks1",
        af_stripes=luks2_rules.STRIPES,
        af_hash=_HASH,
        area_kind="raw",
        area_offset_bytes=2 * luks2_rules.HEADER_BYTES,
        area_size_bytes=area_bytes,
        area_encryption=luks2_rules.KEYSLOT_ENCRYPTION,
        area_key_bytes=area_key_bytes,
        kdf=Kdf("pbkdf2", salt, hash=_HASH, iterations=ITERATIONS),
    )
    area_key = pbkdf2.derive(
        passphrase,
        salt,
        hash_name=_HASH,
        iterations=ITERATIONS,
        length_bytes=area_key_bytes,
    )
    blocks = anti_forensic.split(key, stripes=luks2_rules.STRIPES, random=random)
    # Random up to the area's end, so that its size says nothing about what is in it.
    return slot, xts.encrypt(area_key, blocks + random(area_bytes - len(blocks)))


def _segment(profile: VolumeProfile, offset_bytes: int) -> Segment:
    kind = profile.integrity_kind
    return Segment(
        name="0",
        kind="crypt",
        offset_bytes=offset_bytes,
        size_bytes=profile.data_bytes,
        encryption=profile.encryption,
        sector_bytes=profile.sector_bytes,
        integrity=Integrity(kind) if kind else None,
    )


def _digest(key: bytes, random: Callable[[int], bytes]) -> Digest:
    from troth.ciphers import pbkdf2

    salt = random(luks2_rules.SALT_BYTES)
    return Digest(
        name="0",
        kind="pbkdf2",
        keyslots=("0",),
        segments=("0",),
        hash=_HASH,
        iterations=ITERATIONS,
        salt=salt,
        digest=pbkdf2.derive(
            key,
            salt,
            hash_name=_HASH,
            iterations=ITERATIONS,
            length_bytes=luks2_rules.DIGEST_BYTES,
        ),
    )
