# SPDX-License-Identifier: Apache-2.0
"""The instance configuration: its disk, its form, and what a policy lets it say."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from made_policy import INSTANCE, policy
from troth.documents import instance, instance_disk, policy_json
from troth.documents.instance_network import Network, check_broker
from troth.documents.policy import InstanceRules
from troth.errors import FormatError
from troth.record import replace

FULL = {
    "schema": "troth-instance-v1",
    "hostname": "node-7.example",
    "network": {
        "method": "static",
        "address": "192.0.2.10/24",
        "router": "192.0.2.1",
        "dns": ["192.0.2.53", "2001:db8::53"],
    },
    "brokers": {"keys": ["broker.example:8443", "192.0.2.7:8443", "[2001:db8::7]:443"]},
    "values": {"region": "eu", "owner": "Zoë\n\tline two"},
}
NOTHING = InstanceRules(need="optional", hostname=False, network=(), brokers=(), values={})


def text(tree):
    return json.dumps(tree).encode()


def changed(**fields):
    return text({**FULL, **fields})


def code(function, *arguments):
    with pytest.raises(FormatError) as caught:
        function(*arguments)
    return caught.value.code


# The disk


def test_the_file_ends_where_zeros_begin():
    assert instance_disk.content(b"{}" + bytes(510)) == b"{}"
    assert instance_disk.content(b"{}") == b"{}"
    # What stands behind a zero belongs to it: the digest then differs.
    assert instance_disk.content(b"{}\0x" + bytes(508)) == b"{}\0x"


def test_sizes_of_the_file():
    longest = b" " * 65536
    assert instance_disk.content(longest) == longest
    assert instance_disk.content(longest + bytes(512)) == longest
    assert instance_disk.READ_BYTES == 65536 + 512
    for head in (b"", bytes(512), longest + b" ", longest + bytes(511) + b" "):
        assert code(instance_disk.content, head) == "instance-size"


# The form


def test_all_of_it():
    found = instance.parse(text(FULL))
    assert found == instance.Instance(
        hostname="node-7.example",
        network=Network("static", "192.0.2.10/24", "192.0.2.1", ("192.0.2.53", "2001:db8::53")),
        brokers=(("keys", ("broker.example:8443", "192.0.2.7:8443", "[2001:db8::7]:443")),),
        values=(("region", "eu"), ("owner", "Zoë\n\tline two")),
    )
    instance.judge(found, INSTANCE)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"schema":"troth-instance-v1"}', instance.Instance()),
        (b' {\n"schema" : "troth-instance-v1" }\r\n\t', instance.Instance()),
        (changed(network={"method": "dhcp"}), Network("dhcp")),
        (
            changed(network={"method": "static", "address": "2001:db8::1/64"}),
            Network("static", "2001:db8::1/64"),
        ),
        (
            changed(
                network={
                    "method": "static",
                    "address": "2001:db8::1/64",
                    "router": "2001:db8::ffff",
                    "dns": [],
                }
            ),
            Network("static", "2001:db8::1/64", "2001:db8::ffff"),
        ),
        (
            changed(network={"method": "static", "address": "198.51.100.1/32"}),
            Network("static", "198.51.100.1/32"),
        ),
    ],
)
def test_parts_may_be_left_out(data, expected):
    found = instance.parse(data)
    assert expected == (found.network if isinstance(expected, Network) else found)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "instance-size"),
        (b" " * 65537, "instance-size"),
        (b"{}", "json-missing"),
        (b"[]", "json-type"),
        (b'{"schema":"troth-instance-v1"}\0', "json-syntax"),
        (b'{"schema":"troth-instance-v1"} x', "json-syntax"),
        (b"\xef\xbb\xbf" + text(FULL), "json-syntax"),
        (b"[" * 65536, "json-syntax"),
        (b"1" * 65536, "json-syntax"),
        (b'{"schema":"troth-instance-v1","schema":"troth-instance-v1"}', "json-duplicate"),
        (changed(schema="troth-instance-v2"), "json-type"),
        (changed(identity="spki"), "json-unknown"),
        (changed(hostname=7), "json-type"),
        (changed(hostname=None), "json-type"),
        (changed(hostname=""), "instance-form"),
        (changed(hostname="Node"), "instance-form"),
        (changed(hostname="node_7"), "instance-form"),
        (changed(hostname="-node"), "instance-form"),
        (changed(hostname="node-"), "instance-form"),
        (changed(hostname="node."), "instance-form"),
        (changed(hostname="node\n"), "instance-form"),
        (changed(hostname="a" * 64), "instance-form"),
        (changed(hostname="a.b" * 22), "instance-form"),
        (changed(network="dhcp"), "json-type"),
        (changed(network={}), "json-missing"),
        (changed(network={"method": "dhcp6"}), "json-type"),
        (changed(network={"method": "dhcp", "dns": ["192.0.2.53"]}), "json-unknown"),
        (changed(network={"method": "static"}), "json-missing"),
        (changed(brokers=["broker.example:1"]), "json-type"),
        (changed(brokers={"keys": "broker.example:1"}), "json-type"),
        (changed(brokers={"keys": []}), "instance-form"),
        (changed(brokers={"keys": [f"a{at}:1" for at in range(9)]}), "instance-form"),
        (changed(brokers={"keys": ["a:1", "a:1"]}), "instance-form"),
        (changed(values={"a": 1}), "json-type"),
        (changed(values={"a": "x" * 4097}), "instance-form"),
        (changed(values={"a": "\0"}), "instance-form"),
        (changed(values={"a": "\x1b[2J"}), "instance-form"),
        (changed(values={"a": "\ud800"}), "instance-form"),
        (changed(values={"a": "x\u202ey"}), "instance-form"),
    ],
)
def test_what_is_refused(data, expected):
    assert code(instance.parse, data) == expected


@pytest.mark.parametrize(
    "fields",
    [
        {"address": "192.0.2.10"},
        {"address": "192.0.2.10/"},
        {"address": "192.0.2.10/0"},
        {"address": "192.0.2.10/33"},
        {"address": "192.0.2.10/024"},
        {"address": "192.0.2.10/255.255.255.0"},
        {"address": "192.0.2.010/24"},
        {"address": "3221225994/24"},
        {"address": " 192.0.2.10/24"},
        {"address": "127.0.0.1/8"},
        {"address": "0.0.0.0/24"},
        {"address": "224.0.0.1/24"},
        {"address": "255.255.255.255/24"},
        {"address": "169.254.169.254/16"},
        {"address": "fe80::1/64"},
        {"address": "fe80::1%eth0/64"},
        {"address": "2001:DB8::1/64"},
        {"address": "2001:db8:0::1/64"},
        {"address": "2001:db8::1%1/64"},
        {"address": "::ffff:192.0.2.1/96"},
        {"address": "::1/64"},
        {"router": "192.0.3.1"},
        {"router": "192.0.2.10"},
        {"router": "2001:db8::1"},
        {"router": "router.example"},
        {"dns": ["169.254.169.254"]},
        {"dns": ["dns.example"]},
        {"dns": ["192.0.2.1", "192.0.2.1"]},
        {"dns": [f"192.0.2.{at}" for at in range(1, 5)]},
    ],
)
def test_addresses_that_are_refused(fields):
    tree = {**FULL["network"], **fields}
    assert code(instance.parse, changed(network=tree)) == "instance-form"


@pytest.mark.parametrize(
    "address",
    [
        "", ":", ":1", "a", "a:", "a:0", "a:01", "a:65536", "a:-1", "a: 1", "a:1\n", "A:1", "a b:1",
        "https://a:1", "a/b:1", "user@a:1", "a..b:1", "2001:db8::1:443", "[192.0.2.1]:1", "[]:1",
        "[2001:db8::1:1", "192.0.2:1", "1:1", "0x7f000001:1", "127.0.0.1:1", "[::1]:1",
        "169.254.169.254:80", "192.0.2.256:1", "a" * 64 + ":1", ("a" * 60 + ".") * 5 + "a:1", "é:1",
        "a:\u0661",
    ],
)  # fmt: skip
def test_brokers_that_are_refused(address):
    assert code(check_broker, address) == "instance-form"


# The policy


def test_a_policy_bounds_every_part():
    found = instance.parse(text(FULL))
    for rules, word in (
        (replace(INSTANCE, hostname=False), "hostname"),
        (replace(INSTANCE, network=("dhcp",)), "network"),
        (replace(INSTANCE, brokers=("other",)), "keys"),
        (replace(INSTANCE, values={"region": ("eu",)}), "owner"),
        (replace(INSTANCE, values={"region": ("us",), "owner": ()}), "region"),
    ):
        with pytest.raises(FormatError, match=word) as caught:
            instance.judge(found, rules)
        assert caught.value.code == "instance-policy"
    instance.judge(instance.Instance(), NOTHING)


def test_the_policy_carries_the_rules():
    for rules in (None, INSTANCE, NOTHING):
        made = policy(snp="simulated", instance=rules)
        data = policy_json.print_(made)
        assert policy_json.parse(data).instance == rules
        tree = json.loads(data)["instance"]
        assert (tree is None) == (rules is None)
    assert json.loads(policy_json.print_(policy(instance=INSTANCE)))["instance"] == {
        "need": "required",
        "hostname": True,
        "network": ["dhcp", "static"],
        "brokers": ["keys"],
        "values": {"region": ["eu", "us"], "owner": []},
    }


# Properties


def only_typed_errors(data):
    try:
        found = instance.parse(data)
    except FormatError:
        return
    again = instance.parse(data)
    assert again == found


@given(st.binary(max_size=300))
def test_any_bytes(data):
    only_typed_errors(data)


@given(st.data())
def test_a_changed_file(data):
    mutated = bytearray(text(FULL))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(mutated) - 1))
        mutated[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    only_typed_errors(bytes(mutated))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.floats(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
        max_leaves=9,
    ),
    st.sampled_from(["hostname", "network", "brokers", "values"]),
)
def test_any_tree_in_any_part(tree, part):
    only_typed_errors(changed(**{part: tree}))


@given(st.ip_addresses(), st.integers(1, 128))
def test_every_unicast_address_passes_in_one_spelling(address, length):
    host = f"{address}/{min(length, address.max_prefixlen)}"
    data = changed(network={"method": "static", "address": host})
    try:
        assert instance.parse(data).network == Network("static", host)
    except FormatError as error:
        assert error.code == "instance-form"
        special = address.is_multicast or address.is_loopback or address.is_unspecified
        special |= address.is_link_local or (address.version == 4 and address.is_reserved)
        assert special or (address.version == 6 and address.ipv4_mapped)


def test_a_large_file_is_judged_fast():
    values = {f"v{at}": "x" * 500 for at in range(120)}
    data = changed(values=values)
    assert 60000 < len(data) <= 65536
    assert len(instance.parse(data).values) == 120
    assert code(instance.parse, os.urandom(65536)) == "json-syntax"
