# SPDX-License-Identifier: Apache-2.0
"""A header held against what it shows itself: what may be taken over from it, and what never."""

import hashlib
import json
import os
import shutil
import subprocess

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC, ECB
from hypothesis import given
from hypothesis import strategies as st

from made_luks2 import PASSPHRASE, VECTORS, metadata, packed, vector, written
from troth.ciphers import cbc_essiv
from troth.cli.main import main
from troth.documents.volume_profile import VolumeProfile
from troth.errors import FormatError
from troth.record import replace
from troth.volumes import luks2_open, luks2_shown


def vectors():
    path = VECTORS / "luks2" / "vectors.json"
    return json.loads(path.read_text())["vectors"] if path.exists() else []


def checked(capsys, tmp_path, area, *words, passphrase=PASSPHRASE):
    header, given_key = tmp_path / "header", tmp_path / "pass"
    header.write_bytes(area)
    given_key.write_bytes(passphrase)
    words = ("volume", "check", str(header), "--key-file", str(given_key), *words)
    status = main([*words, "--json"])
    found = json.loads(capsys.readouterr().out)
    main(list(words))
    return status, found, capsys.readouterr().out.splitlines()[-1]


def changed(alter):
    area = written(integrity="hmac").head
    tree = metadata(area)
    alter(tree)
    return packed(area, tree)


@pytest.mark.vectors
@pytest.mark.parametrize("item", vectors(), ids=lambda item: item["file"])
def test_every_vector_without_a_profile(capsys, tmp_path, monkeypatch, item):
    keys = []
    unlock = luks2_open.unlock

    def noted(*words):
        keys.append(bytes(unlock(*words)).hex())
        return bytes.fromhex(keys[-1])

    monkeypatch.setattr(luks2_open, "unlock", noted)
    status, found, last = checked(capsys, tmp_path, vector(item["file"]).read_bytes())
    if item["expect"].startswith("reject"):
        assert (status, found["opened"], keys) == (1, None, [])
        assert last.endswith("; no key was tried")
        return
    assert (status, found["opened"]) == (0, True)
    assert set(keys) == {item["volume_key_hex"]}
    assert "the passphrase in the file opens it" in last
    # Of the open ones only one has tags: the others say what that means.
    assert ("change data unseen" in last) == ("integrity_superblock" not in item)


@pytest.mark.vectors
def test_what_no_guest_opens_says_so(capsys, tmp_path):
    for name, code in (
        ("aes128-cbc-essiv.hdr", "luks2-segment-cipher"),
        ("pbkdf2-sha256-512.hdr", "luks2-segment-sector"),
        ("argon2i-512.hdr", "luks2-kdf"),
    ):
        last = checked(capsys, tmp_path, vector(name).read_bytes())[2]
        assert "no guest of troth opens it" in last
        assert code in last
    last = checked(capsys, tmp_path, vector("aead-xts-hmac-4096.hdr").read_bytes())[2]
    assert "a guest opens it where its policy says luks2/hmac/4096" in last


@pytest.mark.tool
@pytest.mark.parametrize(
    ("cipher", "bits", "slot"),
    [
        ("aes-xts-plain64", "512", ()),
        ("aes-xts-plain64", "256", ()),
        ("aes-xts-plain64", "512", ("aes-xts-plain64", "256")),
        ("aes-cbc-essiv:sha256", "128", ()),
        ("aes-cbc-essiv:sha256", "256", ()),
        ("aes-xts-plain64", "512", ("aes-cbc-essiv:sha256", "128")),
    ],
)
def test_what_cryptsetup_makes(capsys, tmp_path, cipher, bits, slot):
    if not shutil.which("cryptsetup"):
        pytest.skip("cryptsetup is missing (apt install cryptsetup-bin)")
    volume, given_key = tmp_path / "volume", tmp_path / "key"
    given_key.write_bytes(PASSPHRASE)
    volume.touch()
    os.truncate(volume, 18 << 20)
    words = ["cryptsetup", "luksFormat", "--type", "luks2", "--batch-mode", "--cipher", cipher]
    words += ["--key-size", bits, "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"]
    for option, word in zip(("--keyslot-cipher", "--keyslot-key-size"), slot, strict=False):
        words += [option, word]
    subprocess.run([*words, str(volume), str(given_key)], check=True, capture_output=True)
    status, found, last = checked(capsys, tmp_path, volume.read_bytes())
    assert (status, found["opened"]) == (0, True), found
    assert ("no guest" in last) == ((cipher, bits, slot) != ("aes-xts-plain64", "512", ()))


def test_data_where_no_guest_looks(capsys, tmp_path):
    """What is said of guests is what their profile says, not what the header shows."""
    area = changed(lambda tree: tree["segments"]["0"].update(offset=str(4 << 20)))
    status, _found, last = checked(capsys, tmp_path, area)
    assert status == 0
    assert "no guest of troth opens it: luks2-segment-offset with luks2/hmac/4096" in last
    status, _found, last = checked(capsys, tmp_path, written(integrity="hmac").head)
    assert status == 0
    assert "a guest opens it where its policy says luks2/hmac/4096" in last


