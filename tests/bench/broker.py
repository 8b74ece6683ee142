# SPDX-License-Identifier: Apache-2.0
"""scripts/bench broker: guests that boot at once, and how long each waits for its key.

The broker is ``troth keybroker serve`` as it is, on this machine, with a volume for
each guest. Guests are threads of one other process: each makes a TLS connection,
takes a nonce, has a simulated processor's key sign a report, and asks for its
volume's key, which it decrypts. Told to come again (429, 503) it does so after the
second it was told. A guest that is lost, or a key that went out twice, is a
failure, not a figure. Writes its part of docs/performance.md; ``--quick`` does less,
and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import resource
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
sys.path[:0] = [str(REPOSITORY / "agent"), str(REPOSITORY / "tests")]

import made_broker as made  # noqa: E402 - needs the path above
from made_platform import platform as made_platform  # noqa: E402 - likewise
from troth.ciphers.key_agreement import AgreementKey  # noqa: E402 - likewise
from troth.keybroker import classes, resources, store  # noqa: E402 - likewise
from troth.keybroker.volume_state import Volume  # noqa: E402 - likewise
from troth.record import record  # noqa: E402 - likewise
from troth.simulated import pki as pkis  # noqa: E402 - likewise

BIN = REPOSITORY / ".venv/bin"
DOCUMENT = REPOSITORY / "docs/performance.md"
BEGIN, END = "<!-- figures: scripts/bench broker -->", "<!-- end of broker figures -->"
AT_ONCE = (1, 10, 100)
MAX_TRIES = 20
STEADY_GUESTS = 4


@record
class Crowd:
    """``guests`` at once, ``rounds`` times: seconds of each guest, sorted; ``tries``: the most
    that one guest needed; ``lost``: numbers of guests without a key; ``took_s``: all rounds.
    """

    guests: int
    rounds: int
    waits_s: list[float]
    tries: int
    lost: list[int]
    took_s: float

    @property
    def per_s(self) -> float:
        """Whole handshakes with their release each second."""
        return len(self.waits_s) / self.took_s

    def share(self, part: float) -> float:
        """The wait that this part of the guests did not exceed, in ms."""
        index = min(len(self.waits_s) - 1, int(part * len(self.waits_s)))
        return self.waits_s[index] * 1e3


class Serving:
    """``troth keybroker serve`` over the directory ``work``/db."""

    def __init__(self, work: Path) -> None:
        words = ["--listen", "127.0.0.1:0", "--policy", "policy.toml", "--certs", "sim/certs"]
        self.process = subprocess.Popen(
            [BIN / "troth", "keybroker", "serve", "--db", "db", *words],
            cwd=work,
            stdout=subprocess.PIPE,
            text=True,
        )
        said = ""
        for line in self.process.stdout or ():
            said += line
            if line.startswith("spki"):
                break
        found = re.search(r"https://127\.0\.0\.1:(\d+)", said)
        if found is None:
            raise SystemExit(f"bench: the broker does not serve: {said}")
        self.port = int(found[1])

    @property
    def resident_bytes(self) -> int:
        """Now."""
        text = Path(f"/proc/{self.process.pid}/statm").read_text("ascii")
        return int(text.split()[1]) * resource.getpagesize()

    @property
    def descriptors(self) -> int:
        """Open now."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    @property
    def busy_s(self) -> float:
        """Processor time so far."""
        parts = Path(f"/proc/{self.process.pid}/stat").read_text("ascii").rpartition(")")[2].split()
        return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        """Must be in order."""
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(30) != 0:
            raise SystemExit("bench: the broker did not end in order")


def prepared(work: Path, volumes: int) -> pkis.Pki:
    """A database with one class and ``volumes`` volumes, and the platform of its guests."""
    pki = made_platform("Genoa")
    (work / "sim").mkdir()
    pkis.store(pki, work / "sim")
    (work / "policy.toml").write_text(made.platform_policy(pki))
    kept = store.create(work / "db", "simulated")
    now = int(time.time())
    values = made.document(made.values(expires="never"))
    classes.add(kept, values, [made.signer().public], pending=False, at=now)
    for number in range(volumes):
        resources.add_volume(
            kept,
            f"default/disk-key/v{number}",
            uuid=f"{number:08x}{made.UUID[8:]}",
            profile=made.PROFILE,
            key=made.KEY,
            images=["demo"],
            volume=Volume(),
            at=now,
        )
    kept.close()
    return pki


class Guest(threading.Thread):
    """One boot: waits for ``begin``, then asks until it has its key or has tried enough."""

    def __init__(self, port: int, pki: pkis.Pki, number: int, begin: threading.Barrier) -> None:
        super().__init__(daemon=True)
        self.port, self.pki, self.number, self.begin = port, pki, number, begin
        self.key = AgreementKey()
        self.wait_s = 0.0
        self.tries = 0
        self.good = False

    def run(self) -> None:
        """Ask."""
        self.begin.wait()
        start = time.perf_counter()
        while not self.good and self.tries < MAX_TRIES:
            self.tries += 1
            try:
                self.good = self._asked()
            except (OSError, AssertionError):
                self.good = False
            if not self.good:
                time.sleep(1)
        self.wait_s = time.perf_counter() - start

    def _asked(self) -> bool:
        report_id = self.number.to_bytes(32, "little")
        with made.Client(self.port, timeout_s=60) as client:
            guest = made.Guest(client, key=self.key, report_id=report_id)
            nonce = guest.auth()
            evidence = made.platform_evidence(self.pki, guest.digest(nonce), report_id)
            if guest.attest(nonce, evidence)[0] != 200:
                return False
            status, text = guest.get(f"default/disk-key/v{self.number}")
            return status == 200 and json.loads(text)["volume"].startswith(f"{self.number:08x}")


