# SPDX-License-Identifier: Apache-2.0
"""What a relying party remembers of a guest, so that its log cannot go back.

Serves ``verify.evidence`` and the verb that keeps the files. One document a
guest instance, named by its REPORT_ID. Must never be written for evidence that
did not pass: an attacker would choose what is remembered.

Source: SECURITY V-i; docs/formats.md, "A guest seen before".
"""

from __future__ import annotations

from troth.documents import strict
from troth.errors import FormatError
from troth.record import record

SCHEMA = "troth-seen-v1"
LIMIT_BYTES = 4096
MAX_RECORDS = 100_000


@record
class Seen:
    """``report_id``: 32 bytes; ``records``: how many the log had; ``software``: 48 bytes, the
    software register over those.
    """  # noqa: D205 - the fields are the summary

    report_id: bytes
    records: int
    software: bytes


def file_name(report_id: bytes) -> str:
    """The name of the document of a guest."""
    return f"{report_id.hex()}.json"


def print_(seen: Seen) -> bytes:
    """The document."""
    return strict.pretty(
        {
            "schema": SCHEMA,
            "report_id": seen.report_id.hex(),
            "records": seen.records,
            "software_register": seen.software.hex(),
        }
    )


def parse(data: bytes, *, report_id: bytes, where: str = "") -> Seen:
    """The document in ``data``, of the guest ``report_id``.

    Raises ``FormatError``: those of ``documents.strict``; ``seen-guest`` where it
    is of another guest.
    """
    top = strict.Reader(strict.parse(data, where=where, limit_bytes=LIMIT_BYTES), where=where)
    top.text("schema", allowed=(SCHEMA,))
    seen = Seen(
        bytes.fromhex(top.digest("report_id", size_bytes=32)),
        top.integer("records", maximum=MAX_RECORDS),
        bytes.fromhex(top.digest("software_register", size_bytes=48)),
    )
    top.close()
    if seen.report_id != report_id:
        raise FormatError("seen-guest", "the file is of another guest", where=where)
    return seen
