# SPDX-License-Identifier: Apache-2.0
"""ID blocks: the shared vectors, sevsnpmeasure as oracle, and every way to be wrong."""

import base64
import hashlib
import os
import struct
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz import id_block as fuzzed
from troth.abi import id_block as abi
from troth.abi.id_block import IdAuth, IdBlock, IgvmIdBlock, Point, Signature
from troth.errors import FormatError, UsageError
from troth.image import id_block
from troth.image.id_block import Signer
from troth.signing import keys

VECTORS = Path(
    os.environ.get("TROTH_VECTORS", Path(__file__).parents[3] / "shared/vectors")
).joinpath("measure/id-block")

#: From the vectors' README.
DIGEST = bytes.fromhex(
    "a14d638341e5674628fe1e02fbedebe5e5ab4faf1dd72d8966068e615bb99efd13d214b35c231715b38e263dc6059745"
)
BLOCK = (
    "oU1jg0HlZ0Yo/h4C++3r5eWrT68d1y2JZgaOYVu5nv0T0hSzXCMXFbOOJj3GBZdFAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    "AAAAAAAAAAABAAAAAAAAAAAAAwAAAAAA"
)
ID_KEY_DIGEST = "WfssaG36T+9J84M5qndckAUcKNVzg93DuvO160sUlt87DbvcuuX+J2d6ZEggdz/i"
AUTHOR_KEY_DIGEST = "7tgRafsMteDsNHlPEo/U4MSkb2fGWhrfqB/LJLzAiMJyNpt//D6ytq9qQoShs2xf"


def vector(name):
    if not VECTORS.exists():
        pytest.skip(f"no vectors at {VECTORS} (set TROTH_VECTORS)")
    return (VECTORS / name).read_bytes()


def secret(number):
    return ec.derive_private_key(number, ec.SECP384R1())


def pem(key):
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


ID_KEY = keys.load_private(pem(secret(1001)))
AUTHOR_KEY = keys.load_private(pem(secret(1002)))
MADE = IdBlock(DIGEST, 0xB0000, 7, b"family..........", b"image...........")


def refused(code, function, *arguments, kind=FormatError, **options):
    with pytest.raises(kind) as caught:
        function(*arguments, **options)
    assert caught.value.code == code
    return caught.value


def put(data, offset, change):
    return data[:offset] + change + data[offset + len(change) :]


# --- the vectors ----------------------------------------------------------------------------


@pytest.mark.vectors
def test_vectors():
    data = vector("test_auth_block.bin")
    auth = abi.decode_auth(data)
    block = IdBlock(DIGEST, 0x30000)
    assert abi.encode_block(block) == base64.b64decode(BLOCK)
    assert abi.decode_block(base64.b64decode(BLOCK)) == block
    id_block.verify(block, auth)
    assert base64.b64encode(abi.key_digest(auth.id_key)).decode() == ID_KEY_DIGEST
    assert base64.b64encode(abi.key_digest(auth.author_key)).decode() == AUTHOR_KEY_DIGEST
    assert abi.encode_auth(auth) == data
    assert abi.decode_signature(vector("test_id_sig.bin")) == auth.block_signature
    assert abi.decode_signature(vector("test_auth_sig.bin")) == auth.key_signature
    assert abi.encode_signature(auth.block_signature) == vector("test_id_sig.bin")
    id_key, author_key = (
        keys.load_private(vector(name)) for name in ("test_id_key.pem", "test_auth_key.pem")
    )
    assert id_block.point(id_key) == auth.id_key
    assert id_block.point(author_key) == auth.author_key
    ours = id_block.authenticate(block, Signer(id_key), Signer(author_key))
    id_block.verify(block, ours)
    # Theirs has random nonces: the keys are the same, the signatures are not.
    assert (ours.id_key, ours.author_key) == (auth.id_key, auth.author_key)
    for changed in (IdBlock(DIGEST, 0x20000), IdBlock(DIGEST, 0x30000, 1)):
        refused("id-block-signature", id_block.verify, changed, auth)


