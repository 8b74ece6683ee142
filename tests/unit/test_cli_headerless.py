# SPDX-License-Identifier: Apache-2.0
"""Volumes without a header on the host: made there, and judged as a guest would."""

import hashlib
import json
import os
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from made_volumes import OTHER_UUID, SECRET, UUID, VOLUME, committed, head_of, packed, superblock
from troth.abi import volume_record
from troth.ciphers import xts
from troth.cli.main import main
from troth.documents import volume_profile_file
from troth.errors import FormatError
from troth.record import replace
from troth.volumes import headerless, headerless_checks, keys, mkfs
from troth.volumes.headerless_checks import Disk, Expected
from troth.volumes.record_reasons import WHY
from troth.volumes.release import UNSAID, Release

MIB = 1 << 20
PROFILE = "headerless/none/4096"
NONE = replace(VOLUME, integrity="none")
RECORD_BYTES = volume_record.RECORD_BYTES


@pytest.fixture
def key(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(SECRET)
    return str(path)


def run(capsys, *words):
    status = main([str(word) for word in words])
    said = capsys.readouterr()
    return status, said.out, said.err


def formatted(capsys, path, key, *words):
    return run(
        capsys, "volume", "format", path, "--key-file", key, "--integrity", "none",
        "--uuid", UUID, *words,
    )  # fmt: skip


def checked(capsys, *words):
    status, out, err = run(capsys, "volume", "check", *words, "--json")
    assert not err
    return status, json.loads(out)


@pytest.fixture
def content(tmp_path):
    path = tmp_path / "content"
    path.write_bytes(os.urandom(2 * MIB + 12345))
    return path


# --- made ------------------------------------------------------------------------------------


def test_content(capsys, tmp_path, key, content):
    path = tmp_path / "volume"
    status, out, err = formatted(capsys, path, key, "--content", content, "--json")
    assert (status, err) == (0, "")
    stored = path.read_bytes()
    padded = content.read_bytes().ljust(2 * MIB + 16384, b"\0")
    record = stored[RECORD_BYTES : 2 * RECORD_BYTES]
    assert json.loads(out) == {
        "schema": "troth-volume-format-v1",
        "device": str(path),
        "format": "headerless",
        "uuid": UUID,
        "profile": PROFILE,
        "size_bytes": MIB + len(padded),
        "data_offset_bytes": MIB,
        "complete": True,
        "generation": 1,
        "record": hashlib.sha256(record).hexdigest(),
    }
    assert path.stat().st_mode & 0o777 == 0o600
    # All else before the data is blank.
    assert not any(stored[:RECORD_BYTES] + stored[2 * RECORD_BYTES : MIB])
    data_key = keys.derive(SECRET, uuid=UUID, profile=PROFILE, role=keys.XTS)
    assert xts.decrypt(data_key, stored[MIB:], sector_bytes=4096) == padded


def test_a_guest_opens_it_as_the_broker_was_told(capsys, tmp_path, key, content):
    """What is printed is what ``troth keybroker add --in-use`` takes, and the guest believes it."""
    path = tmp_path / "volume"
    said = json.loads(formatted(capsys, path, key, "--content", content, "--json")[1])
    head = path.read_bytes()[: 2 * RECORD_BYTES]
    released = Release(
        bytearray(SECRET), "broker keys", "in-use", tracked=True,
        generation=said["generation"], digest=said["record"],
    )  # fmt: skip
    found = headerless.judge(NONE, released, head).record
    assert (found.generation, found.profile) == (1, PROFILE)
    assert found.data_sectors * 512 == said["size_bytes"] - MIB
    assert headerless.data_key(NONE, released) == keys.derive(
        SECRET, uuid=UUID, profile=PROFILE, role=keys.XTS
    )


@pytest.mark.skipif(not os.path.exists(mkfs.PATH), reason="needs mke2fs")
def test_an_empty_file_system(capsys, tmp_path, key):
    path = tmp_path / "volume"
    status, out, err = formatted(capsys, path, key, "--size", "10M")
    assert (status, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == [
        "volume", "uuid", "data", "generation", "record",
    ]  # fmt: skip
    data_key = keys.derive(SECRET, uuid=UUID, profile=PROFILE, role=keys.XTS)
    plain = tmp_path / "plain"
    plain.write_bytes(xts.decrypt(data_key, path.read_bytes()[MIB:], sector_bytes=4096))
    subprocess.run(["e2fsck", "-f", "-n", plain], check=True, capture_output=True)
    data = plain.read_bytes()
    assert data[0x468:0x478].hex() == UUID.replace("-", "")
    # Blocks of dm-crypt's sectors, or the kernel does not mount it there: 2 is log2 of 4096/1024.
    assert data[0x418] == 2


def test_no_program_to_make_it(capsys, tmp_path, key, monkeypatch):
    monkeypatch.setattr(mkfs, "PATH", str(tmp_path / "none"))
    status, _out, err = formatted(capsys, tmp_path / "volume", key, "--size", "10M")
    assert (status, "[volume-mkfs]" in err) == (3, True)
    assert not (tmp_path / "volume").exists()


def test_no_two_are_alike(capsys, tmp_path, key, content):
    said = [
        json.loads(formatted(capsys, tmp_path / name, key, "--content", content, "--json")[1])
        for name in "ab"
    ]
    assert said[0]["record"] != said[1]["record"]


@pytest.mark.parametrize("integrity", ["hmac", "aes-gcm"])
def test_tags_are_the_kernels(capsys, tmp_path, key, integrity):
    path = tmp_path / "volume"
    words = ("volume", "format", path, "--key-file", key, "--size", "10M")
    status, _out, err = run(capsys, *words, "--integrity", integrity)
    assert (status, "[volume-tags]" in err) == (3, True)
    assert "first boot" in err
    assert not path.exists()
    # And hmac is what is meant where nothing is said: no volume is weaker by an oversight.
    assert "[volume-tags]" in run(capsys, *words)[2]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--size", "10M", "--raw-key"], "usage"),
        (["--size", "10M", "--data-offset", "16M"], "usage"),
        (["--size", "8M"], "volume-size"),
        ([], "volume-size"),
        (["--content", "/none"], "volume-content"),
    ],
)
def test_format_refuses(capsys, tmp_path, key, words, code):
    path = tmp_path / "volume"
    status, _out, err = formatted(capsys, path, key, *words)
    assert (status, f"[{code}]" in err) == (2, True), err
    assert not path.exists()


