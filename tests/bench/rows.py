# SPDX-License-Identifier: Apache-2.0
"""Rows of the boot bench: a bundle built, an image unpacked, an image booted some times.

Serves ``run`` and ``volumes``. It must never compare kernels that are not the same bytes.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import disks as disk_images
import machine
import peers
import report

if TYPE_CHECKING:
    from typing import Any

    from disks import Disk, Sealed
    from kernels import Kernel

TROTH = Path(__file__).parents[2] / ".venv/bin/troth"


def built(manifest: Path, bundle: Path, kernel: Kernel) -> tuple[tuple[Disk, ...], str, Path]:
    """Build ``manifest``: the verity disks, the command line, the bundle's directory."""
    shutil.rmtree(bundle, ignore_errors=True)
    subprocess.run([TROTH, "build", manifest, "-o", bundle, "--update"], check=True)
    if (bundle / "vmlinuz").read_bytes() != kernel.vmlinuz.read_bytes():
        raise SystemExit("bench: the bundle's kernel is not the peers'")
    cmdline = (bundle / "cmdline").read_text().rstrip("\n")
    return disk_images.from_bundle(bundle), cmdline, bundle


def unpacked(shipped: Path, raw: Path) -> tuple[Path, Path]:
    """Decompress ``shipped`` by its magic number."""
    magic = shipped.read_bytes()[:4]
    tool = {b"\x28\xb5\x2f\xfd": "zstd", b"\x02\x21\x4c\x18": "lz4"}.get(magic)
    if tool is None:
        shutil.copyfile(shipped, raw)
    else:
        with raw.open("wb") as out:
            subprocess.run([tool, "-q", "-d", "-c", shipped], check=True, stdout=out)
    return raw, shipped


def measure(
    name: str,
    images: tuple[Path, Path],
    kernel: Kernel,
    cmdline: str,
    found: tuple[Disk, ...],
    repeats: int,
    *,
    sealed: Sealed | None = None,
) -> report.Row:
    """Boot ``images`` (raw archive, as shipped) ``repeats`` times: the row ``name``."""
    raw, shipped = images
    packed = shipped if shipped.suffix == ".zst" else peers.compress(raw)
    boots = []
    for number in range(repeats):
        boots.append(machine.boot(kernel.vmlinuz, shipped, cmdline, found, sealed=sealed))
        print(
            f"{kernel.label} {name} {number + 1}/{repeats}: /init {boots[-1].init_s:.3f} s, "
            f"kernel {boots[-1].kernel_s:.3f} s ({boots[-1].wall_s:.0f} s here)",
            file=sys.stderr,
            flush=True,
        )
    return report.Row(
        name=name,
        kernel=kernel.label,
        raw_bytes=raw.stat().st_size,
        zstd_bytes=packed.stat().st_size,
        shipped_bytes=shipped.stat().st_size,
        boots=tuple(boots),
    )


def console(bundle: Path, options: tuple[str, ...], *, timeout_s: int) -> str:
    """What a guest of ``bundle`` prints whose next program is none that a row has."""
    return _run(bundle, options, timeout_s=timeout_s)[0]


def run(
    bundle: Path, disk: Sealed | None, *, wanted: str = "ok", options: tuple[str, ...] = ()
) -> tuple[machine.Boot, dict[str, float]]:
    """Boot ``bundle`` by ``troth run``, as needs a simulated processor or a network.

    The machine is that of all rows, but for the devices that these two are. Also returned: ms of
    each stage. ``wanted``: what the marker must have found.
    """
    with tempfile.TemporaryDirectory(prefix="troth-bench-") as scratch:
        words = options
        if disk is not None:
            path = disk.path if disk.written else Path(shutil.copy(disk.path, scratch))
            words = (*options, "--disk", f"{disk.serial}={path}")
        began = time.monotonic()
        text, result = _run(bundle, words, timeout_s=300)
        wall_s = time.monotonic() - began
    boot = machine.boot_of(text, what=str(result), touched_bytes=0, wall_s=wall_s, wanted=wanted)
    return boot, {item["name"]: item["ms"] for item in result["stages"]}


def _run(bundle: Path, options: tuple[str, ...], *, timeout_s: int) -> tuple[str, dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="troth-bench-") as scratch:
        console = Path(scratch) / "console"
        words = ["--accel", "tcg", "--json", "--console", console, "--timeout", str(timeout_s)]
        words += ["--qemu-arg=-icount", "--qemu-arg=shift=0,sleep=off", *options]
        found = subprocess.run(
            [TROTH, "run", bundle, *words], check=False, capture_output=True, text=True
        )
        if not found.stdout:
            raise SystemExit(f"bench: {found.stderr}")
        text = console.read_text(errors="replace").replace("\r", "")
    return text, json.loads(found.stdout)