@pytest.mark.vectors
def test_the_block_of_an_igvm_file():
    """Made by igvm-tooling: its own block comes back, verifies, and has no author key."""
    data = vector("../igvm/tooling_bzimage_x64.igvm")
    offset, size = struct.unpack_from("<II", data, 8)
    bodies, at = {}, offset
    while at < offset + size:
        kind, length = struct.unpack_from("<II", data, at)
        bodies[kind] = data[at + 8 : at + 8 + length]
        at += 8 + -(-length // 8) * 8
    policy = struct.unpack_from("<Q", bodies[0x101])[0]
    found = abi.decode_igvm(bodies[0x30B], policy=policy)
    assert (found.mask, found.block.guest_svn, found.block.policy) == (1, 2, 0x3001F)
    assert found.block.family_id == b"\1" + bytes(15)
    assert found.auth.author_key is None
    assert abi.encode_igvm(found) == bodies[0x30B]
    assert abi.igvm_claims(bodies[0x30B], policy=policy) == found.block
    id_block.verify(found.block, found.auth)


# --- another implementation -----------------------------------------------------------------


def test_against_sev_snp_measure(tmp_path):
    peer = pytest.importorskip("sevsnpmeasure.id_block")
    paths = []
    for name, number in (("id", 1001), ("author", 1002)):
        paths.append(tmp_path / name)
        paths[-1].write_bytes(pem(secret(number)))
    said = peer.snp_calc_id_block(DIGEST, str(paths[0]), str(paths[1])).splitlines()
    theirs = dict(item.split("=", 1) for item in said[0].split(","))
    block = IdBlock(DIGEST, 0x30000)
    assert base64.b64decode(theirs["id-block"]) == abi.encode_block(block)
    auth = abi.decode_auth(base64.b64decode(theirs["id-auth"]))
    id_block.verify(block, auth)
    ours = id_block.authenticate(block, Signer(ID_KEY), Signer(AUTHOR_KEY))
    assert (ours.id_key, ours.author_key) == (auth.id_key, auth.author_key)
    assert said[1] == f"id_key_hash: {base64.b64encode(abi.key_digest(ours.id_key)).decode()}"
    assert said[2] == f"author_key: {base64.b64encode(abi.key_digest(ours.author_key)).decode()}"
    options = id_block.qemu_options(block, ours).split(",")
    assert options[0] == f"id-block={theirs['id-block']}"
    assert options[2:] == ["author-key-enabled=on"]
    # Their signatures in our structures are their structures.
    theirs_again = IdAuth(ours.id_key, auth.block_signature, ours.author_key, auth.key_signature)
    assert (
        id_block.qemu_options(block, theirs_again).split(",")[1] == f"id-auth={theirs['id-auth']}"
    )


# --- the layout, by hand --------------------------------------------------------------------


def test_layout():
    data = abi.encode_block(MADE)
    assert len(data) == 96
    assert data[:48] == DIGEST
    assert data[0x30:0x50] == b"family..........image..........."
    assert data[0x50:0x58] == b"\1\0\0\0\7\0\0\0"
    assert data[0x58:] == b"\0\0\x0b\0\0\0\0\0"
    auth = IdAuth(Point(3, 4), Signature(1, 2), Point(7, 8), Signature(5, 6))
    page = abi.encode_auth(auth)
    assert len(page) == 4096
    marks = {
        0x000: 1, 0x004: 1, 0x040: 1, 0x088: 2, 0x240: 2, 0x244: 3, 0x28C: 4,
        0x680: 5, 0x6C8: 6, 0x880: 2, 0x884: 7, 0x8CC: 8,
    }  # fmt: skip
    assert {at: byte for at, byte in enumerate(page) if byte} == marks
    body = abi.encode_igvm(IgvmIdBlock(0x10, MADE, auth))
    assert len(body) == 696
    assert body[:8] == b"\x10\0\0\0\1\0\0\0"
    assert body[8:96] == data[:0x58]
    marks = {
        96: 1, 100: 1, 104: 1, 176: 2, 248: 2, 256: 3, 328: 4,
        400: 5, 472: 6, 544: 2, 552: 7, 624: 8,
    }  # fmt: skip
    assert {at: byte for at, byte in enumerate(body) if byte and at >= 96} == marks
    digest = hashlib.sha384(b"\2\0\0\0\3".ljust(76, b"\0") + b"\4".ljust(952, b"\0")).digest()
    assert abi.key_digest(auth.id_key) == digest
    alone = IdAuth(Point(3, 4), Signature(1, 2))
    assert not any(abi.encode_auth(alone)[0x680:])
    assert abi.encode_auth(alone)[:8] == b"\1\0\0\0\0\0\0\0"
    assert abi.encode_igvm(IgvmIdBlock(1, MADE, alone))[4] == 0
    assert not any(abi.encode_igvm(IgvmIdBlock(1, MADE, alone))[400:])


AUTH = IdAuth(Point(3, 4), Signature(1, 2), Point(7, 8), Signature(5, 6))
PAGE = abi.encode_auth(AUTH)
ALONE = abi.encode_auth(IdAuth(Point(3, 4), Signature(1, 2)))


@pytest.mark.parametrize(
    ("offset", "change", "code"),
    [
        (0x000, b"\0", "id-block-algorithm"),
        (0x000, b"\2", "id-block-algorithm"),
        (0x004, b"\0", "id-block-algorithm"),
        (0x007, b"\1", "id-block-algorithm"),
        (0x008, b"\1", "id-block-reserved"),
        (0x03F, b"\1", "id-block-reserved"),
        (0x040, b"\0", "id-block-signature-value"),
        (0x088, b"\0", "id-block-signature-value"),
        (0x070, b"\1", "id-block-reserved"),  # byte 48 of r
        (0x0CF, b"\1", "id-block-reserved"),  # byte 71 of s
        (0x0D0, b"\1", "id-block-reserved"),
        (0x23F, b"\1", "id-block-reserved"),
        (0x240, b"\1", "id-block-curve"),
        (0x243, b"\1", "id-block-curve"),
        (0x244 + 48, b"\1", "id-block-reserved"),
        (0x28C + 71, b"\1", "id-block-reserved"),
        (0x2D4, b"\1", "id-block-reserved"),
        (0x643, b"\1", "id-block-reserved"),
        (0x644, b"\1", "id-block-reserved"),
        (0x67F, b"\1", "id-block-reserved"),
        (0x680, b"\0", "id-block-signature-value"),
        (0x680, bytes(512), "id-block-author"),
        (0x880, bytes(1028), "id-block-author"),
        (0x880, b"\3", "id-block-curve"),
        (0xC84, b"\1", "id-block-reserved"),
        (0xFFF, b"\1", "id-block-reserved"),
        (0x244, bytes(144), "id-block-key"),
    ],
)
def test_refused_authentications(offset, change, code):
    data = put(PAGE, offset, change)
    assert data != PAGE
    error = refused(code, abi.decode_auth, data, where="here")
    assert error.where == "here"


def test_author_algorithm_without_author_key():
    assert abi.decode_auth(put(ALONE, 4, b"\1")) == abi.decode_auth(ALONE)
    refused("id-block-algorithm", abi.decode_auth, put(ALONE, 4, b"\2"))
    refused("id-block-author", abi.decode_auth, put(ALONE, 0x680, b"\1"))
    refused("id-block-author", abi.decode_auth, put(ALONE, 0x880, b"\2"))


BODY = abi.encode_igvm(IgvmIdBlock(1, MADE, AUTH))


@pytest.mark.parametrize(
    ("offset", "change", "code"),
    [
        (4, b"\0", "id-block-author"),
        (4, b"\2", "id-block-author"),
        (5, b"\1", "id-block-reserved"),
        (88, b"\2", "id-block-version"),
        (88, b"\0", "id-block-version"),
        (96, b"\0", "id-block-algorithm"),
        (100, b"\3", "id-block-algorithm"),
        (104 + 48, b"\1", "id-block-reserved"),
        (176, b"\0", "id-block-signature-value"),
        (248, b"\0", "id-block-curve"),
        (252, b"\1", "id-block-reserved"),
        (256 + 71, b"\1", "id-block-reserved"),
        (400, bytes(144), "id-block-author"),
        (544, bytes(152), "id-block-author"),
        (544, b"\1", "id-block-curve"),
        (548, b"\1", "id-block-reserved"),
    ],
)
def test_refused_igvm_bodies(offset, change, code):
    data = put(BODY, offset, change)
    assert data != BODY
    refused(code, abi.decode_igvm, data, policy=0x30000, where="a.igvm")


def test_claims_of_a_body_with_hopeless_keys():
    assert abi.igvm_claims(put(BODY, 96, bytes(600)), policy=0xB0000) == MADE
    refused("id-block-version", abi.igvm_claims, put(BODY, 88, b"\2"), policy=0)


@pytest.mark.parametrize(
    ("decode", "size"),
    [
        (abi.decode_block, 96),
        (abi.decode_auth, 4096),
        (abi.decode_key, 1028),
        (abi.decode_signature, 512),
        (lambda data: abi.decode_igvm(data, policy=0), 696),
        (lambda data: abi.igvm_claims(data, policy=0), 696),
    ],
)
def test_sizes(decode, size):
    for wrong in (0, size - 1, size + 1):
        refused("id-block-size", decode, bytes(wrong))


def test_versions():
    data = abi.encode_block(MADE)
    for version in (0, 2, 2**32 - 1):
        refused("id-block-version", abi.decode_block, put(data, 0x50, struct.pack("<I", version)))


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: IdBlock(DIGEST[:-1], 0), "id-block-value"),
        (lambda: IdBlock(DIGEST, 0, family_id=bytes(15)), "id-block-value"),
        (lambda: IdBlock(DIGEST, 0, image_id=bytes(17)), "id-block-value"),
        (lambda: IdBlock(DIGEST, 0, 2**32), "id-block-value"),
        (lambda: IdBlock(DIGEST, 0, -1), "id-block-value"),
        (lambda: IdBlock(DIGEST, 2**64), "id-block-value"),
        (lambda: Point(0, 0), "id-block-key"),
        (lambda: Point(2**384, 1), "id-block-key"),
        (lambda: Point(1, -1), "id-block-key"),
        (lambda: Signature(0, 1), "id-block-signature-value"),
        (lambda: Signature(1, 0), "id-block-signature-value"),
        (lambda: Signature(1, 2**384), "id-block-signature-value"),
        (lambda: IdAuth(Point(1, 1), Signature(1, 1), Point(1, 1)), "id-block-author"),
        (
            lambda: IdAuth(Point(1, 1), Signature(1, 1), None, Signature(1, 1)),
            "id-block-author",
        ),
    ],
)
def test_values_that_do_not_fit(make, code):
    refused(code, make)


