# SPDX-License-Identifier: Apache-2.0
"""How fast an encrypted volume reads and writes inside a guest, beside cryptsetup's own.

Serves ``volumes``. Figures are instructions a MB of file data, of everything the guest ran, so
they compare implementations of the same work on any machine; what the host's disk takes is
idle time and left out. Must never compare volumes of other ciphers.
"""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

import disks as disk_images
import kernels
import machine
import peers
import rows
import sealed_disks
from disks import Sealed
from volumes_report import Load

if TYPE_CHECKING:
    from pathlib import Path

    from kernels import Kernel

_LINE = re.compile(
    r"^bench-load /(?:srv/)?(\S+) bytes=(\d+) write_ns=(\d+) read_ns=(\d+) good=1 end$",
    re.MULTILINE,
)
_FORMAT = re.compile(r"^bench-timed format-(\S+) ns=(\d+) idle_ns=(\d+) status=0 end", re.MULTILINE)
_MANIFEST = """[image]
name = "loads"
svn = 1
kernel = "debian:{package}"
cmdline = "idle=poll"
[root]
source = "load-root"
overlay = "none"
[tee]
snp = "simulated"
vtpm = "none"
"""
_VOLUME = """[[volume]]
name = "{name}"
mount = "/srv/{name}"
format = "headerless"
integrity = "{integrity}"
{key}
"""
_KEPT = 'key = "file:data"\nkey_file = "{key}"\nblank = "format"\n'
_PASSING = 'key = "random:"\n'
#: name: integrity, whether it is kept, and so has a journal
VOLUMES = {
    "none": ("none", True),
    "hmac": ("hmac", True),
    "hmac-direct": ("hmac", False),
    "aes-gcm": ("aes-gcm", True),
    "aes-gcm-direct": ("aes-gcm", False),
}
#: The same by cryptsetup's own format.
_HMAC = ("--cipher", "aes-xts-plain64", "--key-size", "512", "--integrity", "hmac-sha256")
_GCM = ("--cipher", "aes-gcm-random", "--key-size", "256", "--integrity", "aead")
FORMATS = {
    "none": ("--cipher", "aes-xts-plain64", "--key-size", "512"),
    "hmac": _HMAC,
    "hmac-direct": _HMAC,
    "aes-gcm": _GCM,
}
_TIMEOUT_S = 1200
#: A LUKS2 header takes 16 MiB before the data.
_DATA_BYTES, _HEADER_BYTES = 32 << 20, 16 << 20


def measured(work: Path, tree: Path, kernel: Kernel) -> list[Load]:
    """troth's volumes in one guest, cryptsetup's in another."""
    return [*_ours(work, kernel), *_theirs(work, tree, kernel)]


def _ours(work: Path, kernel: Kernel) -> list[Load]:
    root = work / "load-root"
    shutil.rmtree(root, ignore_errors=True)
    for name in ("sbin", "etc", *(f"srv/{name}" for name in VOLUMES)):
        (root / name).mkdir(parents=True)
    disk_images.compile_static("volume_load.c", root / "sbin/init")
    (root / "etc/loads").write_text(" ".join(f"/srv/{name}" for name in VOLUMES) + "\n")
    text = _MANIFEST.format(package=kernels.PACKAGES[kernel.label])
    options = ["--sim-snp"]
    for name, (integrity, kept) in VOLUMES.items():
        key = _KEPT.format(key=work / "data.key") if kept else _PASSING
        text += _VOLUME.format(name=name, integrity=integrity, key=key)
        image = sealed_disks.blank(work / f"load-{name}.img", _DATA_BYTES)
        options += ["--disk", f"{name}={image}"]
    (work / "loads.toml").write_text(text)
    rows.built(work / "loads.toml", work / "loads", kernel)
    console = rows.console(work / "loads", tuple(options), timeout_s=_TIMEOUT_S)
    found = _loads("troth", console)
    if {item.name for item in found} != set(VOLUMES):
        raise SystemExit(f"bench: not every volume was loaded:\n{console[-4000:]}")
    return found


def _theirs(work: Path, tree: Path, kernel: Kernel) -> list[Load]:
    modules = peers.modules_into(tree, kernel)
    raw = peers.loads(work, tree, modules, work / "passphrase", FORMATS)
    disk = Sealed(
        path=sealed_disks.blank(work / "load.img", _DATA_BYTES + _HEADER_BYTES),
        serial="data",
        mount="",
        key=None,
        written=True,
    )
    cmdline = "console=ttyS0 panic=-1 quiet idle=poll"
    image = peers.compress(raw)
    text, said, _touched = machine.console_of(
        kernel.vmlinuz, image, cmdline, (), sealed=disk, timeout_s=_TIMEOUT_S
    )
    took = {name: int(all_) - int(idle) for name, all_, idle in _FORMAT.findall(text)}
    found = _loads("cryptsetup", text, took)
    if {item.name for item in found} != set(FORMATS):
        raise SystemExit(
            f"bench: not every volume of cryptsetup was loaded: {said}\n{text[-4000:]}"
        )
    return found


def _loads(who: str, console: str, formats: dict[str, int] | None = None) -> list[Load]:
    return [
        Load(
            who=who,
            name=name,
            write_ns=int(wrote) / (int(size) / 1e6),
            read_ns=int(read) / (int(size) / 1e6),
            format_s=(formats or {}).get(name, 0) / 1e9,
        )
        for name, size, wrote, read in _LINE.findall(console)
    ]
