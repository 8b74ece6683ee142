# SPDX-License-Identifier: Apache-2.0
"""Volumes written and opened again, bounds on what that costs, and cryptsetup's opinion."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC, ECB
from hypothesis import given, settings
from hypothesis import strategies as st

from made_luks2 import (
    MEMORY_BYTES,
    PASSPHRASE,
    UUID,
    Random,
    metadata,
    packed,
    profile,
    vector,
    written,
)
from troth.abi import luks2
from troth.documents import luks2_json
from troth.documents.volume_profile import VolumeProfile
from troth.errors import FormatError, HostError
from troth.record import replace
from troth.volumes import (
    anti_forensic,
    bounded,
    header_area,
    keys,
    luks2_open,
    luks2_profile,
    luks2_write,
)


def opened(area, wanted=None, passphrase=PASSPHRASE, **named):
    accepted = luks2_profile.require(area, wanted or profile(), memory_bytes=MEMORY_BYTES)
    return bytes(luks2_open.unlock(accepted, area, passphrase, **named))


# --- the splitter -----------------------------------------------------------------------------


@settings(max_examples=30)
@given(st.binary(min_size=1, max_size=100), st.integers(1, 30))
def test_split_and_merge(key, stripes):
    blocks = anti_forensic.split(key, stripes=stripes, random=Random())
    assert len(blocks) == len(key) * stripes
    assert anti_forensic.merge(blocks, key_bytes=len(key), stripes=stripes) == key
    for at in (0, len(blocks) - 1):
        changed = bytearray(blocks)
        changed[at] ^= 1
        assert anti_forensic.merge(bytes(changed), key_bytes=len(key), stripes=stripes) != key


@pytest.mark.parametrize(("size", "key_bytes", "stripes"), [(9, 5, 2), (0, 0, 1), (5, 5, 0)])
def test_merge_refuses_other_sizes(size, key_bytes, stripes):
    with pytest.raises(FormatError) as caught:
        anti_forensic.merge(bytes(size), key_bytes=key_bytes, stripes=stripes)
    assert caught.value.code == "af-size"


@pytest.mark.vectors
def test_a_key_slot_in_cbc_merges_to_its_key():
    """A volume that the profile refuses; sizes are not those of the others."""
    area = vector("aes128-cbc-essiv.hdr").read_bytes()
    document = json.loads(vector("vectors.json").read_text())
    item = next(v for v in document["vectors"] if v["file"] == "aes128-cbc-essiv.hdr")
    kdf = metadata(area)["keyslots"]["0"]["kdf"]
    import base64

    key = hashlib.pbkdf2_hmac(
        "sha256", PASSPHRASE, base64.b64decode(kdf["salt"]), kdf["iterations"], 32
    )
    blocks = b""
    for sector in range(32 * 4000 // 512):
        salt = Cipher(AES(hashlib.sha256(key).digest()), ECB()).encryptor()
        iv = salt.update(sector.to_bytes(16, "little"))
        start = 32768 + 512 * sector
        blocks += Cipher(AES(key), CBC(iv)).decryptor().update(area[start : start + 512])
    found = anti_forensic.merge(blocks, key_bytes=32, stripes=4000)
    assert found.hex() == item["volume_key_hex"]


# --- written, and opened again ----------------------------------------------------------------


@pytest.mark.parametrize("integrity", ["none", "hmac", "aes-gcm"])
@pytest.mark.parametrize("sector", [512, 4096])
def test_ours_opens(integrity, sector):
    wanted = {"integrity": integrity, "sector_bytes": sector}
    made = written(**wanted)
    assert opened(made.head, profile(**wanted)) == made.volume_key
    assert len(made.volume_key) == {"none": 64, "hmac": 96, "aes-gcm": 32}[integrity]
    assert made.table == luks2_open.table(made.accepted)


def test_the_same_random_bytes_make_the_same_volume():
    assert written().head == written().head
    assert written(seed=b"other").head != written().head
    first, second = luks2.pair(written().head)
    assert first.copy.header.salt != second.copy.header.salt
    assert first.copy.metadata == second.copy.metadata


def test_no_key_is_shown():
    made = written()
    assert repr(made) == f"Written({UUID}, luks2/none/4096)"


def test_the_format_is_fixed():
    """The same random bytes make these bytes, with any version of troth."""
    assert hashlib.sha256(written(b"\x01" * 32, seed=b"fixed").head).hexdigest() == (
        "b1b90821929eae8af6e6256abacc6039ea171bb205f538c372186733b2b90427"
    )


def test_every_random_byte_is_asked_for_once():
    random = Random()
    luks2_write.new(profile(), b"x", random=random, data_offset_bytes=1 << 20)
    # Volume key, three salts of 32 and two of 64, stripes and the rest of the area.
    assert random.count == 7


def test_a_given_volume_key_is_kept():
    key = bytes(range(64))
    made = luks2_write.new(
        profile(), PASSPHRASE, random=Random(), data_offset_bytes=1 << 20, volume_key=key
    )
    assert opened(made.head) == key


@pytest.mark.parametrize(
    ("wanted", "named"),
    [
        ({"uuid": ""}, {}),
        ({}, {"volume_key": bytes(63)}),
        ({}, {"data_offset_bytes": 1 << 19}),
        ({}, {"data_offset_bytes": 512}),
        ({"kdfs": ("argon2id",)}, {}),
        ({"cipher": "cipher_null-ecb", "key_bytes": 32}, {}),
    ],
)
def test_no_volume_is_made_that_would_be_refused(wanted, named):
    with pytest.raises(FormatError) as caught:
        luks2_write.new(profile(**wanted), PASSPHRASE, random=Random(), **named)
    assert caught.value.code == "luks2-new"


@pytest.mark.parametrize("passphrase", [b"", b"x", PASSPHRASE + b"\n", PASSPHRASE + b"\0"])
def test_another_passphrase_does_not_open(passphrase):
    if passphrase.endswith(b"\0"):
        # HMAC fills short keys with zeros: the same passphrase to PBKDF2, as in cryptsetup.
        assert opened(written().head, passphrase=passphrase) == written().volume_key
        return
    with pytest.raises(FormatError) as caught:
        opened(written().head, passphrase=passphrase)
    assert caught.value.code == "luks2-key"


def test_changed_material_does_not_open():
    for at in (32768, 32768 + 255_999):
        area = bytearray(written().head)
        area[at] ^= 1
        with pytest.raises(FormatError) as caught:
            opened(bytes(area))
        assert caught.value.code == "luks2-key"


def test_material_that_is_cut_off():
    with pytest.raises(FormatError) as caught:
        opened(written().head[: 32768 + 255_999])
    assert caught.value.code == "luks2-short"


@pytest.mark.parametrize("integrity", ["none", "hmac"])
def test_a_volume_key_with_equal_halves_is_refused(integrity):
    key = bytes(32) * 2 + bytes(range(32)) * (integrity == "hmac")
    wanted, good = profile(integrity=integrity), written(integrity=integrity)
    with pytest.raises(FormatError) as caught:
        luks2_write.new(wanted, PASSPHRASE, random=Random(), volume_key=key)
    assert caught.value.code == "luks2-volume-key-halves"
    # Nobody makes one, so its parts are put together by hand.
    slot, material = luks2_write._keyslot(key, PASSPHRASE, Random(), area_key_bytes=64)
    parts = luks2_json.parse(luks2.parse(good.head).metadata)
    parts = replace(parts, keyslots=(slot,), digests=(luks2_write._digest(key, Random()),))
    area = packed(good.head, None, text=luks2_json.print_(parts))[:32768] + material
    with pytest.raises(FormatError) as caught:
        opened(area, wanted)
    assert caught.value.code == "luks2-volume-key-halves"


# --- tables -----------------------------------------------------------------------------------


def test_tables_are_what_cryptsetup_loads():
    """The lines of the kernel's own tables, for volumes that cryptsetup opened (6.1)."""
    key = ":64:logon:troth:data"
    plain = written().table
    assert plain.text("254:0", key) == (
        "aes-xts-plain64 :64:logon:troth:data 0 254:0 2048 1 sector_size:4096"
    )
    assert plain.integrity is None
    small = written(sector_bytes=512).table
    assert small.text("254:0", key) == "aes-xts-plain64 :64:logon:troth:data 0 254:0 2048"
    tagged = written(integrity="hmac").table
    assert tagged.text("254:1", ":96:logon:k:1") == (
        "capi:authenc(hmac(sha256),xts(aes))-plain64 :96:logon:k:1 0 254:1 0"
        " 2 integrity:32:aead sector_size:4096"
    )
    assert tagged.integrity.text("254:96") == "254:96 2048 32 J 1 block_size:4096"
    assert tagged.integrity.text("254:96", mode="D") == "254:96 2048 32 D 1 block_size:4096"
    gcm = written(integrity="aes-gcm", sector_bytes=512, offset=16 << 20).table
    assert gcm.text("254:1", ":32:logon:k:1") == (
        "capi:gcm(aes)-random :32:logon:k:1 0 254:1 0 1 integrity:28:aead"
    )
    assert gcm.integrity.text("254:96") == "254:96 32768 28 J 0"


