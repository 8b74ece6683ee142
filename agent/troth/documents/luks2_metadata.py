# SPDX-License-Identifier: Apache-2.0
"""What the metadata of a LUKS2 header say, as values.

Serves the guest's worker, which judges them, and the host. Holds everything that the
format allows, so that a refusal can name what it found; must judge nothing itself.
Read and printed by ``troth.documents.luks2_json``.

Source: LUKS2 On-Disk Format Specification 1.1, section 3.
"""

from __future__ import annotations

from troth.record import record


@record
class Kdf:
    """How a key-slot's key follows from a passphrase.

    ``kind``: "pbkdf2" with ``hash`` and ``iterations``, or "argon2i" or "argon2id"
    with ``time``, ``memory_kib`` and ``cpus``. Of other kinds nothing else is read.
    """

    kind: str
    salt: bytes = b""
    hash: str = ""
    iterations: int = 0
    time: int = 0
    memory_kib: int = 0
    cpus: int = 0


@record
class Keyslot:
    """One key-slot; offsets and sizes in bytes, ``priority`` -1 where none is given.

    Only of ``kind`` "luks2" more is read than kind, key size and priority, and of
    its area more than the kind only where that is "raw".
    """

    name: str
    kind: str
    key_bytes: int
    priority: int = -1
    af_kind: str = ""
    af_stripes: int = 0
    af_hash: str = ""
    area_kind: str = ""
    area_offset_bytes: int = 0
    area_size_bytes: int = 0
    area_encryption: str = ""
    area_key_bytes: int = 0
    kdf: Kdf = Kdf("")


@record
class Integrity:
    """The tags of a segment: ``kind`` such as "hmac(sha256)" or "aead"."""

    kind: str
    journal_encryption: str = "none"
    journal_integrity: str = "none"
    key_bytes: int = 0


@record
class Segment:
    """One segment of data; ``size_bytes`` is 0 where the header says "dynamic".

    Of a ``kind`` other than "crypt" only offset and size are read.
    """

    name: str
    kind: str
    offset_bytes: int
    size_bytes: int = 0
    iv_tweak: int = 0
    encryption: str = ""
    sector_bytes: int = 0
    integrity: Integrity | None = None
    flags: tuple[str, ...] = ()


@record
class Digest:
    """What a volume key is recognised by; of a ``kind`` other than "pbkdf2" only the links."""

    name: str
    kind: str
    keyslots: tuple[str, ...]
    segments: tuple[str, ...]
    hash: str = ""
    iterations: int = 0
    salt: bytes = b""
    digest: bytes = b""


@record
class Token:
    """A token; its own fields are its maker's and are not read."""

    name: str
    kind: str
    keyslots: tuple[str, ...]


@record
class Metadata:
    """All of it; ``unknown``: paths of keys that the format does not have."""

    keyslots: tuple[Keyslot, ...]
    segments: tuple[Segment, ...]
    digests: tuple[Digest, ...]
    tokens: tuple[Token, ...]
    json_bytes: int
    keyslots_bytes: int
    flags: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
