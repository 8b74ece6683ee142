# SPDX-License-Identifier: Apache-2.0
"""What a LUKS2 volume has to be before it is opened: the measured expectation.

Serves the guest, whose policy names it, and ``troth volume check``. A disk's header is
the host's to write; this profile is not, so every choice is made here and the header
may only agree. Files of profiles are read by ``troth.documents.volume_profile_file``.
Imports nothing heavy.
"""

from __future__ import annotations

from troth.errors import FormatError
from troth.record import record

MIB = 1 << 20

INTEGRITIES = ("hmac", "aes-gcm", "none")
KDFS = ("pbkdf2", "argon2id", "argon2i")
SECTOR_SIZES = (512, 1024, 2048, 4096)
#: The second for volumes that others made, and on the host only.
XTS, CBC_ESSIV = "aes-xts-plain64", "aes-cbc-essiv:sha256"
KEYSLOT_CIPHERS = {XTS: (32, 64), CBC_ESSIV: (16, 32)}

_HEX = frozenset("0123456789abcdef")
# integrity -> cipher and integrity as cryptsetup writes them, bytes of the volume key
_CIPHERS = {
    "none": ("aes-xts-plain64", "", 64),
    "hmac": ("aes-xts-plain64", "hmac(sha256)", 96),
    "aes-gcm": ("aes-gcm-random", "aead", 32),
}


@record
class VolumeProfile:
    """An expectation; what is left out is ours.

    ``uuid``: lower case, or "" for any; ``data_offsets``: where data may begin, in
    bytes; ``data_bytes``: 0 where data go up to the end of the device ("dynamic").
    ``cipher`` and ``key_bytes`` stand for another than the integrity's own cipher where
    they are not "" and 0; ``keyslot_cipher``: of the key-slot's own material, and
    ``keyslot_key_bytes``: of its key, as in ``KEYSLOT_CIPHERS``.
    The rest are upper bounds of what a header may cost:
    iterations of PBKDF2, and time, memory and lanes of Argon2.

    Raises ``FormatError`` ``volume-profile`` for a value that no volume can have.
    """

    integrity: str = "hmac"
    sector_bytes: int = 4096
    uuid: str = ""
    data_offsets: tuple[int, ...] = (16 * MIB, 1 * MIB)
    data_bytes: int = 0
    cipher: str = ""
    key_bytes: int = 0
    keyslot_cipher: str = XTS
    keyslot_key_bytes: int = 64
    kdfs: tuple[str, ...] = ("pbkdf2", "argon2id")
    max_pbkdf2_iterations: int = 10**7
    max_digest_iterations: int = 10**7
    max_argon2_memory_kib: int = 1 << 20
    max_argon2_time: int = 16
    max_argon2_cpus: int = 4

    def __post_init__(self) -> None:
        if self.integrity not in INTEGRITIES:
            raise _wrong(f"integrity {self.integrity!r} is none of {', '.join(INTEGRITIES)}")
        if self.uuid and not is_uuid(self.uuid):
            raise _wrong(f"{self.uuid!r} is no UUID in lower case")
        if self.sector_bytes not in SECTOR_SIZES:
            raise _wrong(f"no volume has sectors of {self.sector_bytes} bytes")
        if not self.kdfs or not set(self.kdfs) <= set(KDFS):
            raise _wrong(f"key derivations are one or more of {', '.join(KDFS)}")
        if not self.data_offsets or any(
            offset < 64 << 10 or offset % 4096 for offset in self.data_offsets
        ):
            raise _wrong("data begins at multiples of 4096 bytes, behind both headers")
        if self.keyslot_cipher not in KEYSLOT_CIPHERS:
            raise _wrong(f"key-slots are encrypted by {' or '.join(KEYSLOT_CIPHERS)}")
        sizes = KEYSLOT_CIPHERS[self.keyslot_cipher]
        if self.keyslot_key_bytes not in sizes:
            raise _wrong(
                f"a key-slot's {self.keyslot_cipher} has a key of {' or '.join(map(str, sizes))}"
                " bytes"
            )
        if bool(self.cipher) != bool(self.key_bytes):
            raise _wrong("a cipher and the size of its key are named together")
        if self.cipher and self.integrity != "none":
            raise _wrong("with integrity the cipher follows from it")
        if self.data_bytes % self.sector_bytes:
            raise _wrong("the size of the data is no multiple of the sector size")

    @property
    def encryption(self) -> str:
        """The segment's cipher, as cryptsetup writes it."""
        return self.cipher or _CIPHERS[self.integrity][0]

    @property
    def integrity_kind(self) -> str:
        """The segment's integrity, as cryptsetup writes it; "" for none."""
        return _CIPHERS[self.integrity][1]

    @property
    def volume_key_bytes(self) -> int:
        """Size of the volume key in bytes."""
        return self.key_bytes or _CIPHERS[self.integrity][2]

    @property
    def text(self) -> str:
        """The profile's name in the derivation of keys, such as "luks2/hmac/4096"."""
        return f"luks2/{self.integrity}/{self.sector_bytes}"


def is_uuid(text: str) -> bool:
    """Whether ``text`` is a UUID as it is written everywhere here: 8-4-4-4-12, lower case."""
    parts = text.split("-")
    return [len(part) for part in parts] == [8, 4, 4, 4, 12] and set("".join(parts)) <= _HEX


def _wrong(message: str) -> FormatError:
    return FormatError("volume-profile", message)
