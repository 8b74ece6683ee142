# SPDX-License-Identifier: Apache-2.0
"""``troth volume check`` and ``volume format``, and the files that say a profile."""

import json
import os
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from made_luks2 import PASSPHRASE, UUID, metadata, packed, profile, vector, written
from troth.ciphers import xts
from troth.cli.main import main
from troth.documents import volume_profile_file
from troth.documents.volume_profile import VolumeProfile
from troth.errors import FormatError, UsageError
from troth.record import replace
from troth.volumes import header_area, keys, laid_out, luks2_open, luks2_profile, luks2_rules
from troth.volumes.luks2_reasons import WHY

SOURCE = bytes(range(100, 132))
FORMAT = ("volume", "format", "--format", "luks2")


@pytest.fixture
def key(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(SOURCE)
    return str(path)


def run(capsys, *words):
    status = main([str(word) for word in words])
    said = capsys.readouterr()
    return status, said.out, said.err


def checked(capsys, *words):
    status, out, err = run(capsys, "volume", "check", *words, "--json")
    assert not err
    return status, json.loads(out)


def made(capsys, tmp_path, key, *words, size="20M"):
    path = tmp_path / "volume"
    status, out, err = run(
        capsys, *FORMAT, path, "--key-file", key, "--size", size, "--json", *words
    )
    assert (status, err) == (0, "")
    return path, json.loads(out)


def profile_file(tmp_path, **fields):
    path = tmp_path / "profile.json"
    path.write_text(json.dumps({"schema": volume_profile_file.SCHEMA} | fields))
    return path


def test_make_and_check(capsys, tmp_path, key):
    path, said = made(capsys, tmp_path, key, "--uuid", UUID)
    assert said == {
        "schema": "troth-volume-format-v1",
        "device": str(path),
        "format": "luks2",
        "uuid": UUID,
        "profile": "luks2/hmac/4096",
        "size_bytes": 20 << 20,
        "data_offset_bytes": 16 << 20,
        "complete": False,
        "generation": 0,
        "record": "",
    }
    assert os.stat(path).st_size == 20 << 20
    assert os.stat(path).st_mode & 0o777 == 0o600
    status, found = checked(capsys, path, "--key-file", key)
    assert (status, found["verdict"], found["code"], found["opened"]) == (0, "accepted", "", True)
    assert (found["uuid"], found["profile"]) == (UUID, "luks2/hmac/4096")
    assert {item["code"] for item in found["checks"]} == set(WHY) - {"luks2-json-duplicate"}
    assert all(item["why"] == WHY[item["code"]] for item in found["checks"])


def test_the_passphrase_is_the_derived_one(capsys, tmp_path, key):
    path, said = made(capsys, tmp_path, key, "--integrity", "none", "--data-offset", "1M")
    assert said["complete"] is True
    wanted = VolumeProfile(integrity="none", uuid=said["uuid"])
    area = header_area.read_file(str(path))
    accepted = luks2_profile.require(area, wanted, memory_bytes=0)
    passphrase = keys.passphrase(SOURCE, uuid=said["uuid"], profile="luks2/none/4096")
    assert len(passphrase) == 64
    assert len(luks2_open.unlock(accepted, area, passphrase)) == 64


@pytest.mark.parametrize("integrity", ["hmac", "aes-gcm", "none"])
def test_each_integrity_against_each_profile(capsys, tmp_path, key, integrity):
    path, _said = made(capsys, tmp_path, key, "--integrity", integrity)
    for other in ("hmac", "aes-gcm", "none"):
        wanted = profile_file(tmp_path, integrity=other)
        status, found = checked(capsys, path, "--profile", wanted, "--key-file", key)
        assert (status == 0) == (other == integrity)
        assert found["opened"] is (True if other == integrity else None)


POLICY = "a guest opens it where its policy says luks2/hmac/4096\n"


def test_words(capsys, tmp_path, key):
    path, _said = made(capsys, tmp_path, key)
    status, out, _err = run(capsys, "volume", "check", path, "--key-file", key)
    assert status == 0
    assert out.endswith("accepted, and the key opens it; " + POLICY)
    assert "->" not in out
    _status, out, _err = run(capsys, "volume", "check", path)
    assert out.endswith("accepted; no key was tried; " + POLICY)
    other = tmp_path / "other"
    other.write_bytes(bytes(32))
    status, out, _err = run(capsys, "volume", "check", path, "--key-file", other)
    assert status == 1
    assert "luks2-key" in out.splitlines()[-1]
    status, found = checked(capsys, path, "--key-file", other)
    assert (status, found["code"], found["opened"]) == (1, "luks2-key", False)
    status, out, _err = run(capsys, *FORMAT, tmp_path / "v", "--key-file", key,
                            "--size", "20M")  # fmt: skip
    assert status == 0
    assert "dm-integrity" in out


def test_every_refusal_is_shown_with_its_reason(capsys, tmp_path, key, monkeypatch):
    tree = metadata(written(integrity="hmac").head)
    tree["segments"]["0"]["encryption"] = "cipher_null-ecb"
    tree["tokens"] = {"3": {"type": "systemd-tpm2\x1b[2J", "keyslots": []}}
    path = tmp_path / "header"
    path.write_bytes(packed(written(integrity="hmac").head, tree))

    def never(*_words, **_named):
        raise AssertionError("a key was tried")

    monkeypatch.setattr(luks2_open, "unlock", never)
    status, out, _err = run(capsys, "volume", "check", path, "--key-file", key)
    assert status == 1
    refused = [line.split()[2] for line in out.splitlines() if line.startswith("-> fail")]
    assert refused == [
        "luks2-tokens", "luks2-cipher-null", "luks2-cipher-weak", "luks2-segment-cipher",
    ]  # fmt: skip
    for code in refused:
        assert WHY[code] in out
    assert "\x1b" not in out
    assert "3 systemd-tpm2" in out
    assert out.endswith("; no key was tried\n")
    status, found = checked(capsys, path, "--key-file", key)
    assert (status, found["code"], found["opened"]) == (1, "luks2-tokens", None)


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n" * 1000, bytes(1 << 20)])
def test_what_is_no_volume(capsys, tmp_path, content):
    path = tmp_path / "x"
    path.write_bytes(content)
    status, found = checked(capsys, path)
    assert (status, found["code"], found["uuid"]) == (1, "luks2-primary", "")
    assert run(capsys, "volume", "check", path)[0] == 1


def test_what_cannot_be_read(capsys, tmp_path, key):
    assert run(capsys, "volume", "check", tmp_path / "none")[0] == 1
    path, _said = made(capsys, tmp_path, key)
    for name in (tmp_path / "none", tmp_path):
        for option in ("--key-file", "--profile"):
            status, _out, err = run(capsys, "volume", "check", path, option, name)
            assert status == 2
            assert ("key-file" if option == "--key-file" else "volume-profile-file") in err
    short = tmp_path / "short"
    for size in (0, 31, 65):
        short.write_bytes(bytes(size))
        status, out, err = run(capsys, "volume", "check", path, "--key-file", short)
        # No source key has that size; a passphrase that others chose might.
        assert (status, "luks2-key" in out, "[key-file]" in err) == (
            (1, True, False) if size else (2, False, True)
        )
    assert run(capsys, "volume", "check", path, "--raw-key")[0] == 2


def test_names_and_words_that_are_no_text(capsys, tmp_path, key):
    path = os.fsdecode(os.fsencode(str(tmp_path)) + b"/v\xff")
    words = (*FORMAT, path, "--key-file", key, "--size", "20M")
    assert run(capsys, *words, "--json")[0] == 0
    assert checked(capsys, path, "--key-file", key)[1]["volume"].endswith("/v\\udcff")
    tree = metadata(written(integrity="hmac").head)
    tree["segments"]["0"]["encryption"] = "\ud800"
    header = tmp_path / "header"
    header.write_bytes(packed(written(integrity="hmac").head, tree))
    assert checked(capsys, header)[1]["code"] == "luks2-json"
    assert run(capsys, "volume", "check", header)[0] == 1


@pytest.mark.vectors
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("pbkdf2-sha256-512.hdr", {"integrity": "none", "sector_size": 512}),
        ("argon2id-4096.hdr", {"integrity": "none"}),
        ("argon2i-512.hdr", {"integrity": "none", "sector_size": 512, "kdfs": ["argon2i"]}),
        ("aead-xts-hmac-4096.hdr", {}),
    ],
)
def test_vectors_with_their_passphrase(capsys, tmp_path, name, fields):
    given = tmp_path / "pass"
    given.write_bytes(PASSPHRASE)
    words = ("--key-file", given, "--raw-key", "--profile", profile_file(tmp_path, **fields))
    status, found = checked(capsys, vector(name), *words)
    assert (status, found["opened"]) == (0, True)


