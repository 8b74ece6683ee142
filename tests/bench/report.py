# SPDX-License-Identifier: Apache-2.0
"""docs/performance.md and the JSON form, from the figures of one run.

Serves ``run``. It must never print a figure that this run did not measure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.record import record

if TYPE_CHECKING:
    from host import Build, Tree
    from machine import Boot

BEGIN, END = "<!-- figures: scripts/bench -->", "<!-- end of figures -->"

INTRODUCTION = """# What a boot costs

The figures below are written by `scripts/bench`; do not edit them by hand.

Every row does the same work: find two virtio disks by serial, open dm-verity on both (each disk
holds an erofs file system and behind it superblock and tree), mount `root` read-only, a tmpfs
overlay above it, mount `data` at /srv/data, switch root into one static marker init, which proves
the overlay writable and the volume readable. troth besides measures policy, command line, root
hashes and phases into the TPM, compares the packed files with its list, and keeps its runtime for
the agent; the peers do none of this. The second disk is a verity volume of its own, so absolute
figures are some 40 to 70 ms above those of a bench with one verity disk.

All rows share the machine, a TPM (swtpm, tpm-crb), both disks and the kernel command line, which is
the one `troth build` baked for the bench's bundle (its default and the word `idle=poll`). The guest
clock counts instructions (`-icount shift=0,sleep=off`): 1 ns is 1 instruction; `idle=poll` keeps it
from jumping while the guest waits. Times are those of the kernel log: "/init" from the line
"Run /init" to the marker's own line, "kernel" from the kernel's first instant. Repeats are separate
boots; the spread is the difference between the slowest and the fastest.

Peers' images are packed by their own tools in a Debian 12 chroot from the same kernel packages and
compressed by `zstd -19`; "as shipped" is the file that was booted. dracut's image has one unit that
opens the disks instead of dracut's own root handling, which flatters dracut. Debian's 6.12 ships
modules as .ko.xz, which busybox insmod cannot load: that row uses Debian's kmod; the row
"busybox, plain modules" packs them decompressed, as troth and the floor do.

The last row boots the initramfs of `examples/service`'s own manifest (its modules, volume, workload
and variable key, hence one more word on its command line) with the marker in place of systemd.

"touched" is guest memory that was ever read or written up to power-off, seen from the host: an
upper bound of the peak; "used" is MemTotal - MemAvailable at the marker.
"""


@record
class Row:
    """One row on one kernel: image sizes in bytes and its boots."""

    name: str
    kernel: str
    raw_bytes: int
    zstd_bytes: int
    shipped_bytes: int
    boots: tuple[Boot, ...]


@record
class Run:
    """Everything one run of the bench found."""

    date: str
    arguments: str
    cmdline: str
    machine: dict[str, str]
    versions: dict[str, str]
    kernels: dict[str, str]
    rows: tuple[Row, ...]
    trees: tuple[Tree, ...]
    builds: tuple[Build, ...]


def tree_of(value: object) -> object:
    """``value`` as JSON types: records by field name."""
    if isinstance(value, dict):
        return {key: tree_of(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [tree_of(item) for item in value]
    names = getattr(value, "__match_args__", None)
    if names is not None:
        return {name: tree_of(getattr(value, name)) for name in names}
    return value


def markdown(run: Run) -> str:
    """The figures between the two comment lines of docs/performance.md."""
    lines = [BEGIN, ""]
    lines += [f"`scripts/bench {run.arguments}`".replace(" `", "`") + f", {run.date}.", ""]
    lines += [f"* {key}: {value}" for key, value in run.machine.items()]
    lines += [f"* kernel {label}: {release}" for label, release in run.kernels.items()]
    if run.versions:
        lines.append("* peers: " + ", ".join(f"{k} {v}" for k, v in run.versions.items()))
    lines += [f"* command line of all rows: `{run.cmdline}`", ""]
    for label in run.kernels:
        lines += [
            f"## Boot, kernel {label}",
            "",
            "| row | /init s | kernel s | spread ms | zstd -19 MB | shipped MB | raw MB | touched MB | used MB |",  # noqa: E501 - a table head
            "|---|---|---|---|---|---|---|---|---|",
        ]
        lines += [_row(row) for row in run.rows if row.kernel == label]
        lines.append("")
    if run.trees:
        lines += [
            "## Verity tree on this machine",
            "",
            "| data MB | troth s | veritysetup s | times as fast | peak MB | veritysetup peak MB |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {_mb(t.size_bytes, 0)} | {t.troth.wall_s:.2f} | {t.veritysetup.wall_s:.2f} "
            f"| {t.veritysetup.wall_s / t.troth.wall_s:.2f} | {_mb(t.troth.peak_bytes)} "
            f"| {_mb(t.veritysetup.peak_bytes)} |"
            for t in run.trees
        ]
        lines += [
            "",
            "Peak is the largest sum over a program's live processes, sampled each 2 ms:",
            "memory of their own, not the file pages they map.",
            "",
        ]
    for build in run.builds:
        first_s, again_s = build.first.wall_s, build.again.wall_s
        peak = _mb(build.again.peak_bytes)
        lines += [
            "## Build of a 150 MB root",
            "",
            f"First build {first_s:.1f} s, again with the lock {again_s:.1f} s; peak {peak} MB.",
            "",
        ]
    return "\n".join([*lines, END, ""])


def into(document: str, figures: str) -> str:
    """``document`` with its figures replaced; words around them stay."""
    if BEGIN in document and END in document:
        before, after = document.split(BEGIN, maxsplit=1)[0], document.split(END)[1].lstrip("\n")
        return before + figures + after
    return INTRODUCTION + "\n" + figures


def init_s(row: Row) -> float:
    """The row's /init to marker: mean of its boots."""
    return sum(boot.init_s for boot in row.boots) / len(row.boots)


def kernel_s(row: Row) -> float:
    """The row's kernel start to marker: mean of its boots."""
    return sum(boot.kernel_s for boot in row.boots) / len(row.boots)


def _row(row: Row) -> str:
    spread = max(b.init_s for b in row.boots) - min(b.init_s for b in row.boots)
    touched = max(boot.touched_bytes for boot in row.boots)
    used = max(boot.used_bytes for boot in row.boots)
    return (
        f"| {row.name} | {init_s(row):.3f} | {kernel_s(row):.3f} | {spread * 1000:.1f} "
        f"| {_mb(row.zstd_bytes, 2)} | {_mb(row.shipped_bytes, 2)} | {_mb(row.raw_bytes, 2)} "
        f"| {_mb(touched, 0)} | {_mb(used, 0)} |"
    )


def _mb(size_bytes: int, digits: int = 1) -> str:
    return f"{size_bytes / 1e6:.{digits}f}"
