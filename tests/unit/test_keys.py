# SPDX-License-Identifier: Apache-2.0
"""Key files and signatures: openssl as oracle, the vectors of RFC 6979 and RFC 8032."""

import base64
import functools
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.backends.openssl import backend
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x25519
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz import keys as fuzzed
from troth.errors import FormatError, HostError, UsageError
from troth.signing import keys

#: RFC 6979 appendix A.2.6 (P-384), message "sample", SHA-384.
RFC_6979 = {
    "x": int(
        "6b9d3dad2e1b8c1c05b19875b6659f4de23c3b667bf297ba"
        "9aa47740787137d896d5724e4c70a825f872c9ea60d2edf5",
        16,
    ),
    "r": int(
        "94edbb92a5ecb8aad4736e56c691916b3f88140666ce9fa7"
        "3d64c4ea95ad133c81a648152e44acf96e36dd1e80fabe46",
        16,
    ),
    "s": int(
        "99ef4aeb15f178cea1fe40db2603138f130e740a19624526"
        "203b6351d0a3a94fa329c145786e679e7b82c71a38628ac8",
        16,
    ),
}
#: RFC 8032 section 7.1, test 1: the empty message.
RFC_8032 = {
    "secret": "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
    "public": "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
    "signature": "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc"
    "61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
}
#: What every SPKI of a P-384 key begins with (RFC 5480): the two OIDs and the uncompressed point.
P384_SPKI = bytes.fromhex("3076301006072a8648ce3d020106052b8104002203620004")

needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="needs openssl (openssl) as oracle"
)

PEM, DER = serialization.Encoding.PEM, serialization.Encoding.DER
SEC1, PKCS8 = serialization.PrivateFormat.TraditionalOpenSSL, serialization.PrivateFormat.PKCS8
PLAIN = serialization.NoEncryption()


@functools.cache
def p384(number=0xABCDEF):
    return ec.derive_private_key(number, ec.SECP384R1())


def private(encoding=PEM, form=PKCS8, *, key=None, lock=PLAIN):
    return (key or p384()).private_bytes(encoding, form, lock)


def public(encoding=PEM, *, key=None):
    return (key or p384()).public_key().public_bytes(
        encoding, serialization.PublicFormat.SubjectPublicKeyInfo
    )  # fmt: skip


def refused(code, function, *arguments, kind=FormatError, **options):
    with pytest.raises(kind) as caught:
        function(*arguments, **options)
    assert caught.value.code == code
    return caught.value


# --- signatures -----------------------------------------------------------------------------


def test_rfc_6979():
    key = keys.load_private(private(key=ec.derive_private_key(RFC_6979["x"], ec.SECP384R1())))
    signature = key.sign(b"sample")
    assert keys.signature_numbers(signature) == (RFC_6979["r"], RFC_6979["s"])
    assert keys.signature_der(RFC_6979["r"], RFC_6979["s"]) == signature
    assert key.sign(b"sample") == signature
    assert key.public.verify(signature, b"sample")
    assert not key.public.verify(signature, b"sampl")


def test_rfc_8032():
    secret = ed25519.Ed25519PrivateKey.from_private_bytes(bytes.fromhex(RFC_8032["secret"]))
    key = keys.load_private(private(key=secret))
    assert key.sign(b"").hex() == RFC_8032["signature"]
    spki = bytes.fromhex("302a300506032b6570032100" + RFC_8032["public"])
    assert key.public.spki == spki
    assert key.public.key_id == hashlib.sha256(spki).hexdigest()
    loaded = keys.load_public(spki)
    assert loaded == key.public
    assert loaded.algorithm == keys.ED25519
    assert loaded.verify(bytes.fromhex(RFC_8032["signature"]), b"")
    assert not loaded.verify(bytes.fromhex(RFC_8032["signature"]), b"x")
    for odd in (b"", bytes(63), bytes(64), bytes(65)):
        assert not loaded.verify(odd, b"")
    refused("key-algorithm", lambda: loaded.coordinates)


