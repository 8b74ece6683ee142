# SPDX-License-Identifier: Apache-2.0
"""The record of a headerless volume: what it is, which generation, under a MAC.

Two slots of 4096 bytes at the beginning of the disk; ``slot`` says which one a
generation takes, so that writing a new record never destroys the committed one.
Everything fits one 512-byte sector, which a disk writes whole; the rest is zero
and under the MAC too. Serves guests that open volumes and the host's ``volume``
verbs. Must never be asked for a field before ``check`` has passed: the host
wrote these bytes.

Source: SECURITY S9; ``docs/formats.md``, "Volume record".
"""

from __future__ import annotations

from struct import Struct

from troth.abi import keyed_digest
from troth.errors import FormatError
from troth.record import record

RECORD_BYTES = 4096
SLOTS = 2
HEAD_BYTES = SLOTS * RECORD_BYTES
#: Where the data, or the superblock of dm-integrity before it, begins.
DATA_OFFSET_BYTES = 1 << 20
KEY_BYTES = 32
NONCE_BYTES = 32

_MAGIC = b"TROTHVOL"
_VERSION = 1
# magic, version, guest SVN, uuid, profile, generation, data sectors, TCB, nonce.
_FIELDS = Struct("<8sII16s64sQQQ32s")
_MAC_OFFSET = 480
_MAC_BYTES = 32
_ZERO_MAC = bytes(_MAC_BYTES)


@record
class VolumeRecord:
    """``uuid``: 16 bytes; ``profile``: its parameters as text; ``generation``: from 1;
    ``data_sectors``: 512-byte sectors of the readable volume; ``tcb``, ``guest_svn``: what
    a derived key was made with, 0 else; ``nonce``: 32 random bytes, so no two are alike.
    """  # noqa: D205 - the fields are the summary

    uuid: bytes
    profile: str
    generation: int
    data_sectors: int
    tcb: int
    guest_svn: int
    nonce: bytes


def slot(generation: int) -> int:
    """Which slot the record of ``generation`` is written to."""
    return generation % SLOTS


def pack(value: VolumeRecord, key: bytes) -> bytes:
    """The 4096 bytes of ``value`` under ``key`` (role "record" of the volume's keys)."""
    head = _FIELDS.pack(
        _MAGIC,
        _VERSION,
        value.guest_svn,
        value.uuid,
        value.profile.encode("ascii"),
        value.generation,
        value.data_sectors,
        value.tcb,
        value.nonce,
    )
    body = bytearray(RECORD_BYTES)
    body[: len(head)] = head
    body[_MAC_OFFSET : _MAC_OFFSET + _MAC_BYTES] = keyed_digest.digest(key, bytes(body))
    return bytes(body)


def is_blank(data: bytes) -> bool:
    """Whether a slot holds nothing at all."""
    return not any(data)


def claims(data: bytes) -> bytes:
    """The volume id that a slot shows, unproved; b"" where it is no record. For wording only."""
    if len(data) != RECORD_BYTES or not data.startswith(_MAGIC):
        return b""
    return bytes(_FIELDS.unpack_from(data)[3])


def claimed_level(head: bytes) -> tuple[int, int] | None:
    """(TCB, guest SVN) that the first slot of ``head`` with a record shows, unproved.

    They choose the key that the record is then checked with: a lie gives another key.
    """
    for at in range(0, HEAD_BYTES, RECORD_BYTES):
        data = head[at : at + RECORD_BYTES]
        if claims(data):
            fields = _FIELDS.unpack_from(data)
            return int(fields[7]), int(fields[2])
    return None


def check(data: bytes, key: bytes) -> VolumeRecord:
    """The record in ``data``, whose MAC under ``key`` holds.

    Raises ``FormatError``: ``record-size``, ``record-mac``, ``record-form`` (made with
    the key, but not as this version makes them).
    """
    if len(data) != RECORD_BYTES:
        raise FormatError("record-size", f"a record has {RECORD_BYTES} bytes, not {len(data)}")
    found = data[_MAC_OFFSET : _MAC_OFFSET + _MAC_BYTES]
    body = data[:_MAC_OFFSET] + _ZERO_MAC + data[_MAC_OFFSET + _MAC_BYTES :]
    if not keyed_digest.equal(keyed_digest.digest(key, body), found):
        raise FormatError("record-mac", "the record was not made with this volume's key")
    return shown(data)


def shown(data: bytes) -> VolumeRecord:
    """What the record in ``data`` shows, unproved: for words to people, else only by ``check``.

    Raises ``FormatError``: ``record-form``.
    """
    if len(data) != RECORD_BYTES:
        raise FormatError("record-form", f"a record has {RECORD_BYTES} bytes, not {len(data)}")
    magic, version, svn, uuid, profile, generation, sectors, tcb, nonce = _FIELDS.unpack_from(data)
    text = profile.rstrip(b"\0")
    if (magic, version) != (_MAGIC, _VERSION) or not text.isascii() or b"\0" in text:
        raise FormatError("record-form", "a record of another version or form")
    if any(data[_FIELDS.size : _MAC_OFFSET]) or any(data[_MAC_OFFSET + _MAC_BYTES :]):
        raise FormatError("record-form", "a record with bytes where none belong")
    if not generation or not sectors:
        raise FormatError("record-form", "a record without generation or size")
    return VolumeRecord(
        uuid=uuid,
        profile=text.decode("ascii"),
        generation=generation,
        data_sectors=sectors,
        tcb=tcb,
        guest_svn=svn,
        nonce=nonce,
    )
