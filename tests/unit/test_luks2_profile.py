# SPDX-License-Identifier: Apache-2.0
"""The strict profile: every rule turned alone, in the order in which a guest would stop."""

import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from made_luks2 import (
    MEMORY_BYTES,
    PASSPHRASE,
    UUID,
    VECTORS,
    metadata,
    packed,
    profile,
    vector,
    written,
)
from troth.abi import luks2
from troth.documents.volume_profile import VolumeProfile
from troth.errors import FormatError
from troth.record import replace
from troth.volumes import bounded, header_area, luks2_open, luks2_profile
from troth.volumes.luks2_reasons import WHY

AREA = written().head
TREE = metadata(AREA)


def refused(area, wanted=None, *, memory=MEMORY_BYTES):
    """Codes of all refusals, in order."""
    found = luks2_profile.checks(area, wanted or profile(), memory_bytes=memory)
    return [check.code for check in found if not check.passed]


def observed(area, code, wanted=None):
    found = luks2_profile.checks(area, wanted or profile(), memory_bytes=MEMORY_BYTES)
    return next(check.observed for check in found if check.code == code)


def copy():
    return json.loads(json.dumps(TREE))


def turned(change):
    """The good header after ``change`` of its tree, both checksums right."""
    tree = copy()
    change(tree)
    return packed(AREA, tree)


def at(*path, value):
    def change(tree):
        for key in path[:-1]:
            tree = tree[key]
        tree[path[-1]] = value

    return change


def drop(*path):
    def change(tree):
        for key in path[:-1]:
            tree = tree[key]
        del tree[path[-1]]

    return change


def also(place, name, **changes):
    """A second object beside the first, and in the digest's links where there are any."""

    def change(tree):
        tree[place][name] = json.loads(json.dumps(tree[place]["0"])) | changes

    return change


SLOT, SEGMENT, DIGEST = ("keyslots", "0"), ("segments", "0"), ("digests", "0")
ARGON2 = {"type": "argon2id", "salt": TREE["keyslots"]["0"]["kdf"]["salt"]}
ARGON2 |= {"time": 4, "memory": 65536, "cpus": 2}
SHORT = "QUFB"


def test_ours_is_accepted_and_every_check_is_shown():
    steps = luks2_profile.checks(AREA, profile(), memory_bytes=MEMORY_BYTES)
    found = list(steps)
    assert all(check.passed for check in found)
    assert all(check.expected and check.observed for check in found)
    # All reasons but one: a key that occurs twice is a second way to fail "luks2-json".
    assert {check.code for check in found} == set(WHY) - {"luks2-json-duplicate"}
    accepted = luks2_profile.require(AREA, profile(), memory_bytes=MEMORY_BYTES)
    assert accepted.header.uuid == UUID
    assert accepted.segment.offset_bytes == 1 << 20


