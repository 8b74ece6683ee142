# SPDX-License-Identifier: Apache-2.0
"""Images whose key a broker releases, that broker as a process of its own, and volumes' disks.

``Keyed`` builds, once a worker, two versions of one image and an image that asks by
identity, all for one port of the loopback, one simulated platform and one vendor. What
stands behind the port is each test's to say (``hostile_broker.Wire``). Each test has a
database of its own, with the broker's one key.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import signal
import sqlite3
import ssl
import subprocess
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.serialization import load_pem_private_key

import made_tls
from boot import machine
from boot.bundles import TROTH, compile_guest
from boot.variants import Variant
from hostile_broker import Message, Wire, ask, client, straight_to
from troth.machine.simulated_platform import root_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from boot.bundles import Forge

DISK_BYTES = 24 << 20
PATH = "default/disk-key/data"
TRUST_DOMAIN = "example.org"
UUID = "5a0f2f0c-7d3c-4b8e-9a51-1f2e3d4c5b6a"
OTHER_UUID = "5a0f2f0c-7d3c-4b8e-9a51-000000000000"

_MANIFEST = """
[image]
name = "{name}"
svn = {svn}
kernel = {kernel}
compression = "none"
cmdline_variable = {{ "app.wait" = ["no", "yes"], "app.look" = ["no", "yes"] }}
[root]
source = "../keyedfs"
overlay = "none"
[tee]
snp = "simulated"
vtpm = "none"
[network]
method = "dhcp"
timeout_s = 15
[[broker]]
name = "keys"
addresses = ["10.0.2.2:{port}"]
{who}
trust_domain = "example.org"
[[volume]]
name = "data"
format = "headerless"
key = "{key}"
uuid = "{uuid}"
mount = "/srv/data"
[fail]
detail = "console"
deadline_s = 90
device_timeout_s = 20
"""
_BY_KEY = 'spki = ["{pin}"]'
_BY_ISSUER = """\
ca = ["../servers.pem", "../issuer.pem"]
server_name = "keys.example.org"
not_before = 2026-01-31"""
#: What differs: name of the image, svn, how the broker is known, key and uuid.
IMAGES = {
    "keyed": ("keyed", 3, _BY_KEY, f"kbs:///{PATH}", UUID),
    "keyed-next": ("keyed", 4, _BY_KEY, f"kbs:///{PATH}", UUID),
    "keyed-spiffe": (
        "keyed-spiffe", 3, _BY_ISSUER, f"spiffe://{TRUST_DOMAIN}/vm/keyed-spiffe", OTHER_UUID,
    ),
}  # fmt: skip


def troth(*words: str | Path) -> str:
    """What a verb says that must succeed."""
    done = subprocess.run([TROTH, *words], check=True, capture_output=True, text=True)
    return done.stdout


class Broker:
    """``troth keybroker`` with the database ``folder``; ``port``: None unless it serves."""

    def __init__(self, folder: Path, certificates: Path) -> None:
        self.folder = folder
        self.port: int | None = None
        self._certificates = certificates

    @contextlib.contextmanager
    def serving(self, *options: str | Path) -> Iterator[str]:
        """Serves until the end of the block; what it says at its start."""
        words = [TROTH, "keybroker", "serve", "--db", self.folder, "--listen", "127.0.0.1:0"]
        words += ["--certs", self._certificates, "--trust-domain", TRUST_DOMAIN, *options]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
            try:
                said = ""
                while "trust_domain = " not in said:
                    line = process.stdout.readline()
                    assert line, f"the broker ended: {said}"
                    said += line
                self.port = int(re.search(r"https://127\.0\.0\.1:(\d+)", said)[1])
                with client(self.port) as connection:
                    healthy = ask(connection, Message(b"GET /healthz HTTP/1.1\r\nHost: keys", b""))
                assert healthy.body == b"{}"
                yield said
            finally:
                self.port = None
                process.send_signal(signal.SIGTERM)
                try:
                    assert process.wait(20) == 0
                finally:
                    process.kill()

    @property
    def own(self) -> tuple[Path, Path]:
        """Its certificate and key, for whoever has stolen them."""
        return self.folder / "tls.pem", self.folder / "tls.key"

    def audit(self, event: str = "") -> list[dict]:
        """Lines of the audit log, of one kind if ``event``."""
        lines = (self.folder / "audit.jsonl").read_text().splitlines()
        return [item for item in map(json.loads, lines) if event in ("", item["event"])]

    def decided(self, event: str) -> list[str]:
        return [item["code"] for item in self.audit(event)]

    def volume(self, path: str = PATH) -> dict:
        tree = json.loads(troth("keybroker", "list", "--db", self.folder, "--json"))
        (found,) = [item["volume"] for item in tree["resources"] if item["path"] == path]
        return found

    def pass_time(self) -> None:
        """Leases and times to format end, as if the broker's clock had gone on."""
        with contextlib.closing(sqlite3.connect(self.folder / "broker.sqlite3")) as rows:
            rows.execute("UPDATE resources SET until = 1")
            rows.commit()