def test_the_record_is_written_last(capsys, tmp_path, key, content, monkeypatch):
    order = []
    write, sync = os.pwrite, os.fsync
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: order.append(at) or write(fd, data, at))
    monkeypatch.setattr(os, "fsync", lambda fd: order.append("sync") or sync(fd))
    formatted(capsys, tmp_path / "volume", key, "--content", content)
    assert order == [MIB, 2 * MIB, 3 * MIB, "sync", 0, "sync"]


# --- judged ----------------------------------------------------------------------------------


@pytest.fixture
def volume(capsys, tmp_path, key, content):
    path = tmp_path / "volume"
    assert formatted(capsys, path, key, "--content", content)[0] == 0
    return path


def test_accepted(capsys, volume, key):
    record = hashlib.sha256(volume.read_bytes()[RECORD_BYTES : 2 * RECORD_BYTES]).hexdigest()
    words = (volume, "--integrity", "none", "--uuid", UUID)
    status, found = checked(capsys, *words, "--key-file", key, "--record", record)
    assert (status, found["verdict"], found["code"], found["opened"]) == (0, "accepted", "", True)
    assert (found["uuid"], found["profile"]) == (UUID, PROFILE)
    assert (found["slot"], found["generation"], found["record"]) == (1, 1, record)
    rows = [(item["code"], item.get("place")) for item in found["checks"]]
    assert rows == [
        ("record-size", None), ("record-blank", None), ("record-rolled-back", "slot 1"),
        ("record-volume", "slot 1"), ("record-mac", "slot 1"), ("record-form", "slot 1"),
        ("record-profile", "slot 1"), ("record-profile", "slot 1"),
    ]  # fmt: skip
    assert all(item["why"] == WHY[item["code"]] for item in found["checks"])
    status, found = checked(capsys, *words)
    assert (status, found["opened"]) == (0, None)
    status, out, _err = run(capsys, "volume", "check", *words)
    assert out.splitlines()[-1].endswith("no key was tried, so nothing of it is proved")
    assert "->" not in out


