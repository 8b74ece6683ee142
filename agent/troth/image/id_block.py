# SPDX-License-Identifier: Apache-2.0
"""ID blocks made, signed here or elsewhere, verified, and put into IGVM files.

Serves ``troth measure id-block`` and ``troth igvm sign``. A signature made
elsewhere (an HSM, another machine) is verified before it goes into anything,
and so is one made here: what leaves this module verifies. An ID block is
public and may be replayed by whoever has seen it; it must never be taken for
proof of one instance.

Source: SEV Secure Nested Paging Firmware ABI Specification (AMD 56860),
SNP_LAUNCH_FINISH, "ID Block" and "ID Authentication Information"; for IGVM
igvm_defs, and what QEMU's ``backends/igvm.c`` does with an ID block.
"""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING

from troth.abi import id_block
from troth.abi.id_block import IdAuth, IgvmIdBlock, Point, Signature
from troth.abi.igvm import headers as h
from troth.abi.igvm.write import write
from troth.errors import FormatError, UsageError
from troth.record import record
from troth.signing import keys
from troth.signing.keys import PrivateKey

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from troth.abi.id_block import IdBlock
    from troth.abi.igvm.file import IgvmFile
    from troth.signing.keys import PublicKey


@record
class Signer:
    """A key with, where it signed elsewhere, its signature.

    ``key``: private, or public together with ``signature`` (DER). ``where``
    and ``signature_where`` name the files in errors.
    """

    key: PrivateKey | PublicKey
    signature: bytes | None = None
    where: str = ""
    signature_where: str = ""


def point(key: PrivateKey | PublicKey, *, where: str = "") -> Point:
    """The public half of ``key`` for the firmware's structures.

    Raises ``FormatError`` ``key-algorithm`` for a key that is not P-384.
    """
    public = keys.public_half(key)
    if public.algorithm != keys.P384:
        raise FormatError(
            "key-algorithm", "an Ed25519 key: ID and author keys are P-384 keys", where=where
        )
    return Point(*public.coordinates)


def to_sign(block: IdBlock, id_key: PrivateKey | PublicKey) -> tuple[bytes, bytes]:
    """What the ID key signs (96 bytes) and what an author key signs (1028 bytes)."""
    return id_block.encode_block(block), id_block.encode_key(point(id_key))


def authenticate(block: IdBlock, id_signer: Signer, author: Signer | None = None) -> IdAuth:
    """The ID authentication of ``block``, with the signatures given or made here.

    Raises ``UsageError`` ``id-block-unsigned`` where a public key comes
    without signature; ``FormatError`` ``id-block-signature`` where a signature
    is not that key's over these bytes; ``key-algorithm``, ``signature-format``.
    """
    id_point = point(id_signer.key, where=id_signer.where)
    author_point = None if author is None else point(author.key, where=author.where)
    block_bytes, key_bytes = to_sign(block, id_signer.key)
    return IdAuth(
        id_point,
        _signature(id_signer, block_bytes, what="the ID block"),
        author_point,
        None if author is None else _signature(author, key_bytes, what="the ID key"),
    )


def verify(block: IdBlock, auth: IdAuth, *, where: str = "") -> None:
    """Check both signatures, of the ID key and, where there is one, of the author key.

    Raises ``FormatError`` ``key-point``, ``signature-format``, ``id-block-signature``.
    """
    _verify(auth.id_key, auth.block_signature, _block_part(block), where=where)
    if auth.author_key is not None and auth.key_signature is not None:
        _verify(auth.author_key, auth.key_signature, _key_part(auth), where=where)


def id_obstacle(block: IdBlock, auth: IdAuth) -> str:
    """Why the ID key's signature over ``block`` is not valid; empty where it is."""
    return _obstacle(auth.id_key, auth.block_signature, _block_part(block))


def author_obstacle(auth: IdAuth) -> str:
    """Why the author key's signature over the ID key is not valid; empty where it is or is none."""
    if auth.author_key is None or auth.key_signature is None:
        return ""
    return _obstacle(auth.author_key, auth.key_signature, _key_part(auth))


def qemu_options(block: IdBlock, auth: IdAuth) -> str:
    """What ``-object sev-snp-guest`` takes besides ``policy``, joined by commas."""
    block_text = b64encode(id_block.encode_block(block)).decode()
    auth_text = b64encode(id_block.encode_auth(auth)).decode()
    enabled = "off" if auth.author_key is None else "on"
    return f"id-block={block_text},id-auth={auth_text},author-key-enabled={enabled}"


@record
class Carried:
    """What an IGVM file says of its SNP launch besides the pages.

    ``mask``: the SNP platform's; ``policy``: its GUEST_POLICY as a number, or
    None; ``block``: what its ID block claims, whoever signed it, or None.
    """

    mask: int
    policy: int | None
    block: IdBlock | None