class Keyed:
    """All of it below ``place``, for one worker of the run."""

    def __init__(self, forge: Forge, place: Path) -> None:
        self.place = place
        self.token = forge.token
        self.wire = Wire()
        self._forge = forge
        place.mkdir()
        (place / "keyedfs/sbin").mkdir(parents=True)
        (place / "keyedfs/srv/data").mkdir(parents=True)
        compile_guest("keyed", place / "keyedfs/sbin/init", forge.token)
        self._root = root_of(place / "platform")
        self._pki = place / "platform.sim"
        self._policy = self._vendor_and_policy()
        self._template = Broker(place / "broker", self._pki / "certs")
        with self._template.serving("--policy", self._policy) as said:
            self.pin = re.search(r'spki = \["([0-9a-f]{64})"\]', said)[1]
        self._certify()
        self.bundle("keyed")

    def _vendor_and_policy(self) -> Path:
        vendor, public = self.place / "vendor.pem", self.place / "vendor.pub"
        subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", vendor], check=True)
        subprocess.run(["openssl", "pkey", "-in", vendor, "-pubout", "-out", public], check=True)
        path = self.place / "policy.toml"
        troth("verify", "init-policy", "--simulated", "--accept-unprotected-acpi", "-o", path)
        key = "".join(public.read_text().splitlines()[1:-1])
        text = path.read_text()
        text = re.sub(r"(?m)^trusted_roots = .*", f'trusted_roots = ["{self._root}"]', text)
        text = re.sub(r"(?m)^public_keys = .*", f'public_keys = ["{key}"]', text)
        # The guest policy permits SMT; what the platform says of it is another line.
        path.write_text(text.replace("smt = false", "smt = true", 1))
        return path

    def _certify(self) -> None:
        """The broker's key also has a certificate of an issuer that images can pin."""
        folder = self._template.folder
        key = load_pem_private_key((folder / "tls.key").read_bytes(), None)
        made = made_tls.certificate(key, made_tls.key(7), dns=("keys.example.org",), days=36500)
        (folder / "tls.pem").write_text(ssl.DER_cert_to_PEM_cert(made))
        issuer = ssl.DER_cert_to_PEM_cert(made_tls.authority(7, days=36500))
        (self.place / "servers.pem").write_text(issuer)
        shutil.copy(folder / "issuer.pem", self.place)

    def bundle(self, name: str) -> Path:
        """The image, built when it is first asked for, and known to new databases from then on."""
        out = self.place / name / "bundle"
        if out.exists():
            return out
        out.parent.mkdir()
        image, svn, who, key, uuid = IMAGES[name]
        manifest = out.parent / "troth.toml"
        kernel = self._forge._kernel("6.12")
        manifest.write_text(
            _MANIFEST.format(
                name=image, svn=svn, kernel=kernel, port=self.wire.port,
                who=who.format(pin=self.pin), key=key, uuid=uuid,
            )
        )  # fmt: skip
        troth("build", manifest, "-o", out)
        shutil.copytree(self._pki, out.with_name("bundle.sim"))
        signed = out.with_name("reference.json")
        vendor = self.place / "vendor.pem"
        troth("reference", "sign", out, "--key", vendor, "--valid-days", "30", "-o", signed)
        return out

    def broker(self, folder: Path, *images: str) -> Broker:
        """A new database that knows ``images``, and no volume."""
        shutil.copytree(self._template.folder, folder)
        made = self.at(folder)
        for name in images:
            self.introduce(made, name)
        return made

    def at(self, folder: Path) -> Broker:
        return Broker(folder, self._template._certificates)

    def introduce(self, broker: Broker, name: str) -> None:
        """Add a class: the image ``name`` of ``IMAGES``."""
        signed = self.bundle(name).with_name("reference.json")
        troth(
            "keybroker", "add", "--db", broker.folder, "--reference", signed,
            "--key", self.place / "vendor.pub",
        )  # fmt: skip

    def add_volume(
        self, broker: Broker, *, path: str = PATH, uuid: str = UUID, image: str = "keyed",
        lease_s: int = 1,
    ) -> None:  # fmt: skip
        troth(
            "keybroker", "add", "--db", broker.folder, "--volume", path, "--uuid", uuid,
            "--image", image, "--lease", str(lease_s),
        )  # fmt: skip

    def variant(self, place: Path, change: Callable[[dict], object]) -> Variant:
        """The image with another policy: no broker that judges evidence knows it."""
        made = Variant(self.bundle("keyed"), place)
        shutil.copytree(self._pki, place.with_name(f"{place.name}.sim"))
        made.rebake(change)
        return made

    def boot(
        self, bundle: Path | Variant, disk: Path, scratch: Path, *options: str | Path,
        **keywords: object,
    ) -> machine.Boot:  # fmt: skip
        """One boot with the volume's ``disk``."""
        path = bundle.path if isinstance(bundle, Variant) else bundle
        words = ["--sim-snp", "--disk", f"data={disk}", *options]
        return machine.run(path, scratch, *words, **keywords)

    @contextlib.contextmanager
    def reachable(self, broker: Broker) -> Iterator[None]:
        """``broker`` serves, and the wire leads to it."""
        with broker.serving(), self.wire.leads_to(straight_to(broker.port)):
            yield


def blank(path: Path) -> Path:
    with path.open("wb") as file:
        file.truncate(DISK_BYTES)
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def events(found: machine.Boot, kind: str) -> list[dict]:
    records = [json.loads(line) for line in found.lines("file /run/troth/event-log.jsonl")]
    return [item for item in records if item["content"]["type"] == kind]
