# SPDX-License-Identifier: Apache-2.0
"""The bundles the boot tests share: each built once a run, whatever the number of workers.

Built with the real ``troth build``. The initramfs is packed without
compression, so that ``boot.variants`` can take it apart. The guests' programs
carry a token drawn for the run: a console that shows it has been reached by
the very program that was built for it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import secrets
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from troth.errors import BuildError
from troth.image.inputs import kernel

if TYPE_CHECKING:
    from collections.abc import Iterator

KERNELS = {
    "6.12": "debian:linux-image-6.12-cloud-amd64",
    "6.1": "debian:linux-image-cloud-amd64",
}
TROTH = Path(sys.executable).with_name("troth")
SOURCES = Path(__file__).parent / "guest"
#: Large enough for a tree of two levels whose middle leaves no early check reads.
LATE_BYTES = 2 << 20
#: Hashing it in the guest takes a second or more: time to take the TPM away.
BULK_BYTES = 24 << 20

_FULL = """
[image]
name = "{name}"
svn = 3
kernel = {kernel}
compression = "none"
cmdline_variable = {{ "app.mode" = ["blue", "green"] }}
[root]
source = "../rootfs"
overlay = "tmpfs"
[measure]
workload = ["/opt/app"]
[tee]
snp = "none"
vtpm = "required"
[[volume]]
name = "models"
format = "verity"
source = "../models"
mount = "/srv/models"
[fail]
deadline_s = 60
device_timeout_s = 20
"""

_SMALL = """
[image]
name = "small"
kernel = {kernel}
compression = "none"
[root]
source = "../smallfs"
overlay = "none"
[handover]
modules_disabled = true
[tee]
snp = "none"
vtpm = "none"
[fail]
deadline_s = 60
device_timeout_s = 20
"""

_SUPERVISED = """
[image]
name = "supervised"
kernel = {kernel}
compression = "none"
[handover]
supervise = ["/app/run", "report", "storm", "2000", "exit", "0"]
grace_s = 2
[initramfs]
files = "../app"
[measure]
workload = ["/app"]
[tee]
snp = "none"
vtpm = "optional"
"""

_SUPERVISED_ROOT = """
[image]
name = "supervised-root"
kernel = {kernel}
compression = "none"
[root]
source = "../rootfs"
overlay_paths = ["/etc", "/var"]
[handover]
supervise = ["/opt/app/run", "report", "family", "exit", "7"]
user = 1000
group = 1001
grace_s = 2
[measure]
workload = ["/opt/app"]
[tee]
snp = "none"
vtpm = "required"
"""

_OTHER_FORMAT = """
[image]
name = "{name}"
kernel = {kernel}
compression = "zstd"
[root]
source = "../smallfs"
file_system = "{name}"
[tee]
snp = "none"
vtpm = "none"
"""

#: The file system of bundle "full", handed in as somebody else's finished image.
_READY = """
[image]
name = "ready"
kernel = {kernel}
compression = "none"
[root]
source = "ready.erofs"
[measure]
workload = ["/opt/app"]
[tee]
snp = "none"
vtpm = "required"
"""

#: Its init asks for reports.
_SIMULATED = """
[image]
name = "simulated"
kernel = {kernel}
compression = "none"
[root]
source = "../snpfs"
overlay = "none"
[tee]
snp = "simulated"
vtpm = "none"
[fail]
detail = "console"
deadline_s = 60
device_timeout_s = 20
"""

_SIMULATED_SUPERVISED = """
[image]
name = "simulated-supervised"
kernel = {kernel}
compression = "none"
[handover]
supervise = ["/app/run", "report", "exit", "0"]
grace_s = 20
[initramfs]
files = "../app"
[tee]
snp = "simulated"
vtpm = "required"
"""

#: Its root measures a workload, so that something comes after the instance's event.
_INSTANCE = """
[image]
name = "instance"
kernel = {kernel}
compression = "none"
[root]
source = "../smallfs"
overlay = "none"
[measure]
workload = ["/etc"]
[tee]
snp = "simulated"
vtpm = "required"
[instance]
need = "required"
hostname = true
network = ["static"]
brokers = ["keys"]
values = {{ region = ["eu", "us"], owner = "any" }}
[fail]
deadline_s = 60
device_timeout_s = 4
"""

_INSTANCE_SUPERVISED = """
[image]
name = "instance-supervised"
kernel = {kernel}
compression = "none"
[handover]
supervise = ["/app/run", "report", "exit", "0"]
[initramfs]
files = "../app"
[tee]
snp = "simulated"
vtpm = "none"
[instance]
need = "optional"
hostname = true
"""

#: Every way a volume without a header can be, its keys in the image.
_SEALED = """
[image]
name = "sealed"
kernel = {kernel}
compression = "none"
[root]
source = "../sealedfs"
overlay = "none"
[tee]
snp = "simulated"
vtpm = "required"
[[volume]]
name = "data"
format = "headerless"
key = "file:data"
key_file = "../data.key"
blank = "format"
mount = "/srv/data"
[[volume]]
name = "plain"
format = "headerless"
integrity = "none"
key = "file:plain"
key_file = "../plain.key"
blank = "format"
mount = "/srv/plain"
[[volume]]
name = "scratch"
format = "headerless"
integrity = "aes-gcm"
key = "random:"
mount = "/srv/scratch"
[fail]
detail = "console"
deadline_s = 90
device_timeout_s = 20
"""

#: Its writable layer lies on a volume whose key the secure processor derives.
_SEALED_UPPER = """
[image]
name = "sealed-upper"
kernel = {kernel}
compression = "none"
[root]
source = "../sealedfs"
overlay = "upper"
overlay_paths = ["/etc", "/var", "/opt"]
[measure]
workload = ["/opt/app"]
[tee]
snp = "simulated"
vtpm = "none"
[[volume]]
name = "upper"
format = "headerless"
key = "snp:"
blank = "format"
[fail]
detail = "console"
deadline_s = 90
device_timeout_s = 20
"""

#: Headers that the host can write; what they say is expected to be what the policy says.
_LUKS2 = """
[image]
name = "luks2"
kernel = {kernel}
compression = "none"
[root]
source = "../sealedfs"
overlay = "none"
[tee]
snp = "simulated"
vtpm = "required"
[[volume]]
name = "data"
format = "luks2"
integrity = "none"
key = "file:data"
key_file = "../data.key"
mount = "/srv/data"
[[volume]]
name = "plain"
format = "luks2"
integrity = "none"
key = "file:plain"
key_file = "../plain.key"
mount = "/srv/plain"
[fail]
detail = "console"
deadline_s = 90
device_timeout_s = 20
"""

#: What cryptsetup needs a device mapper to make.
_LUKS2_TAGS = """
[image]
name = "luks2-tags"
kernel = {kernel}
compression = "none"
[root]
source = "../sealedfs"
overlay = "none"
[tee]
snp = "simulated"
vtpm = "none"
[[volume]]
name = "data"
format = "luks2"
integrity = "hmac"
key = "file:data"
key_file = "../data.key"
mount = "/srv/data"
[fail]
detail = "console"
deadline_s = 90
device_timeout_s = 20
"""

#: The verified root inside an encrypted disk.
_INSIDE = """
[image]
name = "{name}"
kernel = {kernel}
compression = "none"
[root]
source = "../sealedfs"
overlay = "none"
key = "file:root"
key_file = "../data.key"
encryption = "{encryption}"
[tee]
snp = "simulated"
vtpm = "none"
[fail]
detail = "console"
deadline_s = 90
device_timeout_s = 20
"""

_NETWORK = """
[image]
name = "network"
kernel = {kernel}
compression = "none"
[root]
source = "../smallfs"
overlay = "none"
[tee]
snp = "none"
vtpm = "none"
[network]
method = "dhcp"
timeout_s = 8
[fail]
deadline_s = 60
device_timeout_s = 20
"""

#: All is in the initramfs, so the guest's own root is where a resolv.conf would be left.
_NETWORK_STATIC = """
[image]
name = "network-static"
kernel = {kernel}
compression = "none"
[handover]
supervise = ["/app/run", "report", "exit", "0"]
[initramfs]
files = "../app"
[tee]
snp = "none"
vtpm = "none"
[network]
method = "static"
address = "192.0.2.10/24"
router = "192.0.2.1"
dns = ["192.0.2.53"]
timeout_s = 8
"""

_NETWORK_INSTANCE = """
[image]
name = "network-instance"
kernel = {kernel}
compression = "none"
[handover]
supervise = ["/app/run", "report", "exit", "0"]
[initramfs]
files = "../app"
[tee]
snp = "simulated"
vtpm = "none"
[instance]
need = "optional"
network = ["dhcp", "static"]
[network]
method = "instance"
timeout_s = 8
"""

MANIFESTS = {
    "full": ("6.12", _FULL),
    "old": ("6.1", _FULL),
    "small": ("6.12", _SMALL),
    "squashfs": ("6.12", _OTHER_FORMAT),
    "ext4": ("6.12", _OTHER_FORMAT),
    "ready": ("6.12", _READY),
    "supervised": ("6.12", _SUPERVISED),
    "supervised-root": ("6.12", _SUPERVISED_ROOT),
    "simulated": ("6.12", _SIMULATED),
    "simulated-supervised": ("6.1", _SIMULATED_SUPERVISED),
    "sealed": ("6.12", _SEALED),
    "sealed-upper": ("6.1", _SEALED_UPPER),
    "luks2": ("6.12", _LUKS2),
    "luks2-tags": ("6.12", _LUKS2_TAGS),
    "inside-luks2": ("6.12", _INSIDE),
    "inside-headerless": ("6.12", _INSIDE),
    "instance": ("6.12", _INSTANCE),
    "instance-supervised": ("6.1", _INSTANCE_SUPERVISED),
    "network": ("6.12", _NETWORK),
    "network-static": ("6.1", _NETWORK_STATIC),
    "network-instance": ("6.12", _NETWORK_INSTANCE),
}


class Forge:
    """Bundles below ``base``, a directory that all workers of the run share."""

    def __init__(self, base: Path) -> None:
        self.base = base
        base.mkdir(exist_ok=True)
        with self._locked("sources"):
            token = base / "token"
            if not token.exists():
                _make_sources(base, secrets.token_hex(8))
            self.token = token.read_text("ascii")

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        with (self.base / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def bundle(self, name: str) -> Path:
        """The bundle ``name``, built where no worker has built it yet."""
        place = self.base / name
        with self._locked(name):
            if not (place / "bundle").exists():
                place.mkdir(exist_ok=True)
                series, text = MANIFESTS[name]
                if name == "ready":
                    self._write_ready(place / "ready.erofs")
                manifest = place / "troth.toml"
                manifest.write_text(
                    text.format(
                        name=name,
                        kernel=self._kernel(series),
                        encryption=name.removeprefix("inside-"),
                    )
                )
                subprocess.run([TROTH, "build", manifest, "-o", place / "bundle"], check=True)
        return place / "bundle"

    def _write_ready(self, image: Path) -> None:
        full = self.bundle("full")
        (root, *_) = json.loads((full / "policy.json").read_bytes())["volumes"]
        size_bytes = root["verity"]["data_blocks"] * root["verity"]["block_bytes"]
        with (full / "root.img").open("rb") as data:
            image.write_bytes(data.read(size_bytes))

    def _kernel(self, series: str) -> str:
        """A manifest's kernel by path: apt is asked once a run, not once a bundle."""
        known = self.base / f"kernel-{series}"
        with self._locked(known.name):
            if not known.exists():
                found = _find_kernel(series)
                known.write_text(
                    f'{{ vmlinuz = "{found.vmlinuz}", modules = "{found.modules_dir}" }}'
                )
        return known.read_text()

    @property
    def late(self) -> bytes:
        """Content of /srv/late, which no early check reads."""
        return _pattern(LATE_BYTES)

    @property
    def bulk(self) -> bytes:
        """Content of /opt/app/bulk, which the workload stage hashes."""
        return _pattern(BULK_BYTES)