def test_high_and_low_s_are_both_signatures():
    key = keys.load_private(private())
    r, s = keys.signature_numbers(key.sign(b"x"))
    other = keys.signature_der(r, keys.P384_ORDER - s)
    assert keys.signature_numbers(other) == (r, keys.P384_ORDER - s)
    assert key.public.verify(other, b"x")


def test_the_order_is_the_curves():
    """n - 1 signs like -1: the library knows the order too, and refuses a scalar of n."""
    assert p384(keys.P384_ORDER - 1).public_key().public_numbers().x == (
        p384(1).public_key().public_numbers().x
    )
    with pytest.raises(ValueError):
        ec.derive_private_key(keys.P384_ORDER, ec.SECP384R1())


@pytest.mark.parametrize(
    ("r", "s"),
    [(0, 1), (1, 0), (-1, 1), (keys.P384_ORDER, 1), (1, keys.P384_ORDER), (2**384, 1), (1, 2**999)],
)
def test_numbers_out_of_range(r, s):
    refused("signature-format", keys.signature_der, r, s)


@pytest.mark.parametrize(
    "der",
    [
        b"",
        b"\x30\x00",
        bytes.fromhex("3006020101020102") + b"\0",  # trailing
        bytes.fromhex("300602010102017f")[:-1],  # cut off
        bytes.fromhex("30070202000102017f"),  # an integer longer than it need be
        bytes.fromhex("30810602010102017f"),  # a length longer than it need be
        bytes.fromhex("3006020100020101"),  # r = 0
        bytes.fromhex("3006020101020181"),  # s < 0
        bytes.fromhex("3009020101020101020101"),  # three numbers
        bytes(96),  # r and s raw, as JOSE has them
        b"0" * 5000,
    ],
)
def test_no_signature(der):
    refused("signature-format", keys.signature_numbers, der)
    assert not keys.load_public(public()).verify(der, b"")


def test_without_deterministic_signatures_nothing_is_signed(monkeypatch):
    monkeypatch.setattr(type(backend), "ecdsa_deterministic_supported", lambda _: False)
    refused("key-deterministic", keys.load_private(private()).sign, b"x", kind=HostError)


# --- loading --------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [SEC1, PKCS8])
@pytest.mark.parametrize("encoding", [PEM, DER])
def test_private_forms(encoding, form):
    key = keys.load_private(private(encoding, form))
    numbers = p384().public_key().public_numbers()
    assert key.public.coordinates == (numbers.x, numbers.y)
    assert key.public.algorithm == keys.P384
    assert key.public.spki == public(DER)
    assert key.public.spki[:24] == P384_SPKI
    assert keys.public_half(key) == key.public == keys.load_public(public(encoding))


def test_messages_and_repr_hold_nothing_private():
    secret = f"{0xABCDEF:x}"
    key = keys.load_private(private())
    said = repr(key) + str(refused("key-kind", keys.load_public, private(), where="k.pem"))
    assert secret not in said.lower()
    assert repr(key) == f"PrivateKey(of PublicKey({keys.P384}, {key.public.key_id}))"
    damaged = private().replace(b"MIG", b"MIH", 1)
    error = refused("key-format", keys.load_private, damaged, where="k.pem")
    assert error.__cause__ is None
    assert "MI" not in str(error)


def test_ed25519_forms():
    secret = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    for encoding in (PEM, DER):
        key = keys.load_private(private(encoding, key=secret))
        assert key.public == keys.load_public(public(encoding, key=secret))


def test_a_key_of_the_wrong_half():
    refused("key-kind", keys.load_private, public())
    refused("key-kind", keys.load_private, public(DER))
    refused("key-kind", keys.load_public, private())
    refused("key-kind", keys.load_public, private(DER, SEC1))