def test_the_length_of_a_map():
    table = written().table
    assert table.sectors((1 << 20) + 4096) == 8
    assert table.sectors((1 << 20) + 8191) == 8
    sized = written(data_bytes=8192).table
    assert sized.sectors(4 << 20) == 16
    for size in (0, 1 << 20, (1 << 20) + 4095):
        with pytest.raises(FormatError) as caught:
            table.sectors(size)
        assert caught.value.code == "luks2-device-size"
    with pytest.raises(FormatError):
        sized.sectors((1 << 20) + 4096)


# --- bounds -----------------------------------------------------------------------------------


def run(work, *, memory_bytes=64 << 20, timeout_s=20.0):
    return bounded.run(work, memory_bytes=memory_bytes, timeout_s=timeout_s)


def test_bounded_gives_back_results_and_refusals():
    assert run(lambda: b"x" * 4095) == b"x" * 4095
    assert run(lambda: b"") == b""

    def refuses():
        raise FormatError("luks2-key", "not this one")

    with pytest.raises(FormatError, match="not this one") as caught:
        run(refuses)
    assert caught.value.code == "luks2-key"

    def lacks():
        raise HostError("argon2-missing", "ä" * 9999)

    with pytest.raises(HostError) as lacking:
        run(lacks)
    assert lacking.value.code == "argon2-missing"
    assert len(lacking.value.message) > 4000


