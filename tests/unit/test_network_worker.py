# SPDX-License-Identifier: Apache-2.0
"""The worker of stage network: what it decides, and what the kernel then has and has no more.

The kernel's part runs in a network namespace of its own, on a TAP device whose other
end is ``hostile_net``; ip(8) and /proc say what came of it.
"""

import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from types import ModuleType, SimpleNamespace

import pytest

import hostile_net as net
from troth.documents.policy import Network
from troth.errors import Refusal
from troth.linux import link, syscalls
from troth.record import replace

pytest.importorskip("pyroute2")
sys.modules.setdefault("troth_baked", ModuleType("troth_baked"))
from troth.boot import network_routes, network_sysctls, network_worker  # noqa: E402

DHCP = Network("dhcp", "", "", (), ipv6=False, timeout_s=5)
STATIC = replace(
    DHCP, method="static", address="192.0.2.10/24", router="192.0.2.1", dns=("192.0.2.53",)
)
SIX = Network("static", "2001:db8::10/64", "2001:db8::1", ("2001:db8::53",), ipv6=True, timeout_s=5)
LINK = link.Link("eth0", 2, bytes.fromhex("525400123456"), 1500)


# --- what it decides -------------------------------------------------------------------------


def links(tmp_path, monkeypatch, **devices):
    """sysfs with ``devices``: type, hardware address, whether there is a device behind."""
    for name, (kind, hardware, real) in devices.items():
        base = tmp_path / name
        base.mkdir()
        for file, text in (
            ("type", kind),
            ("address", hardware),
            ("ifindex", "7"),
            ("mtu", "1500"),
        ):
            (base / file).write_text(f"{text}\n")
        if real:
            (base / "device").symlink_to("nowhere")
    monkeypatch.setattr(link, "BASE", str(tmp_path))


def test_the_one_device(tmp_path, monkeypatch):
    links(
        tmp_path, monkeypatch, lo=("772", "00:00:00:00:00:00", False),
        dummy0=("1", "02:00:00:00:00:01", False), ib0=("32", "02:00:00:00:00:02", True),
        eth0=("1", "52:54:00:12:34:56", True), odd=("1", "not:hex", True),
        short=("1", "52:54", True),
    )  # fmt: skip
    assert network_worker.find(0) == link.Link("eth0", 7, bytes.fromhex("525400123456"), 1500)


def test_two_devices(tmp_path, monkeypatch):
    links(tmp_path, monkeypatch, eth1=("1", "52:54:00:12:34:56", True),
          eth0=("1", "52:54:00:12:34:57", True))  # fmt: skip
    with pytest.raises(Refusal) as caught:
        network_worker.find(0)
    assert caught.value.code == "network-ambiguous"
    assert "eth0, eth1" in caught.value.message


def test_no_device(tmp_path, monkeypatch):
    links(tmp_path, monkeypatch)
    with pytest.raises(Refusal) as caught:
        network_worker.find(time.monotonic_ns() + 20_000_000)
    assert caught.value.code == "network-missing"


INSTANCE = replace(DHCP, method="instance")


def configured(tmp_path, monkeypatch, tree):
    path = tmp_path / "instance.json"
    if tree is not None:
        path.write_text(json.dumps({"schema": "troth-instance-v1", **tree}))
    monkeypatch.setattr(network_worker, "INSTANCE_PATH", str(path))
    return network_worker.from_instance(INSTANCE)


def test_what_the_launch_says(tmp_path, monkeypatch):
    said = {"method": "static", "address": "192.0.2.10/24", "dns": ["192.0.2.53"]}
    found = configured(tmp_path, monkeypatch, {"network": said})
    assert found == replace(STATIC, router="")
    assert configured(tmp_path, monkeypatch, {"network": {"method": "dhcp"}}) == DHCP


@pytest.mark.parametrize("tree", [None, {"hostname": "one"}])
def test_a_launch_that_says_nothing(tmp_path, monkeypatch, tree):
    with pytest.raises(Refusal) as caught:
        configured(tmp_path, monkeypatch, tree)
    assert caught.value.code == "network-config"


def test_a_launch_that_wants_ipv6_where_the_policy_has_none():
    connection = network_worker.Connection(replace(SIX, ipv6=False), deadline_s=60)
    with pytest.raises(Refusal) as caught:
        connection._settings(LINK, 0)
    connection._routes.close()
    assert caught.value.code == "network-config"


class Told:
    """A connection that does as told."""

    def __init__(self, up, down=None):
        self.up, self.down = lambda _end: self.say(up), lambda: self.say(down)

    def say(self, what):
        if isinstance(what, Exception):
            raise what
        return what