@pytest.mark.parametrize(
    "curve", [ec.SECP256R1(), ec.SECP521R1(), ec.SECP256K1(), ec.BrainpoolP384R1()]
)
@pytest.mark.parametrize("encoding", [PEM, DER])
def test_other_curves(curve, encoding):
    key = ec.derive_private_key(77, curve)
    for data in (private(encoding, key=key), private(encoding, SEC1, key=key)):
        refused("key-curve", keys.load, data)
    refused("key-curve", keys.load, public(encoding, key=key))


def test_other_algorithms():
    secrets = [
        ed448.Ed448PrivateKey.generate(),
        x25519.X25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 1024),
    ]
    for secret in secrets:
        for encoding in (PEM, DER):
            refused("key-algorithm", keys.load, private(encoding, key=secret))
            refused("key-algorithm", keys.load, public(encoding, key=secret))
    refused("key-algorithm", keys.load, private(PEM, SEC1, key=secrets[2]))


@pytest.mark.parametrize(("encoding", "form"), [(PEM, SEC1), (PEM, PKCS8), (DER, PKCS8)])
def test_encrypted(encoding, form):
    locked = private(encoding, form, lock=serialization.BestAvailableEncryption(b"secret"))
    refused("key-encrypted", keys.load_private, locked, where="k")
    refused("key-encrypted", keys.load, locked)


def test_one_key_a_file():
    other = private(key=p384(7))
    for data in (private() + other, private() + public(), public() * 2, private() * 100):
        refused("key-several", keys.load, data)


def test_pem_around_the_key():
    """What openssl writes around a key, and what mail and editors do to it."""
    whole = private(PEM, SEC1)
    parameters = b"-----BEGIN EC PARAMETERS-----\nBgUrgQQAIg==\n-----END EC PARAMETERS-----\n"
    expected = keys.load_private(whole).public
    for data in (
        parameters + whole,
        b"Private-Key: (384 bit)\npub:\n\n" + whole + b"\nbye\n",
        whole.replace(b"\n", b"\r\n"),
        whole.rstrip(),
        b"\n \n" + whole,
    ):
        assert keys.load_private(data).public == expected
    refused("key-format", keys.load, parameters)


def test_damaged_pem():
    whole = private()
    end = b"-----END PRIVATE KEY-----"
    for data in (
        b"",
        b"garbage",
        whole.replace(end, b""),
        whole.replace(end, b"-----END PUBLIC KEY-----"),
        whole.replace(b"-----BEGIN", b"----BEGIN"),
        whole.replace(b"\nM", b"\n!M", 1),
        whole.replace(b"PRIVATE KEY", b"PUBLIC KEY"),
        public().replace(b"PUBLIC KEY", b"PRIVATE KEY"),
        whole.replace(b"PRIVATE KEY", b"OPENSSH PRIVATE KEY"),
        whole.replace(b"PRIVATE KEY", b"NO KEY"),
        b"-----BEGIN PRIVATE KEY-----\n\n" + end,
        b" " + whole.replace(b"\n", b"\n "),
    ):
        assert data != whole
        refused("key-format", keys.load, data)
    refused("key-kind", keys.load, whole.replace(b"PRIVATE KEY", b"CERTIFICATE"))


def test_damaged_der():
    for whole in (private(DER), private(DER, SEC1), public(DER)):
        refused("key-format", keys.load, whole + b"\0")
        for size in range(0, len(whole), 7):
            refused("key-format", keys.load, whole[:size])


def test_halves_that_do_not_belong_together():
    stranger = public(DER, key=p384(99))[-96:]
    for form in (PKCS8, SEC1):
        whole = private(DER, form)
        assert whole[-96:] == public(DER)[-96:]
        refused("key-format", keys.load, whole[:-96] + stranger)


def test_points_off_the_curve():
    spki = bytearray(public(DER))
    spki[-1] ^= 1
    refused("key-format", keys.load_public, bytes(spki))
    x, y = keys.load_public(public()).coordinates
    assert keys.p384_public(x, y) == keys.load_public(public())
    for point in ((x, y ^ 1), (0, 0), (y, x), (x, 2**384), (2**400, y), (-1, y)):
        refused("key-point", keys.p384_public, *point)


