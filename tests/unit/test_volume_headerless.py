# SPDX-License-Identifier: Apache-2.0
"""Headerless volumes: which record is believed, and that a cut at any step loses nothing."""

import errno
import hashlib
import hmac
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from made_volumes import (
    OTHER_UUID,
    RELEASED,
    SECRET,
    UUID,
    VOLUME,
    Mapper,
    committed,
    disk,
    head_of,
    packed,
    superblock,
)
from troth.abi import volume_record
from troth.errors import FormatError
from troth.linux import syscalls
from troth.record import replace
from troth.volumes import headerless, mkfs, opening
from troth.volumes.release import FORMATTING, UNSAID

RECORD_BYTES = volume_record.RECORD_BYTES
BLANK = bytes(2 * RECORD_BYTES)
UNCOUNTED = replace(RELEASED, state=UNSAID)
FORMATS = replace(VOLUME, blank="format")
UNTAGGED = replace(VOLUME, integrity="none")


def code_of(volume, released, head):
    with pytest.raises(FormatError) as caught:
        headerless.judge(volume, released, head)
    assert caught.value.message.startswith("data: ")
    return caught.value.code


def generation_of(volume, released, head):
    return headerless.judge(volume, released, head).record.generation


# --- which record is believed ----------------------------------------------------------------


@pytest.mark.parametrize("volume", [VOLUME, FORMATS])
def test_a_blank_disk_where_the_broker_says_that_it_is_in_use(volume):
    assert code_of(volume, RELEASED, BLANK) == "record-blank"
    first = packed()
    assert code_of(volume, committed(first, 1), BLANK) == "record-blank"


def test_a_blank_disk_where_nobody_counts():
    """The policy decides, which is measured; never the disk."""
    assert code_of(VOLUME, UNCOUNTED, BLANK) == "record-blank"
    assert headerless.judge(FORMATS, UNCOUNTED, BLANK).record is None


@pytest.mark.parametrize("head", [BLANK, head_of((1, packed())), b"\xff" * len(BLANK)])
def test_a_broker_that_says_format(head):
    released = replace(RELEASED, state=FORMATTING)
    assert headerless.judge(VOLUME, released, head).record is None


@pytest.mark.parametrize("size", [0, 4096, len(BLANK) - 1])
@pytest.mark.parametrize("state", [FORMATTING, UNSAID, "in-use"])
def test_a_disk_that_ends_early(size, state):
    assert code_of(FORMATS, replace(RELEASED, state=state), bytes(size)) == "record-size"


@pytest.mark.parametrize("slot", [0, 1])
def test_another_volumes_disk(slot):
    other = packed(volume=replace(VOLUME, uuid=OTHER_UUID))
    assert code_of(VOLUME, RELEASED, head_of((slot, other))) == "record-volume"


def test_another_key():
    """The same volume id, by whoever had another key: another broker, another measurement."""
    foreign = packed(secret=SECRET[::-1])
    assert code_of(VOLUME, RELEASED, head_of((1, foreign))) == "record-mac"


@pytest.mark.parametrize("at", [0, 9, 40, 97, 105, 130, 480, 511, 512, 4095])
def test_a_changed_record(at):
    data = bytearray(packed())
    data[at] ^= 1
    assert code_of(VOLUME, RELEASED, head_of((1, bytes(data)))) == "record-mac"


def test_a_changed_volume_id_is_another_volume():
    data = bytearray(packed())
    data[16] ^= 1
    assert code_of(VOLUME, RELEASED, head_of((1, bytes(data)))) == "record-volume"


@pytest.mark.parametrize("profile", ["headerless/none/4096", "luks2/hmac/4096"])
def test_another_profile_made_with_this_key(profile):
    assert code_of(VOLUME, RELEASED, head_of((1, packed(profile=profile)))) == "record-profile"


def test_a_policy_of_another_profile_has_another_key():
    """The profile is in the derivation: weaker words open nothing of a stronger volume."""
    weaker = replace(VOLUME, integrity="none")
    assert code_of(weaker, RELEASED, head_of((1, packed()))) == "record-mac"


