# SPDX-License-Identifier: Apache-2.0
"""scripts/bench reports: what it costs to judge a report, and to give many of them.

Judging: the four signatures of a report (root, intermediate, key, report) by
``troth verify report``, beside openssl's commands for the same four and beside
its library. Giving: an agent before a simulated processor, asked by 1 to 1,000
callers at once, then by more than it has room for. Writes its part of
docs/performance.md; ``--quick`` does less, and writes nothing. A caller that is
lost, turned away four times, or memory that grows is a failure, not a figure.
"""

from __future__ import annotations

import argparse
import hashlib
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

REPOSITORY = Path(__file__).parents[2]
sys.path[:0] = [str(REPOSITORY / "agent"), str(REPOSITORY / "tests")]

import callers  # noqa: E402 - needs the path above
from cryptography import x509  # noqa: E402 - after the path, as the rest
from cryptography.hazmat.primitives import hashes  # noqa: E402 - likewise
from cryptography.hazmat.primitives.asymmetric import ec, utils  # noqa: E402 - likewise
from cryptography.hazmat.primitives.serialization import (  # noqa: E402 - likewise
    Encoding,
    PublicFormat,
)

import made_pki  # noqa: E402 - needs the path above
from troth.abi import snp_report  # noqa: E402 - needs the path above
from troth.documents import appraisal_policy_toml, instant  # noqa: E402 - needs the path above
from troth.record import record  # noqa: E402 - needs the path above
from troth.verify.appraise import appraise, judge_chain  # noqa: E402 - needs the path above
from troth.verify.endorsing import endorsements  # noqa: E402 - needs the path above
from troth.verify.policy_text import policy_text  # noqa: E402 - needs the path above

if TYPE_CHECKING:
    from collections.abc import Callable

BIN = REPOSITORY / ".venv/bin"
DOCUMENT = REPOSITORY / "docs/performance.md"
BEGIN, END = "<!-- figures: scripts/bench reports -->", "<!-- end of report figures -->"
REPORT_DATA = bytes(range(64))
TARGET_RESIDENT_BYTES = 25_000_000
#: What the interpreter's own free lists may still move by, once warm.
ALLOWED_BYTES = 1 << 20
CLIENTS = (1, 10, 100, 1000)
MIN_BUSY, MAX_TRIES = 8, 4


@record
class Judged:
    """Seconds, best of the repeats."""

    command_s: float
    openssl_command_s: float
    in_process_s: float
    openssl_in_process_s: float


@record
class Given:
    """All of one agent: (reports, other requests) by clients, memory before and after."""

    rows: list[tuple[callers.Load, callers.Load]]
    fresh: callers.Memory
    warm: callers.Memory
    after: callers.Memory
    reports: int


@record
class Crowded:
    """More callers than slots: what became of them, and the fewest slots that were taken."""

    load: callers.Load
    slots: int
    least_busy: int


def best(repeats: int, work: Callable[[], object]) -> float:
    """The fastest of ``repeats`` calls, in seconds."""
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return min(found)


