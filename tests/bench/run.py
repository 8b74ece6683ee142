# SPDX-License-Identifier: Apache-2.0
"""scripts/bench: what a boot with troth costs, beside its peers, in one run.

Full run: all rows on both kernels, each booted twice, then the host rows;
writes docs/performance.md. ``--quick``: troth and busybox on 6.12, one boot
each, no large host rows; exit status 1 where a target is missed by more than
the tolerance. Needs root (a chroot for the peers' tools).
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY / "agent"))

import disks as disk_images  # noqa: E402 - needs the path above
import host  # noqa: E402 - needs the path above
import kernels  # noqa: E402 - needs the path above
import machine  # noqa: E402 - needs the path above
import peers  # noqa: E402 - needs the path above
import report  # noqa: E402 - needs the path above
import rows  # noqa: E402 - needs the path above

if TYPE_CHECKING:
    from collections.abc import Callable

    from disks import Disk
    from kernels import Kernel

EXAMPLE = REPOSITORY / "examples/service"
TROTH = REPOSITORY / ".venv/bin/troth"
ROWS = (
    "floor",
    "busybox",
    "busybox-plain",
    "initramfs-tools",
    "dracut",
    "troth",
    "service",
    "notests",
)
NAMES = {
    "floor": "static C program (the floor)",
    "busybox": "busybox sh + veritysetup + cryptsetup",
    "busybox-plain": "busybox, plain modules",
    "initramfs-tools": "initramfs-tools MODULES=list + hook",
    "dracut": "dracut + systemd",
    "troth": "troth",
    "service": "troth, examples/service's own initramfs",
    "notests": "troth, cryptomgr.notests on its command line",
}
#: DESIGN section 10, seconds of /init and of kernel start to marker; and the image.
TARGETS = {"6.1": (0.33, 2.2), "6.12": (0.5, 2.6)}
TARGET_ZSTD_BYTES = 6_000_000
#: What the second verity disk adds and the targets, set with one, do not know.
SECOND_DISK_S = 0.07
TOLERANCE = 1.03
MANIFEST = """[image]
name = "bench"
svn = 1
kernel = "debian:{package}"
cmdline = "idle=poll"
[root]
source = "root.erofs"
overlay = "tmpfs"
[handover]
init = "/sbin/init"
[tee]
snp = "none"
vtpm = "required"
vtpm_kind = "host"
[[volume]]
name = "data"
format = "verity"
source = "data.erofs"
mount = "/srv/data"
"""


def main() -> int:
    """Run what the arguments ask for; exit status 1 for a missed target."""
    options = _arguments()
    if os.geteuid() != 0:
        print("bench: needs root, for the chroot of the peers' tools", file=sys.stderr)
        return 3
    options.cache.mkdir(parents=True, exist_ok=True)
    measured: list[report.Row] = []
    releases: dict[str, str] = {}
    cmdline = ""
    tree = peers.chroot(options.cache)
    #: Rows whose command line or disks are their own.
    own_bundles = {"service": _service, "notests": _notests}
    for label in options.kernels:
        kernel = kernels.fetch(label, options.cache)
        releases[label] = kernel.release
        work = options.cache / f"work-{label}"
        work.mkdir(exist_ok=True)
        found, cmdline = _disks(work, kernel, with_troth="troth" in options.rows)
        makers = _makers(work, tree, kernel, found)
        for name in options.rows:
            if name in own_bundles:
                own_disks, own_cmdline, bundle = own_bundles[name](work, kernel)
                images = rows.unpacked(bundle / "initramfs", work / f"{name}.cpio")
                row = _measured(name, images, kernel, own_cmdline, own_disks, options.repeats)
            else:
                row = _measured(name, makers[name](), kernel, cmdline, found, options.repeats)
            measured.append(row)
    if not options.host:
        trees: tuple[host.Tree, ...] = ()
        builds: tuple[host.Build, ...] = ()
    else:
        sizes = (100 << 20,) if options.quick else (100 << 20, 1 << 30, 4 << 30)
        trees = tuple(host.tree(TROTH, size, options.cache, options.repeats) for size in sizes)
        builds = (host.build(TROTH, options.cache / f"work-{options.kernels[-1]}"),)
    run = report.Run(
        date=dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        arguments=" ".join(sys.argv[1:]),
        cmdline=cmdline,
        machine=machine.facts(),
        versions=peers.versions(tree),
        kernels=releases,
        rows=tuple(measured),
        trees=trees,
        builds=builds,
    )
    figures = report.markdown(run)
    print(figures)
    if options.json:
        options.json.write_text(json.dumps(report.tree_of(run), indent=1) + "\n")
    if options.output:
        before = options.output.read_text() if options.output.exists() else ""
        options.output.write_text(report.into(before, figures))
    return _judge(run)


def _disks(work: Path, kernel: Kernel, *, with_troth: bool) -> tuple[tuple[Disk, ...], str]:
    if not with_troth:
        return disk_images.by_veritysetup(work), (
            "console=ttyS0 panic=-1 quiet systemd.import_credentials=no systemd.gpt_auto=no "
            "systemd.swap=no idle=poll"
        )
    disk_images.file_systems(work)
    manifest = work / "troth.toml"
    manifest.write_text(MANIFEST.format(package=kernels.PACKAGES[kernel.label]))
    found, cmdline, _bundle = rows.built(manifest, work / "bundle", kernel)
    return found, cmdline


def _makers(
    work: Path, tree: Path, kernel: Kernel, found: tuple[Disk, ...]
) -> dict[str, Callable[[], tuple[Path, Path]]]:
    """For each row: makes and returns (raw archive, image as shipped)."""
    modules = peers.modules_into(tree, kernel)

    def peer(raw: Path) -> tuple[Path, Path]:
        return raw, peers.compress(raw)

    return {
        "floor": lambda: peer(peers.floor(work, modules, found)),
        "busybox": lambda: peer(peers.busybox(work, tree, modules, found, plain=False)),
        "busybox-plain": lambda: peer(peers.busybox(work, tree, modules, found, plain=True)),
        "initramfs-tools": lambda: peer(peers.initramfs_tools(work, tree, kernel, found)),
        "dracut": lambda: peer(peers.dracut(work, tree, kernel, found)),
        "troth": lambda: rows.unpacked(work / "bundle/initramfs", work / "troth.cpio"),
    }


def _service(work: Path, kernel: Kernel) -> tuple[tuple[Disk, ...], str, Path]:
    """A bundle of examples/service's manifest whose next init is the marker.

    Same kernel modules, policy shape, workload path and files; the root is
    small, because the root's size is not what this row asks. Its disks, command
    line and bundle directory.
    """
    disk_images.file_systems(work)
    root, models = work / "service-root", work / "service-models"
    for tree in (root, models):
        shutil.rmtree(tree, ignore_errors=True)
    shutil.copytree(work / "root", root)
    shutil.copytree(work / "data", models)
    (root / "srv/models").mkdir()
    shutil.copytree(EXAMPLE / "app", root / "opt/app")
    text = (EXAMPLE / "troth.toml").read_text()
    for old, new in (
        ('source = "rootfs.tar"', 'source = "service-root/"'),
        ('source = "models/"', 'source = "service-models/"'),
        (kernels.PACKAGES["6.12"], kernels.PACKAGES[kernel.label]),
        ("svn = 1\n", 'svn = 1\ncmdline = "idle=poll"\n'),
    ):
        if text.count(old) != 1:
            raise SystemExit(f"bench: examples/service/troth.toml has no single {old!r}")
        text = text.replace(old, new)
    (work / "service.toml").write_text(text)
    return rows.built(work / "service.toml", work / "service-bundle", kernel)


def _notests(work: Path, kernel: Kernel) -> tuple[tuple[Disk, ...], str, Path]:
    """The troth row with the kernel's cipher self-tests off: a choice, so a row of its own."""
    disk_images.file_systems(work)
    text = MANIFEST.format(package=kernels.PACKAGES[kernel.label])
    manifest = work / "notests.toml"
    manifest.write_text(text.replace('"idle=poll"', '"idle=poll cryptomgr.notests"'))
    return rows.built(manifest, work / "notests-bundle", kernel)


