# SPDX-License-Identifier: Apache-2.0
"""dm-crypt, over dm-integrity where data is authenticated: tables from constants alone.

Serves the key worker. Nothing that a disk says reaches a table but sizes, and
those only after they were compared. The ciphers are written down here, so no
header can name another, ``cipher_null`` least of all. After a table is loaded it
is read back and compared with what was asked for. Must never put a key into a
table, and never leave half a stack behind.

Source: Documentation/admin-guide/device-mapper/{dm-crypt,dm-integrity}.rst.
"""

from __future__ import annotations

import os

from troth.abi import dm, integrity_sb
from troth.abi.integrity_sb import AREA_BYTES
from troth.documents.policy_keys import AES_GCM, HMAC, SECTOR_BYTES, UNAUTHENTICATED
from troth.errors import FormatError
from troth.linux.keyring import logon_key
from troth.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.linux.block import Disk
    from troth.linux.dm import Control, Map

#: How dm-integrity writes: through its journal, or directly, for what no reboot needs.
JOURNALED, DIRECT = "J", "D"
_PREFIX = "troth:"


@record
class Cipher:
    """``text``: as dm-crypt names it; ``key_bytes``; ``tag_bytes``: stored beside each sector."""

    text: str
    key_bytes: int
    tag_bytes: int


CIPHERS = {
    HMAC: Cipher("capi:authenc(hmac(sha256),xts(aes))-plain64", 96, 32),
    AES_GCM: Cipher("capi:gcm(aes)-random", 32, 28),
    UNAUTHENTICATED: Cipher("aes-xts-plain64", 64, 0),
}


@record
class Place:
    """Where a volume lies and what it is made of.

    ``name``: of the readable map; ``uuid``: the volume's id as 32 hex digits;
    ``disk``: what it lies on; ``offset_sectors``: of 512 bytes, where data, or the
    superblock of dm-integrity, begins; ``integrity``: a word of ``policy_keys``;
    ``sector_bytes``: of encryption; ``mode``: of dm-integrity; ``readonly``.
    """

    name: str
    uuid: str
    disk: Disk
    offset_sectors: int
    integrity: str
    mode: str = JOURNALED
    sector_bytes: int = SECTOR_BYTES
    readonly: bool = False

    @property
    def cipher(self) -> Cipher:
        """What encrypts it."""
        return CIPHERS[self.integrity]


def plain_sectors(place: Place) -> int:
    """Sectors of data on an unauthenticated volume; 0 where the disk is too small."""
    per_block = place.sector_bytes // dm.SECTOR_BYTES
    return max(0, place.disk.sectors - place.offset_sectors) // per_block * per_block


def make_integrity(control: Control, place: Place) -> int:
    """Have the kernel write a new superblock; the sectors of data that it then offers.

    What was on the disk behind it is lost. ``OSError``, ``FormatError``
    ``integrity-superblock``.
    """
    fd = os.open(place.disk.node, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.pwrite(fd, bytes(AREA_BYTES), place.offset_sectors * dm.SECTOR_BYTES)
        os.fsync(fd)
    finally:
        os.close(fd)
    # A zeroed area is formatted when a table of any size is loaded over it.
    block = place.sector_bytes // dm.SECTOR_BYTES
    made = control.create(
        f"{place.name}-new", uuid="", targets=(_integrity(place, sectors=block),), readonly=False
    )
    control.remove(made.name)
    return provided_sectors(place)


def provided_sectors(place: Place) -> int:
    """What the superblock on the disk offers, once it is one of ours; ``FormatError`` else."""
    fd = os.open(place.disk.node, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.pread(fd, AREA_BYTES, place.offset_sectors * dm.SECTOR_BYTES)
    finally:
        os.close(fd)
    found = integrity_sb.parse(data)
    if (found.tag_bytes, found.block_bytes) != (place.cipher.tag_bytes, place.sector_bytes):
        raise FormatError(
            "integrity-superblock",
            f"tags of {found.tag_bytes} bytes for {found.block_bytes}, not of"
            f" {place.cipher.tag_bytes} for {place.sector_bytes}",
        )
    if found.provided_sectors > place.disk.sectors - place.offset_sectors:
        raise FormatError("integrity-superblock", "it offers more than the disk has")
    return found.provided_sectors


def open_(control: Control, place: Place, *, sectors: int, key: bytes) -> Map:
    """The readable map of ``sectors``, below it dm-integrity where the volume has tags.

    Raises ``OSError`` of the kernel, ``FormatError`` ``volume-map`` where what was
    made is not what was asked for.
    """
    cipher = place.cipher
    if len(key) != cipher.key_bytes:
        raise FormatError("volume-map", f"a key of {len(key)} bytes for {cipher.text}")
    below = None
    number, offset = place.disk.number, place.offset_sectors
    if cipher.tag_bytes:
        target = _integrity(place, sectors=sectors)
        below = control.create(
            f"{place.name}-dif",
            uuid=f"CRYPT-INTEGRITY-{place.uuid}-{place.name}_dif",
            targets=(target,),
            readonly=place.readonly,
        )
    try:
        if below is not None:
            number, offset = control.number(below), 0
        return _crypt(control, place, sectors=sectors, key=key, below=number, offset=offset)
    except (OSError, FormatError):
        if below is not None:
            control.remove(below.name)
        raise


def close(control: Control, place: Place) -> None:
    """Take both maps away again."""
    control.remove(place.name)
    if place.cipher.tag_bytes:
        control.remove(f"{place.name}-dif")


def _integrity(place: Place, *, sectors: int) -> dm.Target:
    words = (
        place.disk.number,
        str(place.offset_sectors),
        str(place.cipher.tag_bytes),
        place.mode,
        "2",
        f"block_size:{place.sector_bytes}",
        "fix_padding",
    )
    return dm.Target(0, sectors, "integrity", " ".join(words))


def _crypt(
    control: Control, place: Place, *, sectors: int, key: bytes, below: str, offset: int
) -> Map:
    cipher = place.cipher
    # In the order in which the kernel gives them back.
    options = [f"integrity:{cipher.tag_bytes}:aead"] if cipher.tag_bytes else []
    if place.sector_bytes != dm.SECTOR_BYTES:
        options.append(f"sector_size:{place.sector_bytes}")
    tail = [str(len(options)), *options] if options else []
    uuid = f"CRYPT-TROTH-{place.uuid}-{place.name}"
    with logon_key(f"{_PREFIX}{place.name}", key) as words:
        text = " ".join((cipher.text, words, "0", below, str(offset), *tail))
        target = dm.Target(0, sectors, "crypt", text)
        made = control.create(place.name, uuid=uuid, targets=(target,), readonly=place.readonly)
    try:
        _compare(control, place.name, target)
    except (OSError, FormatError):
        control.remove(place.name)
        raise
    return made


def _compare(control: Control, name: str, asked: dm.Target) -> None:
    found = control.table(name)
    if found != (asked,):
        shown = found[0].text if found else "nothing"
        raise FormatError("volume-map", f"the kernel made {shown!r}, asked was {asked.text!r}")