@pytest.mark.parametrize(
    ("connection", "said"),
    [
        (Told("eth0"), b"up eth0\ndown\n"),
        (Told(Refusal("network-dhcp", "no\nup eth0")), b"refused network-dhcp no\\nup eth0\n"),
        (Told(OSError(19, "No such device")),
         b"refused network-config the kernel: No such device\n"),
        (Told(OSError(17, "File exists", "/etc/resolv.conf")),
         b"refused network-config /etc/resolv.conf: File exists\n"),
        (Told("eth0", Refusal("network-down", "left")), b"up eth0\nrefused network-down left\n"),
        (Told("eth0", OSError(1, "no")), b"up eth0\nrefused network-down the kernel: no\n"),
        (Told("x" * 600), b"up " + b"x" * 497 + b"\ndown\n"),
    ],
)  # fmt: skip
def test_what_it_says(connection, said, monkeypatch):
    lines = []
    fake = SimpleNamespace(
        read=lambda fd, size: b"", write=lambda fd, data: lines.append((fd, data))
    )
    with monkeypatch.context() as patched:
        patched.setattr(network_worker, "os", fake)
        network_worker.serve(connection, 0)
    assert {fd for fd, _ in lines} == {1}
    assert b"".join(data for _, data in lines) == said


@pytest.mark.parametrize(("carrier", "turns"), [(True, 0), (False, 3)])
def test_nothing_is_sent_before_the_kernel_knows_of_the_carrier(carrier, turns, monkeypatch):
    asked = []

    def runs(name):
        asked.append(name)
        return len(asked) == 3

    monkeypatch.setattr(link, "has_carrier", lambda name: carrier)
    monkeypatch.setattr(link, "runs", runs)
    network_worker._wait_for_carrier("eth0", time.monotonic_ns() + 10**10)
    assert asked == ["eth0"] * turns


def test_a_link_without_carrier_is_tried_all_the_same(monkeypatch):
    monkeypatch.setattr(link, "has_carrier", lambda name: False)
    monkeypatch.setattr(link, "runs", lambda name: False)
    begun_ns = time.monotonic_ns()
    network_worker._wait_for_carrier("eth0", begun_ns + 50_000_000)
    assert time.monotonic_ns() >= begun_ns + 50_000_000
    monkeypatch.setattr(network_worker, "_CARRIER_NS", 50_000_000)
    network_worker._wait_for_carrier("eth0", begun_ns + 10**12)


# --- what the kernel has ---------------------------------------------------------------------

NEEDS_ROOT = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/net/tun") or shutil.which("ip") is None,
    reason="needs root, /dev/net/tun and ip(8)",
)
NAME = "eth0"
_SYSCTLS = [
    f"ipv4/conf/{where}/{name}"
    for where in ("all", "default", NAME)
    for name in ("rp_filter", "accept_redirects", "secure_redirects", "accept_source_route",
                 "send_redirects")
] + [
    f"ipv6/conf/{where}/{name}"
    for where in ("default", NAME)
    for name in ("accept_ra", "autoconf", "accept_redirects", "addr_gen_mode", "accept_dad",
                 "disable_ipv6")
]  # fmt: skip


def ip(*words):
    done = subprocess.run(["ip", "-j", *words], capture_output=True, check=True)
    return json.loads(done.stdout or "[]")


def seen(resolvers):
    (device,) = ip("addr", "show", "dev", NAME)
    return {
        "flags": device["flags"],
        "mtu": device["mtu"],
        "addresses": [f"{one['local']}/{one['prefixlen']}" for one in device["addr_info"]],
        "routes": sorted(
            [one.get("type", "unicast"), one["dst"], one.get("gateway", ""), one["flags"]]
            for kind in ("-4", "-6")
            for one in ip(kind, "route", "show", "table", "main")
        ),
        "sysctls": {name: read(f"/proc/sys/net/{name}") for name in _SYSCTLS},
        "resolvers": read(resolvers),
        "denied": sending("169.254.169.254"),
    }


def read(path):
    try:
        with open(path) as file:
            return file.read().strip()
    except FileNotFoundError:
        return None


def sending(address):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.sendto(b"x", (address, 80))
        except OSError as error:
            return error.errno
    return 0


def tap():
    """A TAP device as eth0 in a network namespace of this process's own."""
    syscalls.unshare(0x4000_0000)
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", NAME.encode(), 0x0002 | 0x1000))
    (device,) = ip("link", "show", "dev", NAME)
    hardware = bytes.fromhex(device["address"].replace(":", ""))
    return fd, link.Link(NAME, device["ifindex"], hardware, device["mtu"])


def scene(rules, script, folder, mtu):
    """In a child: before, up, after; what the wire saw."""
    network_worker._RESOLVERS = f"{folder}/etc/resolv.conf"
    fd, device = tap()
    link.set_mtu(NAME, mtu)
    device = replace(device, mtu=mtu)
    network_worker.find = lambda _end_ns: device
    stages = [seen(network_worker._RESOLVERS)]
    with net.on_tap(script, fd) as wire:
        connection = network_worker.Connection(rules, deadline_s=60)
        connection.up(time.monotonic_ns() + 5_000_000_000)
        assert link.has_carrier(NAME)
        stages.append(seen(network_worker._RESOLVERS))
        connection.down()
        stages.append(seen(network_worker._RESOLVERS))
    kinds = sorted({frame[12:14].hex() for frame in wire.frames})
    return {"stages": stages, "questions": wire.questions, "frames": kinds}