def test_a_key_from_a_pipe(capsys, tmp_path):
    raw = bytes(range(32))
    header = tmp_path / "header"
    header.write_bytes(written(raw, integrity="hmac").head)
    hears, tells = os.pipe()
    os.write(tells, raw)
    os.close(tells)
    try:
        words = ["volume", "check", str(header), "--key-file", f"/dev/fd/{hears}"]
        assert main(words) == 0
    finally:
        os.close(hears)
    assert "the passphrase in the file opens it" in capsys.readouterr().out


def test_what_is_said_stands(capsys, tmp_path):
    area = written(integrity="none").head
    assert checked(capsys, tmp_path, area)[0] == 0
    status, found, _last = checked(capsys, tmp_path, area, "--integrity", "hmac")
    assert (status, found["opened"]) == (1, None)
    status, found, _last = checked(
        capsys, tmp_path, area, "--uuid", "0" * 8 + "-0000" * 3 + "-" + "0" * 12
    )
    assert (status, found["code"]) == (1, "luks2-uuid")
    profile = tmp_path / "profile.json"
    profile.write_text('{"schema": "troth-volume-profile-v1", "data_offsets": [1048576]}')
    status, found, last = checked(capsys, tmp_path, area, "--profile", str(profile))
    assert (status, found["opened"]) == (1, None)
    assert "guest" not in last


@pytest.mark.parametrize(
    ("alter", "code"),
    [
        (lambda t: t["segments"]["0"].update(encryption="cipher_null-ecb"), "luks2-cipher-null"),
        (lambda t: t["segments"]["0"].update(encryption="aes-ecb"), "luks2-cipher-weak"),
        # Without tags alone may it be in CBC, and not with them.
        (lambda t: t["segments"]["0"].update(encryption="aes-cbc-essiv:sha256"),
         "luks2-segment-cipher"),
        (lambda t: t["segments"]["0"]["integrity"].update(type="crc32c"),
         "luks2-segment-integrity"),
        (lambda t: t["segments"]["0"].update(offset=str(64 << 10)), "luks2-segment-offset"),
        (lambda t: t["segments"]["0"].update(offset=str((1 << 20) + 512)),
         "luks2-segment-offset"),
        (lambda t: t["segments"]["0"].update(iv_tweak="1"), "luks2-segment-tweak"),
        (lambda t: t["keyslots"]["0"]["area"].update(encryption="cipher_null-ecb"),
         "luks2-keyslot-cipher"),
        (lambda t: t["keyslots"]["0"]["kdf"].update(iterations=10**9), "luks2-kdf-cost"),
        (lambda t: t["tokens"].update({"0": {"type": "x", "keyslots": []}}), "luks2-tokens"),
    ],
)  # fmt: skip
def test_what_is_never_taken_over(capsys, tmp_path, alter, code):
    status, found, last = checked(capsys, tmp_path, changed(alter))
    assert (status, found["opened"]) == (1, None)
    assert code in {item["code"] for item in found["checks"] if item["verdict"] == "fail"}
    assert last.endswith("; no key was tried")


def test_a_derived_key_comes_before_a_passphrase(capsys, tmp_path):
    raw = os.urandom(32)
    area = written(raw, integrity="hmac").head
    status, found, last = checked(capsys, tmp_path, area, passphrase=raw)
    assert (status, found["opened"]) == (0, True)
    assert "the passphrase in the file opens it" in last
    assert checked(capsys, tmp_path, area, passphrase=bytes(32))[0] == 1
    assert checked(capsys, tmp_path, area, "--raw-key", passphrase=raw)[0] == 0


@given(st.binary(max_size=300), st.integers(0, 40000))
def test_any_bytes_show_a_profile(data, at):
    area = bytearray(written(integrity="hmac").head[: 64 << 10])
    area[at : at + len(data)] = data
    found = luks2_shown.profile_of(bytes(area))
    bounds = VolumeProfile()
    for field in ("max_pbkdf2_iterations", "max_digest_iterations", "max_argon2_memory_kib"):
        assert getattr(found, field) == getattr(bounds, field)


# --- the older cipher -------------------------------------------------------------------------


def _encrypted(key, plain):
    out = b""
    for number in range(len(plain) // 512):
        salt = Cipher(AES(hashlib.sha256(key).digest()), ECB()).encryptor()
        iv = salt.update(number.to_bytes(16, "little"))
        out += Cipher(AES(key), CBC(iv)).encryptor().update(plain[512 * number :][:512])
    return out


@pytest.mark.parametrize("size", cbc_essiv.KEY_BYTES)
def test_sectors_in_cbc(size):
    key, plain = os.urandom(size), os.urandom(512) * 3
    stored = _encrypted(key, plain)
    assert stored[:512] != stored[512:1024]
    assert cbc_essiv.decrypt(key, stored) == plain


@pytest.mark.parametrize(
    ("key", "data", "code"),
    [(31, 512, "essiv-key"), (0, 512, "essiv-key"), (32, 511, "essiv-data")],
)
def test_cbc_refuses(key, data, code):
    with pytest.raises(FormatError) as caught:
        cbc_essiv.decrypt(bytes(key), bytes(data))
    assert caught.value.code == code


def test_no_guest_names_it():
    """The policies' own profile is in XTS, whatever else is said of a volume."""
    for integrity in ("hmac", "aes-gcm", "none"):
        assert replace(VolumeProfile(), integrity=integrity).keyslot_cipher == "aes-xts-plain64"
