# SPDX-License-Identifier: Apache-2.0
"""Tables of dm-crypt and dm-integrity: their exact text, and that no half of a stack stays."""

import contextlib

import pytest

from made_volumes import UUID, FileDisk, Mapper, disk, superblock
from troth.abi.dm import Target
from troth.errors import FormatError
from troth.linux import keyring, syscalls
from troth.record import replace
from troth.volumes import crypt
from troth.volumes.crypt import Place

HEX = UUID.replace("-", "")
DISK = FileDisk("vdb", "/dev/vdb", 100_000)
HMAC = Place("troth-data", HEX, DISK, 2048, "hmac")
GCM = replace(HMAC, integrity="aes-gcm")
PLAIN = replace(HMAC, integrity="none")
SIZES = {"hmac": 96, "aes-gcm": 32, "none": 64}
CIPHERS = {
    "hmac": "capi:authenc(hmac(sha256),xts(aes))-plain64",
    "aes-gcm": "capi:gcm(aes)-random",
    "none": "aes-xts-plain64",
}


class Keyring:
    """The kernel's keyring of this thread: what is in it, and what was ever put there."""

    def __init__(self):
        self.inside, self.ever = {}, []

    def add_key(self, kind, description, payload, *, keyring):
        assert (kind, keyring) == ("logon", -1)
        serial = 1000 + len(self.ever)
        self.inside[serial] = (description, payload)
        self.ever.append((description, payload))
        return serial

    def keyctl(self, operation, first, second):
        assert (operation, second) == (9, -1)
        del self.inside[first]
        return 0


@pytest.fixture
def ring(monkeypatch):
    made = Keyring()
    monkeypatch.setattr(syscalls, "add_key", made.add_key)
    monkeypatch.setattr(syscalls, "keyctl", made.keyctl)
    return made


def key_of(integrity):
    return bytes(range(SIZES[integrity]))


def opened(place, mapper=None, *, sectors=8192):
    mapper = mapper or Mapper()
    made = crypt.open_(mapper, place, sectors=sectors, key=key_of(place.integrity))
    return mapper, made


@pytest.mark.parametrize(
    ("place", "below", "text"),
    [
        (
            HMAC,
            "254:16 2048 32 J 2 block_size:4096 fix_padding",
            (
                "capi:authenc(hmac(sha256),xts(aes))-plain64 :96:logon:troth:troth-data 0 253:1 0"
                " 2 integrity:32:aead sector_size:4096"
            ),
        ),
        (
            GCM,
            "254:16 2048 28 J 2 block_size:4096 fix_padding",
            (
                "capi:gcm(aes)-random :32:logon:troth:troth-data 0 253:1 0"
                " 2 integrity:28:aead sector_size:4096"
            ),
        ),
        (
            replace(HMAC, mode=crypt.DIRECT),
            "254:16 2048 32 D 2 block_size:4096 fix_padding",
            (
                "capi:authenc(hmac(sha256),xts(aes))-plain64 :96:logon:troth:troth-data 0 253:1 0"
                " 2 integrity:32:aead sector_size:4096"
            ),
        ),
    ],
    ids=["hmac", "aes-gcm", "for one boot"],
)
def test_authenticated(ring, place, below, text):
    mapper, made = opened(place)
    assert made.name == "troth-data"
    assert mapper.made == [
        (
            "troth-data-dif",
            f"CRYPT-INTEGRITY-{HEX}-troth-data_dif",
            (Target(0, 8192, "integrity", below),),
            False,
        ),
        (
            "troth-data",
            f"CRYPT-TROTH-{HEX}-troth-data",
            (Target(0, 8192, "crypt", text),),
            False,
        ),
    ]
    assert ring.ever == [("troth:troth-data", key_of(place.integrity))]
    assert not ring.inside


def test_unauthenticated(ring):
    mapper, _made = opened(PLAIN)
    text = "aes-xts-plain64 :64:logon:troth:troth-data 0 254:16 2048 1 sector_size:4096"
    assert mapper.made == [
        ("troth-data", f"CRYPT-TROTH-{HEX}-troth-data", (Target(0, 8192, "crypt", text),), False)
    ]
    assert not ring.inside


def test_sectors_of_512_bytes_have_no_option(ring):
    mapper, _made = opened(replace(PLAIN, sector_bytes=512))
    text = mapper.made[0][2][0].text
    assert text == "aes-xts-plain64 :64:logon:troth:troth-data 0 254:16 2048"


@pytest.mark.parametrize("place", [HMAC, GCM, PLAIN])
def test_readonly_down_to_the_lowest(ring, place):
    mapper, _made = opened(replace(place, readonly=True))
    assert {readonly for _name, _uuid, _targets, readonly in mapper.made} == {True}


@pytest.mark.parametrize("integrity", SIZES)
def test_the_ciphers_are_these(integrity):
    """No header, and no policy, can name another one: ``cipher_null`` least of all."""
    assert crypt.CIPHERS[integrity].text == CIPHERS[integrity]
    assert set(crypt.CIPHERS) == set(CIPHERS)


@pytest.mark.parametrize("place", [HMAC, GCM, PLAIN])
def test_no_key_is_in_a_table(ring, place):
    mapper, _made = opened(place)
    key = key_of(place.integrity)
    shown = repr(mapper.made)
    assert key.hex() not in shown
    assert key[:16].hex() not in shown


@pytest.mark.parametrize("place", [HMAC, GCM, PLAIN])
@pytest.mark.parametrize("more", [-1, 1])
def test_a_key_of_another_size(ring, place, more):
    mapper = Mapper()
    key = bytes(SIZES[place.integrity] + more)
    with pytest.raises(FormatError) as caught:
        crypt.open_(mapper, place, sectors=8192, key=key)
    assert caught.value.code == "volume-map"
    assert not mapper.calls
    assert not ring.ever


