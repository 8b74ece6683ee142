# SPDX-License-Identifier: Apache-2.0
"""scripts/bench agent: what a request costs inside a guest, and 2,000 reports through its socket.

One boot with a simulated processor, whose clock counts instructions: 1 ns is 1 instruction. The
next init is ``agent_calls.c``, which asks and reads the clock. Writes its part of
docs/performance.md; ``--quick`` asks less, and writes nothing. A request that is not answered
with 200, a missed target, memory or descriptors that grow are failures, not figures.

Source: DESIGN section 10; QEMU, docs/devel/tcg-icount.rst; Linux,
Documentation/scheduler/sched-stats.rst (schedstat).
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY / "agent"))

from troth.record import record  # noqa: E402 - needs the path above

TROTH = REPOSITORY / ".venv/bin/troth"
DOCUMENT = REPOSITORY / "docs/performance.md"
BEGIN, END = "<!-- figures: scripts/bench agent -->", "<!-- end of agent figures -->"
TARGET_INSTRUCTIONS = 3_000_000
#: What the interpreter's own free lists may still move by, once warm: 128 bytes a report.
ALLOWED_KIB = 256
TIMEOUT_S = 3600
#: Idle time would pass at the pace of this machine; the guest's init lets there be none.
ICOUNT = "shift=0,sleep=on"
MANIFEST = """[image]
name = "bench-agent"
svn = 1
kernel = "debian:linux-image-6.12-cloud-amd64"
[root]
source = "root"
overlay = "none"
[tee]
snp = "simulated"
vtpm = "none"
[attest]
group = 900
"""
#: name, what it is in the table, over one connection, method, path
REQUESTS = (
    ("healthz", "`GET /healthz`", False, "GET", "/healthz"),
    ("info", "`GET /v1/info`", False, "GET", "/v1/info"),
    ("report", "`POST /v1/report`", False, "POST", "/v1/report"),
    ("evidence", "`POST /v1/evidence`", False, "POST", "/v1/evidence"),
    ("info-kept", "`GET /v1/info`, connection kept", True, "GET", "/v1/info"),
    ("report-kept", "`POST /v1/report`, connection kept", True, "POST", "/v1/report"),
)
_SAMPLE = re.compile(r"^bench-agent sample (\S+) (\d+) (\d+) (\d+)$", re.MULTILINE)
_HELD = re.compile(r"^bench-agent held (\d+) (\d+)$", re.MULTILINE)


@record
class Row:
    """Instructions of one kind of request. ``paths``: without the provider's time, one for each;
    ``processor``: all threads of the agent, the median.
    """

    words: str
    paths: tuple[int, ...]
    processor: int

    @property
    def median(self) -> int:
        """The median of ``paths``."""
        return round(statistics.median(self.paths))


@record
class Held:
    """What the agent holds: resident KiB, open descriptors."""

    resident_kib: int
    descriptors: int


@record
class Measured:
    """Of one guest: ``before`` and ``after`` so many ``reports``."""

    rows: tuple[Row, ...]
    before: Held
    after: Held
    repeats: int
    warm: int
    reports: int


def measured(work: Path, *, repeats: int, warm: int, reports: int) -> Measured:
    """Build, boot, and read the console; ``SystemExit`` where the guest did not do all of it."""
    words = [
        f"time {name} {repeats} {int(kept)} {method} {path}"
        for name, _words, kept, method, path in REQUESTS
    ]
    words.append(f"grow {warm} {reports}")
    for name in ("sbin", "etc"):
        (work / "root" / name).mkdir(parents=True)
    (work / "root/etc/words").write_text("\n".join(words) + "\n")
    subprocess.run(
        ["gcc", "-D_GNU_SOURCE", "-static", "-O1", "-s", "-o", work / "root/sbin/init",
         Path(__file__).with_name("agent_calls.c")],
        check=True,
    )  # fmt: skip
    (work / "troth.toml").write_text(MANIFEST)
    subprocess.run([TROTH, "build", work / "troth.toml", "-o", work / "bundle"], check=True)
    console = work / "console"
    found = subprocess.run(
        [TROTH, "run", work / "bundle", "--sim-snp", "--accel", "tcg", "--console", console,
         "--timeout", str(TIMEOUT_S), "--json", "--qemu-arg=-icount", f"--qemu-arg={ICOUNT}"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    said = console.read_text("utf-8", "replace").replace("\r", "")
    if found.returncode or "\nbench-agent done\n" not in said:
        raise SystemExit(f"bench: the guest failed: {found.stdout}{found.stderr}{said[-2000:]}")
    print(f"bench: the guest took {json.loads(found.stdout)['duration_s']:.0f} s", file=sys.stderr)
    samples = [(name, int(a), int(b), int(c)) for name, a, b, c in _SAMPLE.findall(said)]
    rows = []
    for name, text, *_ in REQUESTS:
        of_it = [sample for sample in samples if sample[0] == name]
        if len(of_it) != repeats:
            raise SystemExit(f"bench: {len(of_it)} samples of {name}, not {repeats}")
        paths = tuple(wall - provider for _name, wall, provider, _processor in of_it)
        rows.append(Row(text, paths, round(statistics.median(sample[3] for sample in of_it))))
    before, after = (Held(int(kib), int(fds)) for kib, fds in _HELD.findall(said))
    return Measured(tuple(rows), before, after, repeats, warm, reports)


def markdown(found: Measured) -> str:
    """The section of docs/performance.md."""
    table = "\n".join(
        f"| {row.words} | {row.median / 1e6:.2f} | {min(row.paths) / 1e6:.2f} "
        f"| {max(row.paths) / 1e6:.2f} | {row.processor / 1e6:.2f} |"
        for row in found.rows
    )
    before, after = found.before, found.after
    return f"""\
{BEGIN}