def test_somebody_with_the_key_and_another_version(monkeypatch):
    monkeypatch.setattr(volume_record, "_VERSION", 2)
    data = packed()
    monkeypatch.undo()
    assert code_of(VOLUME, RELEASED, head_of((1, data))) == "record-form"


def test_noise():
    head = bytes(range(1, 256)) * 33
    assert code_of(VOLUME, RELEASED, head[: len(BLANK)]) == "record-mac"


@pytest.mark.parametrize("generations", [(1, 2), (2, 3), (4, 5), (254, 255)])
def test_the_newest_of_two_where_nobody_counts(generations):
    head = head_of(*((number, packed(generation=number)) for number in generations))
    assert generation_of(VOLUME, UNCOUNTED, head) == generations[1]
    assert generation_of(VOLUME, RELEASED, head) == generations[1]


@pytest.mark.parametrize("damaged", [1, 2])
def test_a_damaged_neighbour_where_nobody_counts(damaged):
    """A write that was cut off leaves half a record: the other one is still there."""
    slots = {number: packed(generation=number) for number in (1, 2)}
    slots[damaged] = slots[damaged][:100].ljust(RECORD_BYTES, b"\0")
    assert generation_of(VOLUME, RELEASED, head_of(*slots.items())) == 3 - damaged


@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize("neighbour", ["blank", "older", "newer", "noise", "foreign"])
def test_the_committed_record_in_either_slot(at, neighbour):
    wanted = packed(generation=5)
    other = {
        "blank": bytes(RECORD_BYTES),
        "older": packed(generation=4),
        "newer": packed(generation=6),
        "noise": b"\xa5" * RECORD_BYTES,
        "foreign": packed(volume=replace(VOLUME, uuid=OTHER_UUID), generation=9),
    }[neighbour]
    head = head_of((at, wanted), (at + 1, other))
    found = headerless.judge(VOLUME, committed(wanted, 5), head).record
    assert found == volume_record.check(wanted, record_key())


def record_key():
    return headerless.keys.derive(SECRET, uuid=UUID, profile=VOLUME.profile, role="record")


@pytest.mark.parametrize(
    "head",
    [
        head_of((4, packed(generation=4)), (3, packed(generation=3))),
        head_of((4, packed(generation=4))),
        # The right generation, of a boot whose commit the broker never took.
        head_of((5, packed(generation=5, nonce=b"\2" * 32)), (4, packed(generation=4))),
        # Newer than what was committed: it was never current either.
        head_of((7, packed(generation=7))),
    ],
    ids=["both older", "one older", "never committed", "newer"],
)
def test_rolled_back(head):
    assert code_of(VOLUME, committed(packed(generation=5), 5), head) == "record-rolled-back"


def test_rolled_back_to_nothing_of_ours():
    head = head_of((1, packed(secret=SECRET[::-1])))
    assert code_of(VOLUME, committed(packed(), 1), head) == "record-mac"


def test_a_broker_that_committed_what_this_key_did_not_make():
    """A record and a key that do not belong together are not joined by a digest."""
    foreign = packed(secret=SECRET[::-1])
    assert code_of(VOLUME, committed(foreign, 1), head_of((1, foreign))) == "record-mac"


@given(st.binary(max_size=2 * RECORD_BYTES), st.sampled_from([RELEASED, UNCOUNTED]))
def test_arbitrary_heads_are_refused(data, released):
    head = data.ljust(2 * RECORD_BYTES, b"\0")
    assert code_of(VOLUME, released, head).startswith("record-")


# --- opening: what is written, and when ------------------------------------------------------


