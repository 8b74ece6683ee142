# SPDX-License-Identifier: Apache-2.0
"""AES-XTS, PBKDF2, Argon2, HMAC and HKDF, against published vectors and the kernel's bytes."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from made_luks2 import vector
from troth.abi.hkdf import hkdf_sha256
from troth.ciphers import argon2, pbkdf2, xts
from troth.errors import FormatError, HostError


def test_xts_of_the_standard():
    # IEEE 1619-2007, annex B, vectors 1 (with halves that differ: 2) and 10.
    key = bytes([0x11] * 16 + [0x22] * 16)
    stored = xts.encrypt(key, bytes([0x44] * 512), first_iv=0x3333333333)
    assert stored[:16].hex() == "c454185e6a16936e39334038acef838b"
    key = bytes.fromhex(
        "2718281828459045235360287471352662497757247093699959574966967627"
        "3141592653589793238462643383279502884197169399375105820974944592"
    )
    plain = bytes(range(256)) * 2
    stored = xts.encrypt(key, plain, first_iv=0xFF)
    assert stored[:16].hex() == "1c3b3a102f770386e4836c99e370cf9b"
    assert xts.decrypt(key, stored, first_iv=0xFF) == plain


@given(st.sampled_from([512, 1024, 4096]), st.integers(0, 2**40), st.binary(min_size=1, max_size=8))
def test_xts_there_and_back_and_sector_by_sector(sector_bytes, first, seed):
    key = hashlib.sha512(seed).digest()
    plain = hashlib.shake_128(seed).digest(4 * sector_bytes)
    whole = xts.encrypt(key, plain, sector_bytes=sector_bytes, first_iv=first)
    assert xts.decrypt(key, whole, sector_bytes=sector_bytes, first_iv=first) == plain
    second = plain[sector_bytes : 2 * sector_bytes]
    alone = xts.encrypt(
        key, second, sector_bytes=sector_bytes, first_iv=first + sector_bytes // 512
    )
    assert whole[sector_bytes : 2 * sector_bytes] == alone


@pytest.mark.parametrize(
    ("key", "size", "sector", "code"),
    [
        (bytes(64), 512, 512, "xts-key"),
        (bytes(range(48)), 512, 512, "xts-key"),
        (b"", 512, 512, "xts-key"),
        (bytes(range(64)), 511, 512, "xts-data"),
        (bytes(range(64)), 512, 4096, "xts-data"),
        (bytes(range(64)), 512, 0, "xts-data"),
        (bytes(range(64)), 500, 500, "xts-data"),
    ],
)
def test_xts_refuses(key, size, sector, code):
    with pytest.raises(FormatError) as caught:
        xts.decrypt(key, bytes(size), sector_bytes=sector)
    assert caught.value.code == code


@pytest.mark.vectors
def test_xts_is_the_kernels():
    document = json.loads(vector("vectors.json").read_text())
    keys = {item["file"]: item.get("volume_key_hex", "") for item in document["vectors"]}
    for item in document["crypt_ciphertext"]:
        stored = xts.encrypt(
            bytes.fromhex(keys[item["of"]]),
            bytes(range(256)) * 32,
            sector_bytes=item["sector_size"],
            first_iv=16,
        )
        assert stored[:16].hex() == item["first16"]
        assert hashlib.sha256(stored).hexdigest() == item["ciphertext_sha256"]


@given(st.binary(max_size=80), st.binary(max_size=40), st.integers(1, 50), st.integers(1, 100))
def test_pbkdf2_is_hashlibs(secret, salt, iterations, length):
    for name in ("sha256", "sha512"):
        found = pbkdf2.derive(
            secret, salt, hash_name=name, iterations=iterations, length_bytes=length
        )
        assert found == hashlib.pbkdf2_hmac(name, secret, salt, iterations, length)


def test_pbkdf2_refuses_other_hashes():
    with pytest.raises(FormatError) as caught:
        pbkdf2.derive(b"", b"", hash_name="md5", iterations=1, length_bytes=1)
    assert caught.value.code == "pbkdf2-hash"


def derived(kind, **changes):
    given = {"time": 2, "memory_kib": 256, "lanes": 1, "length_bytes": 32} | changes
    return argon2.derive(kind, b"password", b"somesalt", **given)


def test_argon2_of_the_reference_implementation():
    # phc-winner-argon2, src/test.c: version 0x13, t=2, m=256, p=1 and p=2.
    assert derived("argon2id").hex() == (
        "9dfeb910e80bad0311fee20f9c0e2b12c17987b4cac90c2ef54d5b3021c68bfe"
    )
    assert derived("argon2id", lanes=2).hex() == (
        "6d093c501fd5999645e0ea3bf620d7b8be7fd2db59c20d9fff9539da2bf57037"
    )
    assert derived("argon2i").hex() == (
        "89e9029f4637b295beb027056a7336c414fadd43f6b208645281cb214a56452f"
    )


def test_argon2_refuses_and_names_what_is_missing(monkeypatch):
    with pytest.raises(FormatError) as caught:
        derived("argon2id", memory_kib=7)
    assert caught.value.code == "argon2-parameters"
    with pytest.raises(HostError) as lacking:
        derived("argon2x")
    assert lacking.value.code == "argon2-missing"
    from cryptography.hazmat.primitives.kdf import argon2 as library

    monkeypatch.delattr(library, "Argon2i")
    with pytest.raises(HostError) as lacking:
        derived("argon2i")
    assert lacking.value.code == "argon2-missing"


def test_hkdf_of_the_rfc():
    # RFC 5869, appendix A, cases 1 to 3.
    case1 = hkdf_sha256(
        bytes([0x0B] * 22), bytes(range(0xF0, 0xFA)), salt=bytes(range(13)), size_bytes=42
    )
    assert case1.hex() == (
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )
    case2 = hkdf_sha256(
        bytes(range(80)), bytes(range(0xB0, 0x100)), salt=bytes(range(0x60, 0xB0)), size_bytes=82
    )
    assert case2.hex() == (
        "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c6"
        "5e590e09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87"
    )
    case3 = hkdf_sha256(bytes([0x0B] * 22), b"", size_bytes=42)
    assert case3.hex() == (
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    )