# --- format: what is written, and what is left alone ------------------------------------------


def test_content_is_encrypted_into_the_volume(capsys, tmp_path, key):
    content = tmp_path / "content"
    plain = os.urandom((2 << 20) + 12345)
    content.write_bytes(plain)
    path = tmp_path / "volume"
    words = ("--key-file", key, "--integrity", "none", "--content", content)
    status, _out, err = run(capsys, *FORMAT, path, *words, "--data-offset", "1M")
    assert (status, err) == (0, "")
    stored = path.read_bytes()
    padded = plain.ljust(-(-len(plain) // 4096) * 4096, b"\0")
    assert len(stored) == (1 << 20) + len(padded)
    area = stored[: 1 << 20]
    wanted = VolumeProfile(integrity="none")
    accepted = luks2_profile.require(area, wanted, memory_bytes=0)
    passphrase = keys.passphrase(SOURCE, uuid=accepted.header.uuid, profile=wanted.text)
    volume_key = bytes(luks2_open.unlock(accepted, area, passphrase))
    assert xts.decrypt(volume_key, stored[1 << 20 :], sector_bytes=4096) == padded
    again = run(capsys, *FORMAT, path, *words, "--data-offset", "1M")
    assert again[0] == 2
    assert "volume-occupied" in again[2]
    assert path.read_bytes() == stored


def test_what_is_not_blank_is_left_alone(capsys, tmp_path, key):
    path = tmp_path / "old"
    old = b"\0" * 5000 + b"somebody's data" + os.urandom(19 << 20)
    path.write_bytes(old)
    words = (*FORMAT, path, "--key-file", key)
    status, _out, err = run(capsys, *words)
    assert (status, "volume-occupied" in err) == (2, True)
    assert path.read_bytes() == old
    assert run(capsys, *words, "--overwrite")[0] == 0
    new = path.read_bytes()
    end = 32768 + luks2_rules.area_size(96)
    assert not any(new[end : (16 << 20) + 4096]), "old key material, or an old superblock"
    assert new[(16 << 20) + 4096 :] == old[(16 << 20) + 4096 :]


def test_a_blank_file_that_is_there_is_taken(capsys, tmp_path, key):
    path = tmp_path / "blank"
    path.touch()
    os.truncate(path, 18 << 20)
    assert run(capsys, *FORMAT, path, "--key-file", key)[0] == 0
    assert checked(capsys, path, "--key-file", key)[0] == 0


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--size", "16M"], "volume-size"),
        (["--size", "x"], "volume-size"),
        (["--size", "0"], "volume-size"),
        (["--size", "-1"], "volume-size"),
        (["--size", "12345678901G"], "volume-size"),
        ([], "volume-size"),
        (["--size", "20M", "--uuid", "x"], "volume-uuid"),
        (["--size", "20M", "--uuid", "{" + UUID + "}"], "volume-uuid"),
        (["--size", "20M", "--content", "/none", "--integrity", "none"], "volume-content"),
        (["--size", "20M", "--content", "/proc/self/maps", "--integrity", "none"],
         "volume-content"),
        (["--size", "20M", "--content", __file__], "volume-content"),
    ],
)  # fmt: skip
def test_format_refuses(capsys, tmp_path, key, words, code):
    path = tmp_path / "volume"
    status, _out, err = run(capsys, *FORMAT, path, "--key-file", key, *words)
    assert (status, f"[{code}]" in err) == (2, True), err
    assert not path.exists()