def test_argon2_in_memory():
    """OpenSSL's allocations are bounded as Python's are; what is asked for beyond is refused."""

    def derive(memory_kib):
        from troth.ciphers import argon2

        return argon2.derive(
            "argon2id", b"x", bytes(16), time=1, memory_kib=memory_kib, lanes=1, length_bytes=8
        )

    assert len(run(lambda: derive(32 << 10))) == 8
    with pytest.raises(HostError) as caught:
        run(lambda: derive(512 << 10))
    assert caught.value.code == "bounded-memory"


def test_bounded_in_memory():
    with pytest.raises(HostError) as caught:
        run(lambda: bytes(256 << 20)[:1])
    assert caught.value.code == "bounded-memory"


def test_bounded_in_time_even_where_nothing_is_said():
    began = time.monotonic()

    def never():
        while True:
            pass

    with pytest.raises(HostError) as caught:
        run(never, timeout_s=0.2)
    assert caught.value.code == "bounded-timeout"
    assert time.monotonic() - began < 10


def test_a_child_that_ends_says_so():
    with pytest.raises(HostError) as caught:
        run(lambda: os._exit(7))
    assert caught.value.code == "bounded-ended"
    with pytest.raises(HostError) as caught:
        run(lambda: b"x" * 4096)
    assert caught.value.code == "bounded-ended"


def test_nothing_is_left_of_it():
    before = os.listdir("/proc/self/fd")
    run(lambda: b"x")
    assert os.listdir("/proc/self/fd") == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_header_that_is_slow_is_killed():
    tree = metadata(written().head)
    tree["digests"]["0"]["iterations"] = 10**7
    with pytest.raises(HostError) as caught:
        opened(packed(written().head, tree), timeout_s=0.3)
    assert caught.value.code == "bounded-timeout"


def test_what_a_guest_imports_is_little():
    """A worker judges and opens with this much; json brings re and enum, cryptography the rest."""
    code = (
        "import sys; sys.path[:0] = sys.argv[1:];"
        "from troth.volumes import keys, luks2_open, luks2_profile;"
        "print(*sys.modules)"
    )
    paths = [path for path in sys.path if path]
    done = subprocess.run(
        [sys.executable, "-ISB", "-c", code, *paths], capture_output=True, text=True, check=True
    )
    found = set(done.stdout.split())
    heavy = {
        "argparse", "cryptography", "dataclasses", "inspect", "logging",
        "pathlib", "signal", "ssl", "subprocess", "tempfile", "typing", "uuid",
        "troth.volumes.luks2_reasons", "troth.volumes.luks2_write",
    }  # fmt: skip
    assert not found & heavy
    assert "troth.volumes.luks2_open" in found


