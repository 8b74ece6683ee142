# SPDX-License-Identifier: Apache-2.0
"""The network before the handover, and that nothing of it is left behind.

The other end is QEMU's own DHCP server once, else ``hostile_net``: Ethernet frames
made by this test. It keeps every frame of the guest.
"""

from __future__ import annotations

import contextlib
import json
import re
import struct

import pytest

import hostile_net as net
from boot.machine import check_good, check_refused

#: Flags of a device that is down: broadcast and multicast are what it could do.
_DOWN = "0x1002"
_ARP, _IPV4, _IPV6 = "0806", "0800", "86dd"


@contextlib.contextmanager
def cable(tmp_path, script):
    """(options for ``troth run``, the other end) of a guest with this one network device."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    netdev = (
        f"dgram,id=cable,local.type=unix,local.path={theirs},remote.type=unix,remote.path={ours}"
    )
    options = ["--no-network"]
    for word in ("-netdev", netdev, "-device", "virtio-net-pci,netdev=cable"):
        options += [f"--qemu-arg={word}"]
    with net.on_sockets(script, ours, theirs) as other_end:
        yield options, other_end


def check_nothing_left(found):
    """As if there had been no network: to the tables of the kernel and its settings."""
    assert found.section("file /sys/class/net/eth0/flags") == _DOWN
    (head,) = found.lines("file /proc/net/route")
    assert head.startswith("Iface")
    assert "eth0" not in found.section("file /proc/net/if_inet6")
    (head,) = found.lines("file /proc/net/packet")
    assert head.startswith("sk")


def check_nothing_left_at_all(found):
    check_nothing_left(found)
    assert found.section("file /sys/class/net/eth0/mtu") == "1500"
    # Loopback is down as well, so there is no address whatever.
    assert found.section("file /proc/net/fib_trie") == ""
    for name in ("arp", "udp", "raw"):
        assert len(found.lines(f"file /proc/net/{name}")) == 1
    settings = {
        "ipv4/conf/all/rp_filter": "0",
        "ipv4/conf/eth0/rp_filter": "0",
        "ipv4/conf/eth0/accept_redirects": "1",
        "ipv6/conf/eth0/disable_ipv6": "0",
        "ipv6/conf/eth0/accept_ra": "1",
    }
    for name, value in settings.items():
        assert found.section(f"file /proc/sys/net/{name}") == value, name
    assert found.section("file /proc/1/task/1/children") == ""


STAGES = ["mounts", "policy", "modules", "tee", "devices", "network", "verity", "root",
          "handover"]  # fmt: skip


def test_dhcp_and_all_taken_down(forge, boot, token):
    """QEMU's own network: 10.0.2.15 of 10.0.2.2."""
    found = boot(forge.bundle("network"))
    check_good(found, token)
    assert found.stages == STAGES
    assert "troth: network eth0 10.0.2.15/24\n" in found.console
    check_nothing_left_at_all(found)


def test_a_server_with_more_to_say(forge, boot, token, tmp_path):
    """What is not used changes nothing, and the guest says nothing it need not."""
    more = (
        net.option(3, net.ip(net.SERVER)), net.option(6, net.ip("192.0.2.53") * 5),
        net.option(26, struct.pack(">H", 68)), net.option(12, b"$(reboot)\n"),
        net.option(121, bytes((16, 169, 254)) + net.ip("192.0.2.66")),
        net.option(249, bytes((0,)) + net.ip("192.0.2.66")),
        net.option(42, net.ip("192.0.2.66")), net.option(252, b"http://192.0.2.66/wpad.dat"),
    )  # fmt: skip
    with cable(tmp_path, net.good(*more)) as (options, wire):
        found = boot(forge.bundle("network"), *options)
    check_good(found, token)
    assert "troth: network eth0 192.0.2.10/24\n" in found.console
    check_nothing_left_at_all(found)
    assert wire.questions == [net.DISCOVER, net.REQUEST]
    assert {frame[12:14].hex() for frame in wire.frames} == {_IPV4}
    assert len(wire.frames) == 2


