# SPDX-License-Identifier: Apache-2.0
"""Which certificates a report needs, from the cache or from the service, each checked.

Serves ``troth certs fetch``. Everything is checked against the report and its
hierarchy before it is kept, whether it comes from the network or from the
cache, so that a wrong answer cannot hide the right one. That does not make the
report good: the verifier judges it, offline, later.

Source: AMD 57230, chapter "KDS"; sheet snp 4.1 to 4.3.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from troth.abi import snp_report, snp_tcb
from troth.documents.verdict import PASS
from troth.errors import FormatError, HostError
from troth.record import record
from troth.signing import certificate_files, certificates, revocation_lists
from troth.verify.endorsing import kds, links
from troth.verify.endorsing.links import Links, Path, Question
from troth.verify.endorsing.roots import AMD_ROOTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from troth.abi.snp_report import SnpReport
    from troth.signing.certificates import Certificate
    from troth.verify.endorsing.kds import Service
    from troth.verify.endorsing.kds_cache import Cache

LIST_AGE_S = 24 * 3600.0
"""A revocation list that was fetched longer ago is fetched anew."""

HIERARCHIES = {snp_report.VCEK: "ask", snp_report.VLEK: "asvk"}
_KEY_STEPS = (
    "certificate-key",
    "certificate-extensions",
    "certificate-tcb",
    "certificate-chip",
    "certificate-validity",
)


@record
class Fetched:
    """``files``: (plain name, content); ``notes``: what the user should know."""

    files: tuple[tuple[str, bytes], ...]
    notes: tuple[str, ...]


@record
class Hierarchy:
    """Root, intermediate, and the files they and their list make."""

    root: Certificate
    intermediate: Certificate
    fetched: Fetched


class Fetcher:
    """Asks ``service`` for what ``cache`` has not, at the aware time ``at``."""

    def __init__(self, service: Service, cache: Cache, *, at: datetime | None = None) -> None:
        self._service = service
        self._cache = cache
        self._at = at or datetime.now(UTC)
        # One service's answers are no other's.
        self._prefix = hashlib.sha256(service.url.encode()).hexdigest()[:16] + "/"

    def for_report(self, report: SnpReport) -> Fetched:
        """What the report's chain needs.

        Raises ``FormatError``: ``kds-report`` (unsigned, or of no known product),
        ``kds-chip`` (masked), ``kds-mismatch``, and as ``Service.get``.
        """
        problem = links.unsigned_problem(report)
        if problem:
            raise FormatError("kds-report", f"no certificate belongs to this report: {problem}")
        if report.signing_key == snp_report.VLEK:
            return self._for_vlek(report)
        if not any(report.chip_id):
            raise FormatError(
                "kds-chip",
                "the host masks the chip id, which the service needs",
                hint="ask the host's operator for the chip's certificate (VCEK)",
            )
        *others, last = lines_of(report)
        for line in others:
            try:
                return self._for_vcek(report, line)
            except FormatError as error:
                if error.code != "kds-unknown":
                    raise
        return self._for_vcek(report, last)

    def for_lines(self) -> Fetched:
        """The hierarchies and lists of every line, for reports to come."""
        files: dict[str, bytes] = {}
        notes: list[str] = []
        for line in AMD_ROOTS:
            for signer in HIERARCHIES:
                own = self.hierarchy(line, signer).fetched
                files.update(own.files)
                notes += own.notes
        return Fetched(tuple(files.items()), tuple(notes))

    def _for_vcek(self, report: SnpReport, line: str) -> Fetched:
        hierarchy = self.hierarchy(line, snp_report.VCEK)
        vcek, name = self._vcek(report, line, hierarchy)
        own = hierarchy.fetched
        return Fetched((*own.files, (name, vcek)), own.notes)

    def _for_vlek(self, report: SnpReport) -> Fetched:
        files: dict[str, bytes] = {}
        notes = ["the VLEK itself comes from the host, with the report: AMD gives it to providers"]
        for line in lines_of(report):
            own = self.hierarchy(line, snp_report.VLEK).fetched
            files.update(own.files)
            notes += own.notes
        return Fetched(tuple(files.items()), tuple(notes))

    def hierarchy(self, line: str, signer: str) -> Hierarchy:
        """Root, intermediate and list of ``line`` for ``signer``, checked."""
        folder = f"{self._prefix}{line.lower()}/"
        chain = self._checked(
            f"{folder}chain-{signer}.pem",
            kds.chain_path(line, signer),
            lambda data: self._chain_problem(data, line, signer),
        )
        intermediate, root = _pair(certificate_files.load_many(chain))
        notes = []
        if root.sha256 != AMD_ROOTS.get(line):
            notes.append(
                f"{root.subject_cn} {root.sha256} is not AMD's root:"
                " it counts only where trusted_roots of a policy names it"
            )
        files = [
            (f"ark-{line.lower()}.der", root.der),
            (f"{HIERARCHIES[signer]}-{line.lower()}.der", intermediate.der),
        ]
        try:
            revoked = self._list(line, signer, root)
        except (FormatError, HostError) as error:
            notes.append(f"no revocation list of {line}: {error.message}")
        else:
            files.append((f"crl-{signer}-{line.lower()}.der", revoked))
        return Hierarchy(root, intermediate, Fetched(tuple(files), tuple(notes)))

    def _list(self, line: str, signer: str, root: Certificate) -> bytes:
        name = f"{self._prefix}{line.lower()}/crl-{signer}.der"

        def problem(data: bytes) -> str:
            read = revocation_lists.load(data)
            said = revocation_lists.list_problem(read, root)
            if said or read.next_update is None:
                return said or "the list names no next update"
            current = read.this_update <= self._at <= read.next_update
            return "" if current else f"the list ended at {read.next_update.isoformat()}"

        try:
            return self._checked(
                name, kds.list_path(line, signer), problem, younger_than_s=LIST_AGE_S
            )
        except HostError:
            # The service cannot be reached: an older list within its window still serves.
            kept = self._cache.get(name)
            if kept is None or _problem(problem, kept):
                raise
            return kept

    def _vcek(self, report: SnpReport, line: str, hierarchy: Hierarchy) -> tuple[bytes, str]:
        """The chip's certificate and its file name."""
        tcb = snp_tcb.decode(report.reported_tcb, line)
        hwid = report.chip_id[: kds.hwid_bytes(line)]
        levels = "-".join(str(level) for level in _levels(tcb))
        name = f"vcek-{line.lower()}-{hwid.hex()}-{levels}.der"
        question = Question(
            report, (), frozenset((hierarchy.root.sha256,)), self._at, simulated=False
        )

        def problem(data: bytes) -> str:
            path = Path(certificates.load(data), hierarchy.intermediate, hierarchy.root)
            steps = links.judge(question, path, Links())
            for step in steps:
                if step.code in _KEY_STEPS and step.verdict != PASS:
                    return f"{step.code}: {step.observed}"
            return ""

        data = self._checked(
            self._prefix + name, kds.vcek_path(line, hwid, tcb), problem, paced=True
        )
        # The directory may hold several chips' files; the first bytes tell them apart.
        return data, f"vcek-{line.lower()}-{hwid[:8].hex()}-{levels}.der"

    def _checked(
        self,
        name: str,
        path: str,
        problem: Callable[[bytes], str],
        *,
        younger_than_s: float | None = None,
        paced: bool = False,
    ) -> bytes:
        """The cached or fetched answer for ``path`` in which ``problem`` finds nothing."""
        kept = self._cache.get(name, younger_than_s=younger_than_s)
        if kept is not None and not _problem(problem, kept):
            return kept
        if paced:
            self._cache.take_turn()
        data = self._service.get(path)
        said = _problem(problem, data)
        if said:
            raise FormatError(
                "kds-mismatch",
                f"the service's answer does not fit: {said}",
                where=self._service.url + path,
            )
        self._cache.put(name, data)
        return data

    def _chain_problem(self, data: bytes, line: str, signer: str) -> str:
        found = certificate_files.load_many(data)
        if len(found) != 2:
            return f"{len(found)} certificates where two must be"
        intermediate, root = _pair(found)
        if intermediate.subject_cn != links.PREFIX[signer] + line or not root.self_issued:
            return f"certificates of {intermediate.subject_cn!r} and {root.subject_cn!r}"
        if self._service.url == kds.SERVICE and root.sha256 != AMD_ROOTS.get(line):
            return f"the root {root.sha256} is not the known one of {line}"
        for certificate in (intermediate, root):
            said = certificates.issue_problem(certificate, root)
            if said:
                return said
            if not certificate.valid_at(self._at):
                return f"{certificate.subject_cn} is not valid at {self._at.isoformat()}"
        return ""