## A request inside a guest

Kernel 6.12, one processor, simulated SNP, no vTPM; a C program asks, {found.repeats} times each
after a warm-up. The clock counts instructions (`-icount {ICOUNT}`): 1 ns is 1 instruction, of
user space and kernel alike, and a child without priority keeps the guest from ever being idle.

"Path" is the time from before connect() until the whole answer is read, as the asking program
sees it, less what the agent adds to `troth_provider_seconds_total` meanwhile: the time between
handing a question to its worker and getting the outcome back. Waiting for turns (two seconds lie
between two reports), kernel, front and host are in that time; so is what the worker does itself,
which for evidence is to read, replay and print the log. It is therefore in the last column:
"processor" is what all threads of the agent ran, by the kernel's schedstat, the kernel's work for
them included; no part of it is subtracted. Target: path at most 3 M.

| request | path M (median) | least | most | processor M (median) |
|---|---|---|---|---|
{table}

Then {found.reports:,} reports through the socket, each with a nonce and a connection of its own,
paced as always, after {found.warm} that warm the agent up: resident memory {before.resident_kib:,}
KiB before and {after.resident_kib:,} KiB after, descriptors {before.descriptors} before and
{after.descriptors} after. More than {ALLOWED_KIB} KiB or one descriptor is a failure.

{END}
"""


def missed(found: Measured) -> list[str]:
    """What is not as it must be."""
    wrong = [
        f"{row.words}: {row.median} instructions"
        for row in found.rows
        if row.median > TARGET_INSTRUCTIONS
    ]
    if found.after.resident_kib - found.before.resident_kib > ALLOWED_KIB:
        wrong.append("the agent's memory grows")
    if found.after.descriptors > found.before.descriptors:
        wrong.append("the agent's descriptors grow")
    return wrong


def main() -> int:
    """Measure, print, and write the section."""
    parser = argparse.ArgumentParser(prog="scripts/bench agent", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="ask less, write no document")
    options = parser.parse_args()
    for program in ("gcc", "qemu-system-x86_64"):
        if shutil.which(program) is None:
            print(f"bench: needs {program}", file=sys.stderr)
            return 3
    (REPOSITORY / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="agent.", dir=REPOSITORY / "build") as name:
        found = measured(
            Path(name),
            repeats=5 if options.quick else 50,
            warm=20 if options.quick else 100,
            reports=50 if options.quick else 2_000,
        )
    figures = markdown(found)
    print(figures)
    if not options.quick:
        before = DOCUMENT.read_text()
        if BEGIN in before:
            head, tail = before.split(BEGIN)[0], before.split(END)[1].lstrip("\n")
            DOCUMENT.write_text(head + figures + tail)
        else:
            DOCUMENT.write_text(before.rstrip("\n") + "\n\n" + figures)
    for line in missed(found):
        print(f"bench: {line}", file=sys.stderr)
    return 1 if missed(found) else 0


if __name__ == "__main__":
    sys.exit(main())