RULES = [
    (at("config", "x", value=1), "luks2-json-unknown"),
    (at(*SEGMENT, "x", value=1), "luks2-json-unknown"),
    (at("config", "json_size", value="12289"), "luks2-config"),
    (at("config", "keyslots_size", value="1015809"), "luks2-config luks2-segment-offset"),
    (at("config", "keyslots_size", value="0"), "luks2-config luks2-keyslot-area"),
    (at("config", "keyslots_size", value=str(2**63)), "luks2-config luks2-segment-offset"),
    (at("config", "keyslots_size", value="1019904"), "luks2-segment-offset"),
    (at("config", "flags", value=["allow-discards"]), "luks2-flags"),
    (at("config", "requirements", value={"mandatory": ["opal"]}), "luks2-requirements"),
    (at("tokens", "0", value={"type": "clevis", "keyslots": ["0"]}), "luks2-tokens"),
    (drop(*SEGMENT), "luks2-segments"),
    (at("segments", value={"1": TREE["segments"]["0"]}), "luks2-segments"),
    (also("segments", "1"), "luks2-segments"),
    (at(*SEGMENT, "type", value="linear"), "luks2-segment-kind"),
    (at(*SEGMENT, "type", value="hw-opal-crypt"), "luks2-segment-kind"),
    (
        at(*SEGMENT, "encryption", value="cipher_null-ecb"),
        "luks2-cipher-null luks2-cipher-weak luks2-segment-cipher",
    ),
    (at(*SEGMENT, "encryption", value="aes-ecb"), "luks2-cipher-weak luks2-segment-cipher"),
    (
        at(*SEGMENT, "encryption", value="capi:xts(aes-generic)-plain64"),
        "luks2-cipher-weak luks2-segment-cipher",
    ),
    (at(*SEGMENT, "encryption", value="aes-xts-plain"), "luks2-segment-cipher"),
    (at(*SEGMENT, "encryption", value="AES-XTS-PLAIN64"), "luks2-segment-cipher"),
    (at(*SEGMENT, "encryption", value="aes-xts-plain64 "), "luks2-segment-cipher"),
    (at(*SEGMENT, "sector_size", value=512), "luks2-segment-sector"),
    (at(*SEGMENT, "offset", value="1052672"), "luks2-segment-offset"),
    (at(*SEGMENT, "offset", value="0"), "luks2-segment-offset"),
    (at(*SEGMENT, "size", value="4096"), "luks2-segment-size"),
    (at(*SEGMENT, "iv_tweak", value="8"), "luks2-segment-tweak"),
    (at(*SEGMENT, "flags", value=["in-reencryption"]), "luks2-segment-flags"),
    (
        at(
            *SEGMENT,
            "integrity",
            value={"type": "aead", "journal_encryption": "none", "journal_integrity": "none"},
        ),
        "luks2-segment-integrity",
    ),
    (drop(*SLOT), "luks2-keyslots"),
    (at("keyslots", value={"1": TREE["keyslots"]["0"]}), "luks2-keyslots"),
    (also("keyslots", "1"), "luks2-keyslots"),
    (
        also("keyslots", "1", type="reencrypt", mode="reencrypt"),
        "luks2-keyslots luks2-keyslot-kind",
    ),
    (at(*SLOT, "type", value="reencrypt"), "luks2-keyslot-kind"),
    (at(*SLOT, "priority", value=0), "luks2-keyslot-priority"),
    (at(*SLOT, "priority", value=2), "luks2-keyslot-priority"),
    (at(*SLOT, "key_size", value=63), "luks2-keyslot-key"),
    (at(*SLOT, "key_size", value=65), "luks2-keyslot-key"),
    (at(*SLOT, "area", "type", value="journal"), "luks2-keyslot-area luks2-keyslot-cipher"),
    (at(*SLOT, "area", "size", value="258049"), "luks2-keyslot-area"),
    (at(*SLOT, "area", "size", value="4096"), "luks2-keyslot-area"),
    (at(*SLOT, "area", "offset", value="28672"), "luks2-keyslot-area"),
    (at(*SLOT, "area", "offset", value="0"), "luks2-keyslot-area"),
    (at(*SLOT, "area", "offset", value="32769"), "luks2-keyslot-area"),
    (at(*SLOT, "area", "offset", value="794624"), "luks2-keyslot-area"),
    (at(*SLOT, "area", "offset", value=str(2**64 - 4096)), "luks2-keyslot-area"),
    (
        at(*SLOT, "area", "encryption", value="cipher_null-ecb"),
        "luks2-cipher-null luks2-cipher-weak luks2-keyslot-cipher",
    ),
    (at(*SLOT, "area", "encryption", value="aes-cbc-plain64"), "luks2-keyslot-cipher"),
    (at(*SLOT, "area", "key_size", value=32), "luks2-keyslot-cipher"),
    (at(*SLOT, "af", "type", value="luks2"), "luks2-keyslot-af"),
    (at(*SLOT, "af", "stripes", value=3999), "luks2-keyslot-af"),
    (at(*SLOT, "af", "stripes", value=2**32 - 1), "luks2-keyslot-af"),
    (at(*SLOT, "af", "hash", value="sha1"), "luks2-keyslot-af"),
    (at(*SLOT, "kdf", value=ARGON2 | {"type": "argon2i"}), "luks2-kdf"),
    (at(*SLOT, "kdf", "hash", value="sha512"), "luks2-kdf"),
    (at(*SLOT, "kdf", "hash", value=""), "luks2-kdf"),
    (
        at(*SLOT, "kdf", value=ARGON2 | {"type": "scrypt"}),
        "luks2-kdf luks2-kdf-cost luks2-kdf-salt",
    ),
    (at(*SLOT, "kdf", "iterations", value=999), "luks2-kdf-cost"),
    (at(*SLOT, "kdf", "iterations", value=10**7 + 1), "luks2-kdf-cost"),
    (at(*SLOT, "kdf", value=ARGON2 | {"memory": (1 << 20) + 1}), "luks2-kdf-cost"),
    (at(*SLOT, "kdf", value=ARGON2 | {"memory": 15}), "luks2-kdf-cost"),
    (at(*SLOT, "kdf", value=ARGON2 | {"time": 17}), "luks2-kdf-cost"),
    (at(*SLOT, "kdf", value=ARGON2 | {"cpus": 5}), "luks2-kdf-cost"),
    (at(*SLOT, "kdf", "salt", value=SHORT), "luks2-kdf-salt"),
    (drop(*DIGEST), "luks2-digests"),
    (at("digests", value={"1": TREE["digests"]["0"]}), "luks2-digests"),
    (also("digests", "1"), "luks2-digests"),
    (at(*DIGEST, "type", value="none"), "luks2-digest-kind luks2-digest-cost"),
    (at(*DIGEST, "hash", value="sha1"), "luks2-digest-kind"),
    (at(*DIGEST, "salt", value=SHORT), "luks2-digest-kind"),
    (at(*DIGEST, "digest", value=SHORT), "luks2-digest-kind"),
    (at(*DIGEST, "digest", value=""), "luks2-digest-kind"),
    (at(*DIGEST, "iterations", value=999), "luks2-digest-cost"),
    (at(*DIGEST, "iterations", value=10**7 + 1), "luks2-digest-cost"),
    (at(*DIGEST, "iterations", value=2**32 - 1), "luks2-digest-cost"),
    (at(*DIGEST, "keyslots", value=["0", "1"]), "luks2-digest-links"),
    (at(*DIGEST, "keyslots", value=[]), "luks2-digest-links"),
    (at(*DIGEST, "segments", value=["1"]), "luks2-digest-links"),
]