def test_format_refuses_places(capsys, tmp_path, key):
    for path, code in ((tmp_path, "target"), ("/dev/null", "target"), ("/none/x", "target")):
        status, _out, err = run(capsys, *FORMAT, path, "--key-file", key, "--size", "20M")
        assert (status, f"[volume-{code}]" in err) == (2, True), err
    there = tmp_path / "there"
    there.touch()
    status, _out, err = run(capsys, *FORMAT, there, "--key-file", key, "--size", "20M")
    assert (status, "[volume-size]" in err) == (2, True)


def test_a_file_that_could_not_be_made_whole_is_taken_away(tmp_path, monkeypatch):
    content = tmp_path / "content"
    content.write_bytes(bytes(8192))
    path = tmp_path / "volume"

    def fails(*_words, **_named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(xts, "encrypt", fails)
    from troth.errors import HostError

    with pytest.raises(HostError) as caught:
        laid_out.write(str(path), WRITTEN, content=str(content))
    assert caught.value.code == "volume-io"
    assert not path.exists()


NEW = written()
WRITTEN = laid_out.LaidOut(
    head=lambda _room: NEW.head,
    data_offset_bytes=NEW.data_offset_bytes,
    key=bytes(NEW.volume_key),
    sector_bytes=4096,
)


def test_the_header_is_written_last(tmp_path, monkeypatch):
    """Whatever is cut off before the end is no volume."""
    order = []
    write, sync = os.pwrite, os.fsync
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: order.append(at) or write(fd, data, at))
    monkeypatch.setattr(os, "fsync", lambda fd: order.append("sync") or sync(fd))
    path = tmp_path / "volume"
    path.touch()
    os.truncate(path, 4 << 20)
    content = tmp_path / "content"
    content.write_bytes(b"x")
    laid_out.write(str(path), WRITTEN, content=str(content))
    assert order == [0, 1 << 20, 1 << 20, "sync", 0, "sync"]
    assert path.read_bytes()[: len(NEW.head)] == NEW.head