# --- signing --------------------------------------------------------------------------------


def test_signatures_are_by_the_book():
    """Verified with the library itself, over bytes put together here."""
    auth = id_block.authenticate(MADE, Signer(ID_KEY), Signer(AUTHOR_KEY))
    family = b"family..........image..........."
    block = DIGEST + family + struct.pack("<IIQ", 1, 7, 0xB0000)
    numbers = secret(1001).public_key().public_numbers()
    key = struct.pack("<I", 2) + numbers.x.to_bytes(72, "little") + numbers.y.to_bytes(72, "little")
    for number, signature, data in (
        (1001, auth.block_signature, block),
        (1002, auth.key_signature, key.ljust(1028, b"\0")),
    ):
        der = utils.encode_dss_signature(signature.r, signature.s)
        secret(number).public_key().verify(der, data, ec.ECDSA(hashes.SHA384()))
    assert id_block.authenticate(MADE, Signer(ID_KEY), Signer(AUTHOR_KEY)) == auth
    assert id_block.to_sign(MADE, ID_KEY) == (block, key.ljust(1028, b"\0"))
    alone = id_block.authenticate(MADE, Signer(ID_KEY))
    assert alone == IdAuth(auth.id_key, auth.block_signature)
    assert id_block.qemu_options(MADE, alone).endswith("author-key-enabled=off")