def judged(area):
    steps = luks2_profile.checks(area, profile(), memory_bytes=MEMORY_BYTES)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def test_only_what_passed_everything_can_be_opened():
    assert judged(AREA) == luks2_profile.require(AREA, profile(), memory_bytes=MEMORY_BYTES)


@pytest.mark.parametrize(("change", "codes"), RULES)
def test_each_rule_alone(change, codes):
    area = turned(change)
    assert judged(area) is None
    assert refused(area) == codes.split()
    with pytest.raises(FormatError) as caught:
        luks2_profile.require(area, profile(), memory_bytes=MEMORY_BYTES)
    assert caught.value.code == codes.split()[0]


@pytest.mark.parametrize(
    ("change", "codes"),
    [
        (at(*SLOT, "kdf", "iterations", value=10**7), []),
        (at(*SLOT, "kdf", value=ARGON2), []),
        (at(*SLOT, "kdf", value=ARGON2 | {"memory": 1 << 20, "time": 16, "cpus": 4}), []),
        (at(*SLOT, "kdf", value=ARGON2 | {"memory": 16, "time": 1}), []),
        (at(*DIGEST, "iterations", value=10**7), []),
        (at(*SLOT, "area", "offset", value="36864"), []),
        (at(*SLOT, "area", "offset", value="790528"), []),
    ],
)
def test_what_stands_on_a_bound_is_accepted(change, codes):
    assert refused(turned(change)) == codes


def test_every_reason_has_a_rule_that_turns_it():
    turned_codes = {code for _change, codes in RULES for code in codes.split()}
    others = {
        "luks2-primary", "luks2-secondary", "luks2-copies", "luks2-header-size", "luks2-uuid",
        "luks2-json", "luks2-json-duplicate",
    }  # fmt: skip
    assert turned_codes == set(WHY) - others


def test_memory_is_half_of_the_machines():
    area = turned(at(*SLOT, "kdf", value=ARGON2))
    assert refused(area, memory=128 << 20) == []
    assert refused(area, memory=(128 << 20) - 2048) == ["luks2-kdf-cost"]


def test_the_uuid():
    assert refused(AREA, profile(uuid="")) == []
    other = "0c5f4a3e-7b11-4f7e-9d59-3f6f5d0f2a11"
    assert refused(AREA, profile(uuid=other)) == ["luks2-uuid"]
    assert refused(packed(AREA, TREE, header={"uuid": UUID.upper()}), profile(uuid="")) == [
        "luks2-uuid"
    ]
    assert refused(packed(AREA, TREE, header={"uuid": ""}), profile(uuid="")) == ["luks2-uuid"]


