# SPDX-License-Identifier: Apache-2.0
"""Fuzz entry: ID block, ID authentication and the IGVM form; what decodes must encode the same."""

from troth.abi import id_block
from troth.errors import FormatError

AUTH = id_block.IdAuth(
    id_block.Point(5, 6), id_block.Signature(1, 2), id_block.Point(7, 8), id_block.Signature(3, 4)
)
BLOCK = id_block.IdBlock(bytes(range(48)), 0x30000, 7, b"f" * 16, b"i" * 16)
SEEDS = [
    id_block.encode_block(BLOCK),
    id_block.encode_auth(AUTH),
    id_block.encode_igvm(id_block.IgvmIdBlock(1, BLOCK, AUTH)),
    id_block.encode_auth(id_block.IdAuth(id_block.Point(5, 6), id_block.Signature(1, 2))),
]


def fuzz(data: bytes) -> None:
    for size_bytes in (96, 512, 1028, 4096, 696):
        _one(data[:size_bytes].ljust(size_bytes, b"\0"))
    _one(data)


def _one(data: bytes) -> None:
    """Each decoder over ``data``; encoding gives it back, but for the unused author algorithm."""
    _round(data, id_block.decode_block, id_block.encode_block, ())
    _round(data, id_block.decode_key, id_block.encode_key, ())
    _round(data, id_block.decode_signature, id_block.encode_signature, ())
    _round(data, id_block.decode_auth, id_block.encode_auth, (4,))
    _round(data, lambda body: id_block.decode_igvm(body, policy=0), id_block.encode_igvm, (100,))
    try:
        id_block.igvm_claims(data, policy=0)
    except FormatError:
        return


def _round(data, decode, encode, free):
    try:
        value = decode(data)
    except FormatError:
        return
    again = encode(value)
    for at in free:
        again = again[:at] + data[at : at + 1] + again[at + 1 :]
    if again != data:
        raise ValueError("a value that was decoded encodes otherwise")
