# SPDX-License-Identifier: Apache-2.0
"""LUKS2 volumes in the key worker: judged once, formatted by the broker's word alone, committed."""

import os
from hashlib import sha256

import pytest

from made_luks2 import Random, metadata, packed
from made_volumes import RELEASED, SECRET, UUID, VOLUME, Mapper, disk, superblock
from troth.documents.volume_profile import VolumeProfile
from troth.errors import FormatError
from troth.linux import syscalls
from troth.record import replace
from troth.volumes import header_area, keys, luks2_open, luks2_volume, luks2_write, mkfs, opening
from troth.volumes.release import FORMATTING, UNSAID

AREA_BYTES = header_area.AREA_BYTES
SECTORS = (48 << 20) // 512
DATA_OFFSET = luks2_write.DATA_OFFSET_BYTES // 512
NEW = replace(RELEASED, state=FORMATTING, tracked=True)
UNCOUNTED = replace(RELEASED, state=UNSAID)
INTEGRITIES = ("none", "hmac", "aes-gcm")
TAGS = {"hmac": 32, "aes-gcm": 28}


def volume(integrity="none", **changes):
    return replace(VOLUME, format="luks2", integrity=integrity, **changes)


def area(integrity="none", *, secret=SECRET, seed=b"troth"):
    """The first MiB of a volume of ours."""
    profile = VolumeProfile(integrity=integrity, uuid=UUID)
    passphrase = keys.passphrase(secret, uuid=UUID, profile=profile.text)
    made = luks2_write.new(profile, passphrase, random=Random(seed))
    return made.head.ljust(AREA_BYTES, b"\0"), bytes(made.volume_key)


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A device mapper and a file system maker that leave traces, and no kernel below."""
    monkeypatch.setattr(syscalls, "add_key", lambda *_words, **_named: 7)
    monkeypatch.setattr(syscalls, "keyctl", lambda *_words: 0)
    return System(tmp_path, monkeypatch)


class System:
    def __init__(self, directory, monkeypatch):
        self.directory, self.made = directory, []
        monkeypatch.setattr(mkfs, "make", lambda _node, kind, *, uuid: self.made.append(kind))
        monkeypatch.setattr(mkfs, "zero", lambda _node, _size: self.made.append("zero"))

    def disk(self, head=b"", *, integrity="none", provided=8192, sectors=SECTORS):
        found = disk(self.directory / "vdb", sectors=sectors, head=head)
        if integrity != "none" and provided:
            with open(found.node, "r+b") as file:
                file.seek(DATA_OFFSET * 512)
                file.write(superblock(tag=TAGS[integrity], provided=provided))
        return found

    def mapper(self, found):
        return Mapper(on_disk=found, directory=self.directory)


def head(found):
    return header_area.read_file(found.node)


def counted(data):
    return replace(RELEASED, tracked=True, generation=1, digest=sha256(data).hexdigest())


@pytest.mark.parametrize("counts", [False, True])
@pytest.mark.parametrize("integrity", INTEGRITIES)
def test_opened_by_constants(system, integrity, counts):
    data, key = area(integrity)
    found = system.disk(data, integrity=integrity)
    mapper = system.mapper(found)
    released = counted(data) if counts else UNCOUNTED
    opened = opening.open_(mapper, volume(integrity), found, released)
    # The header is what was committed, and stays it: there is no next generation.
    assert (opened.key, opened.generation, opened.digest) == (key, 0, "")
    assert head(found) == data
    assert not system.made
    _uuid, targets, readonly = mapper.live["troth-data"]
    assert not readonly
    words = targets[0].text.split()
    if integrity == "none":
        assert words[0] == "aes-xts-plain64"
        assert words[2:] == ["0", "254:16", str(DATA_OFFSET), "1", "sector_size:4096"]
        assert targets[0].length == SECTORS - DATA_OFFSET
    else:
        assert words[4:] == ["0", "2", f"integrity:{TAGS[integrity]}:aead", "sector_size:4096"]
        below = mapper.live["troth-data-dif"][1][0]
        assert below.text.split()[1] == str(DATA_OFFSET)
        assert below.length == targets[0].length == 8192


@pytest.mark.parametrize("integrity", INTEGRITIES)
def test_the_header_is_read_once(system, integrity, monkeypatch):
    """A host that answers the second read with something else is asked only once."""
    data, key = area(integrity)
    found = system.disk(data, integrity=integrity)
    reads, pread = [], os.pread

    def lying(fd, size, offset):
        said = pread(fd, size, offset)
        if offset < AREA_BYTES:
            reads.append((offset, size))
            if len(reads) > 1:
                return b"\xff" * len(said)
        return said

    monkeypatch.setattr(os, "pread", lying)
    assert opening.open_(system.mapper(found), volume(integrity), found, UNCOUNTED).key == key
    assert reads == [(0, AREA_BYTES)]


@pytest.mark.parametrize("integrity", INTEGRITIES)
def test_a_broker_says_that_it_is_new(system, integrity):
    found = system.disk(b"\xff" * (2 * AREA_BYTES), integrity=integrity, provided=0)
    mapper = system.mapper(found)
    opened = opening.open_(mapper, volume(integrity), found, NEW)
    data = head(found)
    # What is committed is all that is judged, key-slot and the rest of the MiB included.
    assert (opened.generation, opened.digest) == (1, sha256(data).hexdigest())
    assert system.made == [*(["zero"] if integrity != "none" else []), "ext4"]
    profile = VolumeProfile(integrity=integrity, uuid=UUID)
    passphrase = keys.passphrase(SECRET, uuid=UUID, profile=profile.text)
    accepted = luks2_volume.luks2_profile.require(data, profile, memory_bytes=0)
    assert luks2_open.unlock(accepted, data, passphrase) == opened.key
    # The next boot, of which the broker says what this one committed.
    again = opening.open_(system.mapper(found), volume(integrity), found, counted(data))
    assert (again.key, again.digest) == (opened.key, "")
    assert system.made.count("ext4") == 1


@pytest.mark.parametrize("steps", range(5))
def test_a_format_that_was_cut_off_leaves_no_header(system, monkeypatch, steps):
    """The header comes last, and comes whole or is none that is accepted."""
    found = system.disk(area()[0])
    left, pwrite = [steps], os.pwrite

    def cut(fd, data, offset):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(5, "Input/output error")
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", cut)
    try:
        opened = opening.open_(system.mapper(found), volume(), found, NEW)
    except OSError:
        opened = None
    monkeypatch.setattr(os, "pwrite", pwrite)
    # Zeros over the old header, then the new one.
    assert (opened is None) == (steps < 2)
    if steps == 1:
        assert not any(head(found))
    assert opening.open_(system.mapper(found), volume(), found, NEW).generation == 1


@pytest.mark.parametrize(
    ("data", "exact"),
    [
        (bytes(AREA_BYTES), "luks2-primary"),
        (area(secret=SECRET[::-1])[0], "luks2-key"),
        (area("hmac")[0], "luks2-segment-integrity"),
    ],
    ids=["blank", "another key", "another profile"],
)
@pytest.mark.parametrize("policy", ["refuse", "format"])
def test_nothing_is_mapped_or_written_for_another_header(system, data, exact, policy):
    found = system.disk(data)
    mapper = system.mapper(found)
    with pytest.raises(FormatError) as caught:
        opening.open_(mapper, volume(blank=policy), found, UNCOUNTED)
    assert caught.value.code == exact
    assert not mapper.calls
    assert head(found) == data


def another_slot(data):
    """A second passphrase, which whoever had the key once may have added."""
    tree = metadata(data)
    tree["keyslots"]["1"] = tree["keyslots"]["0"]
    return packed(data, tree)


@pytest.mark.parametrize(
    "old",
    [
        area(seed=b"before")[0],
        another_slot(area()[0]),
        area()[0][:-1] + b"\1",
        bytes(AREA_BYTES),
        b"",
    ],
    ids=["older", "another slot", "its last byte", "blank", "nothing"],
)
def test_only_the_committed_header(system, old, monkeypatch):
    """Under the same key, whole, and good in itself: it is not parsed."""
    released = counted(area()[0])
    monkeypatch.setattr(luks2_volume.luks2_profile, "require", None)
    found = system.disk(old)
    mapper = system.mapper(found)
    with pytest.raises(FormatError) as caught:
        opening.open_(mapper, volume(), found, released)
    assert caught.value.code == "luks2-rolled-back"
    assert not mapper.calls


def test_no_key_is_tried_on_a_header_that_is_refused(system, monkeypatch):
    tree = metadata(area()[0])
    tree["keyslots"]["0"]["kdf"]["iterations"] = 2**32 - 1
    found = system.disk(packed(area()[0], tree))
    monkeypatch.setattr(luks2_open, "unlock", None)
    with pytest.raises(FormatError) as caught:
        opening.open_(system.mapper(found), volume(), found, UNCOUNTED)
    assert caught.value.code == "luks2-kdf-cost"


@pytest.mark.parametrize("format_", ["luks2", "headerless"])
def test_what_the_build_made_is_not_formatted(system, format_):
    """The disk around a verified root: no broker's word has it written over."""
    found = system.disk(area()[0])
    mapper = system.mapper(found)
    inside = volume(name="root", mount="", file_system="")
    with pytest.raises(FormatError) as caught:
        opening.open_(mapper, replace(inside, format=format_), found, NEW)
    assert caught.value.code == "volume-not-made"
    assert not mapper.calls
    assert head(found) == area()[0]