class CutError(Exception):
    """The power went."""


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A device mapper and a file system maker that leave traces, and no kernel below."""
    monkeypatch.setattr(syscalls, "add_key", lambda *_words, **_named: 7)
    monkeypatch.setattr(syscalls, "keyctl", lambda *_words: 0)
    made = []
    monkeypatch.setattr(mkfs, "make", lambda node, kind, *, uuid: made.append((node, kind, uuid)))
    monkeypatch.setattr(mkfs, "zero", lambda node, size: made.append((node, "zero", size)))
    return System(tmp_path, made)


class System:
    def __init__(self, directory, made):
        self.directory, self.made = directory, made

    def disk(self, head=b"", *, integrity="hmac", provided=8192, sectors=40_000):
        found = disk(self.directory / "vdb", sectors=sectors, head=head)
        if provided and integrity != "none":
            with open(found.node, "r+b") as file:
                file.seek(1 << 20)
                file.write(
                    superblock(tag={"hmac": 32, "aes-gcm": 28}[integrity], provided=provided)
                )
        return found

    def mapper(self, found):
        return Mapper(on_disk=found, directory=self.directory)


def head(found):
    with open(found.node, "rb") as file:
        return file.read(2 * RECORD_BYTES)


@pytest.mark.parametrize("generation", [1, 2, 7])
@pytest.mark.parametrize("integrity", ["hmac", "aes-gcm", "none"])
def test_open_writes_the_next_record_beside_the_committed_one(system, integrity, generation):
    volume = replace(VOLUME, integrity=integrity)
    old = packed(volume=volume, generation=generation)
    found = system.disk(head_of((generation, old)), integrity=integrity)
    mapper = system.mapper(found)
    opened = headerless.open_(mapper, volume, found, committed(old, generation))
    assert opened.generation == generation + 1
    assert opened.map.name == "troth-data"
    assert len(opened.key) == {"hmac": 96, "aes-gcm": 32, "none": 64}[integrity]
    after = head(found)
    at = volume_record.slot(generation) * RECORD_BYTES
    assert after[at : at + RECORD_BYTES] == old
    new = after[RECORD_BYTES - at : 2 * RECORD_BYTES - at]
    assert headerless.sha256(new).hexdigest() == opened.digest
    # Both are good until the broker has answered, then the new one alone.
    assert generation_of(volume, committed(old, generation), after) == generation
    assert generation_of(volume, committed(new, generation + 1), after) == generation + 1
    # The record's own size, not what the superblock offers.
    assert {targets[0].length for _name, _uuid, targets, _ro in mapper.made} == {8192}
    assert not system.made


def test_two_boots_write_different_records(system):
    """A random nonce: the digest of an aborted boot never equals that of the next one."""
    old = packed()
    digests = set()
    for _ in range(3):
        found = system.disk(head_of((1, old)))
        opened = headerless.open_(system.mapper(found), VOLUME, found, committed(old, 1))
        digests.add(opened.digest)
    assert len(digests) == 3


def test_open_without_a_counter_writes_nothing(system):
    found = system.disk(head_of((1, packed())))
    before = head(found)
    opened = headerless.open_(system.mapper(found), VOLUME, found, UNCOUNTED)
    assert (opened.generation, opened.digest) == (0, "")
    assert head(found) == before
    assert not system.made


@pytest.mark.parametrize("integrity", ["hmac", "none"])
def test_a_disk_with_less_than_was_made(system, integrity):
    volume = replace(VOLUME, integrity=integrity)
    old = packed(volume=volume, sectors=62704)
    found = system.disk(head_of((1, old)), integrity=integrity, provided=8192)
    mapper = system.mapper(found)
    with pytest.raises(FormatError) as caught:
        headerless.open_(mapper, volume, found, committed(old, 1))
    assert caught.value.code == "record-profile"
    assert not mapper.calls


def test_a_superblock_of_another_volume(system):
    found = system.disk(head_of((1, packed())), integrity="aes-gcm")
    mapper = system.mapper(found)
    with pytest.raises(FormatError) as caught:
        headerless.open_(mapper, VOLUME, found, UNCOUNTED)
    assert caught.value.code == "integrity-superblock"
    assert not mapper.calls


@pytest.mark.parametrize(
    "released", [RELEASED, UNCOUNTED, committed(packed(), 1)], ids=["static", "unstated", "counted"]
)
def test_nothing_is_mapped_or_written_before_the_record_is_judged(system, released):
    found = system.disk(head_of((1, packed(secret=SECRET[::-1]))))
    before = head(found)
    mapper = system.mapper(found)
    with pytest.raises(FormatError) as caught:
        headerless.open_(mapper, VOLUME, found, released)
    assert caught.value.code == "record-mac"
    assert not mapper.calls
    assert head(found) == before


NEW = replace(RELEASED, state=FORMATTING)


@pytest.mark.parametrize("integrity", ["hmac", "aes-gcm", "none"])
@pytest.mark.parametrize(
    ("blank", "released"), [("refuse", NEW), ("format", UNCOUNTED)], ids=["broker", "policy"]
)
def test_format(system, integrity, blank, released):
    volume = replace(VOLUME, integrity=integrity, blank=blank)
    found = system.disk(integrity=integrity, provided=0)
    mapper = system.mapper(found)
    opened = headerless.open_(mapper, volume, found, released)
    assert opened.generation == 1
    sectors = mapper.made[-1][2][0].length
    node = opened.map.node
    zeroed = [] if integrity == "none" else [(node, "zero", sectors * 512)]
    assert system.made == [*zeroed, (node, "ext4", UUID)]
    record = headerless.judge(volume, replace(released, state="in-use"), head(found)).record
    assert (record.generation, record.data_sectors) == (1, sectors)
    assert record.profile == f"headerless/{integrity}/4096"
    # A second start opens what the first one made.
    again = headerless.open_(
        system.mapper(found), volume, found, replace(released, state="in-use", generation=1)
    )
    assert again.key == opened.key
    assert len(system.made) == len(zeroed) + 1


@pytest.mark.parametrize("integrity", ["hmac", "none"])
def test_a_disk_too_small_to_format(system, integrity):
    volume = replace(VOLUME, integrity=integrity)
    found = system.disk(integrity=integrity, provided=0, sectors=2048 + (8 << 11) - 1)
    with pytest.raises(FormatError) as caught:
        headerless.open_(system.mapper(found), volume, found, NEW)
    assert caught.value.code == "volume-small"
    assert not system.made


def test_another_use_of_the_key_in_each_place(system):
    """What dm-crypt gets holds nothing of the key of the record, nor of the source's key."""
    for integrity in ("hmac", "aes-gcm", "none"):
        key = headerless.data_key(replace(VOLUME, integrity=integrity), RELEASED)
        assert SECRET not in key
        assert record_key() not in key


