# SPDX-License-Identifier: Apache-2.0
"""Encrypted volumes and brokers in policy.json: every field there and back, nothing else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from made_policy import policy
from made_volumes import BROKER, VOLUME
from troth.documents import policy as policy_document
from troth.documents import policy_json, policy_keys
from troth.documents.policy_keys import Broker, Encrypted
from troth.documents.stages import stages_of
from troth.errors import FormatError
from troth.record import replace

MADE = replace(policy(snp="simulated"), encrypted=(VOLUME,), brokers=(BROKER,))

texts = st.text(st.characters(codec="ascii"), max_size=12)
volumes = st.builds(
    Encrypted,
    **dict.fromkeys(
        ("name", "device", "mount", "file_system", "format", "integrity", "key", "uuid", "blank"),
        texts,
    ),
    executable=st.booleans(),
)
brokers = st.builds(
    Broker,
    **dict.fromkeys(("name", "protocol", "server_name", "spiffe_id", "trust_domain"), texts),
    **dict.fromkeys(("addresses", "spki", "ca"), st.lists(texts, max_size=3).map(tuple)),
    not_before=st.integers(0, 2**53 - 1),
)


@given(st.lists(volumes, max_size=3).map(tuple), st.lists(brokers, max_size=3).map(tuple))
def test_there_and_back(encrypted, listed):
    made = replace(policy(), encrypted=encrypted, brokers=listed)
    assert policy_json.parse(policy_json.print_(made)) == made
    # What PID 1 reads: a tree of literals, without JSON.
    assert policy_document.from_tree(policy_document.to_tree(made)) == made


def test_the_fields_are_these():
    tree = json.loads(policy_json.print_(MADE))
    assert tree["encrypted"] == [
        {
            "blank": "refuse",
            "device": "serial:data",
            "executable": False,
            "file_system": "ext4",
            "format": "headerless",
            "integrity": "hmac",
            "key": "kbs:///default/disk-key/data",
            "mount": "/var/lib/app",
            "name": "data",
            "uuid": VOLUME.uuid,
        }
    ]
    assert tree["brokers"][0]["spki"] == ["ab" * 32]
    assert tree["brokers"][0]["not_before"] == 0


@pytest.mark.parametrize("key", ["encrypted", "brokers"])
@pytest.mark.parametrize("change", ["missing", "unknown", "no object", "no list", "none"])
def test_another_shape(key, change):
    tree = json.loads(policy_json.print_(MADE))
    if change == "missing":
        del tree[key][0]["name"]
    elif change == "unknown":
        tree[key][0]["extra"] = 1
    elif change == "no object":
        tree[key][0] = ["name"]
    elif change == "no list":
        tree[key] = {"0": tree[key][0]}
    else:
        del tree[key]
    data = json.dumps(tree, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(FormatError) as caught:
        policy_json.parse(data)
    assert caught.value.code == "policy-form"


def test_a_policy_without_any_has_empty_lists():
    tree = policy_document.to_tree(policy())
    assert (tree["encrypted"], tree["brokers"]) == ([], [])


def test_what_a_volume_is_called():
    assert VOLUME.profile == "headerless/hmac/4096"
    assert VOLUME.map_name == "troth-data"
    # Below a verified volume, whose own map has the plain name.
    assert replace(VOLUME, name="root", file_system="").map_name == "troth-root-clear"


def test_a_tree_of_each_is_its_inverse():
    assert policy_keys.encrypted(policy_keys.tree_of(VOLUME)) == VOLUME
    assert policy_keys.broker(policy_keys.tree_of(BROKER)) == BROKER


def test_the_stages_that_keys_bring():
    names = [name for name, _module in stages_of(MADE)]
    at = names.index("keys")
    assert names[at : at + 3] == ["keys", "volumes", "verity"]
    assert names.index("devices") < at
    without = [name for name, _module in stages_of(policy(snp="simulated"))]
    assert "keys" not in without
    assert "volumes" not in without
    # An image all in its initramfs finds the disks of its volumes too.
    bare = replace(policy(volumes=(), overlay="none", kind="supervise"), encrypted=(VOLUME,))
    assert "devices" in [name for name, _module in stages_of(bare)]