def carried(file: IgvmFile) -> Carried:
    """What ``file`` says of its SNP launch.

    Raises ``FormatError`` ``id-block-platform`` where it is not for SNP, and
    those of an ID block that cannot be read.
    """
    platform = file.platform(h.SEV_SNP)
    if platform is None:
        raise FormatError(
            "id-block-platform",
            "only an SNP launch has an ID block, and this file is for other platforms",
            where=file.where,
        )
    mask = platform.compatibility_mask
    policy, body = None, None
    for header in file.batches():
        if isinstance(header, h.GuestPolicy) and header.compatibility_mask & mask:
            policy = header.policy
        if isinstance(header, h.SnpIdBlock) and header.compatibility_mask & mask:
            body = header.body
    block = None
    if body is not None:
        block = id_block.igvm_claims(body, policy=policy or 0, where=file.where)
    return Carried(mask, policy, block)


def put(file: IgvmFile, block: IdBlock, auth: IdAuth, *, stream: BinaryIO) -> int:
    """Write ``file`` with this ID block to ``stream``; return the size in bytes.

    The block comes last and is for SNP alone; one that was there for SNP goes.
    GUEST_POLICY becomes ``block.policy`` for SNP, because a launch whose policy
    is another fails. Everything else, format version and architecture too,
    says what it said; equal pages are stored once. Raises ``FormatError``
    ``id-block-platform``, and those of ``troth.abi.igvm.write``.
    """
    said = carried(file)
    body = id_block.encode_igvm(IgvmIdBlock(said.mask, block, auth))
    return _write(_Changed(file, said, policy=block.policy, block=h.SnpIdBlock(body)), stream)


def put_policy(file: IgvmFile, policy: int, *, stream: BinaryIO) -> int:
    """Write ``file`` with ``policy`` as GUEST_POLICY for SNP to ``stream``, as ``put`` does.

    Its ID block, which is for another policy, stays.
    """
    return _write(_Changed(file, carried(file), policy=policy, block=None), stream)


def verified(file: IgvmFile) -> IgvmIdBlock | None:
    """The ID block of ``file`` for SNP, read strictly and with its signatures verified.

    Nothing is measured: compare its launch digest with what was. Raises
    ``FormatError`` as ``carried``, ``verify`` and ``abi.id_block.decode_igvm`` do.
    """
    said = carried(file)
    for header in file.batches():
        if isinstance(header, h.SnpIdBlock) and header.compatibility_mask & said.mask:
            found = id_block.decode_igvm(header.body, policy=said.policy or 0, where=file.where)
            verify(found.block, found.auth, where=file.where)
            return found
    return None


class _Changed:
    """The headers of ``file`` with their data, with another policy and another ID block."""

    def __init__(
        self, file: IgvmFile, said: Carried, *, policy: int, block: h.SnpIdBlock | None
    ) -> None:
        self.file = file
        self._said = said
        self._policy = h.GuestPolicy(policy, said.mask)
        self._block = block

    def __iter__(self) -> Iterator[tuple[h.Header, bytes]]:
        mask = self._said.mask
        missing = self._said.policy is None
        for header in self.file.headers():
            if missing and not isinstance(header, h.SupportedPlatform):
                yield self._policy, b""
                missing = False
            if isinstance(header, h.SnpIdBlock) and header.compatibility_mask & mask:
                if self._block is not None:
                    continue
            elif (
                isinstance(header, h.GuestPolicy)
                and header.compatibility_mask & mask
                and header.policy != self._policy.policy
            ):
                # One header may be for several platforms: the others keep theirs.
                if others := header.compatibility_mask & ~mask:
                    yield h.GuestPolicy(header.policy, others), b""
                yield self._policy, b""
                continue
            yield header, self.file.data(header)
        if self._block is not None:
            yield self._block, b""


def _block_part(block: IdBlock) -> tuple[bytes, str]:
    """What the ID key signs, and its name."""
    return id_block.encode_block(block), "the ID block"


def _key_part(auth: IdAuth) -> tuple[bytes, str]:
    """What the author key signs, and its name."""
    return id_block.encode_key(auth.id_key), "the ID key"


def _verify(key: Point, signature: Signature, part: tuple[bytes, str], *, where: str) -> None:
    data, what = part
    public = keys.p384_public(key.x, key.y, where=where)
    der = keys.signature_der(signature.r, signature.s, where=where)
    if not public.verify(der, data):
        raise FormatError("id-block-signature", f"the signature over {what} is wrong", where=where)


def _obstacle(key: Point, signature: Signature, part: tuple[bytes, str]) -> str:
    try:
        _verify(key, signature, part, where="")
    except FormatError as error:
        return error.message
    return ""


def _write(changed: _Changed, stream: BinaryIO) -> int:
    file = changed.file
    return write(changed, version=file.version, architecture=file.architecture, stream=stream)


def _signature(signer: Signer, data: bytes, *, what: str) -> Signature:
    if signer.signature is not None:
        der = signer.signature
    elif isinstance(signer.key, PrivateKey):
        der = signer.key.sign(data)
    else:
        raise UsageError(
            "id-block-unsigned",
            f"a public key, and no signature of it over {what}",
            where=signer.where,
            hint="give the private key, or --detached to have the bytes to sign written",
        )
    numbers = keys.signature_numbers(der, where=signer.signature_where)
    if not keys.public_half(signer.key).verify(der, data):
        raise FormatError(
            "id-block-signature",
            f"not a signature of this key over {what} that is being made",
            where=signer.signature_where,
            hint="another key, another digest, or other values than when it was signed",
        )
    return Signature(*numbers)
