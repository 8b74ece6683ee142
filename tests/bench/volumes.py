# SPDX-License-Identifier: Apache-2.0
"""scripts/bench volumes: what an encrypted volume costs a boot, beside its peers, in one run.

Every row verifies the same root and opens one encrypted volume besides, whose key lies in
the image or comes from ``troth keybroker`` on this machine. Figures are instructions: the
guest's clock counts them. Writes its part of docs/performance.md; ``--quick`` boots fewer
rows, on 6.12, once, and writes nothing. Needs root, for the chroot of the peers' tools.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY / "agent"))

import kernels  # noqa: E402 - likewise
import machine  # noqa: E402 - likewise
import peers  # noqa: E402 - likewise
import sealed_disks  # noqa: E402 - likewise
import throughput  # noqa: E402 - likewise
import volumes_report  # noqa: E402 - likewise
from volumes_report import DERIVATIONS, Opening, Sealing, Volumes  # noqa: E402 - likewise

if TYPE_CHECKING:
    from report import Row

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
"""
FILE_KEY = 'key = "file:data"\nkey_file = "{key}"\n'
BROKER_KEY = 'key = "kbs:///{path}"\n[network]\nmethod = "dhcp"\n'
NAMES = {
    "busybox-without": "busybox, plain modules, no volume",
    "busybox": "busybox sh + cryptsetup",
    "busybox-plain": "busybox, plain modules",
    "initramfs-tools": "initramfs-tools + cryptsetup",
    "dracut": "dracut + systemd + cryptsetup",
    "troth-without": "troth, no secure processor, no volume",
    "simulated-without": "troth, simulated processor, no volume",
    "luks2": "troth, LUKS2, key in the image",
    "none": "troth, headerless, key in the image",
    "hmac": "troth, headerless with hmac, key in the image",
    "kbs": "troth, headerless with hmac, network, key released",
    "kbs-luks2": "troth, LUKS2 with hmac, network, key released",
}
QUICK = ("busybox-plain", "luks2", "kbs")
#: DESIGN section 10: with a LUKS2 volume on 6.1 at most this from /init to the marker.
TARGET_S = 0.9
TOLERANCE = 1.03


def main() -> int:
    """Measure, print, and write the section."""
    options = _arguments()
    if os.geteuid() != 0:
        print("bench: needs root, for the chroot of the peers' tools", file=sys.stderr)
        return 3
    options.cache.mkdir(parents=True, exist_ok=True)
    tree = peers.chroot(options.cache)
    measured: list[Row] = []
    openings: list[Opening] = []
    sealings: list[Sealing] = []
    releases = {}
    for label in options.kernels:
        kernel = kernels.fetch(label, options.cache)
        releases[label] = kernel.release
        work = options.cache / f"volumes-{label}"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        bench = _Bench(work, tree, kernel, sealed_disks.sources(work), options.repeats)
        for name in options.rows:
            measured.append(bench.row(name))
        if not options.quick:
            openings += [bench.opening(name) for name in DERIVATIONS]
            sealings += throughput.measured(work, tree, kernel)
    found = Volumes(
        arguments=" ".join(sys.argv[1:]),
        kernels=releases,
        machine=machine.facts(),
        rows=tuple(measured),
        openings=tuple(openings),
        sealings=tuple(sealings),
    )
    figures = volumes_report.markdown(found)
    print(figures)
    if options.document:
        DOCUMENT.write_text(volumes_report.into(DOCUMENT.read_text(), figures))
    missed = volumes_report.missed(found)
    for line in missed:
        print(f"bench: target missed: {line}", file=sys.stderr)
    return 1 if missed else 0