# --- a cut at every step ---------------------------------------------------------------------


class Countdown:
    """Lets ``count`` steps through; the next one and all after it fail as a power cut does.

    A cut write reaches the disk in part: its first sector, or none of it.
    """

    def __init__(self, monkeypatch, mapper, count, *, partial):
        self.left, self.partial, self.steps = count, partial, 0
        self.pwrite = os.pwrite
        monkeypatch.setattr(os, "pwrite", self._pwrite)
        monkeypatch.setattr(os, "fsync", self._step(os.fsync))
        for name in ("create", "table"):
            monkeypatch.setattr(mapper, name, self._step(getattr(mapper, name)))
        for name in ("zero", "make"):
            monkeypatch.setattr(mkfs, name, self._step(getattr(mkfs, name)))

    def _cut(self):
        self.steps += 1
        self.left -= 1
        return self.left < 0

    def _step(self, real):
        def step(*words, **named):
            if self._cut():
                raise CutError
            return real(*words, **named)

        return step

    def _pwrite(self, fd, data, offset):
        if self._cut():
            if self.left == -1:
                self.pwrite(fd, data[: self.partial], offset)
            raise CutError
        return self.pwrite(fd, data, offset)


def cuts(system, monkeypatch, *, prepare, volume, released, partial):
    """The disk as it is after a cut at each step, from the first to none at all."""
    for count in range(100):
        found = prepare()
        mapper = system.mapper(found)
        with monkeypatch.context() as patch:
            countdown = Countdown(patch, mapper, count, partial=partial)
            try:
                opened = headerless.open_(mapper, volume, found, released)
            except CutError:
                opened = None
        yield found, opened
        if opened is not None:
            assert count == countdown.steps
            return
    raise AssertionError("it never ends")


