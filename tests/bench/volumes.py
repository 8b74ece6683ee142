# SPDX-License-Identifier: Apache-2.0
"""scripts/bench volumes: what an encrypted volume costs a boot, beside its peers, in one run.

Every row verifies the same root and opens one encrypted volume besides, whose key lies in
the image or comes from ``troth keybroker`` on this machine. Figures are instructions: the
guest's clock counts them. Writes its part of docs/performance.md; ``--quick`` boots fewer
rows, on 6.12, once, and writes nothing. Needs root, for the chroot of the peers' tools.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY / "agent"))

import kernels  # noqa: E402 - needs the path above
import machine  # noqa: E402 - likewise
import peers  # noqa: E402 - likewise
import release  # noqa: E402 - likewise
import report  # noqa: E402 - likewise
import rows  # noqa: E402 - likewise
import sealed_disks  # noqa: E402 - likewise
import throughput  # noqa: E402 - likewise
import volumes_report  # noqa: E402 - likewise
from disks import Sealed  # noqa: E402 - likewise
from volumes_report import DERIVATIONS, NAMES, Load, Opening, Volume, Volumes  # noqa: E402

from troth.record import replace  # noqa: E402 - likewise

if TYPE_CHECKING:
    from disks import Disk
    from kernels import Kernel
    from machine import Boot

DOCUMENT = REPOSITORY / "docs/performance.md"
MANIFEST = """[image]
name = "{name}"
svn = 1
kernel = "debian:{package}"
cmdline = "idle=poll"
[root]
source = "{root}"
overlay = "tmpfs"
[tee]
snp = "{snp}"
vtpm = "required"
vtpm_kind = "host"
"""
VOLUME = """[[volume]]
name = "data"
mount = "/srv/data"
uuid = "{uuid}"
format = "{form}"
integrity = "{integrity}"
{key}
"""
NETWORK = '[network]\nmethod = "dhcp"\n'
#: Format and id of the volume that a broker's row opens.
KBS = {
    "kbs": ("headerless", sealed_disks.UUID),
    "kbs-luks2": ("luks2", sealed_disks.UUID.replace("5a5a5a5a", "5b5b5b5b")),
}
QUICK = ("busybox-plain", "luks2", "kbs")
PEERS = ("busybox", "busybox-plain", "initramfs-tools", "dracut")


def main() -> int:
    """Measure, print, and write the section."""
    options = _arguments()
    if os.geteuid() != 0:
        print("bench: needs root, for the chroot of the peers' tools", file=sys.stderr)
        return 3
    options.cache.mkdir(parents=True, exist_ok=True)
    tree = peers.chroot(options.cache)
    measured: list[Volume] = []
    openings: list[Opening] = []
    loads: list[Load] = []
    releases = {}
    for label in options.kernels:
        kernel = kernels.fetch(label, options.cache)
        releases[label] = kernel.release
        work = options.cache / f"volumes-{label}"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        bench = _Bench(work, tree, kernel, options.repeats)
        measured += [bench.row(name) for name in options.rows]
        if options.openings:
            openings += [bench.opening(name) for name in DERIVATIONS]
        if options.loads:
            loads += throughput.measured(work, tree, kernel)
    found = Volumes(
        arguments=" ".join(["volumes", *sys.argv[1:]]),
        kernels=releases,
        machine=machine.facts(),
        rows=tuple(measured),
        openings=tuple(openings),
        loads=tuple(loads),
    )
    if options.json:
        options.json.write_text(json.dumps(report.tree_of(found), indent=1) + "\n")
    figures = volumes_report.markdown(found)
    print(figures)
    if options.document:
        DOCUMENT.write_text(volumes_report.into(DOCUMENT.read_text(), figures))
    missed = volumes_report.missed(found)
    for line in missed:
        print(f"bench: target missed: {line}", file=sys.stderr)
    return 1 if missed else 0


class _Bench:
    """One kernel's rows. What all share is built here, a row's own bundle when it is asked for."""

    def __init__(self, work: Path, tree: Path, kernel: Kernel, repeats: int) -> None:
        self._work, self._tree, self._kernel, self._repeats = work, tree, kernel, repeats
        self._sources = sealed_disks.sources(work)
        self._modules = peers.modules_into(tree, kernel)
        self._file_key = f'key = "file:data"\nkey_file = "{self._sources.key}"\n'
        luks2 = self._volume("luks2", integrity="none", key=self._file_key)
        self._verity, _cmdline, self._luks2 = self._built("luks2", volume=luks2)
        # Peers do not pay for what troth adds to the command line of images with keys.
        self._cmdline = self._built("without", snp="none")[1]
        self._broker: release.Broker | None = None

    def row(self, name: str) -> Volume:
        """The row ``name``, booted."""
        if name in PEERS:
            return self._peer(name)
        if name == "without":
            return self._ours(name, self._work / name, None)
        if name == "simulated":
            return self._ours(name, self._built(name)[2], None)
        if name == "luks2":
            return self._ours(name, self._luks2, sealed_disks.luks2(self._sources))
        if name.startswith("kbs"):
            return self._released(name)
        key = self._file_key + 'blank = "format"\n'
        volume = self._volume("headerless", integrity=name, key=key)
        return self._kept(name, self._built(name, volume=volume)[2])

    def opening(self, name: str) -> Opening:
        """cryptsetup and troth open one LUKS2 disk whose derivation is ``name``."""
        disk = sealed_disks.derived_by(self._sources, name, DERIVATIONS[name])
        raw = peers.busybox(
            self._work, self._tree, self._modules, self._verity, plain=True, sealed=disk, timed=True
        )
        image = peers.compress(raw)
        vmlinuz = self._kernel.vmlinuz
        theirs = machine.boot(vmlinuz, image, self._cmdline, self._verity, sealed=disk)
        boot, stages = rows.run(self._luks2, disk, options=("--sim-snp",))
        self._say(f"opening {name}", boot)
        return Opening(name, self._kernel.label, theirs.timed_s, stages["keys"], stages["volumes"])

    def _peer(self, name: str) -> Volume:
        disk = sealed_disks.luks2(self._sources)
        if name.startswith("busybox"):
            raw = peers.busybox(
                self._work, self._tree, self._modules, self._verity,
                plain=name != "busybox", sealed=disk,
            )  # fmt: skip
        else:
            make = peers.dracut if name == "dracut" else peers.initramfs_tools
            raw = make(self._work, self._tree, self._kernel, self._verity, sealed=disk)
        made = rows.measure(
            NAMES[name], (raw, peers.compress(raw)), self._kernel, self._cmdline, self._verity,
            self._repeats, sealed=disk,
        )  # fmt: skip
        return Volume(name, made.kernel, made.zstd_bytes, made.raw_bytes, made.boots, {}, 0)

    def _released(self, name: str) -> Volume:
        broker = self._broker = self._broker or release.Broker(self._work / "broker")
        form, uuid = KBS[name]
        key = f'key = "kbs:///default/disk-key/{name}"\n'
        volume = self._volume(form, integrity="hmac", key=key, uuid=uuid)
        bundle = self._built(name, volume=volume + NETWORK + broker.manifest())[2]
        broker.add(bundle, image=name, form=form, uuid=uuid)
        with broker:
            return self._kept(name, bundle)

    def _kept(self, name: str, bundle: Path) -> Volume:
        """A volume that the first boot formats, opened by later ones."""
        disk = Sealed(
            path=sealed_disks.blank(self._work / f"{name}.img"), serial="data", mount="",
            key=None, written=True,
        )  # fmt: skip
        boot, made = rows.run(bundle, disk, wanted="made", options=("--sim-snp",))
        self._say(f"{name}, formatted", boot)
        found = self._ours(name, bundle, disk)
        return replace(found, format_ms=made["volumes"] - found.stages_ms["volumes"])

    def _ours(self, name: str, bundle: Path, disk: Sealed | None) -> Volume:
        options = () if name == "without" else ("--sim-snp",)
        boots, stages = [], {}
        for _ in range(self._repeats):
            if name.startswith("kbs"):
                time.sleep(release.LEASE_S)
            boot, stages = rows.run(bundle, disk, options=options)
            boots.append(boot)
            self._say(name, boot)
        raw, _shipped = rows.unpacked(bundle / "initramfs", self._work / f"{name}.cpio")
        packed = peers.compress(raw).stat().st_size
        size = raw.stat().st_size
        return Volume(name, self._kernel.label, packed, size, tuple(boots), stages, 0)

    def _volume(self, form: str, *, integrity: str, key: str, uuid: str = sealed_disks.UUID) -> str:
        return VOLUME.format(form=form, integrity=integrity, key=key, uuid=uuid)

    def _built(
        self, name: str, *, snp: str = "simulated", volume: str = ""
    ) -> tuple[tuple[Disk, ...], str, Path]:
        root = self._sources.root if volume else self._sources.root_alone
        manifest = self._work / f"{name}.toml"
        package = kernels.PACKAGES[self._kernel.label]
        text = MANIFEST.format(name=name, package=package, root=root, snp=snp)
        manifest.write_text(text + volume)
        return rows.built(manifest, self._work / name, self._kernel)

    def _say(self, name: str, boot: Boot) -> None:
        print(
            f"{self._kernel.label} {name}: /init {boot.init_s:.3f} s, kernel {boot.kernel_s:.3f} s,"
            f" idle {boot.idle_s:.3f} s ({boot.wall_s:.0f} s here)",
            file=sys.stderr,
            flush=True,
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench volumes", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three rows on 6.12, no document")
    parser.add_argument("--rows", type=lambda text: text.split(","), help=",".join(NAMES))
    parser.add_argument("--kernels", type=lambda text: text.split(","), help="6.1,6.12")
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--no-openings", dest="openings", action="store_false")
    parser.add_argument("--no-loads", dest="loads", action="store_false", help="no throughput")
    parser.add_argument("--json", type=Path, help="write the figures as JSON")
    parser.add_argument("--cache", type=Path, default=REPOSITORY / "build/bench")
    options = parser.parse_args()
    options.document = not (options.quick or options.rows or options.kernels)
    options.rows = options.rows or (QUICK if options.quick else tuple(NAMES))
    options.kernels = options.kernels or (("6.12",) if options.quick else tuple(kernels.PACKAGES))
    options.repeats = options.repeats or (1 if options.quick else 2)
    options.openings = options.openings and not options.quick
    options.loads = options.loads and not options.quick
    for name in options.rows:
        if name not in NAMES:
            parser.error(f"no row {name!r}; there are {', '.join(NAMES)}")
    for label in options.kernels:
        if label not in kernels.PACKAGES:
            parser.error(f"no kernel {label!r}; there are {', '.join(kernels.PACKAGES)}")
    return options


if __name__ == "__main__":
    raise SystemExit(main())
