# SPDX-License-Identifier: Apache-2.0
"""Debian kernels for the bench's peers: downloaded and unpacked, never installed.

Serves ``peers`` and ``run``. It must never run a kernel package's maintainer
scripts: the machine that runs the bench keeps its boot untouched.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from troth.record import record

#: Row label -> the meta package whose newest dependency is the kernel.
PACKAGES = {"6.1": "linux-image-cloud-amd64", "6.12": "linux-image-6.12-cloud-amd64"}


@record
class Kernel:
    """One unpacked kernel: ``label`` of its rows, ``release``, its files."""

    label: str
    release: str
    vmlinuz: Path
    modules: Path


def fetch(label: str, cache: Path) -> Kernel:
    """The kernel of row ``label``, from ``cache`` where it is there already."""
    wanted = subprocess.run(
        ["apt-cache", "depends", "--important", PACKAGES[label]],
        check=False,
        capture_output=True,
        text=True,
    ).stdout
    found = [line.split()[1] for line in wanted.splitlines() if "Depends:" in line]
    if not found:
        raise SystemExit(f"bench: apt knows no {PACKAGES[label]}: run apt-get update")
    package = found[0]
    tree = cache / package
    if not tree.exists():
        downloads = cache / "downloads"
        downloads.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["apt-get", "-qq", "download", "-o", "APT::Sandbox::User=root", package],
            check=True,
            cwd=downloads,
        )
        (archive,) = downloads.glob(f"{package}_*.deb")
        unpacked = cache / f"{package}.part"
        shutil.rmtree(unpacked, ignore_errors=True)
        subprocess.run(["dpkg-deb", "-x", archive, unpacked], check=True)
        archive.unlink()
        unpacked.rename(tree)
    (modules,) = (tree / "lib/modules").iterdir()
    return Kernel(
        label=label,
        release=modules.name,
        vmlinuz=tree / "boot" / f"vmlinuz-{modules.name}",
        modules=modules,
    )


def closure(modules_dep: Path, names: tuple[str, ...]) -> tuple[str, ...]:
    """Files below the module directory that load ``names``, dependencies first.

    A name without a module of its own is built into this kernel and gives
    nothing; ``modules.builtin`` beside ``modules_dep`` proves it.
    """
    needs: dict[str, tuple[str, ...]] = {}
    by_name: dict[str, str] = {}
    for line in modules_dep.read_text().splitlines():
        path, _, rest = line.partition(":")
        # modules.dep lists the nearest dependency first, so loading runs backwards
        needs[path] = tuple(reversed(rest.split()))
        by_name[_plain(path)] = path
    builtin = {
        _plain(line) for line in (modules_dep.parent / "modules.builtin").read_text().split()
    }
    order: list[str] = []
    for name in names:
        if name not in by_name:
            if name in builtin:
                continue
            raise SystemExit(f"bench: {modules_dep.parent.name} has no module {name}")
        for path in (*needs[by_name[name]], by_name[name]):
            if path not in order:
                order.append(path)
    return tuple(order)


def _plain(path: str) -> str:
    return Path(path).name.partition(".ko")[0].replace("-", "_")