def test_files(tmp_path):
    path = tmp_path / "k.pem"
    path.write_bytes(private())
    assert keys.read_file(str(path)) == private()
    assert refused(
        "key-file", keys.read_file, str(tmp_path / "none"), kind=UsageError
    ).where.endswith("none")
    refused("key-file", keys.read_file, str(tmp_path), kind=UsageError)
    path.write_bytes(bytes(keys.MAX_KEY_BYTES + 1))
    refused("key-format", keys.read_file, str(path))
    refused("key-format", keys.load, bytes(keys.MAX_KEY_BYTES + 1))


@given(st.binary(max_size=300))
def test_arbitrary_bytes(data):
    fuzzed.fuzz(data)
    begin, end = (b"-----%s PUBLIC KEY-----" % word for word in (b"BEGIN", b"END"))
    fuzzed.fuzz(b"\n".join((begin, base64.b64encode(data), end)))


@settings(max_examples=200)
@given(st.sampled_from([SEC1, PKCS8, None]), st.integers(0, 300), st.binary(min_size=1, max_size=4))
def test_mutants(form, at, change):
    data = bytearray(public(DER) if form is None else private(DER, form))
    at %= len(data)
    data[at : at + len(change)] = change
    fuzzed.fuzz(bytes(data))


# --- against openssl ------------------------------------------------------------------------


def openssl(*words, data=None):
    done = subprocess.run(["openssl", *words], input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.tool
@needs_openssl
def test_what_openssl_makes(tmp_path):
    made = openssl("ecparam", "-name", "secp384r1", "-genkey")
    assert b"EC PARAMETERS" in made
    key = keys.load_private(made)
    forms = [
        openssl("ec", data=made),
        openssl("ec", "-outform", "DER", data=made),
        openssl("ec", "-no_public", data=made),
        openssl("ec", "-param_enc", "explicit", data=made),
        openssl("pkcs8", "-topk8", "-nocrypt", data=made),
        openssl("pkey", "-outform", "DER", data=made),
        openssl("pkey", "-text", data=made),
    ]
    for form in forms:
        assert keys.load_private(form).public == key.public
    for words in (["pkey"], ["ec", "-conv_form", "compressed"]):
        for form in ("PEM", "DER"):
            found = openssl(*words, "-pubout", "-outform", form, data=made)
            assert keys.load_public(found) == key.public
    assert openssl("pkey", "-pubout", "-outform", "DER", data=made) == key.public.spki
    for locked in (
        openssl("ec", "-aes128", "-passout", "pass:secret", data=made),
        openssl("pkcs8", "-topk8", "-passout", "pass:secret", data=made),
    ):
        refused("key-encrypted", keys.load_private, locked)


@pytest.mark.tool
@needs_openssl
def test_openssl_and_we_believe_each_other(tmp_path):
    for name in ("key.pem", "pub.pem", "data", "sig"):
        (tmp_path / name).touch()
    secret, half, data, signature = (
        str(tmp_path / name) for name in ("key.pem", "pub.pem", "data", "sig")
    )
    Path(secret).write_bytes(private())
    Path(half).write_bytes(public())
    Path(data).write_bytes(b"the data")
    key = keys.load_private(private())
    Path(signature).write_bytes(key.sign(b"the data"))
    openssl("dgst", "-sha384", "-verify", half, "-signature", signature, data)
    theirs = openssl("dgst", "-sha384", "-sign", secret, data)
    assert key.public.verify(theirs, b"the data")
    assert theirs != key.sign(b"the data")


# --- the door -------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["igvm", "--help"], ["--man"]])
def test_the_library_is_imported_only_where_it_is_used(words):
    program = "import sys; from troth.cli.main import main; main(sys.argv[1:])\n"
    program += "print([name for name in sys.modules if name.startswith('cryptography')])"
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, check=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
