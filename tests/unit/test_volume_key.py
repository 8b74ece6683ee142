# SPDX-License-Identifier: Apache-2.0
"""The document with a volume's key, and its label."""

import hashlib
import hmac
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz import volume_key as fuzz_volume_key
from troth.documents import volume_key
from troth.documents.volume_key import VolumeKey
from troth.errors import FormatError
from troth.record import replace

UUID = fuzz_volume_key.UUID
VALUE = VolumeKey(UUID, "headerless/hmac/4096", bytes(range(32)))
LATER = replace(VALUE, state="formatting", generation=2, digest="ab" * 32)


def code_of(call, *arguments):
    with pytest.raises(FormatError) as caught:
        call(*arguments)
    return caught.value.code


def labelled(**changes):
    """A document with changed fields and a right MAC, made by its description alone."""
    tree = json.loads(volume_key.print_(VALUE))
    del tree["mac"]
    tree = {name: value for name, value in (tree | changes).items() if value is not ...}
    key = bytes(range(32))
    prk = hmac.new(bytes(32), key, hashlib.sha256).digest()
    own = hmac.new(prk, b"troth-resource-v1\1", hashlib.sha256).digest()
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    tree["mac"] = hmac.new(own, text, hashlib.sha256).hexdigest()
    return json.dumps(tree).encode()


def test_its_bytes():
    assert (
        volume_key.print_(VALUE)
        == json.dumps(json.loads(labelled()), sort_keys=True, separators=(",", ":")).encode()
    )
    assert volume_key.parse(labelled()) == VALUE
    assert volume_key.parse(volume_key.print_(LATER)) == LATER


def test_a_key_is_not_shown():
    assert repr(VALUE) == f"VolumeKey({UUID}, headerless/hmac/4096, in-use, 0)"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"volume": UUID.upper()}, "volume-key-field"),
        ({"volume": UUID.replace("-", "")}, "volume-key-field"),
        ({"volume": UUID[:-1] + "g"}, "volume-key-field"),
        ({"volume": ""}, "volume-key-field"),
        ({"profile": "headerless/hmac/512"}, "volume-key-field"),
        ({"profile": "luks1/hmac/4096"}, "volume-key-field"),
        ({"state": "new"}, "volume-key-field"),
        ({"generation": -1}, "json-type"),
        ({"generation": 1 << 60}, "json-type"),
        ({"generation": 1}, "volume-key-field"),
        ({"generation": True}, "json-type"),
        ({"record": "ab" * 32}, "volume-key-field"),
        ({"generation": 1, "record": "AB" * 32}, "volume-key-field"),
        ({"generation": 1, "record": "ab" * 31}, "volume-key-field"),
        ({"key": ""}, "volume-key-field"),
        ({"key": "AAAA"}, "volume-key-field"),
        ({"key": "A" * 88}, "volume-key-field"),
        ({"key": "*"}, "volume-key-field"),
        ({"schema": "troth-volume-key-v2"}, "json-type"),
        ({"more": 1}, "json-unknown"),
        ({"state": ...}, "json-missing"),
    ],
)
def test_documents_that_are_refused(change, code):
    assert code_of(volume_key.parse, labelled(**change)) == code


@pytest.mark.parametrize(
    "change",
    [
        {"volume": UUID.replace("6", "7")},
        {"profile": "headerless/none/4096"},
        {"state": "formatting"},
        {"generation": 1, "record": "ab" * 32},
        {"key": "A" * 43 + "="},
        {"mac": "00" * 32},
    ],
)
def test_a_label_is_bound_to_its_key(change):
    tree = json.loads(volume_key.print_(VALUE)) | change
    assert code_of(volume_key.parse, json.dumps(tree).encode()) == "volume-key-mac"


def test_a_document_is_short():
    assert code_of(volume_key.parse, volume_key.print_(VALUE) + b" " * 4096) == "json-size"


@pytest.mark.parametrize(
    "change", [{"key": bytes(31)}, {"key": bytes(65)}, {"digest": "00" * 32}, {"state": ""}]
)
def test_what_could_not_be_read_is_not_printed(change):
    assert code_of(volume_key.print_, replace(VALUE, **change)) == "volume-key-field"


def test_a_key_is_for_one_volume_in_one_way():
    volume_key.check_volume(VALUE, UUID, "headerless/hmac/4096")
    for other in ((UUID[:-1] + "0", VALUE.profile), (UUID, "luks2/hmac/4096")):
        assert code_of(volume_key.check_volume, VALUE, *other) == "volume-key-other"


@settings(max_examples=60)
@given(
    st.builds(
        lambda key, profile, state, generation: VolumeKey(
            UUID, profile, key, state, generation, "cd" * 32 if generation else ""
        ),
        st.binary(min_size=32, max_size=64),
        st.sampled_from(volume_key.PROFILES),
        st.sampled_from(volume_key.STATES),
        st.integers(0, 2**53 - 1),
    )
)
def test_every_value_survives(value):
    assert volume_key.parse(volume_key.print_(value)) == value


@settings(max_examples=60)
@given(st.data())
def test_no_damage_passes(data):
    seed = bytearray(data.draw(st.sampled_from(fuzz_volume_key.SEEDS)))
    at = data.draw(st.integers(0, len(seed) - 1))
    seed[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    fuzz_volume_key.fuzz(bytes(seed))