@pytest.mark.parametrize("field", ["seqid", "label", "subsystem", "uuid", "metadata"])
def test_copies_that_differ(field):
    first = luks2.parse(AREA)
    if field == "metadata":
        second = replace(first, metadata=first.metadata + b" ")
    else:
        value = 2 if field == "seqid" else "0c5f4a3e-7b11-4f7e-9d59-3f6f5d0f2a11"
        second = replace(first, header=replace(first.header, **{field: value}))
    area = AREA[:16384] + luks2.pack(second, secondary=True) + AREA[32768:]
    assert "luks2-copies" in refused(area)
    named = "JSON" if field == "metadata" else field
    assert observed(area, "luks2-copies") == f"they differ in {named}"


@pytest.mark.parametrize(("at_byte", "code"), [(110, "luks2-primary"), (16500, "luks2-secondary")])
def test_one_good_copy_is_not_enough(at_byte, code):
    area = bytearray(AREA)
    area[at_byte] ^= 1
    assert refused(bytes(area)) == [code]
    assert "luks2-checksum" in observed(bytes(area), code)


def test_a_larger_header():
    first = luks2.parse(AREA)
    large = replace(first, header=replace(first.header, size_bytes=32768))
    area = b"".join(luks2.pack(large, secondary=second) for second in (False, True)) + AREA[32768:]
    assert refused(area)[0] == "luks2-header-size"


def test_metadata_that_are_none():
    assert refused(packed(AREA, None, text=b"{}")) == ["luks2-json"]
    twice = json.dumps(TREE).replace('"tokens": {}', '"tokens": {}, "tokens": {}').encode()
    assert refused(packed(AREA, None, text=twice)) == ["luks2-json-duplicate"]


@pytest.mark.parametrize("data", [b"", b"x" * 40000, bytes(40000), b"LUKS\xba\xbe\0\2"])
def test_no_header(data):
    assert refused(data) == ["luks2-primary", "luks2-secondary"]


@pytest.mark.parametrize("cipher", ["cipher_null-ecb", "aes-ecb-null", "capi:xts(aes)-plain64"])
def test_a_profile_cannot_allow_what_is_refused_by_name(cipher):
    wanted = profile(cipher=cipher, key_bytes=64)
    found = refused(turned(at(*SEGMENT, "encryption", value=cipher)), wanted)
    assert found[0] in ("luks2-cipher-null", "luks2-cipher-weak")
    assert "luks2-segment-cipher" not in found


@pytest.mark.parametrize("integrity", ["hmac", "aes-gcm"])
def test_integrity_is_demanded(integrity):
    wanted = profile(integrity=integrity)
    assert refused(written(integrity=integrity).head, wanted) == []
    assert "luks2-segment-integrity" in refused(AREA, wanted)
    assert "luks2-segment-integrity" in refused(written(integrity=integrity).head, profile())
    tree = metadata(written(integrity="hmac").head)
    tree["segments"]["0"]["integrity"] |= {"journal_encryption": "ctr(aes)", "key_size": 32}
    area = packed(written(integrity="hmac").head, tree)
    assert observed(area, "luks2-segment-integrity", profile(integrity="hmac")) == (
        "hmac(sha256), journal ctr(aes) none, key_size 32"
    )


@settings(max_examples=60)
@given(st.data())
def test_no_metadata_break_the_judge(data):
    tree = copy()
    places = [tree, *tree.values(), *(tree[key]["0"] for key in ("keyslots", "segments"))]
    place = data.draw(st.sampled_from(places))
    if not place:
        return
    key = data.draw(st.sampled_from(sorted(place)))
    place[key] = data.draw(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=8),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
            ),
            max_leaves=4,
        )
    )
    text = json.dumps(tree).encode()
    found = refused(packed(AREA, None, text=text))
    assert found or json.loads(text) == TREE
    assert set(found) <= set(WHY)


# --- the shared vectors -----------------------------------------------------------------------


def vectors():
    path = VECTORS / "luks2" / "vectors.json"
    return json.loads(path.read_text())["vectors"] if path.exists() else []


