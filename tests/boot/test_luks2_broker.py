# SPDX-License-Identifier: Apache-2.0
"""Keys of a LUKS2 volume and of the disk around the root, released by a broker that counts."""

import contextlib
import json
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from boot import luks2_disks, machine
from boot.bundles import TROTH
from boot.luks2_disks import AREA_BYTES, put
from boot.machine import check_good, check_refused
from troth.machine.simulated_platform import root_of

DISK_BYTES = 48 << 20
PATHS = {name: f"default/disk-key/{name}" for name in ("root", "data")}
MANIFEST = """
[image]
name = "counted"
kernel = {kernel}
compression = "none"
[root]
source = "../sealedfs"
overlay = "none"
key = "kbs:///default/disk-key/root"
[tee]
snp = "simulated"
vtpm = "none"
[network]
method = "dhcp"
timeout_s = 15
[[broker]]
name = "keys"
addresses = ["10.0.2.2:{port}"]
spki = ["{pin}"]
[[volume]]
name = "data"
format = "luks2"
key = "kbs:///default/disk-key/data"
mount = "/srv/data"
[fail]
detail = "console"
deadline_s = 90
device_timeout_s = 20
"""


def troth(*words):
    done = subprocess.run([TROTH, *map(str, words)], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Site:
    """One image, one broker, and the disks as the first boot found them."""

    def __init__(self, forge, place):
        self.place, self.bundle, self.db = place, place / "out", place / "db"
        self.port = free_port()
        self.keys = {name: forge.base / f"{name}.key" for name in ("data", "plain")}
        root = root_of(self.bundle)
        vendor, public = place / "vendor.pem", place / "vendor.pub"
        for words in (
            ["genpkey", "-algorithm", "ed25519", "-out", vendor],
            ["pkey", "-in", vendor, "-pubout", "-out", public],
        ):
            subprocess.run(["openssl", *words], check=True)
        policy = place / "policy.toml"
        troth("verify", "init-policy", "--simulated", "--accept-unprotected-acpi", "-o", policy)
        text = re.sub(r"(?m)^trusted_roots = .*", f'trusted_roots = ["{root}"]', policy.read_text())
        key = "".join(public.read_text().splitlines()[1:-1])
        text = re.sub(r"(?m)^public_keys = .*", f'public_keys = ["{key}"]', text)
        # The guest policy permits SMT; what the platform says of it is another line.
        policy.write_text(text.replace("smt = false", "smt = true", 1))
        with self.serving("--policy", policy) as said:
            pin = re.search(r'spki = \["([0-9a-f]{64})"\]', said)[1]
        manifest = place / "troth.toml"
        manifest.write_text(
            MANIFEST.replace("../sealedfs", str(forge.base / "sealedfs")).format(
                kernel=forge._kernel("6.12"), port=self.port, pin=pin
            )
        )
        troth("build", manifest, "-o", self.bundle)
        signed = place / "reference.json"
        troth("reference", "sign", self.bundle, "--key", vendor, "--valid-days", 30, "-o", signed)
        troth("keybroker", "add", "--db", self.db, "--reference", signed, "--key", public)
        self.ids = luks2_disks.ids(self.bundle)
        self.disks = {name: place / f"{name}.img" for name in PATHS}
        said = self.make_root(self.disks["root"])
        self.add("root", "plain", "none", "headerless", "--in-use", "--generation",
                 said["generation"], "--record", said["record"])  # fmt: skip
        with self.disks["data"].open("wb") as file:
            file.truncate(DISK_BYTES)
        self.add("data", "data", "hmac", "luks2")

    def make_root(self, path):
        return luks2_disks.by_troth(
            path, key=self.keys["plain"], uuid=self.ids["root"], content=self.bundle / "root.img",
            format_="headerless",
        )  # fmt: skip

    def add(self, name, key, integrity, format_, *words):
        troth(
            "keybroker", "add", "--db", self.db, "--volume", PATHS[name], "--uuid",
            self.ids[name], "--image", "counted", "--key-file", self.keys[key], "--integrity",
            integrity, "--format", format_, "--lease", 0, *words,
        )  # fmt: skip

    @contextlib.contextmanager
    def serving(self, *options):
        """The broker, until the end of the block; what it says at its start."""
        words = [TROTH, "keybroker", "serve", "--db", self.db, *options]
        words += ["--listen", f"127.0.0.1:{self.port}", "--certs", f"{self.bundle}.sim/certs"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
            try:
                said = ""
                while "spki = " not in said:
                    line = process.stdout.readline()
                    assert line, f"the broker ended: {said}"
                    said += line
                yield said
            finally:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(20)
                finally:
                    process.kill()

    def boot(self, scratch, disks):
        words = [
            "--sim-snp",
            "--disk",
            f"root={disks['root']},ro",
            "--disk",
            f"data={disks['data']}",
        ]
        with self.serving():
            return machine.run(self.bundle, scratch, *words)

    def generations(self):
        tree = json.loads(troth("keybroker", "list", "--db", self.db, "--json"))
        found = {item["path"]: item["volume"] for item in tree["resources"]}
        return {name: found[path]["generation"] for name, path in PATHS.items()}


@pytest.fixture(scope="module")
def site(forge, tmp_path_factory):
    place = tmp_path_factory.mktemp("counted")
    yield Site(forge, place)
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture(scope="module")
def kept(site, tmp_path_factory):
    """Two boots: the one that formatted, and the next."""
    place = tmp_path_factory.mktemp("boots")
    first = site.boot(place, site.disks)
    area = luks2_disks.area_of(site.disks["data"])
    return first, area, site.boot(place, site.disks)


@pytest.fixture
def disks(kept, site, tmp_path):
    yield {name: Path(shutil.copy(path, tmp_path)) for name, path in site.disks.items()}
    for name in site.disks:
        (tmp_path / f"{name}.img").unlink()


def test_made_by_the_brokers_word_and_opened_by_what_was_committed(kept, site, token):
    first, area, second = kept
    for found in (first, second):
        check_good(found, token)
    assert first.section("file /srv/data/kept") == "error ENOENT"
    assert second.section("file /srv/data/kept") == f"kept {token}"
    # A header has no next generation, and neither has what is only read.
    assert site.generations() == {"root": 1, "data": 1}
    assert luks2_disks.area_of(site.disks["data"]) == area
    content = site.disks["data"].read_bytes() + site.disks["root"].read_bytes()
    assert token.encode() not in content


def test_another_header_under_the_same_key(disks, kept, site, tmp_path, token):
    """Good in itself, and not the committed one: an older one, with a slot that was revoked."""
    check_good(kept[2], token)
    other = tmp_path / "other"
    troth(
        "volume", "format", other, "--format", "luks2", "--integrity", "hmac", "--uuid",
        site.ids["data"], "--key-file", site.keys["data"], "--size", "20M",
    )  # fmt: skip
    area = luks2_disks.area_of(other)
    assert len(area) == AREA_BYTES
    put(disks["data"], area)
    found = site.boot(tmp_path, disks)
    check_refused(
        found, token, "header-refused", stage="volumes", exact="luks2-rolled-back", within_s=60
    )


def test_another_disk_around_the_root(disks, kept, site, tmp_path, token):
    """The same content under the same key, in a disk that nobody committed."""
    check_good(kept[2], token)
    disks["root"].unlink()
    site.make_root(disks["root"])
    found = site.boot(tmp_path, disks)
    check_refused(
        found, token, "header-refused", stage="volumes", exact="record-rolled-back", within_s=60
    )