def test_by_a_profile_file(capsys, tmp_path, volume, key):
    path = tmp_path / "profile"
    schema = volume_profile_file.SCHEMA
    path.write_text(json.dumps({"schema": schema, "integrity": "none", "uuid": UUID}))
    assert checked(capsys, volume, "--profile", path, "--key-file", key)[0] == 0
    assert checked(capsys, volume, "--profile", path, "--uuid", OTHER_UUID)[1]["code"] == (
        "record-volume"
    )
    path.write_text(json.dumps({"schema": schema, "integrity": "none", "sector_size": 512}))
    status, _out, err = run(capsys, "volume", "check", volume, "--profile", path)
    assert (status, "[volume-profile-file]" in err) == (2, True)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--raw-key", "--key-file", "KEY"], "usage"),
        (["--record", "AB" * 32], "volume-record"),
        (["--record", "ab"], "volume-record"),
        (["--uuid", "x"], "volume-uuid"),
        (["--format", "luks2", "--record", "ab" * 32], "usage"),
    ],
)
def test_check_refuses(capsys, volume, key, words, code):
    words = [key if word == "KEY" else word for word in words]
    status, _out, err = run(capsys, "volume", "check", volume, *words)
    assert (status, f"[{code}]" in err) == (2, True), err


def test_the_format_that_is_said_is_the_one_that_is_judged(capsys, tmp_path, volume):
    """The disk chooses nothing where the operator does."""
    assert checked(capsys, volume, "--format", "luks2")[1]["code"] == "luks2-primary"
    blank = tmp_path / "blank"
    blank.write_bytes(bytes(2 * MIB))
    assert checked(capsys, blank, "--format", "headerless")[1]["code"] == "record-blank"
    assert checked(capsys, blank)[1]["code"] == "luks2-primary"


def other_volume(data):
    data[RECORD_BYTES : 2 * RECORD_BYTES] = packed(volume=replace(NONE, uuid=OTHER_UUID))


def altered(data):
    data[RECORD_BYTES + 100] ^= 1


def garbage(data):
    data[: 2 * RECORD_BYTES] = os.urandom(2 * RECORD_BYTES)


def blank(data):
    data[: 2 * RECORD_BYTES] = bytes(2 * RECORD_BYTES)


def cut_in_the_data(data):
    del data[2 * MIB :]


def cut_in_the_head(data):
    del data[RECORD_BYTES + 512 :]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (other_volume, "record-volume"),
        (altered, "record-mac"),
        (garbage, "record-mac"),
        (blank, "record-blank"),
        (cut_in_the_data, "record-profile"),
        (cut_in_the_head, "record-size"),
    ],
)
def test_refused(capsys, volume, key, change, code):
    data = bytearray(volume.read_bytes())
    change(data)
    volume.write_bytes(data)
    words = (volume, "--format", "headerless", "--integrity", "none", "--uuid", UUID)
    status, found = checked(capsys, *words, "--key-file", key)
    assert (status, found["verdict"], found["code"]) == (1, "refused", code)
    assert (found["opened"], found["slot"] is None) == (False, code != "")
    status, out, _err = run(capsys, "volume", "check", *words, "--key-file", key)
    assert out.splitlines()[-1] == f"refused: {code}: no guest opens it"
    assert WHY[code] in out