#: A later stage, in the place of the real one: it uses the network, says what it found, and ends
#: the boot.
_USER = """
import _socket
from troth.errors import Refusal

def tried(address, port):
    with_socket = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    try:
        with_socket.sendto(b"hello", (address, port))
    except OSError as error:
        return error.errno
    finally:
        with_socket.close()
    return 0

def run(state):
    (found,) = _socket.getaddrinfo(b"broker.example", 443, _socket.AF_INET, _socket.SOCK_DGRAM)
    state.say(f"@@ named {found[4][0]}")
    for address in ("192.0.2.66", "198.51.100.66", "169.254.169.254", "169.254.0.1"):
        state.say(f"@@ to {address} {tried(address, 4)}")
    for name in ("route", "if_inet6", "udp", "tcp", "tcp6", "raw"):
        with open(f"/proc/net/{name}") as file:
            state.say(f"@@ lines {name} {len(file.readlines())}")
    raise Refusal("seen-enough", "the test is over")
"""


def test_a_later_stage_has_it(boot, token, variant, tmp_path):
    """Names are resolved, packets go through the router, but to no metadata service."""
    bundle = variant("network")
    bundle.replace_module("troth.boot.verity", _USER)
    more = net.option(3, net.ip(net.SERVER)), net.option(6, net.ip("192.0.2.53"))
    with cable(tmp_path, net.good(*more)) as (options, wire):
        found = boot(bundle, *options)
    check_refused(found, token, "seen-enough", stage="verity")
    assert f"@@ named {net.NAMED}" in found.console
    sent = {net.socket.inet_ntoa(frame[30:34]) for frame in wire.of_type(net.IPV4)}
    assert sent == {"255.255.255.255", "192.0.2.53", "192.0.2.66", "198.51.100.66"}
    assert "@@ to 192.0.2.66 0" in found.console
    assert "@@ to 198.51.100.66 0" in found.console
    for address in ("169.254.169.254", "169.254.0.1"):
        assert re.search(rf"@@ to {address} [1-9]", found.console)
    # Heads of tables, and three routes: nobody listens, and there is no IPv6.
    lines = dict(re.findall(r"@@ lines (\w+) (\d+)", found.console))
    assert lines == {"route": "4", "if_inet6": "0", "udp": "1", "tcp": "1", "tcp6": "1", "raw": "1"}
    assert not wire.of_type(net.IPV6)


def test_dhcp_on_the_older_kernel(boot, token, variant, tmp_path):
    bundle = variant("network-static")
    empty = {"method": "dhcp", "address": "", "router": "", "dns": []}
    bundle.rebake(lambda tree: tree["network"].update(empty))
    with cable(tmp_path, net.good()) as (options, wire):
        found = boot(bundle, *options)
    check_good(found, token)
    assert wire.questions == [net.DISCOVER, net.REQUEST]
    check_nothing_left(found)


def test_static(forge, boot, token, tmp_path):
    """Kernel 6.1, without a root: what the worker wrote into the initramfs is gone too."""
    with cable(tmp_path, net.silent) as (options, wire):
        found = boot(forge.bundle("network-static"), *options)
    check_good(found, token)
    assert "troth: network eth0 192.0.2.10/24\n" in found.console
    check_nothing_left(found)
    assert found.section("file /etc/resolv.conf") == "error ENOENT"
    assert "etc" not in found.lines("list /")
    assert wire.questions == []
    assert {frame[12:14].hex() for frame in wire.frames} <= {_ARP}


@pytest.mark.parametrize("method", ["dhcp", "static"])
def test_the_launch_says_how(forge, boot, token, tmp_path, method):
    path = tmp_path / "instance.json"
    said = {"method": method}
    if method == "static":
        said |= {"address": "192.0.2.77/24", "dns": ["192.0.2.53"]}
    path.write_text(json.dumps({"schema": "troth-instance-v1", "network": said}))
    with cable(tmp_path, net.good()) as (options, wire):
        found = boot(forge.bundle("network-instance"), "--sim-snp", "--instance", path, *options)
    check_good(found, token)
    own = net.GUEST if method == "dhcp" else "192.0.2.77"
    assert f"troth: network eth0 {own}/24\n" in found.console
    assert bool(wire.questions) == (method == "dhcp")
    check_nothing_left(found)
    assert found.section("file /etc/resolv.conf") == "error ENOENT"


