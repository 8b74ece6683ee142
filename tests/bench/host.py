# SPDX-License-Identifier: Apache-2.0
"""Host rows of the bench: verity trees against veritysetup, and a whole build.

Serves ``run``. Each program runs as its own process on the same file, already
in the page cache, and the two trees must be the same bytes: a faster wrong
tree is no figure.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from disks import SALT

from troth.record import record

UUID = "00000000-0000-4000-8000-0000000000ff"
ROOT_BYTES = 150_000_000
FILES = 3000


@record
class Timed:
    """Wall seconds, and peak resident bytes summed over a program's processes."""

    wall_s: float
    peak_bytes: int


@record
class Tree:
    """One size: troth's own builder against veritysetup."""

    size_bytes: int
    troth: Timed
    veritysetup: Timed


@record
class Build:
    """``troth build`` of a root of ROOT_BYTES: first (kernel fetched) and again."""

    first: Timed
    again: Timed


def timed(command: list[str | Path]) -> Timed:
    """Run ``command``; ``SystemExit`` where it fails."""
    with tempfile.TemporaryFile() as output:
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        peak_bytes = 0
        while process.poll() is None:
            peak_bytes = max(peak_bytes, _resident(process.pid))
            time.sleep(0.002)
        wall = time.monotonic() - began
        if process.returncode:
            output.seek(0)
            said = output.read().decode(errors="replace")[-2000:]
            raise SystemExit(f"bench: {command[0]} failed:\n{said}")
    return Timed(wall_s=wall, peak_bytes=peak_bytes)


def _resident(pid: int) -> int:
    """Bytes that ``pid`` and its descendants hold at this moment, shared pages in each.

    Not ru_maxrss: that starts at the size of the process that called exec.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    own = sum(
        int(line.split()[1]) * 1024
        for line in status.splitlines()
        if line.startswith(("RssAnon:", "RssShmem:"))
    )
    return own + sum(_resident(int(child)) for child in children)


def tree(troth: Path, size_bytes: int, work: Path, repeats: int) -> Tree:
    """Best of ``repeats`` for both builders over ``size_bytes`` of fresh data."""
    data = work / "verity.data"
    piece = hashlib.shake_256(b"verity").digest(1 << 20)
    with data.open("wb") as file:
        for number in range(size_bytes >> 20):
            file.write(number.to_bytes(8, "little") + piece[8:])
    salted = [f"--salt={SALT}", f"--uuid={UUID}"]
    ours: list[Timed] = []
    theirs: list[Timed] = []
    one, other = work / "verity.troth", work / "verity.veritysetup"
    try:
        for _ in range(repeats):
            one.unlink(missing_ok=True)
            other.unlink(missing_ok=True)
            theirs.append(timed(["veritysetup", "format", *salted, data, other]))
            ours.append(timed([troth, "verity", "format", *salted, data, one]))
        subprocess.run(["cmp", one, other], check=True)
    finally:
        for path in (data, one, other):
            path.unlink(missing_ok=True)
    best = [min(runs, key=lambda run: run.wall_s) for runs in (ours, theirs)]
    return Tree(size_bytes=size_bytes, troth=best[0], veritysetup=best[1])


def build(troth: Path, work: Path) -> Build:
    """``troth build`` of a directory root of 150 MB in 3,000 files, twice."""
    place = work / "build150"
    shutil.rmtree(place, ignore_errors=True)
    root = place / "root"
    (root / "sbin").mkdir(parents=True)
    (root / "sbin/init").write_bytes((work / "root/sbin/init").read_bytes())
    (root / "sbin/init").chmod(0o755)
    for name in ("dev", "proc", "sys", "run", "tmp", "etc", "opt/app"):
        (root / name).mkdir(parents=True)
    content = hashlib.shake_256(b"root").digest(ROOT_BYTES // FILES)
    for number in range(FILES):
        directory = root / f"opt/app/{number % 50:02d}"
        directory.mkdir(exist_ok=True)
        (directory / str(number)).write_bytes(number.to_bytes(4, "little") + content[4:])
    manifest = place / "troth.toml"
    manifest.write_text(
        '[image]\nname = "build150"\nkernel = "debian:linux-image-6.12-cloud-amd64"\n'
        '[root]\nsource = "root/"\n[measure]\nworkload = ["/opt/app"]\n'
        '[tee]\nsnp = "none"\nvtpm = "optional"\n'
    )
    runs = [timed([troth, "build", manifest, "-o", place / f"bundle{n}"]) for n in (1, 2)]
    return Build(first=runs[0], again=runs[1])