def wanted(item):
    integrity = "hmac" if "integrity_superblock" in item else "none"
    sector = item.get("segment", {}).get("sector_size", 512)
    if "argon2-memory" in item["file"]:
        sector = 4096
    return VolumeProfile(
        integrity=integrity, sector_bytes=sector, kdfs=("pbkdf2", "argon2id", "argon2i")
    )


REJECTS = {
    "bad-segment-null.hdr": ["luks2-cipher-null", "luks2-cipher-weak", "luks2-segment-cipher"],
    "bad-keyslot-null.hdr": ["luks2-cipher-null", "luks2-cipher-weak", "luks2-keyslot-cipher"],
    "bad-segment-linear.hdr": ["luks2-segment-kind"],
    "bad-argon2-memory.hdr": ["luks2-kdf-cost"],
    "bad-two-segments.hdr": ["luks2-segments", "luks2-segment-kind", "luks2-segment-size"],
    "bad-token-present.hdr": ["luks2-tokens"],
    "bad-digest-iter-huge.hdr": ["luks2-digest-cost"],
    "primary-csum-bad.hdr": ["luks2-primary"],
    # Its key-slot is in CBC, too, whatever the list of vectors says of it.
    "aes128-cbc-essiv.hdr": [
        "luks2-segment-cipher", "luks2-keyslot-key", "luks2-keyslot-area", "luks2-keyslot-cipher",
    ],
}  # fmt: skip


@pytest.mark.vectors
@pytest.mark.parametrize("item", vectors(), ids=lambda item: item["file"])
def test_vectors(item, monkeypatch):
    area = vector(item["file"]).read_bytes()
    expected = wanted(item)
    if item["file"] in REJECTS:
        assert refused(area, expected) == REJECTS[item["file"]]

        def never(*_words, **_named):
            raise AssertionError("a key derivation ran")

        monkeypatch.setattr(bounded, "run", never)
        with pytest.raises(FormatError) as caught:
            luks2_profile.require(area, expected, memory_bytes=MEMORY_BYTES)
        assert caught.value.code == REJECTS[item["file"]][0]
        return
    assert refused(area, expected) == []
    accepted = luks2_profile.require(area, expected, memory_bytes=MEMORY_BYTES)
    key = luks2_open.unlock(accepted, area, PASSPHRASE)
    assert key.hex() == item["volume_key_hex"]
    if accepted.keyslot.kdf.kind == "argon2i":
        strict = replace(expected, kdfs=VolumeProfile().kdfs)
        assert refused(area, strict) == ["luks2-kdf"]


@pytest.mark.vectors
def test_tokens_are_refused_by_their_names():
    path = VECTORS / "tpm/systemd/luks2-tokens-252-257.img.gz"
    if not path.exists():
        pytest.skip(f"no vectors at {path} (set TROTH_VECTORS)")
    with gzip.open(path) as file:
        area = file.read(header_area.AREA_BYTES)
    assert "luks2-tokens" in refused(area, profile(uuid=""))
    found = observed(area, "luks2-tokens", profile(uuid=""))
    assert found == "0 systemd-tpm2, 1 systemd-tpm2, 2 systemd-tpm2"
    with pytest.raises(FormatError) as caught:
        luks2_profile.require(area, profile(uuid=""), memory_bytes=MEMORY_BYTES)
    assert caught.value.code == "luks2-tokens"


# --- one read -----------------------------------------------------------------------------------


def test_no_byte_is_asked_for_twice():
    """A host that answers a second read otherwise is never asked a second time."""
    asked = []
    volume = AREA.ljust(4 << 20, b"\xaa")

    def reader(offset, size):
        # Short answers, as a device may give them.
        size = min(size, 100_000)
        asked.append((offset, size))
        return volume[offset : offset + size]

    area = header_area.read(reader)
    assert area == volume[: header_area.AREA_BYTES]
    ends = [offset + size for offset, size in asked]
    assert [offset for offset, _size in asked] == [0, *ends[:-1]]
    assert ends[-1] == header_area.AREA_BYTES
    calls = len(asked)
    accepted = luks2_profile.require(area, profile(), memory_bytes=MEMORY_BYTES)
    assert bytes(luks2_open.unlock(accepted, area, PASSPHRASE)) == written().volume_key
    assert len(asked) == calls


def test_a_volume_shorter_than_the_area_is_read_whole(tmp_path):
    path = tmp_path / "head"
    path.write_bytes(AREA)
    assert header_area.read_file(str(path)) == AREA