def test_nothing_stays_when_the_upper_map_is_refused(ring):
    mapper = Mapper(refuse=["troth-data"])
    with pytest.raises(OSError, match="Invalid argument"):
        opened(HMAC, mapper)
    assert not mapper.live
    assert mapper.calls[-1] == ("remove", "troth-data-dif")
    assert not ring.inside


def test_nothing_stays_when_the_lower_map_is_refused(ring):
    mapper = Mapper(refuse=["troth-data-dif"])
    with pytest.raises(OSError, match="Invalid argument"):
        opened(HMAC, mapper)
    assert not mapper.live
    assert not ring.ever


def test_nothing_stays_when_the_lower_map_has_no_number(ring, monkeypatch):
    def number(_made):
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(Mapper, "number", staticmethod(number))
    mapper = Mapper()
    with pytest.raises(FileNotFoundError):
        opened(HMAC, mapper)
    assert not mapper.live
    assert not ring.ever


@pytest.mark.parametrize("place", [HMAC, PLAIN])
def test_a_table_that_comes_back_different(ring, place, monkeypatch):
    def table(self, name):
        target = self.live[name][1][0]
        return (replace(target, text=target.text.replace("aes", "cipher_null", 1)),)

    monkeypatch.setattr(Mapper, "table", table)
    mapper = Mapper()
    with pytest.raises(FormatError) as caught:
        opened(place, mapper)
    assert caught.value.code == "volume-map"
    assert not mapper.live
    removed = [name for what, name in mapper.calls if what == "remove"]
    wanted = ["troth-data", "troth-data-dif"] if place is HMAC else ["troth-data"]
    assert removed == wanted


@pytest.mark.parametrize(
    "found",
    [(), (Target(0, 8192, "linear", "x"),), (Target(0, 4096, "crypt", ""),)],
    ids=["nothing", "another target", "shorter"],
)
def test_any_other_table(ring, found, monkeypatch):
    monkeypatch.setattr(Mapper, "table", lambda _self, _name: found)
    mapper = Mapper()
    with pytest.raises(FormatError) as caught:
        opened(PLAIN, mapper)
    assert caught.value.code == "volume-map"
    assert not mapper.live


@pytest.mark.parametrize("place", [HMAC, PLAIN])
def test_nothing_stays_when_the_table_cannot_be_read_back(ring, place, monkeypatch):
    def table(_self, _name):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(Mapper, "table", table)
    mapper = Mapper()
    with pytest.raises(OSError, match="Cannot allocate"):
        opened(place, mapper)
    assert not mapper.live


@pytest.mark.parametrize("place", [HMAC, GCM, PLAIN])
def test_close_takes_all_away(ring, place):
    mapper, _made = opened(place)
    crypt.close(mapper, place)
    assert not mapper.live


def test_a_refused_table_leaves_no_key_behind(ring):
    with contextlib.suppress(OSError), keyring.logon_key("troth:x", b"secret") as words:
        assert words == ":6:logon:troth:x"
        assert [payload for _name, payload in ring.inside.values()] == [b"secret"]
        raise OSError(22, "Invalid argument")
    assert not ring.inside


# --- what the disk says of dm-integrity ------------------------------------------------------


def on_disk(tmp_path, data, *, integrity="hmac", sectors=100_000):
    made = disk(tmp_path / "vdb", sectors=sectors)
    with open(made.node, "r+b") as file:
        file.seek(1 << 20)
        file.write(data)
    return Place("troth-data", HEX, made, 2048, integrity)


@pytest.mark.parametrize(("integrity", "tag"), [("hmac", 32), ("aes-gcm", 28)])
def test_a_superblock_of_ours(tmp_path, integrity, tag):
    place = on_disk(tmp_path, superblock(tag=tag, provided=62704), integrity=integrity)
    assert crypt.provided_sectors(place) == 62704


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"integrx" + bytes(505),
        superblock(tag=28, provided=62704),
        superblock(tag=32, provided=62704, log2_block=0),
        superblock(tag=32, provided=100_000 - 2048 + 1),
    ],
    ids=["blank", "another magic", "other tags", "other sectors", "more than the disk has"],
)
def test_a_superblock_that_is_not(tmp_path, data):
    with pytest.raises(FormatError) as caught:
        crypt.provided_sectors(on_disk(tmp_path, data))
    assert caught.value.code == "integrity-superblock"


def test_a_disk_that_ends_before_it(tmp_path):
    made = disk(tmp_path / "vdb", sectors=2048)
    with pytest.raises(FormatError) as caught:
        crypt.provided_sectors(Place("troth-data", HEX, made, 2048, "hmac"))
    assert caught.value.code == "integrity-superblock"


def test_the_kernel_formats_over_what_was_there(tmp_path):
    place = on_disk(tmp_path, superblock(tag=28, provided=16))
    mapper = Mapper(on_disk=place.disk)
    sectors = crypt.make_integrity(mapper, place)
    assert sectors == crypt.provided_sectors(place) > 16
    assert mapper.calls == [("create", "troth-data-new"), ("remove", "troth-data-new")]
    (_name, uuid, targets, readonly) = mapper.made[0]
    text = "254:16 2048 32 J 2 block_size:4096 fix_padding"
    assert (uuid, targets, readonly) == ("", (Target(0, 8, "integrity", text),), False)


@pytest.mark.parametrize(
    ("sectors", "wanted"), [(0, 0), (2048, 0), (2055, 0), (2056, 8), (2063, 8), (100_000, 97_952)]
)
def test_sectors_without_tags(sectors, wanted):
    place = replace(PLAIN, disk=replace(DISK, sectors=sectors))
    assert crypt.plain_sectors(place) == wanted