def judged(work: Path, repeats: int) -> Judged:
    """Both verifiers over the same report and the same certificates."""
    pki = made_pki.Pki("Genoa")
    report = pki.report(version=5, report_data=REPORT_DATA)
    at = round(made_pki.NOW.timestamp())
    policy = policy_text(permissive=True, simulated=False, unprotected_acpi=False)
    policy = policy.replace("trusted_roots = []", f'trusted_roots = ["{pki.root_sha256}"]', 1)
    files = {"ark.pem": pki.ark, "ask.pem": pki.ca, "vek.pem": pki.vek}
    (work / "certs").mkdir()
    for name, der in files.items():
        (work / "certs" / name).write_bytes(made_pki.pem(der))
    (work / "report.bin").write_bytes(report)
    (work / "policy.toml").write_text(policy)
    _for_openssl(work, report, pki.key.public_key())
    parsed = appraisal_policy_toml.parse(policy.encode(), where="policy.toml")

    def ours() -> None:
        found = snp_report.parse(report)
        result = appraise(
            found,
            judge_chain(found, endorsements.collect(list(files.items())), parsed, at=at),
            parsed,
            policy_sha256=hashlib.sha256(policy.encode()).hexdigest(),
            expected_report_data=REPORT_DATA,
            at=at,
        )
        if result.overall != "partial":
            raise SystemExit(f"bench: the report is judged {result.overall}")

    def theirs() -> None:
        ark, ask, vek = (x509.load_der_x509_certificate(der) for der in files.values())
        ark.verify_directly_issued_by(ark)
        ask.verify_directly_issued_by(ark)
        vek.verify_directly_issued_by(ask)
        key = vek.public_key()
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(_der_of(report), report[:672], ec.ECDSA(hashes.SHA384()))

    certs, time_ = work / "certs", instant.print_(at)
    command = [BIN / "troth", "verify", "report", work / "report.bin", "--certs", certs,
               "--policy", work / "policy.toml", "--report-data", REPORT_DATA.hex(),
               "--at", time_]  # fmt: skip
    chain = ["openssl", "verify", "-attime", str(at), "-check_ss_sig", "-CAfile",
             certs / "ark.pem", "-untrusted", certs / "ask.pem", certs / "vek.pem"]  # fmt: skip
    signature = ["openssl", "dgst", "-sha384", "-verify", work / "vek.pub", "-signature",
                 work / "signature", work / "signed"]  # fmt: skip

    def run(*commands: list[str | Path]) -> None:
        for words in commands:
            subprocess.run(words, check=True, capture_output=True)

    with made_pki.no_warning_about_serials():
        return Judged(
            command_s=best(repeats, lambda: run(command)),
            openssl_command_s=best(repeats, lambda: run(chain, signature)),
            in_process_s=best(repeats * 5, ours),
            openssl_in_process_s=best(repeats * 5, theirs),
        )


def _der_of(report: bytes) -> bytes:
    r, s = (int.from_bytes(report[at : at + 72], "little") for at in (0x2A0, 0x2E8))
    return utils.encode_dss_signature(r, s)


def _for_openssl(work: Path, report: bytes, key: ec.EllipticCurvePublicKey) -> None:
    """What openssl takes: the signed bytes, the signature as DER, the key by itself."""
    (work / "signed").write_bytes(report[:672])
    (work / "signature").write_bytes(_der_of(report))
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (work / "vek.pub").write_bytes(pem)