@pytest.mark.parametrize("partial", [0, 512, RECORD_BYTES])
@pytest.mark.parametrize("integrity", ["hmac", "none"])
@pytest.mark.parametrize("generation", [1, 2])
def test_a_cut_while_opening_leaves_the_committed_record(
    system, monkeypatch, integrity, generation, partial
):
    volume = replace(VOLUME, integrity=integrity)
    old = packed(volume=volume, generation=generation)
    released = committed(old, generation)
    before = head_of((generation, old), (generation + 1, packed(generation=generation - 1 or 9)))
    seen = 0
    for found, _opened in cuts(
        system, monkeypatch, volume=volume, released=released, partial=partial,
        prepare=lambda: system.disk(before, integrity=integrity),
    ):  # fmt: skip
        seen += 1
        # The broker has heard nothing of it: what it committed is there, and opens again.
        assert generation_of(volume, released, head(found)) == generation
        again = headerless.open_(system.mapper(found), volume, found, released)
        assert again.generation == generation + 1
    # Map and table of each layer, the write, the flush, and the run without a cut.
    assert seen == {"hmac": 6, "none": 5}[integrity]


@pytest.mark.parametrize("partial", [0, 512, RECORD_BYTES])
@pytest.mark.parametrize("integrity", ["hmac", "none"])
@pytest.mark.parametrize(
    "before", [BLANK, head_of((1, packed()), (2, packed(generation=2)))], ids=["blank", "used"]
)
def test_a_cut_while_formatting_is_formatted_again(system, monkeypatch, integrity, before, partial):
    volume = replace(VOLUME, integrity=integrity)
    seen = 0
    for found, opened in cuts(
        system, monkeypatch, volume=volume, released=NEW, partial=partial,
        prepare=lambda: system.disk(before, integrity=integrity, provided=0),
    ):  # fmt: skip
        seen += 1
        if opened is None:
            # Until the record is committed the broker goes on saying that it is to be formatted.
            assert headerless.judge(volume, NEW, head(found)).record is None
        again = headerless.open_(system.mapper(found), volume, found, NEW)
        assert again.generation == 1
    assert seen > 6


@pytest.mark.parametrize("integrity", ["hmac", "none"])
def test_a_cut_while_formatting_where_nobody_counts(system, monkeypatch, integrity):
    """The record comes last: without it the disk is blank, and the policy formats again."""
    volume = replace(FORMATS, integrity=integrity)
    for found, opened in cuts(
        system, monkeypatch, volume=volume, released=UNCOUNTED, partial=0,
        prepare=lambda: system.disk(integrity=integrity, provided=0),
    ):  # fmt: skip
        made = len(system.made)
        again = headerless.open_(system.mapper(found), volume, found, UNCOUNTED)
        written = any(head(found)[RECORD_BYTES : RECORD_BYTES + 8])
        assert written
        if opened is not None:
            assert len(system.made) == made
            assert (again.generation, again.digest) == (0, "")


def test_a_disk_that_takes_no_write(system, monkeypatch):
    found = system.disk(head_of((1, packed())))

    def pwrite(_fd, _data, _offset):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(OSError, match="Input/output"):
        headerless.open_(system.mapper(found), VOLUME, found, committed(packed(), 1))


def test_a_disk_that_takes_half_a_record(system, monkeypatch):
    found = system.disk(head_of((1, packed())))
    monkeypatch.setattr(os, "pwrite", lambda _fd, data, _offset: len(data) - 1)
    with pytest.raises(FormatError) as caught:
        headerless.open_(system.mapper(found), VOLUME, found, committed(packed(), 1))
    assert caught.value.code == "volume-small"


# --- one volume as its policy says -----------------------------------------------------------


def test_a_volume_for_one_boot(system):
    volume = replace(VOLUME, key="random:")
    found = system.disk(provided=0)
    mapper = system.mapper(found)
    opened = opening.open_(mapper, volume, found, UNCOUNTED)
    assert (opened.generation, opened.digest) == (0, "")
    assert head(found) == BLANK
    # No reboot will need a journal.
    assert mapper.live["troth-data-dif"][1][0].text.split()[3] == "D"
    assert [what for _node, what, _rest in system.made] == ["zero", "ext4"]


def test_a_volume_for_one_boot_asks_the_disk_nothing(system):
    """What an earlier boot, or the host, left there is overwritten unread."""
    found = system.disk(b"\xff" * len(BLANK))
    volume = replace(VOLUME, key="random:")
    assert opening.open_(system.mapper(found), volume, found, UNCOUNTED).map.name == "troth-data"