def _measured(
    name: str,
    images: tuple[Path, Path],
    kernel: Kernel,
    cmdline: str,
    found: tuple[Disk, ...],
    repeats: int,
) -> report.Row:
    return rows.measure(NAMES[name], images, kernel, cmdline, found, repeats)


def _judge(run: report.Run) -> int:
    missed = []
    for row in run.rows:
        if row.name != NAMES["troth"]:
            continue
        init, whole = TARGETS[row.kernel]
        for what, seen, target in (
            ("/init to marker", report.init_s(row), init + SECOND_DISK_S),
            ("kernel start to marker", report.kernel_s(row), whole + SECOND_DISK_S),
        ):
            if seen > target * TOLERANCE:
                missed.append(f"{row.kernel}: {what} {seen:.3f} s, target {target:.2f} s")
        if row.zstd_bytes > TARGET_ZSTD_BYTES:
            missed.append(f"{row.kernel}: zstd -19 {row.zstd_bytes} bytes")
    for line in missed:
        print(f"bench: target missed: {line}", file=sys.stderr)
    return 1 if missed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="troth and busybox on 6.12, for CI")
    parser.add_argument("--rows", type=lambda text: text.split(","), help=",".join(ROWS))
    parser.add_argument("--kernels", type=lambda text: text.split(","), help="6.1,6.12")
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--no-host", dest="host", action="store_false", help="boot rows only")
    parser.add_argument("--json", type=Path, help="write the figures as JSON")
    parser.add_argument("-o", "--output", type=Path, help="default: docs/performance.md if full")
    parser.add_argument("--cache", type=Path, default=REPOSITORY / "build/bench")
    options = parser.parse_args()
    full = not (options.quick or options.rows or options.kernels)
    options.rows = options.rows or (("busybox", "troth") if options.quick else ROWS)
    options.kernels = options.kernels or (("6.12",) if options.quick else tuple(kernels.PACKAGES))
    options.repeats = options.repeats or (1 if options.quick else 2)
    if full and options.output is None and options.host:
        options.output = REPOSITORY / "docs/performance.md"
    for name in options.rows:
        if name not in ROWS:
            parser.error(f"no row {name!r}; there are {', '.join(ROWS)}")
    for label in options.kernels:
        if label not in kernels.PACKAGES:
            parser.error(f"no kernel {label!r}; there are {', '.join(kernels.PACKAGES)}")
    return options


if __name__ == "__main__":
    raise SystemExit(main())
