# SPDX-License-Identifier: Apache-2.0
"""The ID block of an SNP launch, what proves its origin, and both as IGVM carries them.

Serves those who sign an image and those who look into one. An ID block names
the launch digest and the guest policy its owner meant; the secure processor
refuses another launch with it, and puts digests of the keys into reports. It
is public: it proves who made an image, never which instance runs. Must never
say that a signature is right: it holds numbers, ``troth.image.id_block``
verifies them.

Sources: SEV Secure Nested Paging Firmware ABI Specification (AMD 56860),
SNP_LAUNCH_FINISH, "ID Block" and "ID Authentication Information", and chapter
10, formats of the ECDSA P-384 key and signature; for IGVM the structure
IGVM_VHS_SNP_ID_BLOCK of igvm_defs.
"""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING

from troth.errors import FormatError
from troth.record import record

if TYPE_CHECKING:
    from collections.abc import Iterable

BLOCK_BYTES = 96
AUTH_BYTES = 4096
KEY_BYTES = 1028
SIGNATURE_BYTES = 512
IGVM_BODY_BYTES = 696

DIGEST_BYTES = 48
ID_BYTES = 16
VERSION = 1
ECDSA_P384_SHA384 = 1
CURVE_P384 = 2

_NUMBER_BYTES = 48
_FIELD_BYTES = 72
_BLOCK = struct.Struct("<48s16s16sIIQ")
_AUTH = struct.Struct(f"<II56s{SIGNATURE_BYTES}s{KEY_BYTES}s60s{SIGNATURE_BYTES}s{KEY_BYTES}s892s")
_KEY = struct.Struct("<I72s72s880s")
_SIGNATURE = struct.Struct("<72s72s368s")
_IGVM = struct.Struct("<IB3s48s16s16sIIII144s152s144s152s")
_IGVM_KEY = struct.Struct("<II72s72s")


@record
class IdBlock:
    """What the image's owner meant to be launched.

    ``launch_digest``: 48 bytes; ``policy``: the guest policy as a number;
    ``guest_svn``: security version, 32 bits; ``family_id``, ``image_id``: 16
    bytes each, the owner's to choose. Values that do not fit are
    ``FormatError`` ``id-block-value``.
    """

    launch_digest: bytes
    policy: int
    guest_svn: int = 0
    family_id: bytes = bytes(ID_BYTES)
    image_id: bytes = bytes(ID_BYTES)

    def __post_init__(self) -> None:
        _check_size("launch digest", self.launch_digest, DIGEST_BYTES)
        _check_size("family id", self.family_id, ID_BYTES)
        _check_size("image id", self.image_id, ID_BYTES)
        if not 0 <= self.guest_svn < 1 << 32:
            raise FormatError("id-block-value", f"the guest SVN {self.guest_svn} has not 32 bits")
        if not 0 <= self.policy < 1 << 64:
            raise FormatError("id-block-value", f"the policy {self.policy:#x} has not 64 bits")


@record
class Point:
    """A public key: the point (``x``, ``y``), each of at most 48 bytes, not both zero."""

    x: int
    y: int

    def __post_init__(self) -> None:
        if not (_fits(self.x) and _fits(self.y) and (self.x or self.y)):
            raise FormatError("id-block-key", "coordinates that no P-384 key has")


@record
class Signature:
    """A signature (``r``, ``s``), each of 1 to 48 bytes and not zero."""

    r: int
    s: int

    def __post_init__(self) -> None:
        if not (_fits(self.r) and _fits(self.s) and self.r and self.s):
            raise FormatError("id-block-signature-value", "numbers that no P-384 signature has")


@record
class IdAuth:
    """Who made the block: the ID key and, where it vouches for that one, the author key.

    ``block_signature``: the ID key's over the 96-byte block; ``key_signature``:
    the author key's over the ID key's 1028 bytes. The last two are both None
    where there is no author key.
    """

    id_key: Point
    block_signature: Signature
    author_key: Point | None = None
    key_signature: Signature | None = None

    def __post_init__(self) -> None:
        if (self.author_key is None) != (self.key_signature is None):
            raise FormatError("id-block-author", "author key and its signature go together")


@record
class IgvmIdBlock:
    """An IGVM file's ID block: ``mask`` names its platforms, the policy is the file's own."""

    mask: int
    block: IdBlock
    auth: IdAuth


def encode_block(block: IdBlock) -> bytes:
    """The 96 bytes of ``block``, which the ID key signs."""
    return _BLOCK.pack(
        block.launch_digest, block.family_id, block.image_id,
        VERSION, block.guest_svn, block.policy,
    )  # fmt: skip


def decode_block(data: bytes, *, where: str = "") -> IdBlock:
    """The block in the 96 bytes ``data``. Raises ``FormatError``: ``id-block-size``, ``-version``.

    The policy is as it stands; ``troth.abi.snp_policy`` says whether it can be.
    """
    _check_bytes(data, BLOCK_BYTES, where=where)
    digest, family_id, image_id, version, guest_svn, policy = _BLOCK.unpack(data)
    _check_version(version, where=where)
    return IdBlock(digest, policy, guest_svn, family_id, image_id)