def crowd(serving: Serving, pki: pkis.Pki, *, guests: int, rounds: int, first: int) -> Crowd:
    """``guests`` at once, again and again; each is another boot, from number ``first`` on."""
    waits: list[float] = []
    lost: list[int] = []
    tries, took_s = 0, 0.0
    for turn in range(rounds):
        begin = threading.Barrier(guests + 1)
        threads = [
            Guest(serving.port, pki, first + turn * guests + number, begin)
            for number in range(guests)
        ]
        for thread in threads:
            thread.start()
        begin.wait()
        start = time.perf_counter()
        for thread in threads:
            thread.join()
        took_s += time.perf_counter() - start
        waits += [thread.wait_s for thread in threads if thread.good]
        lost += [thread.number for thread in threads if not thread.good]
        tries = max(tries, *(thread.tries for thread in threads))
    return Crowd(guests, rounds, sorted(waits), tries, lost, took_s)


def twice(work: Path, guests: int) -> list[str]:
    """Resources that the audit log says went out not exactly once."""
    lines = (work / "db/audit.jsonl").read_text("utf-8").splitlines()
    released = [json.loads(line) for line in lines]
    paths = [item["resource"] for item in released if item["code"] == "released"]
    wanted = {f"default/disk-key/v{number}" for number in range(guests)}
    return sorted({path for path in paths if paths.count(path) != 1} | (wanted ^ set(paths)))


def markdown(
    crowds: list[Crowd], serving: tuple[int, int, int, int], cost_ms: float, load: float
) -> str:
    """The section of the document."""
    rows = "\n".join(
        f"| {item.guests} | {item.rounds} | {item.per_s:.0f} | {item.share(0.5):.0f} | "
        f"{item.share(0.99):.0f} | {item.waits_s[-1] * 1e3:.0f} | {item.tries} |"
        for item in crowds
    )
    before, after, opened, left = serving
    return f"""\
{BEGIN}

## The key broker on this machine

`scripts/bench broker`. Python {platform.python_version()}, OpenSSL
{ssl.OPENSSL_VERSION.split(" ")[1]}, load of the machine at the start {load:.1f};
{os.cpu_count()} processors, which the guests share: they are threads of one Python process beside
the broker. A handshake is a TLS connection, a nonce, a report that is signed and judged with its
chain, and a key released, written down on the disk, and decrypted. Nobody was lost, and no key went
out twice.

| guests at once | rounds | handshakes/s | median ms | p99 ms | slowest ms | most tries |
|---|---|---|---|---|---|---|
{rows}

Processor time of the broker: {cost_ms:.1f} ms a handshake.
Resident memory {before / 1e6:.0f} MB before, {after / 1e6:.0f} MB after; descriptors {opened}
and {left}.

{END}
"""


def main() -> int:
    """Measure, print, and write the section."""
    parser = argparse.ArgumentParser(prog="scripts/bench broker", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything, no document")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    rounds = {1: 5, 10: 2, 100: 1} if options.quick else {1: 100, 10: 20, 100: 10}
    total = sum(guests * rounds[guests] for guests in AT_ONCE) + STEADY_GUESTS
    (REPOSITORY / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="broker.", dir=REPOSITORY / "build") as name:
        work = Path(name)
        pki = prepared(work, total)
        serving = Serving(work)
        crowds = [crowd(serving, pki, guests=1, rounds=STEADY_GUESTS, first=0)]
        first, before, opened = STEADY_GUESTS, serving.resident_bytes, serving.descriptors
        busy_s, crowds = serving.busy_s, []
        for guests in AT_ONCE:
            crowds.append(crowd(serving, pki, guests=guests, rounds=rounds[guests], first=first))
            first += guests * rounds[guests]
        cost_ms = (serving.busy_s - busy_s) * 1e3 / (total - STEADY_GUESTS)
        time.sleep(0.5)
        state = (before, serving.resident_bytes, opened, serving.descriptors)
        serving.end()
        wrong = [f"guest {number} had no key" for item in crowds for number in item.lost]
        wrong += [f"{path} did not go out once" for path in twice(work, total)]
    figures = markdown(crowds, state, cost_ms, load)
    print(figures)
    for line in wrong:
        print(f"bench: {line}", file=sys.stderr)
    if not options.quick and not wrong:
        old = DOCUMENT.read_text()
        if BEGIN in old:
            head, tail = old.split(BEGIN)[0], old.split(END)[1].lstrip("\n")
            DOCUMENT.write_text(head + figures + tail)
        else:
            DOCUMENT.write_text(old.rstrip("\n") + "\n\n" + figures)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