@pytest.mark.tool
def test_cryptsetup_opens_a_volume_with_a_raw_key(capsys, tmp_path, key):
    if not shutil.which("cryptsetup"):
        pytest.skip("cryptsetup is missing (apt install cryptsetup-bin)")
    path, _said = made(capsys, tmp_path, key, "--integrity", "none", "--raw-key")
    subprocess.run(
        ["cryptsetup", "open", "--test-passphrase", "--key-file", key, str(path)], check=True
    )
    assert checked(
        capsys, path, "--key-file", key, "--raw-key",
        "--profile", profile_file(tmp_path, integrity="none"),
    )[0] == 0  # fmt: skip


@pytest.mark.root
def test_a_block_device(capsys, tmp_path, key):
    """Made on it, refused where it is not blank, and where something holds it."""
    if os.geteuid() or not shutil.which("losetup"):
        pytest.skip("needs root and losetup")
    image = tmp_path / "disk"
    image.touch()
    os.truncate(image, 32 << 20)
    done = subprocess.run(
        ["losetup", "--find", "--show", str(image)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no loop device: {done.stderr.strip()}")
    device = done.stdout.strip()
    words = (*FORMAT, device, "--key-file", key)
    try:
        assert run(capsys, *words)[0] == 0
        assert checked(capsys, device, "--key-file", key)[0] == 0
        assert "[volume-occupied]" in run(capsys, *words)[2]
        held = os.open(device, os.O_RDWR | os.O_EXCL)
        try:
            assert "[volume-target]" in run(capsys, *words, "--overwrite")[2]
        finally:
            os.close(held)
        assert run(capsys, *words, "--overwrite")[0] == 0
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


# --- profiles in files ------------------------------------------------------------------------


def test_a_profile_in_both_forms():
    text = {
        "schema": volume_profile_file.SCHEMA,
        "integrity": "none",
        "sector_size": 512,
        "uuid": UUID,
        "data_offsets": [1 << 20],
        "data_size": 4096,
        "cipher": "aes-xts-plain64",
        "key_size": 32,
        "keyslot_cipher": "aes-xts-plain64",
        "keyslot_key_size": 32,
        "kdfs": ["argon2id"],
        "max_pbkdf2_iterations": 1,
        "max_digest_iterations": 2,
        "max_argon2_memory_kib": 3,
        "max_argon2_time": 4,
        "max_argon2_cpus": 5,
    }
    assert set(text) == {"schema", *volume_profile_file.FIELDS}
    expected = VolumeProfile(
        "none", 512, UUID, (1 << 20,), 4096, "aes-xts-plain64", 32, "aes-xts-plain64", 32,
        ("argon2id",), 1, 2, 3, 4, 5,
    )  # fmt: skip
    toml = "".join(f"{name} = {json.dumps(value)}\n" for name, value in text.items())
    assert volume_profile_file.parse(json.dumps(text).encode()) == expected
    assert volume_profile_file.parse(toml.encode()) == expected
    least = f'schema = "{volume_profile_file.SCHEMA}"'.encode()
    assert volume_profile_file.parse(least) == VolumeProfile()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "x",
        "{",
        "x = [",
        'schema = "troth-volume-profile-v2"',
        *(
            f'schema = "troth-volume-profile-v1"\n{line}'
            for line in (
                "x = 1", "integrity = 1", 'integrity = "crc32c"', "sector_size = 4097",
                "sector_size = true", "sector_size = 4096.0", 'uuid = "x"', "data_offsets = 1",
                "data_offsets = []", "data_offsets = [0]", "data_offsets = [true]",
                "data_offsets = [1048577]", "data_size = 1", 'kdfs = ["scrypt"]', "kdfs = []",
                'cipher = "aes-xts-plain64"', "key_size = 32", "keyslot_key_size = 16",
                'keyslot_cipher = "cipher_null-ecb"',
                'cipher = "aes-cbc-plain64"\nkey_size = 32', "max_argon2_time = -1",
                "uuid = 1979-05-27", f'uuid = "{UUID.upper()}"',
            )
        ),
    ],
)  # fmt: skip
def test_profiles_that_no_volume_can_have(text):
    with pytest.raises(UsageError) as caught:
        volume_profile_file.parse(text.encode(), where="p")
    assert caught.value.code == "volume-profile-file"
    assert caught.value.where.startswith("p")


@given(st.binary(max_size=100))
def test_arbitrary_bytes_are_no_profile(data):
    with pytest.raises(UsageError):
        volume_profile_file.parse(data)


def test_records_say_what_is_wrong_with_them():
    with pytest.raises(FormatError) as caught:
        replace(VolumeProfile(), integrity="sha256")
    assert caught.value.code == "volume-profile"
    assert profile().text == "luks2/none/4096"