def encode_key(key: Point) -> bytes:
    """The 1028 bytes of ``key`` as the firmware reads, hashes and has them signed."""
    return _KEY.pack(CURVE_P384, _number(key.x), _number(key.y), bytes(880))


def decode_key(data: bytes, *, where: str = "") -> Point:
    """The key in the 1028 bytes ``data``.

    Raises ``FormatError``: ``id-block-size``, ``id-block-curve``,
    ``id-block-reserved``, ``id-block-key``.
    """
    _check_bytes(data, KEY_BYTES, where=where)
    curve, x, y, reserved = _KEY.unpack(data)
    return _point(curve, x, y, (reserved,), where=where)


def key_digest(key: Point) -> bytes:
    """What ID_KEY_DIGEST and AUTHOR_KEY_DIGEST of a report hold for ``key``: 48 bytes."""
    return hashlib.sha384(encode_key(key)).digest()


def encode_signature(signature: Signature) -> bytes:
    """The 512 bytes of ``signature``."""
    return _SIGNATURE.pack(_number(signature.r), _number(signature.s), bytes(368))


def decode_signature(data: bytes, *, where: str = "") -> Signature:
    """The signature in the 512 bytes ``data``.

    Raises ``FormatError``: ``id-block-size``, ``id-block-reserved``,
    ``id-block-signature-value``.
    """
    _check_bytes(data, SIGNATURE_BYTES, where=where)
    r, s, reserved = _SIGNATURE.unpack(data)
    _check_zero((reserved,), where=where)
    return _signature(r, s, where=where)


def encode_auth(auth: IdAuth) -> bytes:
    """The 4096 bytes of ``auth``; without author key all of its fields are zero."""
    author = b"" if auth.author_key is None else encode_key(auth.author_key)
    vouched = b"" if auth.key_signature is None else encode_signature(auth.key_signature)
    return _AUTH.pack(
        ECDSA_P384_SHA384, ECDSA_P384_SHA384 if author else 0, b"",
        encode_signature(auth.block_signature), encode_key(auth.id_key), b"",
        vouched, author, b"",
    )  # fmt: skip


def decode_auth(data: bytes, *, where: str = "") -> IdAuth:
    """The ID authentication in the 4096 bytes ``data``; nothing is verified.

    Raises ``FormatError``: ``id-block-size``, ``id-block-algorithm``,
    ``id-block-reserved``, ``id-block-author`` where one of author key and its
    signature is missing, and those of ``decode_key`` and ``decode_signature``.
    """
    _check_bytes(data, AUTH_BYTES, where=where)
    (
        id_algorithm, author_algorithm, reserved_1, block_signature, id_key, reserved_2,
        key_signature, author_key, reserved_3,
    ) = _AUTH.unpack(data)  # fmt: skip
    _check_zero((reserved_1, reserved_2, reserved_3), where=where)
    has_author = _has_author(author_key, key_signature, where=where)
    _check_algorithms(id_algorithm, author_algorithm, has_author=has_author, where=where)
    return IdAuth(
        decode_key(id_key, where=where),
        decode_signature(block_signature, where=where),
        decode_key(author_key, where=where) if has_author else None,
        decode_signature(key_signature, where=where) if has_author else None,
    )


def encode_igvm(value: IgvmIdBlock) -> bytes:
    """The 696 bytes of an IGVM SNP_ID_BLOCK header's body. The policy is not in them."""
    block, auth = value.block, value.auth
    author = b"" if auth.author_key is None else _igvm_key(auth.author_key)
    vouched = b"" if auth.key_signature is None else encode_signature(auth.key_signature)[:144]
    return _IGVM.pack(
        value.mask, 1 if author else 0, b"",
        block.launch_digest, block.family_id, block.image_id, VERSION, block.guest_svn,
        ECDSA_P384_SHA384, ECDSA_P384_SHA384 if author else 0,
        encode_signature(auth.block_signature)[:144], _igvm_key(auth.id_key), vouched, author,
    )  # fmt: skip


def decode_igvm(body: bytes, *, policy: int, where: str = "") -> IgvmIdBlock:
    """The ID block in the 696 bytes ``body``; ``policy``: the file's GUEST_POLICY.

    Raises ``FormatError`` as ``decode_block`` and ``decode_auth`` do;
    ``id-block-author`` also where author_key_enabled contradicts the key:
    QEMU goes by the key, other loaders by the flag.
    """
    fields = _igvm_fields(body, where=where)
    mask, enabled, reserved, digest, family_id, image_id, version, guest_svn = fields[:8]
    id_algorithm, author_algorithm, block_signature, id_key, key_signature, author_key = fields[8:]
    _check_version(version, where=where)
    _check_zero((reserved,), where=where)
    has_author = _has_author(author_key, key_signature, where=where)
    if enabled != has_author:
        raise FormatError(
            "id-block-author",
            f"author_key_enabled is {enabled}, and the author key is "
            f"{'there' if has_author else 'zero'}",
            where=where,
        )
    _check_algorithms(id_algorithm, author_algorithm, has_author=has_author, where=where)
    auth = IdAuth(
        _igvm_point(id_key, where=where),
        _signature(block_signature[:72], block_signature[72:], where=where),
        _igvm_point(author_key, where=where) if has_author else None,
        _signature(key_signature[:72], key_signature[72:], where=where) if has_author else None,
    )
    return IgvmIdBlock(mask, IdBlock(digest, policy, guest_svn, family_id, image_id), auth)