def test_another_key_profile_or_record(capsys, tmp_path, volume, key):
    other = tmp_path / "other"
    other.write_bytes(bytes(32))
    none = ("--integrity", "none")
    assert checked(capsys, volume, *none, "--key-file", other)[1]["code"] == "record-mac"
    assert checked(capsys, volume)[1]["code"] == "record-profile"
    found = checked(capsys, volume, *none, "--key-file", key, "--record", "ab" * 32)[1]
    assert found["code"] == "record-rolled-back"


def test_the_newest_of_two_and_a_damaged_one(capsys, volume, key):
    data = bytearray(volume.read_bytes())
    sectors = (len(data) - MIB) // 512
    data[:RECORD_BYTES] = packed(volume=NONE, generation=2, sectors=sectors)
    volume.write_bytes(data)
    words = (volume, "--integrity", "none", "--key-file", key)
    assert checked(capsys, *words)[1]["generation"] == 2
    data[200] ^= 1
    volume.write_bytes(data)
    status, found = checked(capsys, *words)
    # A write that was cut off leaves one; it is shown, and the other one opens the volume.
    assert (status, found["generation"], found["slot"]) == (0, 1, 1)
    assert [item["place"] for item in found["checks"] if item["verdict"] == "fail"] == [
        "slot 0"
    ] * 2


@pytest.mark.parametrize(
    ("tag", "provided", "code"),
    [(32, 8192, ""), (28, 8192, "integrity-superblock"), (32, 1 << 40, "integrity-superblock"),
     (32, 4096, "record-profile"), (0, 0, "integrity-superblock")],
)  # fmt: skip
def test_a_volume_with_tags(tag, provided, code):
    disk = Disk(
        head=head_of((1, packed(sectors=8192))),
        superblock=superblock(tag=tag, provided=provided).ljust(4096, b"\0"),
        size_bytes=8 * MIB,
    )
    found = headerless_checks.judge(disk, Expected("hmac", UUID), SECRET)
    assert found.code == code


DATA = st.sampled_from(
    [
        bytes(RECORD_BYTES),
        packed(volume=NONE, sectors=8),
        packed(volume=NONE, sectors=8, generation=2),
        packed(volume=NONE, sectors=8, secret=SECRET[::-1]),
        packed(volume=NONE, sectors=1 << 40),
        packed(volume=replace(NONE, uuid=OTHER_UUID), sectors=8),
        packed(sectors=8),
        packed(volume=NONE, sectors=8, profile="headerless/hmac/4096"),
        packed(volume=NONE, sectors=8, generation=0),
        b"\xff" * RECORD_BYTES,
    ]
)


@given(slots=st.lists(DATA, min_size=2, max_size=2), flip=st.integers(-1, 2 * RECORD_BYTES - 1),
       pick=st.sampled_from([-1, 0, 1]))  # fmt: skip
def test_the_guest_says_the_same(slots, flip, pick):
    """One record or none, for whatever the disk holds; sizes are the guest's next step."""
    head = bytearray(b"".join(slots))
    if flip >= 0:
        head[flip] ^= 1
    if pick < 0:
        released, digest = Release(bytearray(SECRET), "file:x", UNSAID), ""
    else:
        released = committed(bytes(head[pick * RECORD_BYTES :][:RECORD_BYTES]), 1)
        digest = released.digest
    disk = Disk(head=bytes(head), superblock=b"", size_bytes=1 << 50)
    found = headerless_checks.judge(disk, Expected("none", UUID, digest), SECRET)
    try:
        guest = headerless.judge(NONE, released, bytes(head)).record
    except FormatError as error:
        assert found.code
        assert found.record is None
        assert error.code in {item.check.code for item in found.checks if not item.check.passed}
    else:
        assert (found.code, found.record) == ("", guest)