def test_a_counted_volume_by_way_of_its_policy(system):
    found = system.disk(head_of((1, packed())))
    opened = opening.open_(system.mapper(found), VOLUME, found, committed(packed(), 1))
    assert opened.generation == 2


def test_what_a_verified_volume_lies_on_is_readonly(system):
    volume = replace(VOLUME, name="root", mount="", file_system="", integrity="none")
    old = packed(volume=volume)
    found = system.disk(head_of((1, old)), integrity="none")
    mapper = system.mapper(found)
    opened = opening.open_(mapper, volume, found, committed(old, 1))
    assert opened.map.name == "troth-root-clear"
    assert mapper.live["troth-root-clear"][2]
    # A disk that the host attaches read-only has room for no next record, and needs none.
    assert (opened.generation, opened.digest) == (0, "")
    assert head(found) == head_of((1, old))


def test_a_readonly_volume_of_which_nothing_was_committed(system):
    """Made on the host, and added without its record: what the first guest saw is committed."""
    volume = replace(VOLUME, name="root", mount="", file_system="", integrity="none")
    old = packed(volume=volume)
    found = system.disk(head_of((1, old)), integrity="none")
    added = replace(committed(old, 0), digest="")
    opened = opening.open_(system.mapper(found), volume, found, added)
    assert (opened.generation, opened.digest) == (1, hashlib.sha256(old).hexdigest())
    assert head(found) == head_of((1, old))


def test_the_event_of_a_volume_key():
    content, digests = opening.key_event(VOLUME, b"k" * 96, ("sha1", "sha256", "sha384"))
    assert content == f"cryptsetup:troth-data:{UUID}".encode()
    assert [(bank, len(value)) for bank, value in digests] == [
        ("sha1", 20), ("sha256", 32), ("sha384", 48),
    ]  # fmt: skip
    assert dict(digests)["sha256"] == hmac.new(b"k" * 96, content, hashlib.sha256).digest()
    # Neither the key's own digest nor that of the content: S36.
    assert dict(digests)["sha256"] != hashlib.sha256(b"k" * 96).digest()
    _content, others = opening.key_event(VOLUME, b"l" * 96, ("sha256",))
    assert others[0][1] != dict(digests)["sha256"]


@pytest.mark.parametrize("slot", [0, 1])
def test_the_committed_record_stays_wherever_a_host_put_it(system, slot):
    """Slots that were exchanged lead to no boot that overwrites the record it needs."""
    data = packed(volume=UNTAGGED, generation=4, sectors=8192)
    places = [bytes(len(data))] * 2
    places[slot] = data
    found = system.disk(head=b"".join(places), integrity="none")
    opened = headerless.open_(system.mapper(found), UNTAGGED, found, committed(data, 4))
    assert opened.generation == 5
    kept = head(found)
    assert kept[slot * len(data) :][: len(data)] == data
    assert hashlib.sha256(kept[(1 - slot) * len(data) :][: len(data)]).hexdigest() == opened.digest


def test_a_volume_that_was_made_elsewhere(system):
    """The broker has it in use and has no record of it yet: what is there is committed first."""
    data = packed(volume=UNTAGGED, generation=1, sectors=8192)
    found = system.disk(head=head_of((1, data)), integrity="none")
    released = replace(committed(data, 0), digest="")
    opened = headerless.open_(system.mapper(found), UNTAGGED, found, released)
    assert opened.generation == 1
    kept = head(found)
    assert kept[RECORD_BYTES:] == data
    assert hashlib.sha256(kept[:RECORD_BYTES]).hexdigest() == opened.digest


def test_an_image_is_never_formatted_over(system):
    """A broker that calls the disk of a verified image new: nothing is written."""
    around = replace(UNTAGGED, file_system="", mount="")
    data = packed(volume=around, generation=1, sectors=8192)
    found = system.disk(head=head_of((1, data)), integrity="none")
    released = replace(committed(data, 0), state=FORMATTING, digest="")
    with pytest.raises(FormatError) as caught:
        headerless.open_(system.mapper(found), around, found, released)
    assert caught.value.code == "volume-not-made"
    assert head(found) == head_of((1, data))