def igvm_claims(body: bytes, *, policy: int, where: str = "") -> IdBlock:
    """The block alone in the 696 bytes ``body``, whatever its keys and signatures are.

    For a block that is about to be replaced. Raises ``FormatError``
    ``id-block-size``, ``id-block-version``.
    """
    _mask, _enabled, _reserved, digest, family_id, image_id, version, guest_svn, *_rest = (
        _igvm_fields(body, where=where)
    )
    _check_version(version, where=where)
    return IdBlock(digest, policy, guest_svn, family_id, image_id)


def _igvm_fields(
    body: bytes, *, where: str
) -> tuple[int, int, bytes, bytes, bytes, bytes, int, int, int, int, bytes, bytes, bytes, bytes]:
    _check_bytes(body, IGVM_BODY_BYTES, where=where)
    return _IGVM.unpack(body)


def _igvm_key(key: Point) -> bytes:
    # IGVM has four bytes behind the curve that the firmware's structure has not.
    return _IGVM_KEY.pack(CURVE_P384, 0, _number(key.x), _number(key.y))


def _igvm_point(data: bytes, *, where: str) -> Point:
    curve, reserved, x, y = _IGVM_KEY.unpack(data)
    return _point(curve, x, y, (reserved.to_bytes(4, "little"),), where=where)


def _point(curve: int, x: bytes, y: bytes, reserved: Iterable[bytes], *, where: str) -> Point:
    if curve != CURVE_P384:
        raise FormatError(
            "id-block-curve", f"a key on curve {curve}, where P-384 is {CURVE_P384}", where=where
        )
    _check_zero((*reserved, x[_NUMBER_BYTES:], y[_NUMBER_BYTES:]), where=where)
    numbers = int.from_bytes(x, "little"), int.from_bytes(y, "little")
    if numbers == (0, 0):
        raise FormatError("id-block-key", "the public key is zero", where=where)
    return Point(*numbers)


def _signature(r: bytes, s: bytes, *, where: str) -> Signature:
    _check_zero((r[_NUMBER_BYTES:], s[_NUMBER_BYTES:]), where=where)
    numbers = int.from_bytes(r, "little"), int.from_bytes(s, "little")
    if 0 in numbers:
        raise FormatError("id-block-signature-value", "r or s is zero", where=where)
    return Signature(*numbers)


def _number(value: int) -> bytes:
    return value.to_bytes(_FIELD_BYTES, "little")


def _fits(value: int) -> bool:
    return 0 <= value < 1 << 8 * _NUMBER_BYTES


def _has_author(key: bytes, signature: bytes, *, where: str) -> bool:
    has_key, has_signature = any(key), any(signature)
    if has_key != has_signature:
        missing = "its signature" if has_key else "the key"
        raise FormatError(
            "id-block-author", f"the author key's fields are half filled: no {missing}", where=where
        )
    return has_key


def _check_algorithms(
    id_algorithm: int, author_algorithm: int, *, has_author: bool, where: str
) -> None:
    # Without an author key peers write zero or one there, and nobody reads it.
    allowed = (ECDSA_P384_SHA384,) if has_author else (0, ECDSA_P384_SHA384)
    if id_algorithm != ECDSA_P384_SHA384 or author_algorithm not in allowed:
        raise FormatError(
            "id-block-algorithm",
            f"key algorithms {id_algorithm} and {author_algorithm}: "
            f"ECDSA P-384 is {ECDSA_P384_SHA384}",
            where=where,
        )


def _check_version(version: int, *, where: str) -> None:
    if version != VERSION:
        raise FormatError("id-block-version", f"version {version} is not known", where=where)


def _check_zero(parts: Iterable[bytes], *, where: str) -> None:
    if any(any(part) for part in parts):
        raise FormatError("id-block-reserved", "bytes that must be zero are not", where=where)


def _check_bytes(data: bytes, size_bytes: int, *, where: str) -> None:
    if len(data) != size_bytes:
        raise FormatError(
            "id-block-size", f"{len(data)} bytes, where {size_bytes} must be", where=where
        )


def _check_size(what: str, value: bytes, size_bytes: int) -> None:
    if len(value) != size_bytes:
        raise FormatError("id-block-value", f"the {what} has {len(value)} bytes, not {size_bytes}")