def test_a_launch_that_does_not_say_how(forge, boot, token):
    found = boot(forge.bundle("network-instance"), "--sim-snp")
    check_refused(found, token, "network-config", stage="network")


def test_no_device(forge, boot, token):
    found = boot(forge.bundle("network"), "--no-network")
    check_refused(found, token, "network-missing", stage="network")
    assert "verity" not in found.stages


def test_a_second_device(forge, boot, token):
    words = [f"--qemu-arg={word}" for word in ("-nic", "user,model=virtio-net-pci,restrict=on")]
    found = boot(forge.bundle("network"), *words)
    check_refused(found, token, "network-ambiguous", stage="network")


def test_a_silent_network(forge, boot, token, tmp_path):
    with cable(tmp_path, net.silent) as (options, wire):
        found = boot(forge.bundle("network"), *options)
    check_refused(found, token, "network-dhcp", stage="network")
    assert "nobody answered" in found.console
    assert set(wire.questions) == {net.DISCOVER}
    assert 2 <= len(wire.questions) <= 6


def evil(question):
    """One of each answer that must not be taken, on every question."""
    kind = net.OFFER if net.kind_of(question) == net.DISCOVER else net.ACK
    router = net.option(3, net.ip("198.51.100.1"))
    good = net.options(kind)
    return [
        net.reply(question, good, own="169.254.169.254"),
        net.reply(question, good, own="127.0.0.1"),
        net.reply(question, good, own="192.0.2.255"),
        net.reply(question, good, xid=b"\0\1\2\3"),
        net.reply(question, good, hardware=b"\2\0\0\0\0\1"),
        net.reply(question, net.options(kind, router)),
        net.reply(question, net.options(kind, mask="0.0.0.0")),
        net.reply(question, net.options(kind, mask="255.0.255.0")),
        net.reply(question, net.options(kind, net.option(52, b"\3"))),
        net.reply(question, net.options(kind, net.option(53, bytes((kind,))))),
        net.reply(question, good[:-1]),
        net.reply(question, good[:-1] + b"\x03\xff\x01"),
        net.reply(question, good[:-1] + b"\x06\x05\1\2\3\4\5\xff"),
        net.reply(question, good) + bytes(1300),
        net.datagram(net.reply(question, good), ports=(6767, 68)),
        net.datagram(net.reply(question, good))[:60],
        b"\x45" * 1400,
    ]


def test_evil_answers(forge, boot, token, tmp_path):
    with cable(tmp_path, evil) as (options, wire):
        found = boot(forge.bundle("network"), *options)
    check_refused(found, token, "network-dhcp", stage="network")
    assert "no address on eth0: dhcp-" in found.console
    assert set(wire.questions) == {net.DISCOVER}


def test_a_lease_shorter_than_a_boot(forge, boot, token, tmp_path):
    with cable(tmp_path, net.good(lease_s=59)) as (options, _wire):
        found = boot(forge.bundle("network"), *options)
    check_refused(found, token, "network-dhcp", stage="network")
    assert "a lease of 59 s, and the boot may take 60 s" in found.console


def test_refused_while_it_is_up(boot, token, variant):
    bundle = variant("network")
    bundle.flip("root.img", bundle.tree_offset_bytes() + 5)
    found = boot(bundle)
    check_refused(found, token, "verity-root-hash", stage="verity", within_s=20)
    assert "network" in found.stages


_UP = "import os\ndef main(words):\n  os.write(1, b'up eth0\\n')\n  os.read(0, 9)\n  "


@pytest.mark.parametrize(
    ("source", "code", "stage"),
    [
        ("import time\ndef main(words):\n  time.sleep(99)\n", "network-timeout", "network"),
        ("def main(words):\n  raise SystemExit(1)\n", "network-worker", "network"),
        (_UP + "os.write(1, b'refused network-down left\\n')\n", "network-down", "handover"),
    ],
)
def test_a_worker_that_fails(boot, token, variant, source, code, stage):
    bundle = variant("network")
    bundle.replace_module("troth.boot.network_worker", source)
    check_refused(boot(bundle), token, code, stage=stage)