def in_a_namespace(rules, script, tmp_path, *, mtu=1500):
    said, says = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(says, json.dumps(scene(rules, script, tmp_path, mtu)).encode())
        finally:
            os._exit(0)
    os.close(says)
    with open(said, "rb") as file:
        data = file.read()
    os.waitpid(child, 0)
    assert data, "the scene ended with an exception"
    assert not (tmp_path / "etc").exists()
    return json.loads(data)


def check_down(found):
    """As it was, link and sysctls included."""
    before, _, after = found["stages"]
    for key, value in before.items():
        assert after[key] == value
    assert after["addresses"] == []
    assert after["routes"] == []
    assert "UP" not in after["flags"]
    assert after["resolvers"] is None


@pytest.mark.root
@NEEDS_ROOT
def test_dhcp_and_down(tmp_path):
    evil = (
        net.option(3, net.ip(net.SERVER)), net.option(6, net.ip("192.0.2.53")),
        net.option(26, struct.pack(">H", 1400)), net.option(12, b"evil"),
        net.option(121, bytes((16, 169, 254)) + net.ip("192.0.2.66")),
        net.option(121 + 128, bytes((0,)) + net.ip("192.0.2.66")),
    )  # fmt: skip
    found = in_a_namespace(DHCP, net.good(*evil), tmp_path)
    up = found["stages"][1]
    assert up["addresses"] == ["192.0.2.10/24"]
    assert [route[:3] for route in up["routes"]] == [
        ["blackhole", "169.254.0.0/16", ""],
        ["unicast", "192.0.2.0/24", ""],
        ["unicast", "default", "192.0.2.1"],
    ]
    assert "UP" in up["flags"]
    assert up["mtu"] == 1400
    assert up["resolvers"] == "nameserver 192.0.2.53\noptions timeout:2 attempts:2"
    assert up["denied"] != 0
    assert up["sysctls"][f"ipv4/conf/{NAME}/rp_filter"] == "1"
    assert up["sysctls"][f"ipv6/conf/{NAME}/disable_ipv6"] == "1"
    assert found["questions"] == [net.DISCOVER, net.REQUEST]
    assert found["frames"] == ["0800"]
    check_down(found)


@pytest.mark.root
@NEEDS_ROOT
def test_a_subnet_of_one(tmp_path):
    router = net.option(3, net.ip("198.51.100.1"))
    found = in_a_namespace(DHCP, net.good(router, mask="255.255.255.255"), tmp_path)
    up = found["stages"][1]
    assert up["addresses"] == ["192.0.2.10/32"]
    assert ["unicast", "default", "198.51.100.1", ["onlink"]] in up["routes"]
    check_down(found)


@pytest.mark.root
@NEEDS_ROOT
def test_static_and_down(tmp_path):
    found = in_a_namespace(STATIC, net.silent, tmp_path)
    up = found["stages"][1]
    assert up["addresses"] == ["192.0.2.10/24"]
    assert ["unicast", "default", "192.0.2.1", []] in up["routes"]
    assert up["resolvers"].startswith("nameserver 192.0.2.53\n")
    assert found["questions"] == []
    check_down(found)


@pytest.mark.root
@NEEDS_ROOT
@pytest.mark.parametrize(("own", "taken"), [(9000, 1500), (1500, 1500), (1400, 1400), (576, 1280)])
def test_the_devices_own_size_of_frames_is_bounded(tmp_path, own, taken):
    found = in_a_namespace(STATIC, net.silent, tmp_path, mtu=own)
    assert [stage["mtu"] for stage in found["stages"]] == [own, taken, own]
    check_down(found)


@pytest.mark.root
@NEEDS_ROOT
def test_ipv6_and_down(tmp_path):
    found = in_a_namespace(SIX, net.silent, tmp_path)
    up = found["stages"][1]
    assert up["addresses"] == ["2001:db8::10/64"]
    assert ["unicast", "default", "2001:db8::1"] in [route[:3] for route in up["routes"]]
    assert up["sysctls"][f"ipv6/conf/{NAME}/accept_ra"] == "0"
    assert up["sysctls"][f"ipv6/conf/{NAME}/disable_ipv6"] == "0"
    check_down(found)


def test_a_verdict_of_the_kernel_is_an_error():
    routes = network_routes.Routes()
    try:
        with pytest.raises(OSError, match="No such device"):
            routes.add_address(2**31 - 2, "192.0.2.10", 24)
    finally:
        routes.close()


def test_sysctls_of_a_kernel_without_ipv6(tmp_path, monkeypatch):
    monkeypatch.setattr(network_sysctls, "BASE", str(tmp_path))
    for where in ("all", "default", NAME):
        place = tmp_path / "ipv4" / "conf" / where
        place.mkdir(parents=True)
        for name, _ in network_sysctls._IPV4:
            (place / name).write_text("7\n")
    found = network_sysctls.Sysctls()
    found.tighten(NAME, ipv6=False)
    assert (tmp_path / f"ipv4/conf/{NAME}/rp_filter").read_text() == "1"
    found.restore()
    assert {path.read_text() for path in tmp_path.rglob("*") if path.is_file()} == {"7\n"}
    with pytest.raises(FileNotFoundError):
        found.tighten(NAME, ipv6=True)
