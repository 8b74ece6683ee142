# SPDX-License-Identifier: Apache-2.0
"""``troth certs``: the certificates that a verifier needs, put into a directory."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from troth.abi import snp_report
from troth.documents.verdict import PASS
from troth.errors import UsageError
from troth.image.inputs import kernel
from troth.verify.endorsing import endorsements, kds, kds_cache
from troth.verify.endorsing.chain import chain
from troth.verify.endorsing.fetch import Fetcher
from troth.verify.endorsing.roots import AMD_ROOTS

if TYPE_CHECKING:
    from typing import Protocol

    from troth.abi.snp_report import SnpReport

    class FetchOptions(Protocol):
        """What the grammar gives to ``fetch``."""

        directory: str
        report: str | None
        service: str | None
        cache: str | None


def fetch(options: FetchOptions) -> int:
    """Fill DIR for ``--report``, or with what every line shares; 1 where a key is missing."""
    report = _report(Path(options.report)) if options.report else None
    folder = Path(options.directory)
    cache = Path(options.cache) if options.cache else kernel.cache_directory() / "kds"
    at = datetime.now(UTC)
    fetcher = Fetcher(
        kds.Service(options.service or kds.SERVICE, tell=_tell),
        kds_cache.Cache(cache, tell=_tell),
        at=at,
    )
    fetched = fetcher.for_report(report) if report else fetcher.for_lines()
    for name, data in fetched.files:
        kds_cache.write(folder / name, data)
        sys.stdout.write(f"{folder / name}\n")
    for note in fetched.notes:
        _tell(note)
    return _outcome(report, folder, at) if report else 0


def _outcome(report: SnpReport, folder: Path, at: datetime) -> int:
    """Whether ``folder`` now holds the certificate of the report's key."""
    found = endorsements.read_directory(folder)
    pinned = frozenset(AMD_ROOTS.values())
    result = chain(report, found, roots=pinned, at=at)
    verdicts = {step.code: step.verdict for step in result.steps}
    if verdicts["certificate-key"] == verdicts["certificate-tcb"] == PASS:
        return 0
    _tell(f"{folder} holds no {report.signing_key.upper()} yet: put the host's there")
    return 1


def _report(path: Path) -> SnpReport:
    try:
        with open(path, "rb") as file:
            data = file.read(snp_report.REPORT_BYTES + 1)
    except OSError as error:
        raise UsageError(
            "report-file", f"cannot be read: {error.strerror}", where=str(path)
        ) from None
    return snp_report.parse(data, where=str(path))


def _tell(text: str) -> None:
    sys.stderr.write(f"troth: {text}\n")