def test_signatures_made_elsewhere():
    block_bytes, key_bytes = id_block.to_sign(MADE, ID_KEY.public)
    # A random nonce, as an HSM would take it.
    way = ec.ECDSA(hashes.SHA384())
    by_id, by_author = secret(1001).sign(block_bytes, way), secret(1002).sign(key_bytes, way)
    auth = id_block.authenticate(
        MADE, Signer(ID_KEY.public, by_id), Signer(AUTHOR_KEY.public, by_author)
    )
    id_block.verify(MADE, auth)
    assert auth.block_signature == Signature(*utils.decode_dss_signature(by_id))
    # The author vouched once, the ID key signs here.
    mixed = id_block.authenticate(MADE, Signer(ID_KEY), Signer(AUTHOR_KEY.public, by_author))
    assert mixed.key_signature == auth.key_signature
    for wrong in (
        [Signer(ID_KEY.public, by_author)],
        [Signer(AUTHOR_KEY.public, by_id)],
        [Signer(ID_KEY, by_id[:-1] + bytes([by_id[-1] ^ 1]))],
        [Signer(ID_KEY), Signer(AUTHOR_KEY.public, by_id)],
        [Signer(ID_KEY), Signer(ID_KEY.public, by_author)],
    ):
        refused("id-block-signature", id_block.authenticate, MADE, *wrong)
    refused(
        "signature-format", id_block.authenticate, MADE, Signer(ID_KEY, b"0", signature_where="s")
    )
    refused(
        "id-block-unsigned", id_block.authenticate, MADE, Signer(ID_KEY.public), kind=UsageError
    )


