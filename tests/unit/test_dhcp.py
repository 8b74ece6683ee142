# SPDX-License-Identifier: Apache-2.0
"""DHCP answers of good and of evil servers, and the packets around them."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from troth.abi import dhcp, udp_packet
from troth.errors import FormatError

HARDWARE = bytes.fromhex("525400123456")
XID = 0x01020304


def option(number, data):
    return bytes((number, len(data))) + data


def ip(text):
    return bytes(map(int, text.split(".")))


KIND, SERVER = option(53, b"\x05"), option(54, ip("192.0.2.1"))
MASK, LEASE = option(1, ip("255.255.255.0")), option(51, struct.pack(">I", 86400))
LEAST = KIND + SERVER + MASK + LEASE
END = b"\xff"


def message(options, *, own="192.0.2.10", operation=2, xid=XID, hardware=HARDWARE, cookie=None):
    """RFC 2131, figure 1, written here a second time."""
    return (
        struct.pack(">BBBBIHH", operation, 1, 6, 0, xid, 0, 0)
        + bytes(4) + ip(own) + bytes(8) + hardware.ljust(16, b"\0") + bytes(192)
        + (cookie or bytes((99, 130, 83, 99))) + options
    )  # fmt: skip


def parse(options, **changes):
    return dhcp.parse(message(options, **changes), transaction=XID, hardware=HARDWARE)


def test_all_that_is_used():
    found = parse(
        LEAST + option(3, ip("192.0.2.1") + ip("192.0.2.2")) + option(26, b"\x05\x78")
        + option(6, ip("192.0.2.53") + ip("198.51.100.53")) + END + bytes(30)
    )  # fmt: skip
    assert found == dhcp.Answer(
        kind="ack", server="192.0.2.1", address="192.0.2.10", prefix=24, router="192.0.2.1",
        dns=("192.0.2.53", "198.51.100.53"), mtu=1400, lease_s=86400,
    )  # fmt: skip


def test_what_is_not_used_changes_nothing():
    """Classless routes, names, time, proxies, a private option, and padding between them."""
    more = b"".join(
        option(number, data)
        for number, data in (
            (121, bytes((0,)) + ip("192.0.2.66")), (249, bytes((0,)) + ip("192.0.2.66")),
            (12, b"$(reboot)"), (15, b"evil.example"), (42, ip("192.0.2.66")),
            (252, b"http://192.0.2.66/wpad.dat"), (43, b"\0" * 255), (33, ip("0.0.0.0") * 2),
        )
    )  # fmt: skip
    assert parse(LEAST + more + b"\0\0" + END) == parse(LEAST + END)


@pytest.mark.parametrize(
    ("mtu", "taken"),
    [(0, 0), (68, 0), (1279, 0), (1280, 1280), (1500, 1500), (1501, 0), (9001, 0), (65535, 0)],
)
def test_sizes_of_frames(mtu, taken):
    assert parse(LEAST + option(26, struct.pack(">H", mtu)) + END).mtu == taken


def test_at_most_three_resolvers_each_once_and_none_that_nobody_reaches():
    servers = ["169.254.169.254", "127.0.0.1", "0.0.0.0", "192.0.2.1", "192.0.2.1", "224.0.0.1",
               "192.0.2.2", "192.0.2.3", "192.0.2.4"]  # fmt: skip
    found = parse(LEAST + option(6, b"".join(map(ip, servers))) + END)
    assert found.dns == ("192.0.2.1", "192.0.2.2", "192.0.2.3")


def test_a_refusal_needs_no_more():
    assert parse(option(53, b"\x06") + SERVER + END) == dhcp.Answer(kind="nak", server="192.0.2.1")


def test_a_subnet_of_the_guest_alone_has_its_router_elsewhere():
    """As some clouds have it."""
    mask = option(1, ip("255.255.255.255"))
    found = parse(KIND + SERVER + LEASE + mask + option(3, ip("198.51.100.1")) + END)
    assert (found.prefix, found.router) == (32, "198.51.100.1")


@pytest.mark.parametrize(
    ("options", "changes", "code"),
    [
        (LEAST + END, {"operation": 1}, "dhcp-header"),
        (LEAST + END, {"cookie": b"\0\0\0\0"}, "dhcp-header"),
        (LEAST + END, {"xid": XID + 1}, "dhcp-foreign"),
        (LEAST + END, {"hardware": HARDWARE[::-1]}, "dhcp-foreign"),
        (LEAST + END, {"hardware": HARDWARE + b"\1"}, "dhcp-foreign"),
        (LEAST, {}, "dhcp-option"),
        (LEAST + b"\x03", {}, "dhcp-option"),
        (LEAST + b"\x03\x08\1\1\1\1" + END, {}, "dhcp-option"),
        (LEAST + b"\x0c\xff" + END, {}, "dhcp-option"),
        (LEAST + option(3, b"") + END, {}, "dhcp-option"),
        (LEAST + option(3, b"12345") + END, {}, "dhcp-option"),
        (LEAST + option(26, b"\5\5\5\5") + END, {}, "dhcp-option"),
        (KIND + SERVER + LEASE + option(1, ip("255.0.0.0") * 2) + END, {}, "dhcp-option"),
        (option(53, b"\x02\x05") + SERVER + MASK + LEASE + END, {}, "dhcp-option"),
        (option(53, b"\x01") + SERVER + MASK + LEASE + END, {}, "dhcp-option"),
        (LEAST + KIND + END, {}, "dhcp-repeated"),
        (LEAST + MASK + END, {}, "dhcp-repeated"),
        (LEAST + option(52, b"\x03") + END, {}, "dhcp-overload"),
        (SERVER + MASK + LEASE + END, {}, "dhcp-missing"),
        (KIND + MASK + LEASE + END, {}, "dhcp-missing"),
        (KIND + SERVER + LEASE + END, {}, "dhcp-missing"),
        (KIND + SERVER + MASK + END, {}, "dhcp-missing"),
        (LEAST + END, {"own": "0.0.0.0"}, "dhcp-address"),
        (LEAST + END, {"own": "127.0.0.1"}, "dhcp-address"),
        (LEAST + END, {"own": "169.254.169.254"}, "dhcp-address"),
        (LEAST + END, {"own": "224.0.0.1"}, "dhcp-address"),
        (LEAST + END, {"own": "255.255.255.255"}, "dhcp-address"),
        (LEAST + END, {"own": "192.0.2.0"}, "dhcp-address"),
        (LEAST + END, {"own": "192.0.2.255"}, "dhcp-address"),
        (KIND + option(54, bytes(4)) + MASK + LEASE + END, {}, "dhcp-address"),
        (KIND + SERVER + LEASE + option(1, ip("255.0.255.0")) + END, {}, "dhcp-address"),
        (KIND + SERVER + LEASE + option(1, bytes(4)) + END, {}, "dhcp-address"),
        (KIND + SERVER + LEASE + option(1, ip("254.0.0.0")) + END, {}, "dhcp-address"),
        (LEAST + option(3, ip("198.51.100.1")) + END, {}, "dhcp-address"),
        (LEAST + option(3, ip("192.0.2.10")) + END, {}, "dhcp-address"),
        (LEAST + option(3, ip("192.0.2.255")) + END, {}, "dhcp-address"),
        (LEAST + option(3, ip("169.254.169.254")) + END, {}, "dhcp-address"),
        (b"", {}, "dhcp-size"),
        (LEAST + END + bytes(1300), {}, "dhcp-size"),
    ],
)
def test_refused(options, changes, code):
    with pytest.raises(FormatError) as caught:
        parse(options, **changes)
    assert caught.value.code == code


def test_what_the_guest_says():
    asked = dhcp.discover(XID, HARDWARE)
    assert len(asked) == 300
    assert asked[:8] == b"\1\1\6\0" + struct.pack(">I", XID)
    assert asked[12:28] == bytes(16)
    assert asked[28:44] == HARDWARE.ljust(16, b"\0")
    assert asked[236:246] == bytes((99, 130, 83, 99, 53, 1, 1, 57, 2, 5))
    assert asked[247:254] == bytes((55, 4, 1, 3, 6, 26, 255))
    offer = parse(option(53, b"\x02") + SERVER + MASK + LEASE + END)
    taken = dhcp.request(XID, HARDWARE, offer)
    assert taken[240:255] == option(53, b"\3") + option(50, ip("192.0.2.10")) + SERVER


def packet(payload=b"payload"):
    return udp_packet.build(
        payload, source=ip("192.0.2.1"), source_port=67, target=ip("192.0.2.10"), target_port=68
    )


def read(data):
    return udp_packet.payload(data, source_port=67, target_port=68)


def test_a_packet():
    """A header by hand: RFC 791, with the checksum of RFC 1071."""
    found = packet(b"ab")
    assert found[:12].hex() == "4500001e00000000" + "4011" + found[10:12].hex()
    assert read(found) == b"ab"
    assert read(found + bytes(30)) == b"ab"
    words = struct.unpack(">10H", found[:20])
    assert sum(words) % 0xFFFF == 0
    pseudo = found[12:20] + b"\0\x11" + found[24:26]
    assert sum(struct.unpack(f">{(len(found) - 20 + 12) // 2}H", pseudo + found[20:])) % 0xFFFF == 0


def changed(at, value):
    data = bytearray(packet())
    data[at : at + len(value)] = value
    data[10:12] = b"\0\0"
    total = sum(struct.unpack(">10H", data[:20]))
    data[10:12] = struct.pack(">H", 0xFFFF - (total % 0xFFFF))
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        packet()[:27],
        packet()[:-1],
        packet()[:10] + b"\0\0" + packet()[12:],
        changed(0, b"\x46"),
        changed(0, b"\x65"),
        changed(2, b"\x00\x10"),
        changed(6, b"\x20\x00"),
        changed(6, b"\x00\x01"),
        changed(9, b"\x06"),
        changed(20, b"\x00\x44"),
        changed(22, b"\x00\x43"),
        changed(24, b"\x00\x07"),
        changed(24, b"\x00\xff"),
    ],
)
def test_other_packets(data):
    with pytest.raises(FormatError) as caught:
        read(data)
    assert caught.value.code == "udp-packet"


def test_dont_fragment_is_no_fragment():
    assert read(changed(6, b"\x40\x00")) == b"payload"


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=dhcp.MAX_BYTES))
def test_any_packet_comes_back(payload):
    assert read(packet(payload)) == payload


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=9)), max_size=12), st.binary())
def test_any_options(options, rest):
    data = b"".join(option(number, value) for number, value in options)
    try:
        found = parse((KIND + SERVER + MASK + LEASE + data + END + rest)[:1200])
    except FormatError as error:
        assert error.code.startswith("dhcp-")
    else:
        assert found.address == "192.0.2.10"
        assert found.router == "" or found.router.startswith("192.0.2.")


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes(data):
    for whole in (data, message(data)):
        try:
            dhcp.parse(whole, transaction=XID, hardware=HARDWARE)
        except FormatError as error:
            assert error.code.startswith("dhcp-")