# --- keys -------------------------------------------------------------------------------------


def test_keys_are_those_of_the_document():
    """Computed from RFC 5869 by hand here: extract with an empty salt, expand once or twice."""
    source = bytes(range(32))
    import hmac

    secret = hmac.digest(bytes(32), source, "sha256")
    info = b"troth-volume-v1\0" + UUID.encode() + b"\0luks2/hmac/4096\0"
    first = hmac.digest(secret, info + b"xts\1", "sha256")
    second = hmac.digest(secret, first + info + b"xts\2", "sha256")
    named = {"uuid": UUID, "profile": VolumeProfile(integrity="hmac").text}
    assert keys.derive(source, role=keys.XTS, **named) == first + second
    luks = hmac.digest(secret, info + b"luks\1", "sha256")
    assert keys.passphrase(source, **named) == luks.hex().encode()


ROLES = (keys.XTS, keys.HMAC, keys.GCM, keys.RECORD, keys.LUKS)


def test_each_use_has_its_own_key():
    found = {
        keys.derive(source, uuid=uuid, profile=text, role=role)[:32]
        for source in (bytes(32), bytes(64))
        for role in ROLES
        for uuid in (UUID, UUID[::-1])
        for text in ("luks2/hmac/4096", "luks2/none/4096")
    }
    assert len(found) == 2 * len(ROLES) * 2 * 2
    for size in (0, 31, 65):
        with pytest.raises(FormatError) as caught:
            keys.derive(bytes(size), uuid=UUID, profile="x", role=keys.LUKS)
        assert caught.value.code == "volume-secret"


# --- cryptsetup -------------------------------------------------------------------------------