def test_only_p384_keys_sign():
    other = keys.load_private(pem(ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))))
    for signers in ([Signer(other, where="k")], [Signer(ID_KEY), Signer(other, where="k")]):
        error = refused("key-algorithm", id_block.authenticate, MADE, *signers)
        assert error.where == "k"


def test_verify_wants_real_keys_and_numbers():
    good = id_block.authenticate(MADE, Signer(ID_KEY), Signer(AUTHOR_KEY))
    off_curve = Point(good.id_key.x, good.id_key.y ^ 1)
    refused("key-point", id_block.verify, MADE, IdAuth(off_curve, good.block_signature))
    large = Signature(keys.P384_ORDER, 1)
    refused("signature-format", id_block.verify, MADE, IdAuth(good.id_key, large))
    swapped = IdAuth(good.id_key, good.block_signature, good.author_key, good.block_signature)
    refused("id-block-signature", id_block.verify, MADE, swapped)


# --- any bytes ------------------------------------------------------------------------------

numbers_384 = st.integers(1, 2**384 - 1)
points = st.builds(Point, numbers_384, numbers_384)
signatures = st.builds(Signature, numbers_384, numbers_384)
auths = st.builds(IdAuth, points, signatures) | st.builds(
    IdAuth, points, signatures, points, signatures
)
blocks = st.builds(
    IdBlock,
    st.binary(min_size=48, max_size=48),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
    st.binary(min_size=16, max_size=16),
    st.binary(min_size=16, max_size=16),
)


@settings(max_examples=50)
@given(blocks, auths, st.integers(0, 2**32 - 1))
def test_round_trip(block, auth, mask):
    assert abi.decode_block(abi.encode_block(block)) == block
    assert abi.decode_auth(abi.encode_auth(auth)) == auth
    made = IgvmIdBlock(mask, block, auth)
    assert abi.decode_igvm(abi.encode_igvm(made), policy=block.policy) == made


@settings(max_examples=50)
@given(st.binary(max_size=100), st.sampled_from([96, 512, 696, 1028, 4096]))
def test_arbitrary_bytes(data, size):
    fuzzed.fuzz((data * (size // max(len(data), 1) + 1))[:size])


@given(st.sampled_from(fuzzed.SEEDS), st.integers(0, 4095), st.binary(min_size=1, max_size=9))
def test_mutants(seed, at, change):
    at %= len(seed)
    fuzzed.fuzz(put(seed, at, change)[: len(seed)])
