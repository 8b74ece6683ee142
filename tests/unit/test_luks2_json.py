# SPDX-License-Identifier: Apache-2.0
"""The metadata of LUKS2: read strictly, printed again, what is unknown listed."""

import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from made_luks2 import VECTORS, metadata, written
from troth.abi import luks2
from troth.documents import luks2_json
from troth.documents.luks2_metadata import Digest, Integrity, Kdf, Keyslot, Metadata, Segment
from troth.errors import FormatError

counts = st.integers(1, 2**32 - 1)
sizes = st.integers(0, 2**64 - 1)
words = st.text(max_size=12)
names = st.integers(0, 31).map(str)
kdfs = st.one_of(
    st.builds(Kdf, st.just("pbkdf2"), st.binary(max_size=40), hash=words, iterations=counts),
    st.builds(
        Kdf,
        st.sampled_from(["argon2i", "argon2id"]),
        st.binary(max_size=40),
        time=counts,
        memory_kib=counts,
        cpus=counts,
    ),
)
keyslots = st.builds(
    Keyslot,
    names,
    st.just("luks2"),
    counts,
    st.integers(-1, 2),
    words,
    counts,
    words,
    st.just("raw"),
    sizes,
    sizes,
    words,
    counts,
    kdfs,
)
segments = st.builds(
    Segment,
    names,
    st.just("crypt"),
    sizes,
    sizes,
    sizes,
    words,
    counts,
    st.none() | st.builds(Integrity, words, words, words, st.integers(0, 2**32 - 1)),
    st.lists(words, max_size=2).map(tuple),
)
digests = st.builds(
    Digest,
    names,
    st.just("pbkdf2"),
    st.lists(names, max_size=3).map(tuple),
    st.lists(names, max_size=3).map(tuple),
    words,
    counts,
    st.binary(max_size=40),
    st.binary(max_size=40),
)


def several(items):
    # Printed sorted by name, so made so.
    by_name = lambda found: tuple(sorted(found, key=lambda item: item.name))  # noqa: E731
    return st.lists(items, max_size=3, unique_by=lambda item: item.name).map(by_name)


documents = st.builds(
    Metadata,
    several(keyslots),
    several(segments),
    several(digests),
    st.just(()),
    sizes,
    sizes,
    st.lists(words, max_size=2).map(tuple),
    st.lists(words, max_size=2).map(tuple),
)


@settings(max_examples=40)
@given(documents)
def test_round_trip(document):
    assert luks2_json.parse(luks2_json.print_(document)) == document


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_with_a_typed_error(data):
    with pytest.raises(FormatError) as caught:
        luks2_json.parse(data)
    assert caught.value.code in ("luks2-json", "luks2-json-duplicate")


GOOD = metadata(written().head)
PATHS = (
    ("keyslots",),
    ("tokens",),
    ("segments",),
    ("digests",),
    ("config",),
    ("config", "json_size"),
    ("config", "keyslots_size"),
    *(("keyslots", "0", key) for key in GOOD["keyslots"]["0"]),
    *(("keyslots", "0", "af", key) for key in GOOD["keyslots"]["0"]["af"]),
    *(("keyslots", "0", "area", key) for key in GOOD["keyslots"]["0"]["area"]),
    *(("keyslots", "0", "kdf", key) for key in GOOD["keyslots"]["0"]["kdf"]),
    *(("segments", "0", key) for key in GOOD["segments"]["0"]),
    *(("digests", "0", key) for key in GOOD["digests"]["0"]),
)


def changed(path, value, *, drop=False):
    tree = json.loads(json.dumps(GOOD))
    place = tree
    for key in path[:-1]:
        place = place[key]
    if drop:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return json.dumps(tree).encode()