def _find_kernel(series: str) -> kernel.Kernel:
    """The newest kernel of ``series`` that apt has or, without apt's lists, that is cached."""
    try:
        return kernel.from_package(KERNELS[series])
    except BuildError as error:
        if error.code != "kernel-unknown":
            raise
        cached = kernel.cache_directory() / "kernels"
        for image in sorted(cached.glob(f"*/boot/vmlinuz-{series}.*"), reverse=True):
            return kernel.from_paths(image, image.parent.parent / "lib/modules")
        raise


def _pattern(size_bytes: int) -> bytes:
    return random.Random(size_bytes).randbytes(size_bytes)


def _make_sources(base: Path, token: str) -> None:
    compile_guest("marker", base / "marker", token)
    compile_guest("workload", base / "run", token)
    (base / "snpfs/sbin").mkdir(parents=True)
    compile_guest("snp", base / "snpfs/sbin/init", token)
    for directory in ("sbin", "etc", "var", "opt/app", "srv"):
        (base / "sealedfs" / directory).mkdir(parents=True)
    compile_guest("sealed", base / "sealedfs/sbin/init", token)
    (base / "sealedfs/opt/app/config").write_text("answer = 42\n")
    for name in ("data", "plain"):
        (base / f"{name}.key").write_bytes(secrets.token_bytes(32))
    for root in (base / "rootfs", base / "smallfs"):
        for directory in ("sbin", "etc", "var", "opt/app", "srv/models"):
            (root / directory).mkdir(parents=True)
        _program(base / "marker", root / "sbin/init")
        (root / "etc/hostname").write_text("marked\n")
    root = base / "rootfs"
    (root / "sbin/unexecutable").write_bytes(b"no program\n")
    script = root / "sbin/scripted"
    script.write_bytes(b"#!/no/such/interpreter\n")
    script.chmod(0o755)
    garbage = root / "sbin/garbage"
    garbage.write_bytes(b"\x7fELF but not really\n")
    garbage.chmod(0o755)
    (root / "opt/app/config").write_text("answer = 42\n")
    (root / "opt/app/bulk").write_bytes(_pattern(BULK_BYTES))
    (root / "srv/late").write_bytes(_pattern(LATE_BYTES))
    _program(base / "run", root / "opt/app/run")
    (base / "app").mkdir()
    _program(base / "run", base / "app/run")
    (base / "models").mkdir()
    (base / "models/weights").write_text("weights of the model\n")
    (base / "token").write_text(token, "ascii")


def compile_guest(name: str, output: Path, token: str) -> None:
    """A static program of ``guest/`` with ``token`` in it."""
    subprocess.run(
        ["gcc", "-D_GNU_SOURCE", f'-DTOKEN="{token}"', "-static", "-O1", "-w", "-s", "-o",
         output, SOURCES / f"{name}.c"],
        check=True,
    )  # fmt: skip


def _program(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    os.chmod(target, 0o755)