def lines_of(report: SnpReport) -> tuple[str, ...]:
    """The lines whose processor may have made ``report``, the likeliest first.

    Raises ``FormatError`` ``kds-report`` where its processor is of no line with
    a known root.
    """
    if not report.has_cpuid:
        short = any(report.chip_id) and not any(report.chip_id[8:])
        return (snp_tcb.TURIN,) if short else (snp_tcb.MILAN, snp_tcb.GENOA)
    line = snp_tcb.product_of(report.cpuid_family, report.cpuid_model)
    if line is None or line not in AMD_ROOTS:
        raise FormatError(
            "kds-report",
            f"family {report.cpuid_family:#x} model {report.cpuid_model:#x}"
            f" ({line or 'unknown'}) has no known root",
        )
    return (line,)


def _pair(found: tuple[Certificate, ...]) -> tuple[Certificate, Certificate]:
    """Intermediate and root: the service gives them in this order, others may not."""
    first, second = found
    return (second, first) if first.self_issued else (first, second)


def _levels(tcb: snp_tcb.Tcb) -> tuple[int, ...]:
    parts = (tcb.fmc, tcb.bootloader, tcb.tee, tcb.snp, tcb.microcode)
    return tuple(level for level in parts if level is not None)


def _problem(problem: Callable[[bytes], str], data: bytes) -> str:
    try:
        return problem(data)
    except FormatError as error:
        return error.message
