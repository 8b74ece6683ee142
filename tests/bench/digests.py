# SPDX-License-Identifier: Apache-2.0
"""scripts/bench digests: what a launch digest costs, beside its peer, in one run.

IGVM files of 64 and 512 MB of data pages, one of 6 GB of pages without data, and a
direct boot. Beside each row: the plain SHA-384 of the same pages in the same
interpreter, and sev-snp-measure where it can do the same. Commands run as
whole processes, files in the page cache, best of the repeats; the answers are
compared before any time is printed. Writes its part of docs/performance.md.
"""

from __future__ import annotations

import hashlib
import platform
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY / "agent"))

import host  # noqa: E402 - needs the path above

from troth.record import record  # noqa: E402 - needs the path above

BIN = REPOSITORY / ".venv/bin"
DOCUMENT = REPOSITORY / "docs/performance.md"
BEGIN, END = "<!-- figures: scripts/bench digests -->", "<!-- end of digest figures -->"
PAGE_BYTES = 4096
REPEATS = 5
MASK = 1
#: One process that hashes the same pages, one by one, and does nothing else.
PLAIN = (
    "import hashlib,sys\n"
    "f=open(sys.argv[1],'rb')\n"
    "f.seek(int(sys.argv[2]))\n"
    "while page:=f.read(4096): hashlib.sha384(page).digest()\n"
    "for name in sys.argv[3:]: hashlib.file_digest(open(name,'rb'),'sha256').digest()\n"
)


@record
class Row:
    """One input: ours, the plain hash, and the peer's where it has one."""

    name: str
    ours: host.Timed
    plain: host.Timed | None
    peer: host.Timed | None


def igvm(path: Path, *, pages: int, data: bool) -> int:
    """Write an SNP IGVM file by hand; offset of its data. Layout: the IGVM specification."""
    header_bytes = 24 + 24 + 24 + pages * 32
    with path.open("wb") as file:
        file.write(bytes(24))
        file.write(struct.pack("<IIIBBHQ", 0x1, 16, MASK, 0, 2, 1, 0))
        file.write(struct.pack("<IIQII", 0x101, 16, 0x30000, MASK, 0))
        for number in range(pages):
            offset = header_bytes + number * PAGE_BYTES if data else 0
            gpa = (1 << 20) + number * PAGE_BYTES
            file.write(struct.pack("<IIQIIIHH", 0x302, 24, gpa, MASK, offset, 0, 0, 0))
        noise = hashlib.shake_256(b"igvm").digest(PAGE_BYTES - 8)
        for number in range(pages if data else 1):
            file.write(number.to_bytes(8, "little") + noise)
        size_bytes = file.tell()
    with path.open("r+b") as file:
        fixed = struct.pack("<IIIII", 0x4D564749, 1, 24, header_bytes - 24, size_bytes)
        file.seek(24)
        checksum = zlib.crc32(fixed + bytes(4))
        left = header_bytes - 24
        while left:
            piece = file.read(min(left, 1 << 20))
            checksum = zlib.crc32(piece, checksum)
            left -= len(piece)
        file.seek(0)
        file.write(fixed + struct.pack("<I", checksum))
    return header_bytes


def best(command: list[str | Path]) -> host.Timed:
    """The fastest of the repeats."""
    return min((host.timed(command) for _ in range(REPEATS)), key=lambda run: run.wall_s)


def said(command: list[str | Path]) -> str:
    """What ``command`` prints, last word, lower case."""
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.split()[-1].lower()


def igvm_row(work: Path, mebibytes: int) -> Row:
    """An IGVM file with so much data."""
    path = work / "data.igvm"
    offset = igvm(path, pages=mebibytes * 256, data=True)
    ours: list[str | Path] = [BIN / "troth", "measure", "igvm", path, "--bare"]
    row = Row(
        name=f"IGVM, {mebibytes} MiB of pages",
        ours=best(ours),
        plain=best([BIN / "python", "-c", PLAIN, path, str(offset)]),
        peer=None,
    )
    path.unlink()
    return row


def zeros_row(work: Path) -> Row:
    """A file whose guest has more memory than most machines that measure it."""
    path = work / "zeros.igvm"
    igvm(path, pages=6 << 18, data=False)
    row = Row(
        name="IGVM, 6 GiB of pages without data",
        ours=best([BIN / "troth", "measure", "igvm", path, "--bare"]),
        plain=None,
        peer=None,
    )
    path.unlink()
    return row


def direct_row(work: Path) -> Row:
    """A 4 MiB firmware, 15 MiB kernel and 64 MiB initrd, four processors."""
    sys.path.insert(0, str(REPOSITORY / "tests"))
    import made_firmware

    firmware = work / "firmware.fd"
    firmware.write_bytes(made_firmware.firmware(size=4 << 20))
    kernel, initrd = work / "kernel", work / "initrd"
    kernel.write_bytes(hashlib.shake_256(b"kernel").digest(15 << 20))
    initrd.write_bytes(hashlib.shake_256(b"initrd").digest(64 << 20))
    common: list[str | Path] = [
        "--ovmf", firmware, "--kernel", kernel, "--initrd", initrd, "--append", "console=ttyS0",
        "--vcpus", "4", "--vcpu-type", "EPYC-v4",
    ]  # fmt: skip
    ours = [BIN / "troth", "measure", "launch", *common]
    peer = [BIN / "sev-snp-measure", "--mode", "snp", "--output-format", "hex", *common]
    if said(ours) != said(peer):
        raise SystemExit("bench: the two launch digests differ")
    return Row(
        name="direct boot, 4 MiB firmware, 79 MiB kernel and initrd",
        ours=best(ours),
        plain=best([BIN / "python", "-c", PLAIN, firmware, "0", kernel, initrd]),
        peer=best(peer),
    )


def markdown(rows: list[Row]) -> str:
    """The section of docs/performance.md."""
    lines = [
        BEGIN,
        "",
        "## Launch digests on this machine",
        "",
        f"Python {platform.python_version()}; whole commands, best of {REPEATS}.",
        "",
        "| input | troth s | plain hashes s | times plain | sev-snp-measure s | troth peak MB |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        plain = f"{row.plain.wall_s:.2f}" if row.plain else ""
        times = f"{row.ours.wall_s / row.plain.wall_s:.2f}" if row.plain else ""
        peer = f"{row.peer.wall_s:.2f}" if row.peer else ""
        peak = f"{row.ours.peak_bytes / 1e6:.1f}"
        lines.append(
            f"| {row.name} | {row.ours.wall_s:.2f} | {plain} | {times} | {peer} | {peak} |"
        )
    lines += [
        "",
        "Plain is one process that hashes the pages, one by one, and does nothing else; of a",
        "direct boot the firmware's pages, and kernel and initrd as a whole with SHA-256.",
        "",
        END,
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    """Measure, print, and write the section."""
    with tempfile.TemporaryDirectory(prefix="digests.", dir=REPOSITORY / "build") as name:
        work = Path(name)
        rows = [igvm_row(work, 64), igvm_row(work, 512), zeros_row(work), direct_row(work)]
    figures = markdown(rows)
    print(figures)
    before = DOCUMENT.read_text()
    if BEGIN in before:
        head, tail = before.split(BEGIN)[0], before.split(END)[1].lstrip("\n")
        DOCUMENT.write_text(head + figures + tail)
    else:
        DOCUMENT.write_text(before.rstrip("\n") + "\n\n" + figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