@pytest.fixture
def cryptsetup(tmp_path):
    """A function that runs cryptsetup on a volume of some MiB with the key file."""
    if not shutil.which("cryptsetup"):
        pytest.skip("cryptsetup is missing (apt install cryptsetup-bin)")
    (tmp_path / "key").write_bytes(PASSPHRASE)

    def call(*words, check=True):
        done = subprocess.run(
            ["cryptsetup", "-q", *words, "--key-file", str(tmp_path / "key")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    return call


def dumped(cryptsetup, path):
    text = cryptsetup("luksDump", "--dump-volume-key", str(path)).stdout
    return bytes.fromhex("".join(text.partition("MK dump:")[2].split()))


@pytest.mark.tool
@pytest.mark.parametrize("integrity", ["none", "hmac", "aes-gcm"])
@pytest.mark.parametrize("offset", [1 << 20, 16 << 20])
def test_cryptsetup_opens_ours(tmp_path, cryptsetup, integrity, offset):
    for sector in (512, 4096):
        made = written(integrity=integrity, sector_bytes=sector, offset=offset, seed=os.urandom(8))
        path = tmp_path / "ours"
        path.write_bytes(made.head)
        os.truncate(path, 24 << 20)
        cryptsetup("open", "--test-passphrase", str(path))
        assert dumped(cryptsetup, path) == made.volume_key
        # Nothing about it moved cryptsetup to repair anything.
        assert path.read_bytes()[: len(made.head)] == made.head


PBKDF2 = ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")
QUICK = (*PBKDF2, "--cipher", "aes-xts-plain64")
#: With an offset cryptsetup takes small sectors, unless told.
LARGE = (*QUICK, "--sector-size", "4096")


def argon2(kind, time_cost, memory, lanes):
    words = ("--pbkdf", kind, "--pbkdf-force-iterations", time_cost)
    return (*words, "--pbkdf-memory", memory, "--pbkdf-parallel", lanes)


LENIENT = {"kdfs": ("pbkdf2", "argon2id", "argon2i")}
#: Options of luksFormat -> what the profile has to be, or the codes of all refusals.
DIFFERENTIAL = [
    (PBKDF2, {}),
    ((*QUICK, "--sector-size", "512"), {"sector_bytes": 512}),
    ((*QUICK, "--sector-size", "1024"), {"sector_bytes": 1024}),
    ((*QUICK, "--sector-size", "2048"), {"sector_bytes": 2048}),
    ((*QUICK, "--sector-size", "4096"), {}),
    ((*LARGE, "--offset", "2048", "--luks2-keyslots-size", "512k"), {}),
    ((*LARGE, "--offset", "2048"), {}),
    ((*QUICK, "--offset", "2048"), {"sector_bytes": 512}),
    ((*QUICK, "--luks2-keyslots-size", "4m"), {"data_offsets": (5 << 20,)}),
    ((*QUICK, "--label", "data", "--subsystem", "troth"), {}),
    ((*QUICK, "--pbkdf-force-iterations", "12345"), {}),
    ((*QUICK, "--uuid", UUID), {"uuid": UUID}),
    (argon2("argon2id", "4", "32", "1"), {}),
    (argon2("argon2id", "5", "4096", "2"), {}),
    ((*argon2("argon2id", "4", "65536", "4"), "--sector-size", "512"), {"sector_bytes": 512}),
    ((*argon2("argon2id", "16", "64", "4"), "--offset", "32768"), {}),
    (argon2("argon2i", "4", "32", "1"), LENIENT),
    (argon2("argon2i", "6", "1000", "3"), LENIENT),
    (
        (*QUICK, "--key-size", "256"),
        {"cipher": "aes-xts-plain64", "key_bytes": 32, "keyslot_key_bytes": 32},
    ),
    (
        (*QUICK, "--key-size", "256", "--keyslot-key-size", "512",
         "--keyslot-cipher", "aes-xts-plain64"),
        {"cipher": "aes-xts-plain64", "key_bytes": 32},
    ),
    (
        (*PBKDF2, "--cipher", "aes-cbc-essiv:sha256", "--key-size", "256", "--keyslot-key-size",
         "512", "--keyslot-cipher", "aes-xts-plain64"),
        {"cipher": "aes-cbc-essiv:sha256", "key_bytes": 32},
    ),
    ((*PBKDF2, "--hash", "sha512"), ["luks2-keyslot-af", "luks2-kdf", "luks2-digest-kind"]),
    ((*QUICK, "--luks2-metadata-size", "64k"), ["luks2-header-size"]),
    (argon2("argon2i", "4", "32", "1"), ["luks2-kdf"]),
    (argon2("argon2id", "17", "32", "1"), ["luks2-kdf-cost"]),
    ((*LARGE, "--offset", "40960"), ["luks2-segment-offset"]),
]  # fmt: skip


@pytest.mark.tool
@pytest.mark.parametrize(("options", "outcome"), DIFFERENTIAL)
def test_what_cryptsetup_made_opens_here_or_is_refused(tmp_path, cryptsetup, options, outcome):
    path = tmp_path / "theirs"
    path.touch()
    os.truncate(path, 24 << 20)
    cryptsetup("luksFormat", "--type", "luks2", *options, str(path))
    area = header_area.read_file(str(path))
    if isinstance(outcome, list):
        found = luks2_profile.checks(
            area, VolumeProfile(integrity="none"), memory_bytes=MEMORY_BYTES
        )
        assert [check.code for check in found if not check.passed] == outcome
        return
    wanted = profile(**({"uuid": ""} | outcome))
    assert opened(area, wanted) == dumped(cryptsetup, path)
    # A header that was read is printed with the same meaning, and cryptsetup takes it.
    first = luks2.parse(area)
    ours = luks2_json.print_(luks2_json.parse(first.metadata))
    assert json.loads(ours) == json.loads(first.metadata)


@pytest.mark.tool
def test_a_second_key_and_a_token_of_cryptsetup_are_refused(tmp_path, cryptsetup):
    path, other = tmp_path / "theirs", tmp_path / "other"
    path.touch()
    os.truncate(path, 24 << 20)
    other.write_bytes(b"another")
    cryptsetup("luksFormat", "--type", "luks2", *PBKDF2, str(path))
    cryptsetup("luksAddKey", *PBKDF2, str(path), str(other))
    subprocess.run(["cryptsetup", "token", "add", "--key-description", "k", str(path)], check=True)
    cryptsetup("config", "--key-slot", "0", "--priority", "prefer", str(path), check=False)
    found = luks2_profile.checks(
        header_area.read_file(str(path)), profile(uuid=""), memory_bytes=MEMORY_BYTES
    )
    assert [check.code for check in found if not check.passed] == [
        "luks2-tokens", "luks2-keyslots", "luks2-keyslot-priority", "luks2-digest-links",
    ]  # fmt: skip