def test_what_a_verified_volume_lies_in_is_readonly(system, monkeypatch):
    data, key = area()
    found = system.disk(data)
    mapper = system.mapper(found)
    opened_with, real = [], os.open
    monkeypatch.setattr(
        os, "open", lambda path, flags, *rest: opened_with.append(flags) or real(path, flags, *rest)
    )
    opened = opening.open_(
        mapper, volume(name="root", mount="", file_system=""), found, counted(data)
    )
    assert (opened.key, opened.map.name) == (key, "troth-root-clear")
    assert mapper.live["troth-root-clear"][2]
    assert not any(flags & (os.O_RDWR | os.O_WRONLY) for flags in opened_with)


@pytest.mark.parametrize("provided", [0, 1 << 40])
def test_a_superblock_that_the_host_wrote(system, provided):
    data, _key = area("hmac")
    found = system.disk(data, integrity="hmac", provided=provided)
    mapper = system.mapper(found)
    with pytest.raises(FormatError) as caught:
        opening.open_(mapper, volume("hmac"), found, UNCOUNTED)
    assert caught.value.code == "integrity-superblock"
    assert not mapper.calls


def test_a_disk_without_room_for_the_data(system):
    found = system.disk(area()[0], sectors=DATA_OFFSET)
    mapper = system.mapper(found)
    with pytest.raises(FormatError) as caught:
        opening.open_(mapper, volume(), found, UNCOUNTED)
    assert caught.value.code == "luks2-device-size"
    assert not mapper.calls