def given(work: Path, *, requests: int, steady: int) -> Given:
    """Loads of one agent that is not slowed down; then ``steady`` reports, and its memory."""
    callers.room_for(max(CLIENTS))
    rows = []
    with callers.running(work, interval_s=0) as agent:
        callers.Crowd(agent, 1, each=1, reports=True).play()
        fresh = agent.memory()
        for clients in CLIENTS:
            each = max(2, requests // clients)
            loads = [
                callers.Crowd(agent, clients, each=each, reports=reports).play()
                for reports in (True, False)
            ]
            rows.append((loads[0], loads[1]))
            print(f"{clients} clients: {loads[0].per_second:.0f} reports/s", file=sys.stderr)
        _settled(agent)
        warm = agent.memory()
        callers.Crowd(agent, 10, each=steady // 10, reports=True).play()
        _settled(agent)
        after = agent.memory()
    return Given(rows=rows, fresh=fresh, warm=warm, after=after, reports=steady)


def _settled(agent: callers.Agent) -> None:
    """Wait until the agent has seen that all callers are gone."""
    deadline = time.monotonic() + callers.PATIENCE_S
    while agent.gauge("troth_agent_connections") > 1:
        if time.monotonic() > deadline:
            raise SystemExit("bench: connections stay open")
        time.sleep(0.05)
    # The one that asked for the figure is gone as well then.
    time.sleep(0.5)


def crowded(work: Path, clients: int) -> Crowded:
    """All at once, before a processor as slow as a real one: one report in two seconds."""
    busy = []
    with callers.running(work, interval_s=2.0) as agent:
        slots = agent.gauge("troth_agent_report_slots")

        def look(crowd: callers.Crowd) -> None:
            if crowd.unserved > slots:
                busy.append(agent.gauge("troth_agent_reports_waiting"))

        crowd = callers.Crowd(agent, clients, each=1, reports=True)
        load = crowd.play(every_s=0.25, look=look)
    if not busy or not load.later:
        raise SystemExit("bench: nobody was turned away, this shows nothing")
    return Crowded(load=load, slots=slots, least_busy=min(busy))


def markdown(one: Judged, many: Given, crowd: Crowded) -> str:
    """The section of docs/performance.md."""
    version = subprocess.run(["openssl", "version"], check=True, capture_output=True, text=True)
    openssl = " ".join(version.stdout.split()[:2])
    loads = "\n".join(
        f"| {reports.clients} | {reports.per_second:.0f} | {reports.tries} | {reports.later} "
        f"| {info.per_second:.0f} |"
        for reports, info in many.rows
    )
    fresh, warm, after, peak = (
        f"{size_bytes / 1e6:.1f} MB"
        for size_bytes in (
            many.fresh.resident_bytes,
            many.warm.resident_bytes,
            many.after.resident_bytes,
            many.after.peak_bytes,
        )
    )
    return f"""\
{BEGIN}

## Reports on this machine

Python {platform.python_version()}, {openssl}; best of the repeats. The signatures are
those of root, intermediate and key (RSA-4096 with PSS) and of the report (ECDSA P-384).

| the same four signatures | troth ms | openssl ms |
|---|---|---|
| `troth verify report`; `openssl verify` and `openssl dgst` | {one.command_s * 1e3:.0f} \
| {one.openssl_command_s * 1e3:.0f} |
| in one process: every check; reading certificates and signatures | {one.in_process_s * 1e3:.2f} \
| {one.openssl_in_process_s * 1e3:.2f} |

An agent that is not slowed down; it, a simulated processor and all callers share this machine.
Every request was answered. Who is told to come back waits whole seconds, hence the last row.

| clients | reports/s | most tries | told to come back | other requests/s |
|---|---|---|---|---|
{loads}

Resident memory of the agent: {fresh} after its first report, {peak} at most, with 1,000
connections; {warm} before and {after} after {many.reports:,} further reports.
Descriptors: {many.warm.descriptors} before and {many.after.descriptors} after these.

Overload, one report in two seconds and {crowd.load.clients} callers at once: all had theirs
after {crowd.load.took_s:.0f} s, with {crowd.load.tries} tries at most. Of {crowd.slots} slots
at least {crowd.least_busy} were taken as long as more callers than slots were left.

{END}
"""


def missed(many: Given, crowd: Crowded) -> list[str]:
    """What is not as it must be."""
    found = []
    if many.fresh.resident_bytes > TARGET_RESIDENT_BYTES:
        found.append(f"the agent holds {many.fresh.resident_bytes} bytes")
    if many.after.resident_bytes - many.warm.resident_bytes > ALLOWED_BYTES:
        found.append("the agent's memory grows")
    if many.after.descriptors > many.warm.descriptors:
        found.append("the agent's descriptors grow")
    tries = max(load.tries for row in many.rows for load in row)
    if max(tries, crowd.load.tries) > MAX_TRIES:
        found.append("a caller was turned away more than three times")
    if crowd.least_busy < MIN_BUSY:
        found.append(f"only {crowd.least_busy} slots were taken under overload")
    return found


def main() -> int:
    """Measure, print, and write the section."""
    parser = argparse.ArgumentParser(prog="scripts/bench reports", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything, no document")
    options = parser.parse_args()
    (REPOSITORY / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="reports.", dir=REPOSITORY / "build") as name:
        work = Path(name)
        one = judged(work, 3 if options.quick else 20)
        many = given(
            work,
            requests=500 if options.quick else 5_000,
            steady=1_000 if options.quick else 20_000,
        )
        crowd = crowded(work, 14 if options.quick else 40)
    figures = markdown(one, many, crowd)
    print(figures)
    if not options.quick:
        before = DOCUMENT.read_text()
        if BEGIN in before:
            head, tail = before.split(BEGIN)[0], before.split(END)[1].lstrip("\n")
            DOCUMENT.write_text(head + figures + tail)
        else:
            DOCUMENT.write_text(before.rstrip("\n") + "\n\n" + figures)
    for line in missed(many, crowd):
        print(f"bench: {line}", file=sys.stderr)
    return 1 if missed(many, crowd) else 0


if __name__ == "__main__":
    sys.exit(main())