@pytest.mark.parametrize("path", PATHS, ids=".".join)
def test_every_field_is_needed_and_has_its_type(path):
    with pytest.raises(FormatError) as caught:
        luks2_json.parse(changed(path, None, drop=True))
    assert caught.value.code == "luks2-json"
    for value in (None, True, 1.5, [1], {"x": 1}, -1, 2**64, ""):
        try:
            found = luks2_json.parse(changed(path, value))
        except FormatError as error:
            assert error.code == "luks2-json"
        else:
            assert value == ""  # as text it stands, for the profile to refuse
            assert found != luks2_json.parse(json.dumps(GOOD).encode())


@pytest.mark.parametrize(
    "text", ["007", "+7", " 7", "7 ", "1_0", "\u0667", "0x7", "1e3", str(2**64)]
)
def test_numbers_have_one_form(text):
    with pytest.raises(FormatError) as caught:
        luks2_json.parse(changed(("segments", "0", "iv_tweak"), text))
    assert caught.value.code == "luks2-json"


@pytest.mark.parametrize("name", ["00", "32", "-1", "a", ""])
def test_objects_are_numbered(name):
    with pytest.raises(FormatError) as caught:
        luks2_json.parse(changed(("segments", name), GOOD["segments"]["0"]))
    assert caught.value.code == "luks2-json"


@pytest.mark.parametrize("text", ["!", "AA", "AAA=\n", "AA==AA==", "ä"])
def test_base64_is_strict(text):
    with pytest.raises(FormatError) as caught:
        luks2_json.parse(changed(("digests", "0", "salt"), text))
    assert caught.value.code == "luks2-json"


@pytest.mark.parametrize("text", ["\ud800", "x\udfff", "\udc80\ud800"])
def test_half_a_surrogate_pair_is_no_text(text):
    """Python reads it; nothing could print it, nor a refusal that quotes it."""
    for path in (("segments", "0", "encryption"), ("tokens", text), ("config", text)):
        with pytest.raises(FormatError) as caught:
            luks2_json.parse(changed(path, text))
        assert caught.value.code == "luks2-json"
        caught.value.message.encode()


def test_a_key_twice():
    text = json.dumps(GOOD).replace('"iv_tweak": "0"', '"iv_tweak": "0", "iv_tweak": "8"').encode()
    with pytest.raises(FormatError) as caught:
        luks2_json.parse(text, where="/dev/vda")
    assert (caught.value.code, caught.value.where) == ("luks2-json-duplicate", "/dev/vda")


@pytest.mark.parametrize("depth", [100, 700, 900, 980, 2000, 200_000])
def test_depth_is_bounded(depth):
    with pytest.raises(FormatError) as caught:
        luks2_json.parse(b'{"keyslots":' * depth + b"1" + b"}" * depth)
    assert caught.value.code == "luks2-json"


@pytest.mark.parametrize(
    ("path", "listed"),
    [
        (("x",), "x"),
        (("config", "x"), "config.x"),
        (("keyslots", "0", "x"), "keyslots.0.x"),
        (("keyslots", "0", "af", "x"), "keyslots.0.af.x"),
        (("keyslots", "0", "area", "x"), "keyslots.0.area.x"),
        (("keyslots", "0", "kdf", "x"), "keyslots.0.kdf.x"),
        (("segments", "0", "x"), "segments.0.x"),
        (("digests", "0", "x"), "digests.0.x"),
    ],
)
def test_unknown_keys_are_listed(path, listed):
    found = luks2_json.parse(changed(path, 1))
    assert found.unknown == (listed,)
    with pytest.raises(FormatError) as caught:
        luks2_json.print_(found)
    assert caught.value.code == "luks2-json"


@pytest.mark.vectors
def test_tokens_of_systemd_are_read():
    path = VECTORS / "tpm/systemd/luks2-tokens-252-257.img.gz"
    if not path.exists():
        pytest.skip(f"no vectors at {path} (set TROTH_VECTORS)")
    with gzip.open(path) as file:
        area = file.read(1 << 20)
    found = luks2_json.parse(luks2.parse(area).metadata)
    assert {token.kind for token in found.tokens} == {"systemd-tpm2"}
    assert len(found.keyslots) == 4
    with pytest.raises(FormatError):
        luks2_json.print_(found)
